//! Malformed `device.conf` and `agent.toml` files, byte by byte, for both programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use azaion_tests::dev_api::{DevApi, Options, Tls};
use azaion_tests::programs::{self, Run};
use azaion_tests::station::{EMAIL, Station, command};
use nix::sys::stat::Mode;
use serde_json::Value;

const DEVICE_CONF: &str = "rootfs/etc/azaion/device.conf";
const AGENT_TOML: &str = "rootfs/etc/azaion/agent.toml";
/// The password in most of the files: no program may ever print it, or any other word of a file with `hush`.
const SECRET: &str = "hush-hush-1234";
/// A placeholder in the files for the API's address, with the same length.
const ADDRESS: &str = "127.0.0.1:49152";

/// One row of `expected.tsv`.
struct Case {
    name: String,
    /// `:LINE` after the file's name if the error has a line.
    line: String,
    says: String,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/device_conf")
}

fn cases() -> anyhow::Result<Vec<Case>> {
    let index = fs::read_to_string(data().join("expected.tsv"))?;
    let rows = index.lines().filter(|row| !row.starts_with('#'));
    rows.map(|row| {
        let mut fields = row.split('\t');
        let mut next = || fields.next().context("three fields a row");
        let (name, line, says) = (next()?.to_owned(), next()?, next()?.to_owned());
        let line = if line == "-" { String::new() } else { format!(":{line}") };
        Ok(Case { name, line, says })
    })
    .collect()
}

/// Returns the bytes of a file, with the real address of the API.
fn content(name: &str, api: &DevApi) -> anyhow::Result<Vec<u8>> {
    let mut bytes = fs::read(data().join(format!("{name}.conf")))?;
    let url = api.url();
    let address = url.strip_prefix("http://").context("plain http")?.as_bytes();
    ensure!(address.len() == ADDRESS.len(), "an ephemeral port has five digits");
    while let Some(at) = bytes.windows(ADDRESS.len()).position(|part| part == ADDRESS.as_bytes()) {
        bytes.splice(at..at + ADDRESS.len(), address.iter().copied());
    }
    Ok(bytes)
}

/// Creates a host on which the valid file leads to a successful login, so that any other file is refused only because
/// of its content.
fn station() -> anyhow::Result<Station> {
    let station = Station::new(Options { tls: Tls::Plain, ..Options::default() })?;
    station.api.add_user(EMAIL, SECRET, "CompanionPC");
    Ok(station)
}

/// Runs both programs on the present `device.conf`, each for ten seconds at most: agent, then host.
fn both(station: &Station) -> anyhow::Result<(Run, Run)> {
    let programs = programs::native()?;
    let rootfs = station.rootfs().display().to_string();
    let run = |name: &str, arguments: &[&str]| {
        let program = programs.join(name).display().to_string();
        let all = [&["10", program.as_str()], arguments].concat();
        programs::start(&mut command(Path::new("timeout"), &all))?.wait()
    };
    let _ = fs::remove_dir_all(station.inside("run"));
    let agent = run("azaion-agent", &["boot", "--deadline", "2", "--root", &rootfs])?;
    Ok((agent, run("azaion-provision", &["inspect", &rootfs])?))
}

/// Checks exit 78 with this message, in `ready.json` too, without content of the file, and without a call.
fn agent_refuses(station: &Station, agent: &Run, says: &[&str]) -> anyhow::Result<()> {
    let all = agent.words();
    ensure!(agent.code == Some(78), "the agent did not end with 78: {all}");
    let ready = station.json("run/azaion/ready.json").context("there is no ready.json")?;
    let says_so = ready.get("ready") == Some(&false.into()) && ready.get("code") == Some(&78.into());
    ensure!(says_so, "ready.json: {ready}");
    let reason = ready.get("reason").and_then(Value::as_str).unwrap_or_default();
    for part in says {
        ensure!(agent.stderr.contains(part) && reason.contains(part), "{part:?} is not in: {all}and {ready}");
    }
    ensure!(!(all + reason).contains("hush"), "the agent quotes content of the file");
    ensure!(station.json("run/azaion/token.json").is_none(), "there is a token");
    ensure!(station.api.requests().is_empty(), "the API was called");
    Ok(())
}

/// Checks this exit code and message, without content of the file.
fn host_refuses(host: &Run, code: i32, says: &[&str]) -> anyhow::Result<()> {
    let all = host.words();
    ensure!(host.code == Some(code), "inspect did not end with {code}: {all}");
    ensure!(says.iter().all(|part| host.stderr.contains(part)), "{says:?} is not in: {all}");
    ensure!(!all.contains("hush"), "inspect quotes content of the file: {all}");
    Ok(())
}

