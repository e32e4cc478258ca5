//! The format of `history.json`: the last changes of a device's state, which the agent writes and both programs read.
//!
//! A reader takes the file from anywhere, a drive that came back among them: sizes and counts are bounded, and texts are escaped
//! when they are shown.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::api::json;
use crate::common::clock::Timestamp;
use crate::common::plain_text::{escaped, excerpt};

/// Where it lies on the device.
pub const PATH: &str = "/var/lib/azaion/history.json";
/// Changes that are kept.
pub const MOST: usize = 32;
/// Bytes of the file at most; one with the longest texts has less.
pub const LARGEST: usize = 64 * 1024;
/// Bytes of a reason at most.
const LONGEST_REASON: usize = 500;
/// Bytes of a state's name, and of a boot's id, at most.
const LONGEST_NAME: usize = 40;
/// What follows a text that was cut.
const CUT: &str = "…";
/// The names of the columns that a [`Change`] is shown in.
pub const HEADINGS: &str = "time                  state          code  reason";

const VERSION: u32 = 1;

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    /// Time of the change, UTC: the best known true time, which the clock of the device need not show.
    pub time: Timestamp,
    /// The boot in which it happened (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// Seconds since that boot (`CLOCK_BOOTTIME`).
    pub boottime_s: u64,
    /// The new state, as `AZAION_STATE` in the journal.
    pub state: String,
    /// The exit code of the run that ended in it.
    pub code: u8,
    /// Why the device was not ready; absent if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct History {
    /// Version of the format.
    #[cfg_attr(feature = "schema", schemars(extend("const" = VERSION)))]
    version: u32,
    /// The changes of state, the oldest first.
    #[cfg_attr(feature = "schema", schemars(length(max = MOST)))]
    changes: Vec<Change>,
}

/// Why a file is no history. No message repeats its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum HistoryError {
    #[error("it has more than {} KiB", LARGEST / 1024)]
    TooLarge,
    #[error("it is not what azaion-agent writes")]
    Form,
    #[error("it is of version {0}, which is not known here")]
    Version(u32),
}

/// The part of a file that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// A text of at most so many bytes, without control characters.
fn bounded(text: &str, most: usize) -> String {
    let text = escaped(text);
    if text.len() <= most { text.into_owned() } else { excerpt(&text, most - CUT.len()).into_owned() }
}

impl Change {
    /// The same, with texts that are bounded and have no control characters.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            boot_id: bounded(&self.boot_id, LONGEST_NAME),
            state: bounded(&self.state, LONGEST_NAME),
            reason: self.reason.map(|reason| bounded(&reason, LONGEST_REASON)),
            ..self
        }
    }

    /// Whether both are of the same state, for whatever reason.
    pub fn is_same_state(&self, other: &Self) -> bool {
        (&self.state, self.code) == (&other.state, other.code)
    }
}

/// One line of a table for people.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, state, code, reason, .. } = self;
        write!(f, "{time}  {:<13}  {code:>4}", escaped(state))?;
        reason.as_deref().map_or(Ok(()), |reason| write!(f, "  {}", escaped(reason)))
    }
}

impl Default for History {
    fn default() -> Self {
        Self { version: VERSION, changes: Vec::new() }
    }
}

