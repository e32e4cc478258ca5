//! `history.json`: the outcomes of the runs of the last boots, for a person who examines the device or its drive.
//!
//! Only changes are written, so that a device that waits for months does not wear its flash.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::api::fault::chain;
use crate::common::clock::Timestamp;
use crate::common::exit::Exit;
use crate::common::history::{Change, HEADINGS, History, HistoryError, LARGEST};
use crate::common::plain_text::write_json;
use crate::common::private_file::Lifetime;

use super::files::{Directory, FileError, Readers};
use super::machine::Device;
use super::outcome::{NotReady, Ready};
use super::paths::HISTORY_FILE;
use super::states::{State, state, state_of};

/// The minimum time between two recorded reasons for the same state, in seconds on the boot clock.
const REASON_INTERVAL: u64 = 3600;

/// The error of reading the file.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// Reads the file. A missing file is an empty history.
fn read(state_dir: &Path) -> Result<History, ReadError> {
    let file = match File::open(state_dir.join(HISTORY_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(History::default()),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(History::parse(&bytes)?)
}

/// Reads the file, or starts an empty history if the file can't be used.
fn read_or_replace(state_dir: &Path) -> History {
    read(state_dir).unwrap_or_else(|error| {
        log::warn!("cannot use {}, which will be replaced: {error}", state_dir.join(HISTORY_FILE).display());
        History::default()
    })
}

/// Records the outcome of a run, if it is a change of state. The caller holds the run lock.
pub fn record_outcome(device: &Device, outcome: Result<&Ready, &NotReady>) {
    match outcome {
        // Not a change: the next caller that needs a token makes the device ready again.
        Ok(ready) if !ready.readiness.ready => {}
        Ok(ready) => {
            let State { name, .. } = state(Exit::Done);
            // No change while the device stays ready, unless the last run failed and could not write ready.json.
            let last_differs =
                || read(&device.paths.state_dir()).is_ok_and(|h| h.last().is_some_and(|l| l.state != name));
            if ready.is_first_report || last_differs() {
                // The server has just sent the time. Without it, the clock may be at 1970.
                let now =
                    ready.readiness.since.filter(|_| ready.is_first_report).unwrap_or_else(|| best_known_time(device));
                record(device, now, name, Exit::Done.code(), None);
            }
        }
        Err(error) if error.is_first_report() => {
            let (state, code) = (state_of(error).name, error.exit().code());
            record(device, best_known_time(device), state, code, Some(&chain(error)));
        }
        Err(_) => {}
    }
}

/// Returns the best known true time.
fn best_known_time(device: &Device) -> Timestamp {
    device.true_time(device.configuration().0.ok().as_ref()).now()
}

/// Records a state of the device, if it is a change. A failed write is logged as a warning. The caller holds the run
/// lock.
pub fn record(device: &Device, now: Timestamp, state: &str, code: u8, reason: Option<&str>) {
    let (state_dir, moment) = (device.paths.state_dir(), device.moment());
    let change = Change {
        time: now,
        boot_id: moment.boot_id,
        boottime_s: moment.since_boot.as_secs(),
        state: state.to_owned(),
        code,
        reason: reason.map(str::to_owned),
    };
    let Some(history) = after(read_or_replace(&state_dir), change) else { return };
    if let Err(error) = write(&state_dir, &history) {
        log::warn!("{}", chain(&error));
    }
}

fn write(state_dir: &Path, history: &History) -> Result<(), FileError> {
    Directory::open(state_dir, None, Lifetime::Durable)?.write(HISTORY_FILE, Readers::All, history)
}

/// Returns the history with the change, or `None` if the change is not worth a write.
fn after(history: History, change: Change) -> Option<History> {
    let change = change.bounded();
    let is_worth_it = history.last().is_none_or(|last| {
        let is_later =
            || last.boot_id != change.boot_id || change.boottime_s.saturating_sub(last.boottime_s) >= REASON_INTERVAL;
        !last.is_same_state(&change) || (last.reason != change.reason && is_later())
    });
    is_worth_it.then(|| history.with(change))
}

/// Prints the history, oldest change first, as a table or as one JSON object per line.
pub fn print(device: &Device, json: bool) -> Exit {
    let state_dir = device.paths.state_dir();
    match read(&state_dir) {
        Ok(history) => print_changes(&history, json).map_or(Exit::Internal, |()| Exit::Done),
        Err(error) => {
            log::error!("cannot use {}: {error}", state_dir.join(HISTORY_FILE).display());
            Exit::Internal
        }
    }
}

fn print_changes(history: &History, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return history.changes().iter().try_for_each(|change| {
            write_json(&mut out, change)?;
            writeln!(out)
        });
    }
    if history.changes().is_empty() {
        return writeln!(out, "no change of state is recorded yet");
    }
    writeln!(out, "{HEADINGS}")?;
    history.changes().iter().try_for_each(|change| writeln!(out, "{change}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use nix::unistd::geteuid;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::common::history::MOST;

    fn time() -> Timestamp {
        Timestamp::from_unix(1_777_802_400)
    }

    fn change(boot: u8, boottime_s: u64, state: &str, code: u8, reason: Option<&str>) -> Change {
        let (boot_id, reason) = (boot.to_string(), reason.map(str::to_owned));
        Change { time: time(), boot_id, boottime_s, state: state.to_owned(), code, reason }
    }

    // Promise: a change of state or code is written at once; another reason for the same state once an hour, or in another boot;
    // the same reason never again.
    #[test]
    fn only_changes_are_written() {
        let history = History::default().with(change(1, 100, "waiting", 75, Some("a")));
        for (next, is_written) in [
            (change(1, 101, "ready", 0, None), true),
            (change(1, 101, "waiting", 76, Some("a")), true),
            (change(1, 101, "held", 75, Some("a")), true),
            (change(1, 9999, "waiting", 75, Some("a")), false),
            (change(2, 9999, "waiting", 75, Some("a")), false),
            (change(1, 3699, "waiting", 75, Some("b")), false),
            (change(1, 3700, "waiting", 75, Some("b")), true),
            (change(1, 50, "waiting", 75, Some("b")), false),
            (change(2, 1, "waiting", 75, Some("b")), true),
            (change(2, 1, "waiting", 75, None), true),
        ] {
            assert_eq!(after(history.clone(), next.clone()).is_some(), is_written, "{next:?}");
        }
        // A reason that was cut counts as the same when it occurs again.
        let long = || change(1, 100, "waiting", 75, Some(&"\u{1b}".repeat(900)));
        let history = after(History::default(), long()).unwrap();
        assert_eq!(after(history, Change { boottime_s: 99_999, ..long() }), None);
    }

    fn device() -> (TempDir, Device) {
        let root = tempfile::tempdir().unwrap();
        let device = Device::here(root.path());
        (root, device)
    }

    fn file(root: &TempDir) -> std::path::PathBuf {
        root.path().join("var/lib/azaion/history.json")
    }

    // Promise: the file is created with its directory, readable for all, and is not written while nothing changes.
    #[test]
    fn changes_are_recorded() {
        let (root, device) = device();
        record(&device, time(), "waiting", 75, Some("no route"));
        let first = fs::metadata(file(&root)).unwrap();
        assert_eq!(first.mode() & 0o7777, 0o644);
        record(&device, time(), "waiting", 75, Some("no name"));
        assert_eq!(fs::metadata(file(&root)).unwrap().ino(), first.ino());
        record(&device, time(), "ready", 0, None);
        let history = read(&device.paths.state_dir()).unwrap();
        let states: Vec<&str> = history.changes().iter().map(|change| change.state.as_str()).collect();
        assert_eq!((states, history.changes()[0].reason.as_deref()), (vec!["waiting", "ready"], Some("no route")));
        assert_eq!(fs::read_dir(device.paths.state_dir()).unwrap().count(), 1);
    }

    // Promise: a file that is damaged, of another program or of a later version is replaced; only its content is lost.
    #[test]
    fn unusable_files_are_replaced() {
        for content in ["", "{", "null", "{\"version\":2,\"changes\":[]}", &"x".repeat(LARGEST + 1)] {
            let (root, device) = device();
            fs::create_dir_all(device.paths.state_dir()).unwrap();
            File::create(file(&root)).unwrap().write_all(content.as_bytes()).unwrap();
            record(&device, time(), "ready", 0, None);
            assert_eq!(read(&device.paths.state_dir()).unwrap().changes().len(), 1, "{content:.20}");
        }
    }

    // Promise: a state directory that can't be written, or is no directory, is no error.
    #[test]
    fn an_unusable_directory() {
        let (root, device) = device();
        fs::create_dir_all(root.path().join("var/lib")).unwrap();
        File::create(device.paths.state_dir()).unwrap();
        record(&device, time(), "ready", 0, None);
        if geteuid().is_root() {
            return;
        }
        fs::remove_file(device.paths.state_dir()).unwrap();
        fs::create_dir(device.paths.state_dir()).unwrap();
        fs::set_permissions(device.paths.state_dir(), fs::Permissions::from_mode(0o500)).unwrap();
        record(&device, time(), "ready", 0, None);
        assert!(!file(&root).exists());
    }

    /// States with their exit codes.
    const STATES: [(&str, u8); 4] = [("ready", 0), ("waiting", 75), ("held", 75), ("refused", 77)];

    proptest! {
        // Promise: for any outcomes at any times, the history is in their order and within its bound, its last state is
        // the device's, and there are no more writes than changes of state, boots, and hours.
        #[test]
        fn few_writes(outcomes in prop::collection::vec((0..STATES.len(), 0..3_u8, 0..600_u64, prop::bool::weighted(0.02)), 1..300)) {
            let (mut history, mut writes, mut allowed, mut total) = (History::default(), 0_u64, 1_u64, 0_u64);
            let (mut boot, mut boottime_s, mut previous) = (0_u8, 0, None);
            for (state, reason, pause, is_new_boot) in outcomes {
                boot = boot.wrapping_add(u8::from(is_new_boot));
                boottime_s = if is_new_boot { pause } else { boottime_s + pause };
                total += pause;
                let (name, code) = STATES[state];
                allowed += u64::from(is_new_boot) + u64::from(previous.replace(state) != Some(state));
                let next = change(boot, boottime_s, name, code, Some(&reason.to_string()));
                if let Some(changed) = after(history.clone(), next) {
                    history = changed;
                    writes += 1;
                }
                prop_assert!(history.changes().len() <= MOST);
                prop_assert_eq!(history.last().map(|last| last.state.as_str()), Some(name));
                let order: Vec<_> = history.changes().iter().map(|c| (c.boot_id.parse::<u8>().unwrap(), c.boottime_s)).collect();
                prop_assert!(order.is_sorted());
            }
            prop_assert!(writes <= allowed + total / REASON_INTERVAL, "{} writes, {} allowed", writes, allowed);
        }
    }
}
