//! Both programs behind a proxy, which `agent.toml` or `--proxy` names: CONNECT only, TLS end to end.

use std::time::Duration;

use anyhow::ensure;
use azaion_tests::dev_api::{Generation, Options};
use azaion_tests::programs::{Run, start};
use azaion_tests::proxy::{Mode, Proxy};
use azaion_tests::station::{SERIAL, Station};

use crate::virtual_device::{BY_TIMER, TOKEN, VirtualDevice};

/// Creates a device behind a proxy.
fn behind(proxy: &Proxy, generation: Generation) -> anyhow::Result<Station> {
    let station = Station::new(Options { generation, ..Options::default() })?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy(&format!("proxy = \"{}\"\n", proxy.url()))?;
    station.api.forget_requests();
    Ok(station)
}

fn boot(station: &Station) -> anyhow::Result<Run> {
    station.agent(&["boot", "--deadline", "2"])
}

// Promise: with a proxy all calls go through its tunnels, and it sees neither password nor token.
#[test]
fn a_proxy_tunnels_all_calls() -> anyhow::Result<()> {
    for generation in [Generation::G1, Generation::G2, Generation::G2b] {
        let proxy = Proxy::start(Mode::Allow)?;
        let station = behind(&proxy, generation)?;
        boot(&station)?.ended_with(0)?;
        let target = format!("CONNECT {} HTTP/1.1\r\n", station.api.url().trim_start_matches("https://"));
        let heads = proxy.heads();
        ensure!(!heads.is_empty() && heads.iter().all(|head| head.starts_with(&target)), "{heads:?}");
        let token = station.json("run/azaion/token.json").unwrap();
        let secrets = [station.password().unwrap(), token["access_token"].as_str().unwrap().to_owned()];
        ensure!(!secrets.iter().any(|secret| proxy.has_seen(secret)), "a secret was sent unencrypted");
        ensure!(!proxy.has_seen("/login") && !proxy.has_seen("Bearer"), "a request was sent unencrypted");
    }
    Ok(())
}

// Promise: no call bypasses the proxy: if it refuses, hangs, asks for a login or is not there, the device waits (75),
// says why, and the API sees nothing; once the proxy permits it, the device is ready.
#[test]
fn a_proxy_in_the_way_is_waited_for() -> anyhow::Result<()> {
    for (mode, says) in [
        (Mode::AsksForLogin, "proxy"),
        (Mode::Refuses, "proxy"),
        (Mode::CannotReach, "proxy"),
        (Mode::Hangs, "no answer in time"),
    ] {
        let proxy = Proxy::start(mode)?;
        let station = behind(&proxy, Generation::G2b)?;
        let run = boot(&station)?.ended_with(75)?;
        ensure!(run.stderr.contains(says), "{mode:?}: {}", run.stderr);
        ensure!(station.api.requests().is_empty() && proxy.connections() > 0, "{mode:?}: the API was called");
        proxy.set_mode(Mode::Allow);
        boot(&station)?.ended_with(0)?;
    }
    let proxy = Proxy::start(Mode::Allow)?;
    let station = behind(&proxy, Generation::G2b)?;
    drop(proxy);
    boot(&station)?.ended_with(75)?;
    ensure!(station.api.requests().is_empty(), "the API was called");
    Ok(())
}

// Promise: a proxy that starts to refuse does not cost the device a valid token.
#[test]
fn a_proxy_costs_no_token() -> anyhow::Result<()> {
    let proxy = Proxy::start(Mode::Allow)?;
    let options = Options { generation: Generation::G2b, ..Options::default() };
    let device = VirtualDevice::ready(options, &format!("proxy = \"{}\"\n", proxy.url()))?;
    let token = device.station.json(TOKEN);
    // Due, and still valid.
    device.wait(Duration::from_mins(11));
    for mode in [Mode::AsksForLogin, Mode::Refuses, Mode::CannotReach] {
        proxy.set_mode(mode);
        assert_eq!(device.exit(BY_TIMER), 0);
        ensure!(device.station.json(TOKEN) == token && device.station.api.requests().is_empty(), "{mode:?}");
    }
    Ok(())
}

// Promise: with `--proxy` or `AZAION_PROXY` all calls of the host go through a tunnel, which sees no secret; no other
// variable sets a proxy; the message names a failing proxy, and no call bypasses it.
#[test]
fn the_host_uses_the_proxy_it_is_told_of() -> anyhow::Result<()> {
    let (proxy, trap) = (Proxy::start(Mode::Allow)?, Proxy::start(Mode::Allow)?);
    let station = Station::new(Options::default())?;
    let rootfs = station.rootfs().display().to_string();
    let run = |option: &[&str], variables: &[(&str, &str)]| -> anyhow::Result<Run> {
        let arguments =
            [&["device", SERIAL, "--owner", "current", "--verify", "--rootfs", &rootfs][..], option].concat();
        let mut command = station.provision_command(&arguments)?;
        station.wait(start(command.args(station.api_arguments()).envs(variables.iter().copied()))?)
    };
    let others = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy"].map(|name| (name, trap.url()));
    let others: Vec<(&str, &str)> = others.iter().map(|(name, url)| (*name, url.as_str())).collect();
    run(&[], &others)?.ended_with(0)?;
    assert_eq!((trap.connections(), proxy.connections()), (0, 0));
    for (option, variable) in [(&["--proxy", &proxy.url()][..], vec![]), (&[], vec![("AZAION_PROXY", proxy.url())])] {
        let (seen, direct) = (proxy.connections(), station.api.requests().len());
        let variables: Vec<_> = variable.iter().map(|(name, url)| (*name, url.as_str())).collect();
        run(option, &[&variables[..], &others].concat())?.ended_with(0)?;
        let calls = station.api.requests().len() - direct;
        ensure!(
            calls > 0 && proxy.connections() - seen >= calls,
            "{calls} calls, {} tunnels",
            proxy.connections() - seen
        );
    }
    let password = station.password().unwrap();
    ensure!(!proxy.has_seen(&password) && !proxy.has_seen("/login"), "a secret was sent unencrypted");
    for (mode, code) in [(Mode::AsksForLogin, 69), (Mode::Refuses, 69), (Mode::CannotReach, 69)] {
        proxy.set_mode(mode);
        station.api.forget_requests();
        let said = run(&["--proxy", &proxy.url(), "--deadline", "1"], &[])?.ended_with(code)?.stderr;
        ensure!(said.contains(&proxy.url()) && station.api.requests().is_empty(), "{mode:?}: {said}");
    }
    for (url, says) in [("https://proxy.example", "http:// URL"), ("http://u:hush@proxy.example", "user or password")] {
        let said = run(&["--proxy", url], &[])?.ended_with(64)?.stderr;
        ensure!(said.contains(says) && !said.contains("hush"), "{said}");
    }
    ensure!(trap.connections() == 0, "another variable was used");
    Ok(())
}
