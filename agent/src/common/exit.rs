//! Exit codes of both programs, after `sysexits.h`.

use std::process::ExitCode;

/// How a run ended. The numbers are part of both programs' contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All done.
    Done = 0,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// A serial, or a `device.conf` found in a target, is malformed (`EX_DATAERR`).
    Data = 65,
    /// The target is missing, or of a kind that can't take a `device.conf` (`EX_NOINPUT`).
    Target = 66,
    /// The API is out of reach (`EX_UNAVAILABLE`).
    Unreachable = 69,
    /// A fault of ours (`EX_SOFTWARE`).
    Internal = 70,
    /// Another device's file is there, or the user exists and may not be changed (`EX_CANTCREAT`).
    Exists = 73,
    /// Reading or writing a file failed (`EX_IOERR`).
    Io = 74,
    /// Not now: trying again later may work (`EX_TEMPFAIL`).
    Later = 75,
    /// The server's answer can't be accepted (`EX_PROTOCOL`).
    Protocol = 76,
    /// Credentials or privileges are refused (`EX_NOPERM`).
    Refused = 77,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
    /// Somebody pressed Ctrl-C: 128 and the signal's number, as shells have it.
    Interrupted = 130,
}

impl Exit {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Makes a panic end the process with [`Exit::Internal`] instead of a signal, so that whoever reads the
/// exit code learns that the fault is ours.
pub fn exit_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::exit(i32::from(Exit::Internal.code()));
    }));
}
