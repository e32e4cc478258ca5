//! IPv6 addresses of the API that never answer, as in a network with broken IPv6.

use std::time::{Duration, Instant};

use anyhow::ensure;
use azaion_tests::netns::find_in_place_of;
use azaion_tests::programs::{Run, native};

use super::Net;

const TOKEN: &str = "run/azaion/token.json";
const NAME: &str = "admin.azaion.test";
/// Maximum cost of dead addresses.
const MOST: Duration = Duration::from_secs(1);
/// The best of so many runs counts: the machine is busy with other tests.
const RUNS: usize = 3;

/// Adds IPv6 addresses and a default route through the server, which silently drops packets to other addresses.
fn with_ipv6(net: &Net) -> anyhow::Result<()> {
    net.wire.server.run("ip address add 2001:db8:1::2/64 dev wire nodad")?;
    net.wire
        .client
        .run("ip address add 2001:db8:1::15/64 dev wire nodad && ip -6 route add default via 2001:db8:1::2 dev wire")?;
    Ok(())
}

/// Runs the agent with these addresses for the API's name, and returns its best time.
fn best(net: &Net, addresses: &[&str], arguments: &[&str]) -> anyhow::Result<(Duration, Run)> {
    let lines: Vec<_> = addresses.iter().map(|address| format!("{address} {NAME}")).collect();
    net.station.put("hosts", lines.join("\n") + "\n", 0o644)?;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let run = net.wire.client.inside(|| {
            find_in_place_of("/etc/hosts", &net.station.path("hosts"))?;
            // An existing token would be used.
            if arguments.contains(&"boot") && net.station.inside(TOKEN).exists() {
                std::fs::remove_file(net.station.inside(TOKEN))?;
            }
            let start = Instant::now();
            let run = net.station.agent(arguments)?.ended_with(0)?;
            Ok((start.elapsed(), run))
        })?;
        runs.push(run);
    }
    runs.sort_by_key(|(took, _)| *took);
    Ok(runs.swap_remove(0))
}

// Promise: dead IPv6 addresses beside a good IPv4 one cost `boot` and `status` at most a second, for any number of
// them.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_with_dead_ipv6() -> anyhow::Result<()> {
    native()?;
    let net = Net::with_unit()?;
    with_ipv6(&net)?;
    net.put_conf(&net.station.api.url().replace("10.0.2.2", NAME))?;
    let (good, dead) = (["10.0.2.2"], ["2001:db8:2::1", "2001:db8:2::2", "2001:db8:2::3", "10.0.2.2"]);
    let boot = ["boot", "--now", "--deadline", "20"];
    let (without, _) = best(&net, &good, &boot)?;
    let (with, _) = best(&net, &dead, &boot)?;
    ensure!(with < without + MOST, "boot: {with:?}, and {without:?} without dead addresses");
    let (without, _) = best(&net, &good, &["status"])?;
    let (with, run) = best(&net, &dead, &["status"])?;
    ensure!(with < without + MOST, "status: {with:?}, and {without:?} without dead addresses");
    ensure!(run.stdout.contains("2001:db8:2::1") && run.stdout.contains("10.0.2.2:"), "{}", run.stdout);
    println!("{with:?} with dead addresses, {without:?} without");
    Ok(())
}
