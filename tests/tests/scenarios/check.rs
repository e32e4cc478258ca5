//! `azaion-provision check` and `azaion-agent status`: named checks with their results.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use azaion_tests::dev_api::{Fault, Generation, Options, Tls};
use azaion_tests::programs::{Run, copy_to, output};
use azaion_tests::station::{EMAIL, SERIAL, Station};

/// Returns `id status`, one check per line.
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

// Promise: each precondition of a production run is a check with a name, and the exit code is that of the first failed
// one.
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

// Promise: the exit code distinguishes an untrusted API from one that cannot answer.
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

/// Creates a raw ext4 image of the host's root file system, or the Android sparse image of it.
fn make_image(station: &Station, image: &Path, features: &str, is_sparse: bool) -> anyhow::Result<()> {
    let (rootfs, image) = (station.rootfs(), image.to_owned());
    let raw = if is_sparse { station.path("raw") } else { image.clone() };
    output(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-O", features, "-d"])
            .args([&rootfs, &raw])
            .arg("16M"),
    )?;
    fs::set_permissions(&raw, fs::Permissions::from_mode(0o600))?;
    if is_sparse {
        // One raw chunk.
        let raw = fs::read(raw)?;
        let blocks = u32::try_from(raw.len() / 4096)?;
        let words = [0xed26_ff3a, 1, 0x000c_001c, 4096, blocks, 1, 0, 0xcac1, blocks, 12 + blocks * 4096];
        let head: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        File::create(image)?.write_all(&[head, raw].concat())?;
    }
    Ok(())
}

/// Returns what `check` reports for an image besides the usual, as `id status: message`.
fn image_warnings(station: &Station, image: &Path) -> anyhow::Result<String> {
    let image = image.display().to_string();
    let run = station.provision(&["check", "--json", "--rootfs", &image, "--deadline", "1"])?.ended_with(0)?;
    let usual = "privileges ok, target ok, api ok, admin-login ok";
    let is_usual = |line: &&serde_json::Value| usual.contains(line["id"].as_str().unwrap_or_default());
    let (usual_ones, others): (Vec<_>, Vec<_>) = run.json_lines()?.into_iter().partition(|line| is_usual(&line));
    assert_eq!(usual_ones.len(), 4, "{}", run.stdout);
    assert!(usual_ones.iter().all(|line| line["status"] == "ok"), "{}", run.stdout);
    let text = others.iter().map(|line| {
        let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}: {}", field("id"), field("status"), field("message"))
    });
    Ok(text.collect::<Vec<_>>().join("\n"))
}

// Promise: an image that can be provisioned but may not boot, or is not the one that the flasher writes, is a warning
// that says what to do and does not change the exit code. Nothing in flash.cfg is executed.
#[test]
fn warnings_about_images() -> anyhow::Result<()> {
    const PLAIN: &str = "^metadata_csum_seed";
    const SEED: &str = "metadata_csum_seed";
    const EXTERNAL: &str = "APP_ext=system.img\nexternal_device=nvme0n1p1\nCHIPID=0x23\n";
    let station = Station::new(Options::default())?;
    let images = station.path("images");
    for (features, is_sparse, flash_cfg, expected) in [
        (PLAIN, false, "", &[][..]),
        (PLAIN, true, EXTERNAL, &[]),
        (
            SEED,
            false,
            EXTERNAL,
            &["image warning: ", "/system.img has the ext4 feature metadata_csum_seed", "mkfs.ext4 -O"],
        ),
        (SEED, true, EXTERNAL, &["image warning: ", "metadata_csum_seed"]),
        (
            PLAIN,
            false,
            "APP_ext=system.img\nAPP_ext='system.img.raw' # -k APP\n",
            &[
                "flash-config warning: ",
                "/external/flash.cfg: APP_ext is \"system.img.raw\" (line 2)",
                "provision that one",
            ],
        ),
        (PLAIN, false, "APP_ext=$(touch executed)\n", &["flash-config warning: ", "line 1 is not a plain assignment"]),
        (SEED, false, "APP_ext=\"\"\n", &["image warning: ", "flash-config warning: ", "is empty"]),
    ] {
        station.put("images/external/flash.cfg", flash_cfg, 0o644)?;
        let image = images.join("external/system.img");
        make_image(&station, &image, features, is_sparse)?;
        let before = fs::read(&image)?;
        let said = image_warnings(&station, &image)?;
        assert_eq!(said.lines().count(), expected.iter().filter(|part| part.ends_with(" warning: ")).count(), "{said}");
        assert!(expected.iter().all(|part| said.contains(part)), "{flash_cfg}: {said}");
        assert_eq!(fs::read(&image)?, before, "check changes nothing");
        assert!(!Path::new("executed").exists(), "{flash_cfg} was executed");
    }
    // The internal device's file is sourced first, and is the only one for the image if the other is missing.
    fs::remove_file(images.join("external/flash.cfg"))?;
    station.put("images/internal/flash.cfg", "APP=system.img\nAPP_ext=other.img\n", 0o644)?;
    let image = images.join("external/system.img");
    make_image(&station, &image, PLAIN, false)?;
    assert!(image_warnings(&station, &image)?.contains("/internal/flash.cfg: APP_ext is \"other.img\""));
    Ok(())
}