fn is_refused(station: &Station, case: &Case) -> anyhow::Result<()> {
    let text = content(&case.name, &station.api)?;
    station.put(DEVICE_CONF, &text, 0o600)?;
    let (agent, host) = both(station)?;
    let place = format!("{}{}: ", station.path(DEVICE_CONF).display(), case.line);
    agent_refuses(station, &agent, &[&place, &case.says])?;
    if text.trim_ascii().is_empty() {
        // For the host, a blank file is no device's, as in an image.
        return host_refuses(&host, 0, &[]);
    }
    host_refuses(&host, 65, &[&place, &case.says])
}

fn is_read(station: &Station, case: &Case) -> anyhow::Result<()> {
    station.put(DEVICE_CONF, content(&case.name, &station.api)?, 0o600)?;
    let (agent, host) = both(station)?;
    station.api.forget_requests();
    ensure!(!agent.words().contains(SECRET) && !host.words().contains(SECRET), "the password is printed");
    agent.ended_with(0)?;
    ensure!(host.ended_with(0)?.stdout.contains(EMAIL), "inspect does not print the e-mail");
    Ok(())
}

/// Runs every case, and reports all failures together.
fn every<T>(cases: &[T], name: impl Fn(&T) -> String, check: impl Fn(&T) -> anyhow::Result<()>) {
    let wrong = |case| check(case).err().map(|error| format!("{}: {error:#}", name(case)));
    let failures: Vec<String> = cases.iter().filter_map(wrong).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

// Promise: an invalid device.conf ends the agent with 78 and inspect with 65; the message names file and line, never
// the content; no call is made.
#[test]
fn bad_content_is_refused_by_both_programs() -> anyhow::Result<()> {
    let (station, cases) = (station()?, cases()?);
    let (good, bad): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.says == "good");
    assert!(bad.len() >= 45 && good.len() >= 5);
    every(&bad, |case| case.name.clone(), |case| is_refused(&station, case));
    every(&good, |case| case.name.clone(), |case| is_read(&station, case));
    Ok(())
}

// Promise: every data file is in the index, so that none is left untested.
#[test]
fn bad_content_is_all_in_the_index() -> anyhow::Result<()> {
    let mut indexed: Vec<String> = cases()?.into_iter().map(|case| format!("{}.conf", case.name)).collect();
    let names = fs::read_dir(data())?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut files: Vec<String> = names.collect::<anyhow::Result<_>>()?;
    files.retain(|name| name != "expected.tsv");
    files.sort();
    indexed.sort();
    assert_eq!(files, indexed);
    Ok(())
}

// Promise: a symlink, a directory or a FIFO in place of device.conf is refused by both programs, and neither hangs.
#[test]
fn bad_kinds_of_file_are_refused() {
    let kinds = [("symlink", "symlink"), ("dangling symlink", "symlink"), ("directory", "file"), ("FIFO", "file")];
    every(
        &kinds,
        |(kind, _)| (*kind).to_owned(),
        |(kind, says)| {
            let station = station()?;
            station.put("elsewhere.conf", content("good", &station.api)?, 0o600)?;
            let place = station.path(DEVICE_CONF);
            fs::create_dir_all(station.inside("etc/azaion"))?;
            match *kind {
                "symlink" => symlink(station.path("elsewhere.conf"), &place)?,
                "dangling symlink" => symlink("/nowhere", &place)?,
                "directory" => fs::create_dir(&place)?,
                _ => nix::unistd::mkfifo(&place, Mode::S_IRUSR | Mode::S_IWUSR)?,
            }
            let (agent, host) = both(&station)?;
            let named = place.display().to_string();
            agent_refuses(&station, &agent, &[&named, says])?;
            // A target of a kind that cannot hold a device.conf.
            host_refuses(&host, 66, &[&named, says])
        },
    );
}

// Promise: the agent refuses a file that others could read or change; inspect shows its mode.
#[test]
fn bad_modes_are_refused_by_the_agent() -> anyhow::Result<()> {
    let station = station()?;
    let check = |mode: u32| {
        station.put(DEVICE_CONF, content("good", &station.api)?, mode)?;
        let (agent, host) = both(&station)?;
        let shown = format!("{mode:04o}");
        ensure!(host.ended_with(0)?.stdout.contains(&shown), "inspect does not show the mode");
        if mode & 0o027 == 0 {
            station.api.forget_requests();
            return agent.ended_with(0).map(drop);
        }
        agent_refuses(&station, &agent, &[&station.path(DEVICE_CONF).display().to_string(), &shown])
    };
    let modes = [0o644, 0o602, 0o620, 0o660, 0o604, 0o601, 0o777, 0o600, 0o400, 0o640];
    every(&modes, |mode| format!("{mode:04o}"), |mode| check(*mode));
    Ok(())
}

