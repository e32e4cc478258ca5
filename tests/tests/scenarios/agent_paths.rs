//! Every path of the agent except failures: cache, renewal, file permissions, policy.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use azaion_tests::dev_api::{BadToken, Casing, Fault, Generation, Options};
use azaion_tests::programs::Run;
use azaion_tests::station::{EMAIL, Station};
use serde_json::Value;

const TOKEN: &str = "run/azaion/token.json";
const READY: &str = "run/azaion/ready.json";

/// Creates a provisioned device with its policy.
fn unit(options: Options) -> anyhow::Result<Station> {
    let station = Station::new(options)?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    station.api.forget_requests();
    Ok(station)
}

/// Creates a device that is ready.
fn ready_unit(options: Options) -> anyhow::Result<Station> {
    let station = unit(options)?;
    station.agent(&["boot"])?.ended_with(0)?;
    station.api.forget_requests();
    Ok(station)
}

/// Lifetime of a token: short, so that a machine that was started a minute ago can have an old one.
const LIFETIME: Duration = Duration::from_secs(90);
/// Ages at which a token is still fresh, due for renewal, and expired.
const FRESH: u64 = 40;
const STALE: u64 = 65;
const OVER: u64 = 95;

/// Makes the cached token older by so many seconds, as if it had been obtained earlier since boot.
fn age_token(station: &Station, seconds: u64) -> anyhow::Result<()> {
    let mut token = station.json(TOKEN).unwrap();
    let obtained = token["obtained_boottime_s"].as_u64().unwrap();
    token["obtained_boottime_s"] = obtained.checked_sub(seconds).unwrap().into();
    station.put(&format!("rootfs/{TOKEN}"), token.to_string(), 0o640)
}

fn short_lived(generation: Generation) -> Options {
    Options { generation, token_lifetime: Some(LIFETIME), ..Options::default() }
}

fn calls(station: &Station) -> [usize; 2] {
    ["/login", "/token/refresh"].map(|path| station.api.calls("POST", path))
}

fn field(station: &Station, file: &str, name: &str) -> Value {
    station.json(file).unwrap()[name].clone()
}

// Promise: the cache has exactly the fields that the loader reads.
#[test]
fn the_cache_has_its_fields() -> anyhow::Result<()> {
    let station = ready_unit(Options::default())?;
    let fields = |file| station.json(file).unwrap().as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        fields(TOKEN),
        "access_token api_url boot_id email expires_at issued_at lifetime_s obtained_boottime_s role signature token_type user_id \
          version"
    );
    assert_eq!(fields(READY), "api_url email expires_at held ready serial signature since user_id");
    let lifetime = field(&station, TOKEN, "lifetime_s").as_u64().unwrap();
    assert!((895..=900).contains(&lifetime), "{lifetime}");
    Ok(())
}

// Promise: while the token is fresh, no call is made, and `token` prints the cached one.
#[test]
fn a_fresh_token_costs_no_call() -> anyhow::Result<()> {
    let station = ready_unit(Options::default())?;
    let cached = field(&station, TOKEN, "access_token");
    station.agent(&["boot"])?.ended_with(0)?;
    assert_eq!(station.agent(&["token"])?.ended_with(0)?.stdout.trim_end(), cached.as_str().unwrap());
    let all = station.agent(&["token", "--json"])?.ended_with(0)?.json_lines()?.remove(0);
    assert_eq!(all, station.json(TOKEN).unwrap());
    assert_eq!(station.api.requests().len(), 0);
    Ok(())
}

// Promise: `token` obtains a token if there is none, and reports why if it fails.
#[test]
fn token_logs_in_where_it_must() -> anyhow::Result<()> {
    let station = unit(Options::default())?;
    assert_eq!(station.agent(&["token"])?.ended_with(0)?.stdout.trim_end().split('.').count(), 3);
    assert_eq!(calls(&station), [1, 0]);
    fs::remove_file(station.inside("etc/azaion/device.conf"))?;
    let run = station.agent(&["token"])?.ended_with(78)?;
    assert!(run.stdout.is_empty() && run.stderr.contains("device.conf"), "{}", run.stderr);
    Ok(())
}

