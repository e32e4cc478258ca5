//! Keys that were rotated while a cache still has the old list.

use std::time::Duration;

use azaion_tests::dev_api::{Fault, Generation, Options};

use crate::virtual_device::{BY_PERSON, BY_TIMER, TOKEN, VirtualDevice};

const KEYS: &str = "/.well-known/jwks.json";
/// Age at which a token of 15 minutes is due, and still valid.
const DUE: Duration = Duration::from_mins(11);

fn cached() -> Options {
    Options { generation: Generation::G2b, keys_cache: Some(Duration::from_hours(1)), ..Options::default() }
}

/// Returns whether each request for keys bypassed caches, in order.
fn is_no_cache(device: &VirtualDevice) -> Vec<bool> {
    let requests = device.station.api.requests();
    requests.into_iter().filter(|request| request.path == KEYS).map(|request| request.is_no_cache).collect()
}

// Promise: a token whose `kid` is missing in a cached list makes the device request the list again, bypassing caches,
// and not log in again: at first login and at renewal.
#[test]
fn a_rotated_key_behind_a_cache() -> anyhow::Result<()> {
    for is_old_listed in [true, false] {
        let device = VirtualDevice::ready(cached(), "")?;
        device.station.api.rotate_keys(is_old_listed);
        device.wait(DUE);
        let renewed = device.run(BY_TIMER)?;
        assert!(renewed.is_renewed, "{:?}", renewed.renewal_error);
        assert_eq!((device.calls(), is_no_cache(&device)), ([0, 1], vec![false, true]));

        device.reboot()?;
        device.station.api.rotate_keys(is_old_listed);
        device.station.api.forget_requests();
        device.run(BY_TIMER)?;
        assert_eq!((device.calls(), is_no_cache(&device)), ([1, 0], vec![false, true]));
    }
    Ok(())
}

/// Returns the key list of a cache that ignores `Cache-Control: no-cache`.
fn stubborn(device: &VirtualDevice) -> Fault {
    Fault::Answer {
        status: 200,
        content_type: "application/json".to_owned(),
        body: device.station.api.key_list(),
        headers: vec![("Cache-Control".to_owned(), "public, max-age=3600".to_owned())],
    }
}

// Promise: a cache that returns the old list for some time is queried again, with pauses, without another login.
#[test]
fn a_cache_that_is_slow_to_learn() -> anyhow::Result<()> {
    let device = VirtualDevice::new(cached(), "")?;
    device.station.api.inject("GET", KEYS, stubborn(&device), 4);
    device.station.api.rotate_keys(false);
    device.run(BY_PERSON)?;
    assert_eq!((device.calls(), is_no_cache(&device)), ([1, 0], vec![false, true, true, true, true]));
    Ok(())
}

// Promise: a cache that is never updated keeps the device from becoming ready, with one login in each run and few
// requests; a valid token is kept.
#[test]
fn a_cache_that_never_learns() -> anyhow::Result<()> {
    let device = VirtualDevice::new(cached(), "")?;
    device.station.api.inject("GET", KEYS, stubborn(&device), usize::MAX);
    device.station.api.rotate_keys(false);
    assert_ne!(device.exit(BY_PERSON), 0);
    assert_eq!(device.calls(), [1, 0]);
    let asked = is_no_cache(&device).len();
    assert!((3..=40).contains(&asked), "{asked} requests for keys");

    let device = VirtualDevice::ready(cached(), "")?;
    let token = device.station.json(TOKEN);
    device.station.api.inject("GET", KEYS, stubborn(&device), usize::MAX);
    device.station.api.rotate_keys(false);
    device.wait(DUE);
    assert_eq!((device.exit(BY_TIMER), device.station.json(TOKEN)), (0, token));
    Ok(())
}
