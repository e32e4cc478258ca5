//! The states of a device: their names, journal `MESSAGE_ID`s, and the texts of the journal's catalog.

use crate::common::exit::Exit;

use super::outcome::NotReady;

/// A state of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// `AZAION_STATE` in the journal.
    pub name: &'static str,
    /// `MESSAGE_ID` in the journal.
    pub message_id: &'static str,
    /// The catalog's subject; `@FIELD@` stands for a field of the entry (`journalctl(1)`, `--catalog`).
    pub subject: &'static str,
    /// The catalog's paragraphs.
    pub explanation: &'static [&'static str],
}

/// The state for each exit code of a run. `systemd/azaion-agent.catalog` is generated from it.
pub const STATES: [(Exit, State); 6] = [
    (Exit::Done, READY),
    (Exit::Later, WAITING),
    (Exit::Protocol, UNACCEPTABLE),
    (Exit::Refused, REFUSED),
    (Exit::Config, MISCONFIGURED),
    (Exit::Internal, FAULT),
];

const READY: State = State {
    name: "ready",
    message_id: "5d0cf2a5b7c94f0a9be1b1e0a7a4c3d1",
    subject: "The device @AZAION_SERIAL@ is ready",
    explanation: &["The agent holds a valid token of @AZAION_EMAIL@ for the admin API. The loader finds it in \
                    /run/azaion/token.json. /run/azaion/ready.json has the same state, readable for all."],
};

const WAITING: State = State {
    name: "waiting",
    message_id: "0b1f7c8e2f6d4a1c8f9d53a1c2e4b602",
    subject: "The device @AZAION_SERIAL@ is not ready yet",
    explanation: &[
        "The admin API could not be reached, or asked for a later try. No action is needed if the network is \
                    expected to work here: the agent tries again by itself, without end. `azaion-agent status` shows \
                    which step fails.",
    ],
};

/// The state of a device that makes no call because the hold file is there.
pub const HELD: State = State {
    name: "held",
    message_id: "71d8f0c4ae2b4b6f9d35c8e1027a6b07",
    subject: "The device @AZAION_SERIAL@ makes no calls",
    explanation: &[
        "The hold file (hold_file in /etc/azaion/agent.toml, /run/azaion/in-flight unless set) exists, so the \
                    agent neither logs in nor renews a token. It continues by itself when the file is removed.",
    ],
};

const UNACCEPTABLE: State = State {
    name: "unacceptable",
    message_id: "8c3a9e47d15b4e7fa2c06d9b3f81e503",
    subject: "The answer of the admin API to @AZAION_SERIAL@ can't be accepted",
    explanation: &["The server answered, but not with a valid token for this device. Check that AZAION_API_URL in \
                    /etc/azaion/device.conf is the admin API, that the account's role is CompanionPC, and issuer, \
                    audience and signature in /etc/azaion/agent.toml. The agent tries again after some minutes."],
};

const REFUSED: State = State {
    name: "refused",
    message_id: "e27b41d09c6f4b5d8a13f7c5906d2e04",
    subject: "The credentials of @AZAION_SERIAL@ are refused",
    explanation: &["The account @AZAION_EMAIL@ does not exist, is disabled, requires a second factor, or has another \
                    password than /etc/azaion/device.conf. Enable it, or provision the device again. The agent tries \
                    again after an hour, at once when device.conf has changed, or with `azaion-agent boot --now`."],
};

const MISCONFIGURED: State = State {
    name: "misconfigured",
    message_id: "3f96d8b27e0c4c19b5e4a80d17f29c05",
    subject: "The configuration of this device is wrong",
    explanation: &[
        "/etc/azaion/device.conf or /etc/azaion/agent.toml can't be used; the message names file and line. Correct it, \
         or provision the device again.",
        "If the message names two modules, devices were mixed up: this one was flashed with the image of another one, \
         whose credentials are not used here. Flash it with its own image. If the module of the device was replaced, \
         provision its serial again with --module-serial.",
    ],
};

const FAULT: State = State {
    name: "fault",
    message_id: "b94e05c71a3d4f86905c2d7e8b6f1a06",
    subject: "The agent of this device has an internal error",
    explanation: &[
        "A file under /run/azaion or /var/lib/azaion can't be written, or the program has a defect. Check for \
                    a full or read-only file system first, then report the message.",
    ],
};

/// Returns the state after a run that failed with this error.
pub(super) fn state_of(error: &NotReady) -> State {
    if matches!(error, NotReady::Held(_)) { HELD } else { state(error.exit()) }
}

/// Returns the state for an exit code.
pub(super) fn state(exit: Exit) -> State {
    STATES.iter().find(|(other, _)| *other == exit).map_or(FAULT, |(_, state)| *state)
}