// Promise: a token is renewed when less than a third of its life is left, through /token/refresh in its own spelling.
#[test]
fn renewed_by_refresh_in_every_spelling() -> anyhow::Result<()> {
    for casing in [Casing::Camel, Casing::Snake, Casing::Pascal] {
        let station = ready_unit(Options { casing, ..short_lived(Generation::G2) })?;
        for round in 1..=3 {
            let before =
                (field(&station, TOKEN, "access_token"), field(&station, "run/azaion/refresh.json", "refresh_token"));
            age_token(&station, FRESH)?;
            station.agent(&["boot"])?.ended_with(0)?;
            assert_eq!(calls(&station), [0, round - 1]);
            age_token(&station, STALE - FRESH)?;
            station.agent(&["boot"])?.ended_with(0)?;
            assert_eq!(calls(&station), [0, round]);
            let after =
                (field(&station, TOKEN, "access_token"), field(&station, "run/azaion/refresh.json", "refresh_token"));
            assert!(before.0 != after.0 && before.1 != after.1);
        }
    }
    Ok(())
}

// Promise: if a session can't be renewed, the agent logs in; the old token is never lost in between.
#[test]
fn renewed_by_login_otherwise() -> anyhow::Result<()> {
    let station = ready_unit(short_lived(Generation::G1))?;
    age_token(&station, STALE)?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert_eq!(calls(&station), [1, 0]);
    for fault in [Fault::DropAfter, Fault::Status { code: 401, error: Some(52), headers: vec![] }] {
        let station = ready_unit(short_lived(Generation::G2))?;
        station.api.inject("POST", "/token/refresh", fault, 1);
        age_token(&station, STALE)?;
        station.agent(&["boot"])?.ended_with(0)?;
        assert_eq!(calls(&station), [1, 1]);
        assert!(station.inside("run/azaion/refresh.json").exists());
    }
    Ok(())
}

// Promise: `since` stays while the device stays ready; the time of the first success is permanent.
#[test]
fn since_and_first_boot_stay() -> anyhow::Result<()> {
    let station = ready_unit(short_lived(Generation::G2))?;
    let since = field(&station, READY, "since");
    let first = field(&station, "var/lib/azaion/first-boot.json", "first_ready_at");
    station.api.shift_clock(60);
    age_token(&station, STALE)?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert_eq!(field(&station, READY, "since"), since);
    fs::remove_dir_all(station.inside("run"))?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert_ne!(field(&station, READY, "since"), since);
    assert_eq!(field(&station, "var/lib/azaion/first-boot.json", "first_ready_at"), first);
    Ok(())
}

// Promise: after a failed renewal a device with a valid token stays ready and reports the failure; one without is not
// ready.
#[test]
fn a_failed_renewal_spares_a_valid_token() -> anyhow::Result<()> {
    for fault in [Fault::Status { code: 503, error: None, headers: vec![] }, Fault::Token(BadToken::WrongIssuer)] {
        let station = ready_unit(short_lived(Generation::G2))?;
        for path in ["/login", "/token/refresh"] {
            station.api.inject("POST", path, fault.clone(), usize::MAX);
        }
        age_token(&station, STALE)?;
        let run = station.agent(&["boot", "--deadline", "1"])?.ended_with(0)?;
        assert!(run.stderr.contains("cannot renew the token"), "{}", run.stderr);
        assert_eq!(field(&station, READY, "ready"), true);
        age_token(&station, OVER - STALE)?;
        let code = if matches!(fault, Fault::Token(_)) { 76 } else { 75 };
        station.agent(&["boot", "--deadline", "1"])?.ended_with(code)?;
        assert_eq!((field(&station, READY, "ready"), field(&station, READY, "code")), (false.into(), code.into()));
        assert!(!station.inside(TOKEN).exists() && !station.inside("run/azaion/refresh.json").exists());
    }
    Ok(())
}

