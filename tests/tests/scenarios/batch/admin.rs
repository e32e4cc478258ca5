//! One admin for a whole batch: the number of logins, and what happens when the API no longer accepts it.

use std::sync::mpsc::channel;
use std::time::Duration;

use azaion_tests::dev_api::{Fault, Options};
use azaion_tests::programs::{Running, start};

use super::{Line, range, said, serials, text};

/// Injects a fault after so many normal calls.
fn after(line: &Line, calls: usize, fault: Fault, times: usize) {
    line.station.api.inject("POST", "/users", Fault::Delay(Duration::ZERO), calls);
    line.station.api.inject("POST", "/users", fault, times);
}

fn status(code: u16, retry_after: Option<&str>) -> Fault {
    let headers = retry_after.map(|wait| ("Retry-After".to_owned(), wait.to_owned())).into_iter().collect();
    Fault::Status { code, error: None, headers }
}

// Promise: fifty devices need one login, so the limit of ten a minute does not matter; a second run needs no call at
// all.
#[test]
fn fifty_units_and_one_login() -> anyhow::Result<()> {
    let line = Line::new(Options { limits: true, ..Options::default() })?;
    line.batch(&range(1, 50), &[])?.ended_with(0)?;
    assert_eq!((line.logins(), line.created(), line.station.api.requests().len()), (1, 50, 51));
    serials(1, 50).iter().try_for_each(|serial| line.is_let_in(serial))?;
    line.station.api.forget_requests();
    let run = line.batch(&range(1, 50), &[])?.ended_with(0)?;
    assert!(run.stdout.contains("50 devices: 50 reused ("), "{}", run.stdout);
    assert_eq!(line.station.api.requests().len(), 0);
    Ok(())
}

// Promise: only batches rely on the confirmation comment in a target: `device` and `--verify` log in.
#[test]
fn a_mark_is_for_batches() -> anyhow::Result<()> {
    let line = Line::new(Options::default())?;
    line.batch(&range(1, 2), &[])?.ended_with(0)?;
    let target = text(&line.target("AZJN-0001"));
    for (words, logins) in [(&["device", "AZJN-0001", "--rootfs", &target, "--owner", "current"][..], 1), (&[], 4)] {
        line.station.api.forget_requests();
        let run = match words {
            [] => line.batch(&range(1, 2), &["--verify"])?,
            words => line.wait(line.station.start_provision(words)?)?,
        };
        assert!(run.ended_with(0)?.stdout.contains("reused"));
        assert_eq!(line.logins(), logins);
    }
    Ok(())
}

// Promise: an admin who loses the permission ends the batch at once with 77: each worker makes at most one more call,
// no login is tried, the devices in progress are unchanged, and the summary says how many were not tried.
#[test]
fn an_admin_refused_in_the_middle() -> anyhow::Result<()> {
    for code in [401, 403] {
        let line = Line::new(Options::default())?;
        after(&line, 10, status(code, None), usize::MAX);
        let run = line.batch(&range(1, 50), &["--jobs", "4"])?.ended_with(77)?;
        assert!(run.stderr.contains("the API refuses the admin"), "{}", run.stderr);
        assert!(run.stdout.contains("10 created") && run.stdout.contains("not tried"), "{}", run.stdout);
        assert!((11..=14).contains(&line.created()) && line.logins() == 1, "{:?}", line.station.api.requests());
        assert_eq!(line.station.api.users().len(), 10);
        line.station.api.clear_faults();
        line.station.api.forget_requests();
        line.batch(&range(1, 50), &[])?.ended_with(0)?;
        assert_eq!((line.logins(), line.created()), (1, 40));
    }
    Ok(())
}

// Promise: a wrong admin password is tried once, for any number of workers.
#[test]
fn a_wrong_admin_password() -> anyhow::Result<()> {
    let line = Line::new(Options { limits: true, ..Options::default() })?;
    line.station.put("admin-password", "not-the-password\n", 0o600)?;
    let run = line.batch(&range(1, 50), &["--jobs", "8"])?.ended_with(77)?;
    assert!(run.stdout.contains("check the admin's e-mail and password"), "{}", run.words());
    assert_eq!((line.logins(), line.station.api.requests().len()), (1, 1));
    Ok(())
}

// Promise: a wait requested by the API during a batch is obeyed, and all devices are done in the same run.
#[test]
fn a_wait_is_obeyed() -> anyhow::Result<()> {
    for code in [429, 503] {
        let line = Line::new(Options::default())?;
        after(&line, 5, status(code, Some("1")), 1);
        line.batch(&range(1, 10), &["--jobs", "1"])?.ended_with(0)?;
        let requests = line.station.api.requests();
        let at = requests.iter().position(|request| request.status == Some(code)).unwrap();
        assert!(requests[at + 1].at - requests[at].at >= Duration::from_secs(1));
        assert_eq!((line.created(), line.logins()), (11, 1));

        let line = Line::new(Options::default())?;
        after(&line, 5, status(code, Some("1")), 4);
        line.batch(&range(1, 30), &["--jobs", "4"])?.ended_with(0)?;
        assert_eq!(line.created(), 34);
        serials(1, 30).iter().try_for_each(|serial| line.is_let_in(serial))?;
    }
    Ok(())
}

/// Runs a batch whose clocks, including the boot clock, are shifted by the number in the file.
fn with_a_clock(line: &Line, list: &str, clock: &str) -> anyhow::Result<Running> {
    let arguments = line.arguments(list, &["--jobs", "1"]);
    let mut ours = line.station.provision_command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    let library = said("sh", &["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"])?;
    ours.args(line.station.api_arguments()).env("LD_PRELOAD", library.trim());
    start(ours.env("FAKETIME_TIMESTAMP_FILE", clock).env("FAKETIME_NO_CACHE", "1"))
}

// Promise: a token that expires in a long batch is renewed by one login, and no device fails because of it.
#[test]
fn a_token_that_runs_out() -> anyhow::Result<()> {
    const LIFETIME: u64 = 120;
    let line = Line::new(Options { token_lifetime: Some(Duration::from_secs(LIFETIME)), ..Options::default() })?;
    line.station.put("clock", "+0", 0o644)?;
    let (told, call) = channel();
    let (go_on, wait) = channel::<()>();
    for _ in 0..20 {
        line.station.api.on_request("POST", "/users", Box::new(|| ()));
    }
    line.station.api.on_request(
        "POST",
        "/users",
        Box::new(move || {
            let _ = told.send(());
            let _ = wait.recv();
        }),
    );
    let running = with_a_clock(&line, &range(1, 50), &text(&line.station.path("clock")))?;
    call.recv_timeout(Duration::from_secs(20))?;
    line.station.put("clock", format!("+{}", LIFETIME + 1), 0o644)?;
    line.station.api.shift_clock(i64::try_from(LIFETIME + 1)?);
    go_on.send(())?;
    line.wait(running)?.ended_with(0)?;
    let refused = line.station.api.requests().iter().filter(|request| request.status == Some(401)).count();
    // The waiting call may have timed out when the clock was shifted, and is repeated.
    assert!((1..=2).contains(&refused), "{refused} calls with the old token");
    assert_eq!(line.logins(), 2);
    serials(1, 50).iter().try_for_each(|serial| line.is_let_in(serial))
}
