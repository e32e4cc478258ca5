//! Exit codes of both programs, based on `sysexits.h`.

use std::process::ExitCode;

/// The outcome of a run. The numbers are part of both programs' contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// A serial, or a `device.conf` found in a target, is malformed (`EX_DATAERR`).
    Data = 65,
    /// The target is missing, or of a kind that can't hold a `device.conf` (`EX_NOINPUT`).
    Target = 66,
    /// The API is unreachable (`EX_UNAVAILABLE`).
    Unreachable = 69,
    /// An error in this program (`EX_SOFTWARE`).
    Internal = 70,
    /// The target has another device's file, or the user exists and may not be changed (`EX_CANTCREAT`).
    Exists = 73,
    /// Reading or writing a file failed (`EX_IOERR`).
    Io = 74,
    /// A temporary failure: trying again later may work (`EX_TEMPFAIL`).
    Later = 75,
    /// The server's answer is invalid (`EX_PROTOCOL`).
    Protocol = 76,
    /// Credentials or privileges are refused (`EX_NOPERM`).
    Refused = 77,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
    /// Interrupted by Ctrl-C: 128 plus the signal's number, as in shells.
    Interrupted = 130,
}

impl Exit {
    /// Returns the exit code as a number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Makes a panic end the process with [`Exit::Internal`] instead of a signal, so that the exit code shows an error in this program.
pub fn exit_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::exit(i32::from(Exit::Internal.code()));
    }));
}
