//! A simulated loader in the machine: a process without root privileges, with a container's view of `/run/azaion`.

use std::fs;
use std::time::Duration;

use azaion_tests::dev_api::{DevApi, Options};
use azaion_tests::machine::{Boot, Machine};
use azaion_tests::programs::workspace;
use serde_json::{Value, json};

use super::{AGENT, BOOT, ready, token_is_valid, unit};

const RENEWALS: usize = 20;
/// Lifetime of a token in seconds, and the age at which it has to be renewed. What remains is enough for a renewal on a
/// busy machine, which may take half a minute.
const LIFETIME: u64 = 180;
const STALE: u64 = 121;

/// It sees `/run/azaion` only through a read-only bind mount at another path.
const LOADER: &str = "
[Unit]
Description=Stand-in for the loader
[Service]
User=nobody
Group=nogroup
SupplementaryGroups=azaion
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
InaccessiblePaths=/run/azaion
BindReadOnlyPaths=/run/azaion:/mnt/azaion
# A line in this FIFO ends it.
RuntimeDirectory=loader
ExecStartPre=/bin/mkfifo /run/loader/stop
StandardOutput=file:/run/loader.json
ExecStart=/bin/sh -c 'exec python3 /usr/share/loader.py /mnt/azaion/token.json /etc/azaion/ca.pem <>/run/loader/stop'
";

/// Prints its user and capabilities, and checks that its only view of the directory is not writable, not even for root.
const VIEW: &str = "cd /proc/$(systemctl show loader.service -p MainPID --value) && stat -c %U . \\
    && grep -E '^(NoNewPrivs|CapBnd):' status && [ -z \"$(ls -A root/run/azaion)\" ] \\
    && [ -s root/mnt/azaion/token.json ] && ! touch root/mnt/azaion/token.json 2>/dev/null";

/// Makes a copy of the token older: `age.py FILE SECONDS`
const AGE: &str = "
import json, sys, time
with open(sys.argv[1], 'r+') as file:
    token = json.load(file)
    token['obtained_boottime_s'] = int(time.clock_gettime(time.CLOCK_BOOTTIME)) - int(sys.argv[2])
    file.seek(0)
    json.dump(token, file)
    file.truncate()
";

/// Waits until the loader has sent so many tokens to the API.
fn shown(machine: &mut Machine, api: &DevApi, tokens: usize) -> anyhow::Result<()> {
    while api.calls("GET", "/users/current") < tokens {
        let (ended, _) = machine.attempt("systemctl is-active -q loader.service")?;
        assert_eq!(ended, 0, "{}", machine.run("cat /run/loader.json; journalctl -b --no-pager -u loader.service")?);
    }
    Ok(())
}

/// Makes the cached token older, atomically, as the agent writes it: the loader reads continuously.
fn age_token(machine: &mut Machine) -> anyhow::Result<()> {
    let age = format!("python3 /usr/share/age.py /run/aged {STALE}");
    machine.run(&format!("cp -p /run/azaion/token.json /run/aged && {age} && mv /run/aged /run/azaion/token.json"))?;
    Ok(())
}

// Promise: through twenty renewals by the systemd unit, the loader, in a view like a container's, never reads a partial
// or expired token, and each one is valid.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn reads_through_twenty_renewals() -> anyhow::Result<()> {
    let options = Options { token_lifetime: Some(Duration::from_secs(LIFETIME)), ..Options::default() };
    let unit = unit(options)?;
    let api = &unit.station.api;
    unit.put("usr/share/loader.py", &fs::read_to_string(workspace().join("tests/scripts/loader.py"))?)?;
    unit.put("usr/share/age.py", AGE)?;
    unit.put("etc/systemd/system/loader.service", LOADER)?;
    let mut machine = unit.flash()?.boot(&Boot::default())?;
    ready(&mut machine)?;
    machine.run("systemctl start loader.service")?;
    shown(&mut machine, api, 1)?;
    assert_eq!(machine.run(VIEW)?, "nobody\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1");

    // No token can be older than the boot.
    machine.run(&format!("while [ $(cut -d . -f 1 /proc/uptime) -lt {STALE} ]; do sleep 1; done"))?;
    for _ in 0..RENEWALS {
        let seen = api.calls("GET", "/users/current");
        age_token(&mut machine)?;
        machine.run(&format!("systemctl start {AGENT}"))?;
        // It sends the new token to the API before the next one is issued.
        shown(&mut machine, api, seen + 1)?;
    }
    machine.run("echo >/run/loader/stop")?;
    let report: Value = serde_json::from_str(&machine.run_until("cat /run/loader.json", "}", BOOT)?)?;
    println!("{report}");
    assert_eq!(report["wrong"], json!([]));
    let tokens = report["tokens"].as_u64().and_then(|tokens| usize::try_from(tokens).ok()).unwrap();
    assert!(tokens > RENEWALS, "{report}");
    // Every token came from the same login, and was accepted once.
    assert_eq!((api.calls("POST", "/login"), api.calls("POST", "/token/refresh")), (1, tokens - 1));
    let answers: Vec<_> = api.requests().into_iter().filter(|call| call.path == "/users/current").collect();
    assert_eq!(answers.len(), tokens);
    assert!(answers.iter().all(|call| call.status == Some(200)), "{answers:?}");
    token_is_valid(&mut machine, api)
}