impl History {
    /// Reads the content of a file, from whomever it is.
    ///
    /// # Errors
    /// It is too large, malformed, or of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, HistoryError> {
        if bytes.len() > LARGEST {
            return Err(HistoryError::TooLarge);
        }
        let form = |_| HistoryError::Form;
        match json::read(bytes, "a history").map_err(form)? {
            Versioned { version: VERSION } => {}
            Versioned { version } => return Err(HistoryError::Version(version)),
        }
        let Self { changes, .. } = json::read(bytes, "a history").map_err(form)?;
        let first = changes.len().saturating_sub(MOST);
        Ok(Self { changes: changes.into_iter().skip(first).map(Change::bounded).collect(), ..Self::default() })
    }

    /// The changes, the oldest first; at most [`MOST`].
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The last change.
    pub fn last(&self) -> Option<&Change> {
        self.changes.last()
    }

    /// The same with one more change, and without the oldest if there are too many. Of a state that goes on for other reasons, the
    /// first entry and the last are kept: it must not drive out what was before.
    #[must_use]
    pub fn with(mut self, change: Change) -> Self {
        if let [.., first, last] = &self.changes[..]
            && first.is_same_state(last)
            && last.is_same_state(&change)
        {
            self.changes.pop();
        }
        self.changes.push(change.bounded());
        let first = self.changes.len().saturating_sub(MOST);
        self.changes.drain(..first);
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::common::plain_text::{is_control, write_json};

    fn change(reason: Option<&str>) -> Change {
        Change {
            time: Timestamp::from_unix(1_777_802_400),
            boot_id: "b".to_owned(),
            boottime_s: 7,
            state: "waiting".to_owned(),
            code: 75,
            reason: reason.map(str::to_owned),
        }
    }

    fn written(history: &History) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_json(&mut bytes, history).unwrap();
        bytes
    }

    // Promise: a history has the names of the contract, and a row for people is one line.
    #[test]
    fn the_form() {
        let history = History::default().with(change(Some("no \u{1b}route"))).with(Change { code: 0, ..change(None) });
        let expected = r#"{"version":1,"changes":[{"time":"2026-05-03T10:00:00Z","boot_id":"b","boottime_s":7,"state":"waiting","code":75,"reason":"no \\u{1b}route"},{"time":"2026-05-03T10:00:00Z","boot_id":"b","boottime_s":7,"state":"waiting","code":0}]}"#;
        assert_eq!(String::from_utf8(written(&history)).unwrap(), expected);
        let rows: Vec<String> = history.changes().iter().map(Change::to_string).collect();
        assert_eq!(
            rows,
            ["2026-05-03T10:00:00Z  waiting          75  no \\u{1b}route", "2026-05-03T10:00:00Z  waiting           0"]
        );
    }

    // Promise: what is damaged, of another program or of a later version is an error that repeats nothing of it; what is too
    // large is not read.
    #[test]
    fn other_files() {
        for (text, expected) in [
            ("", HistoryError::Form),
            ("{", HistoryError::Form),
            ("[]", HistoryError::Form),
            (r#"{"version":1}"#, HistoryError::Form),
            (r#"{"version":1,"changes":[{}]}"#, HistoryError::Form),
            (r#"{"version":1,"changes":[],"changes":[]}"#, HistoryError::Form),
            (r#"{"version":2,"changes":"hush"}"#, HistoryError::Version(2)),
            (&" ".repeat(LARGEST + 1), HistoryError::TooLarge),
        ] {
            let error = History::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error, expected, "{text:.40}");
            assert!(!error.to_string().contains("hush"));
        }
        let unknown = r#"{"version":1,"changes":[],"more":{"a":[1]}}"#;
        assert_eq!(History::parse(unknown.as_bytes()).unwrap(), History::default());
        assert_eq!(History::parse(&written(&History::default().with(change(None)))).unwrap().changes(), [change(None)]);
    }

    // Promise: of a state that goes on for other reasons, the first entry and the last stay, whatever was before.
    #[test]
    fn a_state_that_goes_on() {
        let other = Change { state: "refused".to_owned(), code: 77, ..change(None) };
        let reasons = (0..100).map(|number| change(Some(&number.to_string())));
        let history = reasons.fold(History::default().with(other.clone()), History::with).with(other.clone());
        assert_eq!(history.changes(), [other.clone(), change(Some("0")), change(Some("99")), other]);
    }

    proptest! {
        // Promise: whatever texts there are and however many, a history stays within its bounds, keeps the last changes in
        // their order, fits into a file that is read again as it was, and shows no control character.
        #[test]
        fn bounds(texts in prop::collection::vec(".{0,700}", 0..50)) {
            let mut history = History::default();
            for (number, text) in (0..).zip(&texts) {
                let (state, boot_id, reason) = (format!("{number}{text}"), text.clone(), Some(text.clone()));
                history = history.with(Change { boottime_s: number, state, boot_id, reason, ..change(None) });
            }
            prop_assert_eq!(history.changes().len(), texts.len().min(MOST));
            let numbers = history.changes().iter().map(|change| change.boottime_s);
            prop_assert!(numbers.eq((0..texts.len() as u64).skip(texts.len().saturating_sub(MOST))));
            for change in history.changes() {
                prop_assert!(change.reason.as_ref().is_some_and(|reason| reason.len() <= LONGEST_REASON));
                prop_assert!(change.state.len() <= LONGEST_NAME && change.boot_id.len() <= LONGEST_NAME);
                prop_assert!(!change.to_string().contains(is_control));
            }
            let bytes = written(&history);
            prop_assert!(bytes.len() <= LARGEST);
            prop_assert_eq!(History::parse(&bytes).unwrap(), history);
        }

        // Promise: no bytes make the reader panic.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = History::parse(&bytes);
        }
    }
}
