//! The journal of the agent's unit and its resource use, by the machine's own clock.

use std::time::{Duration, Instant};

use anyhow::ensure;
use azaion_tests::machine::{Machine, pause};
use serde_json::Value;

use super::{AGENT, BOOT, property};

const READY_JSON: &str = "/run/azaion/ready.json";

/// An entry of the journal.
#[derive(Debug)]
pub(super) struct Entry {
    /// Seconds since the kernel's start.
    pub(super) at: f64,
    #[expect(dead_code, reason = "messages of failed tests have it")]
    message: String,
    /// `AZAION_STATE`, of the entry that ends a run.
    state: Option<String>,
}

impl Entry {
    pub(super) fn is_ready(&self) -> bool {
        self.state.as_deref() == Some("ready")
    }
}

/// Returns the agent's entries since a time of the machine's clock.
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

/// Waits until `ready.json` says that the device is not ready, with these words; returns the time on the machine's
/// clock.
pub(super) fn not_ready(machine: &mut Machine, words: &str) -> anyhow::Result<f64> {
    machine.run_until(&format!("grep '\"ready\":false' {READY_JSON} | cat"), words, BOOT)?;
    uptime(machine)
}

/// Waits until `ready.json` says that the device is ready; returns the time of the journal entry on the machine's
/// clock.
pub(super) fn became_ready(machine: &mut Machine, since: f64, limit: Duration) -> anyhow::Result<f64> {
    machine.run_until(&format!("cat {READY_JSON}"), "\"ready\":true", limit)?;
    // The file is written before the entry.
    let until = Instant::now() + BOOT;
    loop {
        let entries = entries(machine, since)?;
        if let Some(entry) = entries.iter().find(|entry| entry.is_ready()) {
            return Ok(entry.at);
        }
        ensure!(Instant::now() < until, "ready.json says ready, but the journal does not: {entries:?}");
        pause(Duration::from_millis(500));
    }
}

/// The starts and the CPU time of the agent's unit so far.
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

    /// Fails if the unit was active instead of waiting since then.
    pub(super) fn is_calm_since(&self, before: &Self, said: usize) {
        let (time, restarts) = (self.at - before.at, self.restarts.saturating_sub(before.restarts));
        let share = (self.processor_s - before.processor_s) / time;
        println!(
            "  in {time:.0} s of waiting: {restarts} restarts, {said} entries, {:.1} % of the processor",
            share * 100.0
        );
        // A run ends each minute, and the next one begins; each logs why it waits, and how it ended.
        assert!(f64::from(restarts) <= time / 30.0 + 1.0, "{restarts} restarts in {time:.0} s");
        assert!(said <= 2 * (restarts as usize + 1), "{said} entries with {restarts} restarts");
        assert!(share < 0.05, "{:.1} % of the processor", share * 100.0);
    }
}

/// Returns the machine's clock, in seconds since the kernel's start.
pub(super) fn uptime(machine: &mut Machine) -> anyhow::Result<f64> {
    Ok(machine.run("cut -d ' ' -f 1 /proc/uptime")?.parse()?)
}
