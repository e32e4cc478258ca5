//! Signals to the whole process group, as a terminal sends them: the run soon ends with 130, and its work is complete
//! or undone.

use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use anyhow::ensure;
use azaion_agent::common::clock::{Clock, SystemClock};
use azaion_tests::programs::start;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{Beside, Trial, WAYS, random};
use crate::archive;
use crate::bench::{EMAIL, SERIAL, for_each, password_in};

/// Variable with the number of signals at random times, over all ways.
const SIGNALS: &str = "AZAION_IMAGE_SIGNALS";
/// The promised time limit.
const SOON: Duration = Duration::from_secs(12);

impl Trial<'_> {
    /// Returns the time of an uninterrupted run; the first one takes longer.
    fn duration(&self) -> anyhow::Result<Duration> {
        let mut least = Duration::MAX;
        for _ in 0..2 {
            self.reset()?;
            let since = Instant::now();
            self.bench.wait(start(&mut self.command()?)?)?.ended_with(0)?;
            least = least.min(since.elapsed());
        }
        Ok(least)
    }

    /// Sends a signal at a random time within `latest`; returns whether it came before the run's end.
    fn signalled(&self, signal: Signal, latest: Duration) -> anyhow::Result<bool> {
        self.reset()?;
        let before = self.bench.inspect().ok();
        let ours = self.command()?;
        // Without the wrapper that kills hanging runs, which would receive the signal.
        let mut arguments = ours.get_args().skip(1);
        let mut command = azaion_tests::station::command(arguments.next().unwrap().as_ref(), &[]);
        let running = start(command.args(arguments).process_group(0))?;
        SystemClock.sleep(latest.mul_f64(f64::from(u32::try_from(random(1000))?) / 1000.0));
        let since = Instant::now();
        match killpg(Pid::from_raw(running.id().try_into()?), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
        let run = self.bench.station.wait(running)?;
        ensure!(since.elapsed() < SOON, "{:?}: {}", since.elapsed(), run.words());
        // `None`: killed before it handles signals; 0: ended before the signal.
        ensure!(matches!(run.code, Some(0 | 130) | None), "{}", run.words());
        if self.way.beside != Beside::Nothing && run.code == Some(130) {
            archive::sum_is_right(&self.bench.image())?;
        }
        if self.way.verb == "device" {
            let told = self.bench.inspect().ok();
            let is_complete = match password_in(&self.bench.image())? {
                Some(password) if told.as_ref().is_some_and(|told| told["serial"] == SERIAL) => {
                    self.bench.station.api.password_is(EMAIL, &password)
                }
                _ => false,
            };
            let content = |told: &Option<serde_json::Value>| told.as_ref().map(|told| told["email"].clone());
            ensure!(is_complete || content(&told) == content(&before), "neither complete nor undone: {}", run.words());
            ensure!(is_complete || run.code != Some(0), "{}", run.words());
        }
        self.is_whole()?;
        Ok(run.code == Some(130))
    }
}

// Promise: a signal to the process group, at any time and with any kind of image, ends a run with 130 within twelve
// seconds, and its work is complete or undone.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn to_the_group() {
    let signals = std::env::var(SIGNALS).ok().and_then(|signals| signals.parse().ok()).unwrap_or(30);
    for_each(
        &WAYS,
        |way| way.name.to_owned(),
        |way| {
            let trial = Trial::new(way)?;
            let (mut heeded, latest) = (0, trial.duration()?);
            for number in 0..usize::div_ceil(signals, WAYS.len()) {
                let signal = if number % 2 == 0 { Signal::SIGINT } else { Signal::SIGTERM };
                heeded += usize::from(trial.signalled(signal, latest)?);
            }
            println!("{}: {heeded} ended with 130", way.name);
            Ok(())
        },
    );
}