// Promise: a file of an owner other than root, who could change it, is used with a warning.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn another_owner_is_warned_of() -> anyhow::Result<()> {
    let station = station()?;
    station.put(DEVICE_CONF, content("good", &station.api)?, 0o600)?;
    for (owner, is_warned) in [(0, false), (1234, true)] {
        std::os::unix::fs::chown(station.path(DEVICE_CONF), Some(owner), Some(owner))?;
        let run = station.agent(&["boot", "--now"])?;
        assert_eq!(run.ended_with(0)?.stderr.contains("belongs to user 1234"), is_warned);
    }
    Ok(())
}

// Promise: without device.conf the agent exits with 78 and says so; inspect reports an empty target.
#[test]
fn bad_start_without_a_file() -> anyhow::Result<()> {
    let station = station()?;
    let (agent, host) = both(&station)?;
    agent_refuses(&station, &agent, &[&station.path(DEVICE_CONF).display().to_string()])?;
    assert!(host.ended_with(0)?.stdout.contains("no device.conf"));
    let rootfs = station.rootfs().display().to_string();
    let report = station.provision_offline(&["inspect", "--json", &rootfs])?.ended_with(0)?.json_lines()?.remove(0);
    assert_eq!(report["empty"], true);
    Ok(())
}

/// Bad fleet policies: content, the line of the error if any, a part of the message.
const POLICIES: [(&[u8], &str, &str); 19] = [
    (b"signatur = \"required\"\n", ":1: ", "signatur"),
    (b"deadline_s = 5\n\ncolour = 1\n", ":3: ", "colour"),
    (b"[agent]\ndeadline_s = 5\n", ":1: ", "agent"),
    (b"deadline_s = 5\ndeadline_s = 6\n", ":2: ", "duplicate"),
    (b"deadline_s = \"5\"\n", ":1: ", "string"),
    (b"deadline_s = 0\n", "", "1 to 3600"),
    (b"deadline_s = 3601\n", "", "1 to 3600"),
    (b"deadline_s = -1\n", ":1: ", ""),
    (b"deadline_s = 1.5\n", ":1: ", ""),
    (b"signature = \"never\"\n", ":1: ", "never"),
    (b"signature = true\n", ":1: ", ""),
    (b"issuer = \"\"\n", "", "issuer"),
    (b"audience = \"\"\n", "", "audience"),
    (b"audience = [\"A\"]\n", ":1: ", ""),
    (b"ca_file = \"ca.pem\"\n", "", "absolute"),
    (b"issuer = A\n", ":1: ", ""),
    (b"deadline_s\n", ":1: ", ""),
    (b"issuer = \"\xFF\"\n", "", "UTF-8"),
    (b"{\"deadline_s\": 5}\n", ":1: ", ""),
];

// Promise: an invalid policy ends the agent with 78, and the message names its line; no call is made.
#[test]
fn bad_policies_are_refused() -> anyhow::Result<()> {
    let station = station()?;
    station.put(DEVICE_CONF, content("good", &station.api)?, 0o600)?;
    let check = |(policy, line, says): &(&[u8], &str, &str)| {
        station.put(AGENT_TOML, policy, 0o644)?;
        let place = format!("{}{line}", station.path(AGENT_TOML).display());
        agent_refuses(&station, &both(&station)?.0, &[&place, says])
    };
    every(&POLICIES, |(policy, ..)| String::from_utf8_lossy(policy).into_owned(), check);
    let large = "#".repeat(100_000);
    check(&(large.as_bytes(), "", "64 KiB"))
}

// Promise: an unusable CA file is a configuration error that names that file; no call is made.
#[test]
fn bad_ca_files_are_refused() -> anyhow::Result<()> {
    let station = station()?;
    station.put(DEVICE_CONF, content("good", &station.api)?, 0o600)?;
    station.put(AGENT_TOML, "ca_file = \"/etc/azaion/ca.pem\"\n", 0o644)?;
    let contents: [Option<&str>; 4] =
        [None, Some(""), Some("hush"), Some("-----BEGIN CERTIFICATE-----\naHVzaA==\n-----END CERTIFICATE-----\n")];
    every(
        &contents,
        |content| format!("{content:?}"),
        |content| {
            let _ = fs::remove_file(station.inside("etc/azaion/ca.pem"));
            content.map_or(Ok(()), |content| station.put("rootfs/etc/azaion/ca.pem", content, 0o644))?;
            let place = station.inside("etc/azaion/ca.pem").display().to_string();
            agent_refuses(&station, &both(&station)?.0, &[&place])
        },
    );
    Ok(())
}
