//! `azaion-provision check` and `azaion-agent status`: named checks with what was found.

use azaion_tests::dev_api::{Fault, Generation, Options, Tls};
use azaion_tests::programs::Run;
use azaion_tests::station::{EMAIL, Station};

/// `id status`, a check a line.
fn checks(run: &Run) -> anyhow::Result<String> {
    let lines = run.json_lines()?;
    let text = lines.iter().map(|line| {
        assert_eq!(line.as_object().map(serde_json::Map::len), Some(3), "{line}");
        format!("{} {}", line["id"].as_str().unwrap_or_default(), line["status"].as_str().unwrap_or_default())
    });
    Ok(text.collect::<Vec<_>>().join(", "))
}

fn check(station: &Station, extra: &[&str]) -> anyhow::Result<Run> {
    let rootfs = station.rootfs().display().to_string();
    station.provision(
        &[&["check", "--json", "--rootfs", &rootfs, "--owner", "current", "--deadline", "1"], extra].concat(),
    )
}

// Promise: each thing that a shift needs is a check with a name, and the exit code is that of the first that failed.
#[test]
fn the_stations_preflight() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let run = check(&station, &[])?.ended_with(0)?;
    assert_eq!(checks(&run)?, "privileges ok, target ok, api ok, admin-login ok");
    station.device(&[])?.ended_with(0)?;
    assert!(checks(&check(&station, &[])?.ended_with(0)?)?.contains("target warning"));
    station.put("rootfs/etc/azaion/device.conf", "oops\n", 0o600)?;
    assert!(checks(&check(&station, &[])?.ended_with(65)?)?.contains("target failed"));
    let run = check(&station, &["--rootfs", "/no/such/place"])?.ended_with(65)?;
    assert!(checks(&run)?.contains("target failed, target failed, api ok"));
    station.put("admin-password", "wrong-password\n", 0o600)?;
    std::fs::remove_file(station.inside("etc/azaion/device.conf"))?;
    assert!(checks(&check(&station, &[])?.ended_with(77)?)?.contains("admin-login failed"));
    // A check changes nothing.
    assert_eq!(station.api.users().len(), 1);
    Ok(())
}

// Promise: an API that can't be trusted or can't answer is told apart by its exit code.
#[test]
fn the_stations_preflight_without_an_api() -> anyhow::Result<()> {
    let station = Station::new(Options { tls: Tls::Expired, ..Options::default() })?;
    assert!(checks(&check(&station, &[])?.ended_with(69)?)?.contains("api failed"));
    let station = Station::new(Options { generation: Generation::G1, ..Options::default() })?;
    assert!(checks(&check(&station, &[])?.ended_with(0)?)?.contains("api warning"));
    station.api.inject("GET", "/.well-known/jwks.json", Fault::Redirect("https://elsewhere.example/".into()), 1);
    assert!(checks(&check(&station, &[])?.ended_with(76)?)?.contains("api failed"));
    Ok(())
}

// Promise: status names every station of the way, and logs in only when asked to.
#[test]
fn the_units_status() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let status = |extra: &[&str]| station.agent(&[&["status", "--json"], extra].concat());
    assert_eq!(
        checks(&status(&[])?.ended_with(78)?)?,
        "configuration failed, clock ok, name-lookup failed, connection failed, tls failed, token failed, readiness failed"
    );
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    station.api.forget_requests();
    let not_yet = "configuration ok, clock ok, name-lookup ok, connection ok, tls ok, token failed, readiness failed";
    assert_eq!(checks(&status(&[])?.ended_with(75)?)?, not_yet);
    assert_eq!(station.api.calls("POST", "/login"), 0);
    let all_well = "configuration ok, clock ok, name-lookup ok, connection ok, tls ok, token ok, readiness ok";
    assert_eq!(checks(&status(&["--login"])?.ended_with(0)?)?, all_well);
    assert_eq!(station.api.calls("POST", "/login"), 1);
    assert_eq!(checks(&status(&[])?.ended_with(0)?)?, all_well);
    station.agent(&["status"])?.ended_with(0)?;
    station.api.set_password(EMAIL, "another-password");
    std::fs::remove_dir_all(station.inside("run"))?;
    assert!(checks(&status(&["--login"])?.ended_with(77)?)?.contains("token failed, readiness failed"));
    Ok(())
}

// Promise: over plain http, on the machine itself, status does not say that the server has proved who it is.
#[test]
fn the_units_status_without_tls() -> anyhow::Result<()> {
    let station = Station::new(Options { tls: Tls::Plain, ..Options::default() })?;
    station.device(&[])?.ended_with(0)?;
    let run = station.agent(&["status", "--json", "--login"])?.ended_with(0)?;
    assert!(checks(&run)?.contains("connection ok, tls warning, token ok"), "{}", run.stdout);
    Ok(())
}

// Promise: where the way is broken, the check before it is still well, and the one at the fault says so.
#[test]
fn the_units_status_finds_the_fault() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    let conf = std::fs::read_to_string(station.inside("etc/azaion/device.conf"))?;
    for (url, expected) in [
        ("https://no-such-host.invalid", "clock ok, name-lookup failed, connection failed, tls failed, token failed"),
        ("https://127.0.0.1:9", "name-lookup ok, connection failed, tls failed, token failed"),
        (station.api.url().as_str(), "connection ok, tls failed, token failed"),
    ] {
        station.put("rootfs/etc/azaion/device.conf", conf.replace(&station.api.url(), url), 0o600)?;
        let run = station.agent(&["status", "--json"])?.ended_with(75)?;
        assert!(checks(&run)?.contains(expected), "{url}: {}", run.stdout);
    }
    Ok(())
}
