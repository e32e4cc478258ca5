//! Both programs on a bad network: packets are lost, delayed or blocked, in private network namespaces.

mod dead_addresses;
mod dying;
mod lossy;
mod names;
mod relay;
mod unreachable;

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use azaion_tests::dev_api::Options;
use azaion_tests::netns::{SERVER, Wire};
use azaion_tests::programs::{Run, native};
use azaion_tests::station::{EMAIL, SERIAL, Station};

const PASSWORD: &str = "device-password-0042";

/// Allows all packets.
const OPEN: &str = "accept";
/// Drops all packets.
const SHUT: &str = "drop";

/// Maximum start and end time of a program besides its deadline, on a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(5);

/// A host on one end of a link, and the API, with its limits, on the other.
struct Net {
    wire: Wire,
    station: Station,
}

impl Net {
    fn new() -> anyhow::Result<Self> {
        native()?;
        let wire = Wire::new()?;
        let listen = format!("{SERVER}:0").parse()?;
        let station = wire.server.inside(|| Station::new(Options { listen, limits: true, ..Options::default() }))?;
        Ok(Self { wire, station })
    }

    /// Creates it with a device that is to become ready.
    fn with_unit() -> anyhow::Result<Self> {
        let net = Self::new()?;
        net.station.api.add_user(EMAIL, PASSWORD, "CompanionPC");
        net.station.put_policy("")?;
        net.put_conf(&net.station.api.url())?;
        Ok(net)
    }

    fn put_conf(&self, url: &str) -> anyhow::Result<()> {
        let lines = format!(
            "AZAION_DEVICE_SERIAL={SERIAL}\nAZAION_DEVICE_EMAIL={EMAIL}\nAZAION_DEVICE_PASSWORD={PASSWORD}\nAZAION_API_URL={url}\n"
        );
        self.station.put("rootfs/etc/azaion/device.conf", lines, 0o600)
    }

    /// Runs the agent once, in time, and checks that its files match its exit code: ready, or not yet.
    fn boot(&self, deadline: u64) -> anyhow::Result<Run> {
        let start = Instant::now();
        let run = self.wire.client.inside(|| self.station.agent(&["boot", "--deadline", &deadline.to_string()]))?;
        in_time(&run, start, deadline)?;
        let ready = self.station.json("run/azaion/ready.json").context("there is no ready.json")?;
        let code = run.code;
        ensure!([Some(0), Some(75)].contains(&code), "ended with {code:?}: {}", run.words());
        let is_ready = code == Some(0);
        ensure!(ready.get("ready") == Some(&is_ready.into()), "{code:?}, but ready.json says {ready}");
        for file in ["run/azaion/token.json", "run/azaion/refresh.json"] {
            ensure!(
                self.station.json(file).is_some() == is_ready,
                "{code:?}, but {file} does not match: {}",
                run.words()
            );
        }
        ensure!(!self.station.api.is_locked(EMAIL), "the account is locked");
        Ok(run)
    }

    /// Runs `azaion-provision device` once, in time.
    fn device(&self, deadline: u64) -> anyhow::Result<Run> {
        let start = Instant::now();
        let run = self.wire.client.inside(|| self.station.device(&["--deadline", &deadline.to_string()]))?;
        in_time(&run, start, deadline)?;
        ensure!([Some(0), Some(69), Some(75)].contains(&run.code), "ended with {:?}: {}", run.code, run.words());
        // An exit code of 0 must be a real success.
        ensure!(run.code != Some(0) || self.is_provisioned(), "0, but not provisioned: {}", run.words());
        Ok(run)
    }

    /// Returns whether there is one user, whose password is in the target.
    fn is_provisioned(&self) -> bool {
        let password = self.station.password().unwrap_or_default();
        self.station.api.users().len() == 1 && self.station.api.password_is(EMAIL, &password)
    }

    fn logins(&self) -> usize {
        self.station.api.calls("POST", "/login")
    }
}

fn in_time(run: &Run, start: Instant, deadline: u64) -> anyhow::Result<()> {
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(deadline) + SLACK, "{took:?} with a deadline of {deadline} s: {}", run.words());
    Ok(())
}

/// Runs all rows at once, since they only wait; reports the failures, and informative results.
fn every<T: Sync>(
    rows: &[T],
    name: impl Fn(&T) -> String + Sync,
    check: impl Fn(&T) -> anyhow::Result<String> + Sync,
) -> anyhow::Result<()> {
    native()?;
    let (name, check) = (&name, &check);
    let results: Vec<(bool, String)> = std::thread::scope(|scope| {
        let one = |row| match check(row) {
            Ok(figures) => (true, format!("{}: {figures}", name(row))),
            Err(error) => (false, format!("{}: {error:#}", name(row))),
        };
        let threads: Vec<_> = rows.iter().map(|row| scope.spawn(move || one(row))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or((false, "a row panicked".into()))).collect()
    });
    results.iter().filter(|(is_fine, _)| *is_fine).for_each(|(_, figures)| println!("{figures}"));
    let failures: Vec<_> = results.into_iter().filter(|(is_fine, _)| !is_fine).map(|(_, error)| error).collect();
    ensure!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
    Ok(())
}

fn within(range: &RangeInclusive<usize>, count: usize, what: &str) -> anyhow::Result<()> {
    ensure!(range.contains(&count), "{count} {what}, not {range:?}");
    Ok(())
}