// Promise: a refused account loses its token at once, valid or not.
#[test]
fn a_refused_account_loses_its_token() -> anyhow::Result<()> {
    let station = ready_unit(short_lived(Generation::G2b))?;
    station.api.disable(EMAIL, true);
    fs::remove_file(station.inside("run/azaion/refresh.json"))?;
    age_token(&station, STALE)?;
    station.agent(&["boot"])?.ended_with(77)?;
    assert!(!station.inside(TOKEN).exists());
    assert_eq!(field(&station, READY, "ready"), false);
    Ok(())
}

// Promise: a token of another account, another API or another boot is not used.
#[test]
fn a_foreign_token_is_not_used() -> anyhow::Result<()> {
    for (name, value) in [("email", "other@azaion.com"), ("api_url", "https://other.example"), ("boot_id", "other")] {
        let station = ready_unit(Options::default())?;
        let mut token = station.json(TOKEN).unwrap();
        token[name] = value.into();
        station.put(&format!("rootfs/{TOKEN}"), token.to_string(), 0o640)?;
        station.agent(&["boot"])?.ended_with(0)?;
        assert_eq!(calls(&station), [1, 0], "{name}");
    }
    Ok(())
}

// Promise: a partial file, or one of another program, is treated as missing.
#[test]
fn damaged_files_are_replaced() -> anyhow::Result<()> {
    for content in ["", "{", "{}", "null", "[1]", "{\"version\":1}", "\u{0}\u{0}"] {
        let station = ready_unit(Options::default())?;
        for name in [
            "run/azaion/token.json",
            "run/azaion/refresh.json",
            "run/azaion/ready.json",
            "run/azaion/backoff.json",
            "var/lib/azaion/first-boot.json",
            "var/lib/azaion/history.json",
        ] {
            station.put(&format!("rootfs/{name}"), content, 0o600)?;
        }
        station.agent(&["boot"])?.ended_with(0)?;
        assert_eq!((calls(&station), field(&station, READY, "ready")), ([1, 0], true.into()), "{content}");
        assert!(!station.inside("run/azaion/backoff.json").exists());
    }
    Ok(())
}

// Promise: only the group `azaion` may read the token; if the group is missing, the journal says so.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_group_may_read_the_token() -> anyhow::Result<()> {
    let station = unit(Options::default())?;
    station.put("rootfs/etc/group", "root:x:0:\nazaionette:x:4241:\nazaion:x:4242:loader\n", 0o644)?;
    station.agent(&["boot"])?.ended_with(0)?;
    let owner = |name: &str| fs::metadata(station.inside(name)).map(|m| (m.mode() & 0o7777, m.uid(), m.gid()));
    assert_eq!(owner(TOKEN)?, (0o640, 0, 4242));
    assert_eq!(owner("run/azaion/refresh.json")?, (0o600, 0, 0));
    assert_eq!(owner(READY)?, (0o644, 0, 0));
    station.put("rootfs/etc/group", "root:x:0:\n", 0o644)?;
    fs::remove_file(station.inside(TOKEN))?;
    let run = station.agent(&["boot"])?.ended_with(0)?;
    assert!(run.stderr.contains("the group azaion does not exist"), "{}", run.stderr);
    Ok(())
}

// Promise: a device whose /var can't be written is still ready, and reports it.
#[test]
fn without_a_usable_var() -> anyhow::Result<()> {
    let station = unit(Options::default())?;
    station.put("rootfs/var/lib/azaion", "a file in place of the directory", 0o644)?;
    let run = station.agent(&["boot"])?.ended_with(0)?;
    assert!(run.stderr.contains("var/lib/azaion"), "{}", run.stderr);
    Ok(())
}

