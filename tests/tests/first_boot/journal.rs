//! What the agent's unit has said, and what it has done, by the machine's own clock.

use std::time::Duration;

use azaion_tests::machine::{Machine, pause};
use serde_json::Value;

use super::{AGENT, BOOT, property};

/// An entry of the journal.
#[derive(Debug)]
pub(super) struct Entry {
    /// Seconds since the kernel's start.
    pub(super) at: f64,
    pub(super) message: String,
    /// `AZAION_STATE`, of the entry that ends a run.
    pub(super) state: Option<String>,
}

/// The agent's entries since a time of the machine's clock.
pub(super) fn entries(machine: &mut Machine, since: f64) -> anyhow::Result<Vec<Entry>> {
    let entries = machine.run(&format!(
        "journalctl -b --no-pager -o json --output-fields=MESSAGE,AZAION_STATE SYSLOG_IDENTIFIER=azaion-agent _SYSTEMD_UNIT={AGENT}"
    ))?;
    let entry = |line: &str| {
        let fields: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| fields[name].as_str().map(str::to_owned);
        let at = text("__MONOTONIC_TIMESTAMP")?.parse::<f64>().ok()? / 1e6;
        Some(Entry { at, message: text("MESSAGE")?, state: text("AZAION_STATE") })
    };
    Ok(entries.lines().filter_map(entry).filter(|entry| entry.at > since).collect())
}

/// Waits for the first entry since then that is like this.
pub(super) fn wait_for(machine: &mut Machine, since: f64, is_it: fn(&Entry) -> bool) -> anyhow::Result<Entry> {
    let start = machine.age();
    loop {
        let said = entries(machine, since)?;
        if let Some(entry) = said.into_iter().find(is_it) {
            return Ok(entry);
        }
        if machine.age() > start + BOOT {
            let journal = machine.run("journalctl -b --no-pager -o short-monotonic | tail -n 60")?;
            anyhow::bail!("the agent did not say it: {journal}");
        }
        pause(Duration::from_millis(300));
    }
}

/// A call has failed.
pub(super) fn is_failure(entry: &Entry) -> bool {
    entry.message.contains("; trying again in ") || entry.state.as_deref().is_some_and(|state| state != "ready")
}

/// The device is ready.
pub(super) fn is_ready(entry: &Entry) -> bool {
    entry.state.as_deref() == Some("ready")
}

/// What systemd and the processor have had to do for the agent's unit so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Since the kernel's start.
    at: f64,
    restarts: u32,
    processor_s: f64,
}

impl Work {
    pub(super) fn of(machine: &mut Machine) -> anyhow::Result<Self> {
        let restarts = property(machine, AGENT, "NRestarts")?.parse()?;
        let processor_s = property(machine, AGENT, "CPUUsageNSec")?.parse::<f64>()? / 1e9;
        Ok(Self { at: uptime(machine)?, restarts, processor_s })
    }

    /// Fails if the unit was busy since then, instead of waiting.
    pub(super) fn is_calm_since(&self, before: &Self, said: usize) {
        let (time, restarts) = (self.at - before.at, self.restarts.saturating_sub(before.restarts));
        let share = (self.processor_s - before.processor_s) / time;
        println!("  in {time:.0} s of waiting: {restarts} restarts, {said} entries, {:.1} % of the processor", share * 100.0);
        // A run of a minute ends, and the next one begins; in it, a call every few seconds.
        assert!(f64::from(restarts) <= time / 15.0 + 1.0, "{restarts} restarts in {time:.0} s");
        assert!(said < 60, "{said} entries in {time:.0} s");
    }
}

/// The machine's clock, in seconds since the kernel's start.
pub(super) fn uptime(machine: &mut Machine) -> anyhow::Result<f64> {
    Ok(machine.run("cut -d ' ' -f 1 /proc/uptime")?.parse()?)
}
