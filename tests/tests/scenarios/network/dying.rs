//! A network that fails permanently after the n-th packet, for every n: an interruption at every step of a run.

use anyhow::ensure;

use super::{Net, OPEN, every, within};

/// Packets of a complete run in one direction, and some more.
const MOST: usize = 14;

/// The n-th packet and all after it are dropped on arrival at the server, or at the client.
fn rows() -> Vec<(usize, bool)> {
    (0..=MOST).flat_map(|n| [(n, true), (n, false)]).collect()
}

fn described((n, at_server): &(usize, bool)) -> String {
    format!("{n} {} get through", if *at_server { "requests" } else { "answers" })
}

fn cut(net: &Net, (n, at_server): (usize, bool)) -> anyhow::Result<()> {
    let rule = format!("numgen inc mod 1000000 >= {n} drop");
    if at_server { net.wire.filter(&rule, OPEN) } else { net.wire.filter(OPEN, &rule) }
}

const SHORT: u64 = 3;
const LONG: u64 = 20;

// Promise: wherever the network fails, the agent ends in time, ready or with 75; the next run on a working network
// makes it ready, with at most one login per run.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_that_dies_under_the_agent() -> anyhow::Result<()> {
    every(&rows(), described, |row| {
        let net = Net::with_unit()?;
        cut(&net, *row)?;
        let code = net.boot(SHORT)?.code;
        within(&(0..=1), net.logins(), "logins")?;
        net.wire.filter(OPEN, OPEN)?;
        ensure!(net.boot(LONG)?.code == Some(0), "not ready on a working network");
        within(&(1..=2), net.logins(), "logins in all")?;
        Ok(format!("{code:?}, {} logins in all", net.logins()))
    })
}

// Promise: wherever the network fails, the host tool ends in time, done or with 69 or 75; the next run ends with one
// user whose password is in the target.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_that_dies_under_the_station() -> anyhow::Result<()> {
    every(&rows(), described, |row| {
        let net = Net::new()?;
        cut(&net, *row)?;
        let code = net.device(SHORT)?.code;
        net.wire.filter(OPEN, OPEN)?;
        let again = net.device(LONG)?;
        ensure!(again.code == Some(0), "not repaired: {}", again.words());
        let outcome = again.json_lines()?.first().and_then(|line| line.get("outcome").cloned());
        Ok(format!("{code:?}, then {}, {} logins in all", outcome.unwrap_or_default(), net.logins()))
    })
}