// Promise: no run leaves files other than those of the contract.
#[test]
fn no_other_files() -> anyhow::Result<()> {
    let station = ready_unit(Options::default())?;
    let names = |folder: &str| -> anyhow::Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(station.inside(folder))?
            .map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_, _>>()?;
        names.sort();
        Ok(names)
    };
    assert_eq!(names("run/azaion")?, ["agent.lock", "ready.json", "refresh.json", "token.json"]);
    assert_eq!(names("var/lib/azaion")?, ["first-boot.json", "history.json"]);
    assert_eq!(names("etc/azaion")?, ["agent.toml", "ca.pem", "device.conf"]);
    Ok(())
}

// Promise: two concurrent runs make one login, and both are ready.
#[test]
fn two_at_once_make_one_login() -> anyhow::Result<()> {
    let station = unit(Options::default())?;
    let runs: Vec<anyhow::Result<Run>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| station.agent(&["boot"])?.ended_with(0))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    runs.into_iter().try_for_each(|run| run.map(drop))?;
    assert_eq!(calls(&station), [1, 0]);
    Ok(())
}

// Promise: the fleet's policy is enforced: issuer, audience, signature.
#[test]
fn policy_is_obeyed() -> anyhow::Result<()> {
    for (generation, policy, code) in [
        (Generation::G2, "audience = \"AzaionDevices\"", 0),
        (Generation::G2, "audience = \"Others\"", 76),
        (Generation::G2, "issuer = \"Others\"", 76),
        (Generation::G2, "signature = \"required\"", 0),
        (Generation::G1, "signature = \"required\"", 76),
        (Generation::G1, "signature = \"auto\"", 0),
        (Generation::G1, "audience = \"Annotators/OrangePi/Admins\"", 0),
    ] {
        let station = unit(Options { generation, ..Options::default() })?;
        station.put_policy(policy)?;
        station.agent(&["boot"])?.ended_with(code).map_err(|error| error.context(policy))?;
    }
    Ok(())
}

// Promise: a rotated key is accepted, listed beside the old one or alone.
#[test]
fn keys_may_rotate() -> anyhow::Result<()> {
    for keep in [true, false] {
        let station = ready_unit(short_lived(Generation::G2))?;
        station.api.rotate_keys(keep);
        age_token(&station, STALE)?;
        station.agent(&["boot"])?.ended_with(0)?;
        assert_eq!(field(&station, READY, "signature"), "verified");
    }
    Ok(())
}

// Promise: a renewed CA is accepted once the policy names it, beside the old one or alone; before that, the agent
// waits.
#[test]
fn the_ca_may_be_renewed() -> anyhow::Result<()> {
    let station = unit(Options::default())?;
    let old = fs::read(station.api.ca_file())?;
    station.api.renew_certificate(true)?;
    let new = fs::read(station.api.ca_file())?;
    let run = station.agent(&["boot", "--deadline", "1"])?.ended_with(75)?;
    assert!(run.stderr.contains("known CA"), "{}", run.stderr);
    for pem in [[&old[..], &new].concat(), new] {
        fs::remove_dir_all(station.inside("run"))?;
        station.put("rootfs/etc/azaion/ca.pem", pem, 0o644)?;
        station.agent(&["boot"])?.ended_with(0)?;
    }
    Ok(())
}

// Promise: an invalid command line is exit 64, and the message does not repeat what may be a secret; help is no error.
#[test]
fn command_lines() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    for (arguments, code) in [
        (&["frobnicate"][..], 64),
        (&["boot", "--deadline", "0"], 64),
        (&["boot", "--deadline", "soon"], 64),
        (&["boot", "--password", "hush-hush"], 64),
        (&["boot", "--password=hush-hush"], 64),
        (&["boot", "hush-hush"], 64),
        (&["hush-hush"], 64),
        (&["--hush-hush", "boot"], 64),
        (&["boot", "--now=hush-hush"], 64),
        (&["token", "--login"], 64),
        (&["--help"], 0),
        (&["boot", "--help"], 0),
        (&["--version"], 0),
    ] {
        let run = station.agent(arguments)?;
        assert_eq!(run.code, Some(code), "{arguments:?}: {}", run.stderr);
        assert!(!run.stderr.contains("hush"), "{arguments:?}: {}", run.stderr);
    }
    Ok(())
}
