//! Asking for a password on a terminal. However that ends, the terminal shows again what is typed.

use crate::error::{Result, failure};
use std::fs::File;
use std::io;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use azaion_agent::exit::Exit;
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
        restore_signals()?;
        handle.close();
        asked
    })
}

/// Whether Ctrl-C and SIGTERM end the program, now that the prompt no longer listens.
static ENDS_THE_PROGRAM: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Makes signals do what they did before the prompt: a signal that has been listened to once does nothing by itself.
fn restore_signals() -> io::Result<()> {
    ENDS_THE_PROGRAM.store(true, Ordering::Relaxed);
    for signal in [SIGINT, SIGTERM] {
        register_conditional_default(signal, Arc::clone(&ENDS_THE_PROGRAM))?;
    }
    register_conditional_default(SIGHUP, Arc::new(AtomicBool::new(true))).map(drop)
}

/// Leaves Ctrl-C and SIGTERM to another listener.
pub(crate) fn leave_signals() {
    ENDS_THE_PROGRAM.store(false, Ordering::Relaxed);
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