// Promise: for an archive as current releases generate it, with their name and flash.cfg, check reports only that it
// can be provisioned, also when it holds a device.
#[test]
fn a_compressed_archive_is_no_reason_to_warn() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.put("images/external/flash.cfg", "APP_ext=system.img\nexternal_device=nvme0n1p1\nCHIPID=0x23\n", 0o644)?;
    let image = station.path("images/external/system.img");
    let script =
        "umask 77; tar -C \"$1\" --xattrs -cf - . | zstd -q -T0 >\"$2\"; sha1sum \"$2\" | cut -c-40 >\"$2.sha1sum\"";
    output(Command::new("sh").args(["-c", script, "sh"]).args([&station.rootfs(), &image]))?;
    let before = fs::read(&image)?;
    assert_eq!(image_warnings(&station, &image)?, "");
    assert_eq!(fs::read(&image)?, before, "check changes nothing");
    station.provision(&["device", SERIAL, "--rootfs", &image.display().to_string()])?.ended_with(0)?;
    let run = station.provision(&["check", "--json", "--rootfs", &image.display().to_string(), "--deadline", "1"])?;
    assert_eq!(checks(&run.ended_with(0)?)?, "privileges ok, target warning, api ok, admin-login ok");
    Ok(())
}

// Promise: in text output, a warning is a line with its id; a refused target has its warnings as well, and a directory
// has none.
#[test]
fn warnings_beside_a_refused_image() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.put("images/flash.cfg", "APP_ext=system.img\n", 0o644)?;
    station.put("images/other.img", [0; 5000], 0o600)?;
    station.put("rootfs/flash.cfg", "APP_ext=system.img\n", 0o644)?;
    let (image, rootfs) =
        (station.path("images/other.img").display().to_string(), station.rootfs().display().to_string());
    let arguments = ["check", "--rootfs", &rootfs, "--rootfs", &image, "--owner", "current", "--deadline", "1"];
    let run = station.provision(&arguments)?.ended_with(66)?;
    let lines: Vec<_> = run.stdout.lines().map(|line| line.get(..24).unwrap_or(line).trim_end()).collect();
    let expected = [
        "ok       privileges",
        "ok       target",
        "FAILED   target",
        "warning  flash-config",
        "ok       api",
        "ok       admin-login",
    ];
    assert!(lines[1..] == expected[1..] && lines[0].contains("privileges"), "{}", run.stdout);
    Ok(())
}

// Promise: status names every stage of the connection, and logs in only on request.
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

// Promise: over plain http, on the machine itself, status does not claim that the server is authenticated.
#[test]
fn the_units_status_without_tls() -> anyhow::Result<()> {
    let station = Station::new(Options { tls: Tls::Plain, ..Options::default() })?;
    station.device(&[])?.ended_with(0)?;
    let run = station.agent(&["status", "--json", "--login"])?.ended_with(0)?;
    assert!(checks(&run)?.contains("connection ok, tls warning, token ok"), "{}", run.stdout);
    Ok(())
}

// Promise: if the connection fails, the check before the failing stage is ok, and the failing one says so.
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

// Promise: without root, status checks everything that all users may read, warns about each check that needs root, and
// ends with 0 on a ready device.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_devices_status_without_root() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    copy_to("azaion-agent", &station.path("azaion-agent"))?;
    let ca_file = station.api.ca_file();
    for path in [station.path(""), ca_file.parent().context("the CA's directory")?.to_owned()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let nobody = ["setpriv", "--clear-groups", "--reuid", "65534", "--regid", "65534"];
    let status = |extra: &[&str]| {
        let arguments = [&["status", "--json"], extra].concat();
        station.agent_as(&station.path("azaion-agent"), &nobody, &arguments)
    };
    let run = status(&[])?.ended_with(75)?;
    let unknown = "configuration warning, clock ok, name-lookup warning, connection warning, tls warning, token failed";
    assert_eq!(checks(&run)?, format!("{unknown}, readiness failed"));

    station.agent(&["boot"])?.ended_with(0)?;
    let run = status(&[])?.ended_with(0)?;
    assert_eq!(
        checks(&run)?,
        "configuration warning, clock ok, name-lookup ok, connection ok, tls ok, token warning, readiness ok"
    );
    let message = |id: &str| -> anyhow::Result<String> {
        let line = run.json_lines()?.into_iter().find(|line| line["id"] == id).context("a check")?;
        Ok(line["message"].as_str().unwrap_or_default().to_owned())
    };
    for (id, parts) in [("configuration", &["run this as root", SERIAL, EMAIL][..]), ("token", &["run this as root"])] {
        let message = message(id)?;
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    // World-readable files are checked, and a login needs root.
    assert!(status(&["--login"])?.ended_with(75)?.stdout.contains("only root can renew the token"));
    station.put_policy("isuer = \"x\"\n")?;
    assert!(checks(&status(&[])?.ended_with(78)?)?.starts_with("configuration failed"));
    Ok(())
}
