//! Asking for a password on a terminal. However that ends, the terminal shows again what is typed.

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

/// Asks for a password, which is not shown.
///
/// # Errors
/// 130 after Ctrl-C, 78 if there is no terminal to ask on.
pub(crate) fn password(question: &str) -> Result<SecretString> {
    let asked = with_terminal_restored(|| rpassword::prompt_password(question));
    asked.map(SecretString::from).map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => failure(Exit::Interrupted, "interrupted while asking for the admin password"),
        _ => failure(Exit::Config, format!("asking for the admin password: {error}")),
    })
}

/// Does something that changes the terminal's settings. A signal that ends the program puts them back first.
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
        let asked = ask();
        // A signal that has been listened to once does nothing by itself. The others have a listener of their own.
        register_conditional_default(SIGHUP, Arc::new(AtomicBool::new(true)))?;
        handle.close();
        asked
    })
}

/// The settings of the controlling terminal.
struct Settings {
    terminal: File,
    settings: Termios,
}

impl Settings {
    #[expect(clippy::disallowed_methods, reason = "a device by its name")]
    fn read() -> io::Result<Self> {
        let terminal = File::open("/dev/tty")?;
        let settings = tcgetattr(&terminal)?;
        Ok(Self { terminal, settings })
    }

    fn restore(&self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.settings);
    }
}
