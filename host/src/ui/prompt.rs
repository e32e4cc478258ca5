//! Prompts for a password on the terminal, and always restores the terminal's echo afterwards.

use crate::error::{Result, failure};
use std::fs::File;
use std::io;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use azaion_agent::common::exit::Exit;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_default;
use signal_hook::iterator::Signals;

/// Prompts for a password without echo.
///
/// # Errors
/// 130 after Ctrl-C; 78 if there is no terminal.
pub(crate) fn password(question: &str) -> Result<SecretString> {
    let answer = with_terminal_restored(|| rpassword::prompt_password(question));
    answer.map(SecretString::from).map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => failure(Exit::Interrupted, "interrupted at the prompt for the admin password"),
        _ => failure(Exit::Config, format!("cannot prompt for the admin password: {error}")),
    })
}

/// Runs `ask`, which changes the terminal's settings. A signal that ends the program restores them first.
fn with_terminal_restored<T>(ask: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Ok(before) = Settings::read() else { return ask() };
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let handle = signals.handle();
    thread::scope(|scope| {
        scope.spawn(move || {
            if signals.forever().next().is_some() {
                before.restore();
                exit(Exit::Interrupted.code().into());
            }
        });
        let answer = ask();
        // After the first registration a signal has no default action any more. SIGINT and SIGTERM have their own handlers.
        register_conditional_default(SIGHUP, Arc::new(AtomicBool::new(true)))?;
        handle.close();
        answer
    })
}

/// Settings of the controlling terminal.
struct Settings {
    terminal: File,
    settings: Termios,
}

impl Settings {
    #[expect(clippy::disallowed_methods, reason = "a device file with a fixed name")]
    fn read() -> io::Result<Self> {
        let terminal = File::open("/dev/tty")?;
        let settings = tcgetattr(&terminal)?;
        Ok(Self { terminal, settings })
    }

    fn restore(&self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.settings);
    }
}
