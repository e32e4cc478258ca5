//! The format of `history.json`: the most recent changes of a device's state. The agent writes it, both programs read it.
//!
//! The file may come from an untrusted source, such as the drive of a returned device: sizes and counts are bounded, and texts are
//! escaped when they are shown.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::api::json;
use crate::common::clock::Timestamp;
use crate::common::plain_text::{escaped, excerpt};

/// The file's path on the device.
pub const PATH: &str = "/var/lib/azaion/history.json";
/// Maximum number of changes in the file.
pub const MOST: usize = 32;
/// Maximum size of the file in bytes; a file with the longest texts is smaller.
pub const LARGEST: usize = 64 * 1024;
/// Maximum length of a reason in bytes.
const LONGEST_REASON: usize = 500;
/// Maximum length of a state's name, and of a boot's id, in bytes.
const LONGEST_NAME: usize = 40;
/// Appended to a text that was cut.
const CUT: &str = "…";
/// The table header for [`Change`]s.
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

/// The content of the file.
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

/// Why a file is not a valid history. No message repeats its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum HistoryError {
    #[error("it is larger than {} KiB", LARGEST / 1024)]
    TooLarge,
    #[error("it is not a history that azaion-agent wrote")]
    Form,
    #[error("its format version {0} is not supported")]
    Version(u32),
}

/// The field that every version of the format has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Returns at most `most` bytes of a text, without control characters.
fn bounded(text: &str, most: usize) -> String {
    let text = escaped(text);
    if text.len() <= most { text.into_owned() } else { excerpt(&text, most - CUT.len()).into_owned() }
}

impl Change {
    /// Returns this change with its texts cut to their limits and without control characters.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            boot_id: bounded(&self.boot_id, LONGEST_NAME),
            state: bounded(&self.state, LONGEST_NAME),
            reason: self.reason.map(|reason| bounded(&reason, LONGEST_REASON)),
            ..self
        }
    }

    /// Whether both changes have the same state and code; the reasons may differ.
    pub fn is_same_state(&self, other: &Self) -> bool {
        (&self.state, self.code) == (&other.state, other.code)
    }
}

/// Formats one line of the table for people.
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
    /// Parses the content of a file from an untrusted source.
    ///
    /// # Errors
    /// The content is too large, malformed, or has another format version.
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

    /// Returns the changes, the oldest first; at most [`MOST`].
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Returns the most recent change.
    pub fn last(&self) -> Option<&Change> {
        self.changes.last()
    }

    /// Returns this history with one more change, and without the oldest if there are too many.
    ///
    /// Of a state that continues with other reasons, only the first and the last entry are kept, so that it does not displace the
    /// changes before it.
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

    // Promise: the JSON has the field names of the contract, and a table row is one line.
    #[test]
    fn field_names_and_rows() {
        let history = History::default().with(change(Some("no \u{1b}route"))).with(Change { code: 0, ..change(None) });
        let expected = r#"{"version":1,"changes":[{"time":"2026-05-03T10:00:00Z","boot_id":"b","boottime_s":7,"state":"waiting","code":75,"reason":"no \\u{1b}route"},{"time":"2026-05-03T10:00:00Z","boot_id":"b","boottime_s":7,"state":"waiting","code":0}]}"#;
        assert_eq!(String::from_utf8(written(&history)).unwrap(), expected);
        let rows: Vec<String> = history.changes().iter().map(Change::to_string).collect();
        assert_eq!(
            rows,
            ["2026-05-03T10:00:00Z  waiting          75  no \\u{1b}route", "2026-05-03T10:00:00Z  waiting           0"]
        );
    }

    // Promise: a file that is damaged, too large, of another program or of a later version is an error that repeats nothing of it.
    #[test]
    fn invalid_files_are_refused() {
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

    // Promise: of a state that continues with other reasons, the first and the last entry stay, and so does the change before.
    #[test]
    fn a_continuing_state_has_two_entries() {
        let other = Change { state: "refused".to_owned(), code: 77, ..change(None) };
        let reasons = (0..100).map(|number| change(Some(&number.to_string())));
        let history = reasons.fold(History::default().with(other.clone()), History::with).with(other.clone());
        assert_eq!(history.changes(), [other.clone(), change(Some("0")), change(Some("99")), other]);
    }

    proptest! {
        // Promise: for any number of any texts, a history stays within its bounds, keeps the last changes in order, survives
        // writing and reading, and shows no control character.
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

        // Promise: no input makes the parser panic.
        #[test]
        fn the_parser_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = History::parse(&bytes);
        }
    }
}
