//! Mission sessions and renewal: a login or refresh of a device ends the mission sessions of its aircraft.

use std::time::Duration;

use azaion_tests::dev_api::{Fault, Generation, Options, POST_FLIGHT_RECONNECT};
use azaion_tests::station::{EMAIL, Station};

use crate::virtual_device::{BY_PERSON, BY_PROGRAM, BY_TIMER, READY, TIMER, VirtualDevice};

const HOLD_FILE: &str = "rootfs/run/azaion/in-flight";
/// A flight is longer than a token's lifetime, and shorter than a mission session.
const FLIGHT: Duration = Duration::from_hours(3);
const GENERATIONS: [Generation; 2] = [Generation::G2, Generation::G2b];

fn ready(generation: Generation, policy: &str) -> anyhow::Result<VirtualDevice> {
    VirtualDevice::ready(Options { generation, ..Options::default() }, policy)
}

/// Returns whether the device has ended this mission session, and no other.
fn is_ended(device: &VirtualDevice, mission: &str) -> bool {
    let revoked = device.station.api.revocations();
    revoked.iter().map(|one| (one.sid.as_str(), one.reason.as_str())).eq([(mission, POST_FLIGHT_RECONNECT)])
}

fn is_open(device: &VirtualDevice, mission: &str) -> bool {
    device.station.api.open_missions(EMAIL) == [mission] && device.station.api.revocations().is_empty()
}

// Promise: with the default and an online device the next renewal ends an open mission session, as documented.
#[test]
fn a_renewal_ends_a_mission() -> anyhow::Result<()> {
    for generation in GENERATIONS {
        let device = ready(generation, "")?;
        let mission = device.station.api.start_mission(EMAIL);
        assert!(
            device.timer_for(Duration::from_mins(8)) && is_open(&device, &mission),
            "a fresh token needs no renewal"
        );
        assert!(device.timer_for(Duration::from_mins(4)) && is_ended(&device, &mission));
    }
    Ok(())
}

/// Checks a held device in flight, then lands it.
fn land(device: &VirtualDevice, hold_file: &'static str) {
    device.after(FLIGHT, move |station| {
        let state = station.json(READY).unwrap_or_default();
        assert_eq!(
            (&state["ready"], &state["held"], &state["code"]),
            (&false.into(), &true.into(), &75.into()),
            "{state}"
        );
        assert!(station.api.requests().is_empty() && station.api.open_missions(EMAIL).len() == 1);
        std::fs::remove_file(station.path(hold_file)).unwrap();
    });
}

// Promise: while the hold file exists, no call is made, `ready.json` says `held`, and no mission session ends, however
// often the timer and clients run; after the landing the device renews its token without intervention.
#[test]
fn a_held_device_ends_no_mission() -> anyhow::Result<()> {
    for generation in GENERATIONS {
        let device = ready(generation, "")?;
        let mission = device.station.api.start_mission(EMAIL);
        device.station.put(HOLD_FILE, "", 0o644)?;
        land(&device, HOLD_FILE);
        // Fresh, due, and expired: at first the device is ready, then clients get no token.
        for minute in 0..20 {
            let code = if minute < 15 { 0 } else { 75 };
            assert_eq!((device.exit(BY_PROGRAM), device.exit(BY_PERSON)), (code, code), "minute {minute}");
            if minute < 15 {
                assert_eq!(device.exit(BY_TIMER), 0);
            }
            assert_eq!(device.field(READY, "held"), true, "{:?}", device.station.json(READY));
            assert!(is_open(&device, &mission));
            device.wait(TIMER);
        }
        device.timer_for(FLIGHT);
        assert!(is_ended(&device, &mission));
        assert!(device.field(READY, "ready") == true && device.field(READY, "held") != true);
    }
    Ok(())
}

// Promise: while the hold file exists, no command of the agent makes a call, and each says why.
#[test]
fn no_command_calls_for_a_held_device() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    station.put(HOLD_FILE, "", 0o644)?;
    station.api.forget_requests();
    for (arguments, code) in [
        (&["boot"][..], 75),
        (&["boot", "--now"], 75),
        (&["token"], 75),
        (&["token", "--socket"], 0),
        (&["status"], 75),
        (&["status", "--login"], 75),
    ] {
        let run = station.agent(arguments)?.ended_with(code)?;
        let said = [run.stdout, run.stderr].concat();
        assert!(said.contains("held") && said.contains("/run/azaion/in-flight"), "{arguments:?}: {said}");
    }
    assert_eq!(station.api.requests().len(), 0);
    std::fs::remove_file(station.path(HOLD_FILE))?;
    station.agent(&["boot"])?.ended_with(0)?;
    Ok(())
}

// Promise: `agent.toml` sets the path of the hold file.
#[test]
fn the_hold_file_has_a_name_of_its_own() -> anyhow::Result<()> {
    const AIRBORNE: &str = "rootfs/run/autopilot/airborne";
    let device = ready(Generation::G2b, "hold_file = \"/run/autopilot/airborne\"\n")?;
    let mission = device.station.api.start_mission(EMAIL);
    device.station.put(AIRBORNE, "", 0o644)?;
    land(&device, AIRBORNE);
    device.timer_for(FLIGHT + TIMER);
    assert!(is_ended(&device, &mission));
    Ok(())
}

// Promise: with `renew = "on-demand"` the timer logs in until the device was ready once in this boot, and then no more:
// a mission session that is issued afterwards lasts until a client requests a token.
#[test]
fn a_renewal_on_demand_ends_a_mission_only_when_asked() -> anyhow::Result<()> {
    let busy = || Fault::Status { code: 503, error: None, headers: Vec::new() };
    for generation in GENERATIONS {
        let device = VirtualDevice::new(Options { generation, ..Options::default() }, "renew = \"on-demand\"\n")?;
        device.station.api.inject("POST", "/login", busy(), usize::MAX);
        device.after(Duration::from_mins(5), |station| {
            assert_eq!(station.json(READY).unwrap_or_default()["ready"], false);
            station.api.clear_faults();
        });
        device.timer_for(Duration::from_mins(10));
        assert_eq!(device.field(READY, "ready"), true);
        device.station.api.forget_requests();

        let mission = device.station.api.start_mission(EMAIL);
        device.timer_for(FLIGHT);
        assert_eq!(device.station.api.requests().len(), 0);
        assert!(is_open(&device, &mission));
        device.run(BY_PROGRAM)?;
        assert!(is_ended(&device, &mission));

        // Another boot, another first login.
        device.reboot()?;
        device.station.api.forget_requests();
        assert!(device.timer_for(FLIGHT / 3));
        assert_eq!(device.calls(), [1, 0]);
    }
    Ok(())
}

// Promise: if a run was killed after it had written that the device is not ready, and before it removed the token, the
// next run of the timer reports the device as ready again, also with `renew = "on-demand"`.
#[test]
fn a_token_that_a_killed_run_left_makes_ready() -> anyhow::Result<()> {
    let device = ready(Generation::G2b, "renew = \"on-demand\"\n")?;
    device.wait(Duration::from_mins(12));
    let mut readiness = device.station.json(READY).unwrap_or_default();
    readiness["ready"] = false.into();
    device.station.put(&format!("rootfs/{READY}"), readiness.to_string(), 0o644)?;
    device.station.api.forget_requests();
    assert_eq!(device.exit(BY_TIMER), 0);
    assert_eq!((device.field(READY, "ready"), device.calls()), (true.into(), [0, 0]));
    Ok(())
}
