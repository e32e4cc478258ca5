//! Reports the outcome of a run to the journal, to systemd (`STATUS=`) and on the console (one line).
//!
//! All control characters are escaped: systemd would read a newline in a message as another assignment (`MAINPID=`).

use std::io::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};
use sd_notify::NotifyState;
use systemd_journal_logger::{JournalLog, connected_to_journal};

use crate::api::fault::chain;
use crate::common::exit::Exit;
use crate::common::plain_text::{escaped, excerpt};
use crate::common::stderr_log::{self, StandardError};

use super::outcome::{NotReady, Ready};
use super::readiness::Readiness;
use super::states::{State, state, state_of};

/// The maximum length of `STATUS=` in bytes. systemd drops a message of more than 4096.
const LONGEST_STATUS: usize = 2048;

/// Starts logging: to the journal if standard error is connected to it, else to standard error.
pub fn start_log(verbose: u8) {
    let journal = is_unit().then(JournalLog::new).and_then(Result::ok);
    // Setting the logger fails only if one is set already. This is called first, and once.
    let _ = match journal {
        Some(journal) => {
            log::set_boxed_logger(Box::new(Journal(journal.with_syslog_identifier("azaion-agent".to_owned()))))
        }
        None => log::set_logger(&StandardError),
    };
    log::set_max_level(stderr_log::level(LevelFilter::Info, verbose));
}

/// A logger that writes the messages of our own code to the journal.
struct Journal(JournalLog);

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        stderr_log::is_ours(metadata) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = record.args().to_string();
            self.0.log(
                &Record::builder()
                    .metadata(record.metadata().clone())
                    .args(format_args!("{}", escaped(&text)))
                    .module_path(record.module_path())
                    .file(record.file())
                    .line(record.line())
                    .key_values(record.key_values())
                    .build(),
            );
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Returns whether systemd runs this as a unit: standard error is the journal and standard output the console.
pub fn is_unit() -> bool {
    connected_to_journal()
}

/// Reports the outcome of a run to the journal, to systemd and on the console.
pub fn outcome(result: &Result<Ready, NotReady>, who: Option<&Readiness>) {
    match result {
        Ok(ready) => report_ready(ready),
        Err(error) => {
            let text = escaped(&format!("{} is not ready: {}", name_of(who), chain(error))).into_owned();
            // Being held is no error.
            let level = if matches!(error, NotReady::Held(_)) { Level::Info } else { Level::Error };
            journal(level, (state_of(error), error.exit()), who, &text);
            status(&text);
        }
    }
}

fn report_ready(ready: &Ready) {
    let text = text_of(ready);
    if let Some(renewal_error) = &ready.renewal_error {
        log::warn!("cannot renew the token, which is still valid: {renewal_error}");
    }
    status(&text);
    if is_unit() {
        journal_ready(ready, &text);
    }
    // The standard output of a unit is the console, which is not for a renewal every few minutes.
    if ready.is_first_report || !is_unit() {
        let _ = writeln!(io::stdout().lock(), "azaion: {text}");
    }
}

fn text_of(ready: &Ready) -> String {
    let readiness = &ready.readiness;
    let signature = readiness.signature.map(|s| format!(", signature {s}")).unwrap_or_default();
    let until = readiness.expires_at.map(|t| format!(", token until {t}")).unwrap_or_default();
    escaped(&format!("{} is ready{until}{signature}", name_of(Some(readiness)))).into_owned()
}

/// Logs a run for a client of the socket to the journal, if it made the device ready or renewed the token.
pub fn renewal(ready: &Ready) {
    journal_ready(ready, &text_of(ready));
}

/// Logs a ready device to the journal, unless the token is the same as in the last run.
fn journal_ready(ready: &Ready, text: &str) {
    if ready.is_first_report || ready.is_renewed {
        journal(Level::Info, (state(Exit::Done), Exit::Done), Some(&ready.readiness), text);
    }
}

fn name_of(who: Option<&Readiness>) -> &str {
    who.and_then(|who| who.serial.as_deref().or(who.email.as_deref())).unwrap_or("this device")
}

fn journal(level: Level, (state, exit): (State, Exit), who: Option<&Readiness>, text: &str) {
    let serial = who.and_then(|who| who.serial.as_deref()).unwrap_or_default();
    let email = who.and_then(|who| who.email.as_deref()).unwrap_or_default();
    let State { name, message_id, .. } = state;
    log::log!(
        level,
        MESSAGE_ID = message_id,
        AZAION_SERIAL = escaped(serial).as_ref(),
        AZAION_EMAIL = escaped(email).as_ref(),
        AZAION_STATE = name,
        AZAION_EXIT_CODE = exit.code();
        "{text}"
    );
}

/// Sends `STATUS=` to systemd (`sd_notify(3)`). Without systemd this does nothing.
fn status(text: &str) {
    let text = escaped(text);
    if let Err(error) = sd_notify::notify(&[NotifyState::Status(&excerpt(&text, LONGEST_STATUS))]) {
        log::debug!("cannot send STATUS= to systemd: {error}");
    }
}
