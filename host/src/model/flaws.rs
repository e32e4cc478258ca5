//! Deliberate faults of the code. Each must break a promise; otherwise the model check would miss such a fault.
//!
//! They change the effects between the code and its targets and API, so the code itself needs no hooks.

use std::time::Instant;

use super::explore::explore;
use super::host::Mode;
use super::sizes::{Size, Start, flawed};

/// A deliberate fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Flaw {
    /// The password is written only after the request to the API.
    WritesAfterAsking,
    /// No login after the API replied that the user exists.
    SkipsLogin,
    /// A new password although the target has one.
    DrawsAgain,
    /// The targets are not restored.
    NeverRestores,
    /// The targets are cleared even if the API may have the password.
    AlwaysRestores,
    /// `POST /devices` is repeated after a lost reply.
    AsksTwice,
    /// The password of a file that is not used is not tried before the user is deleted.
    DeletesUnchecked,
    /// The password in the target is not tried before the user is deleted.
    RecreatesWorking,
    /// A refused login counts as a success.
    BelievesRefusals,
    /// No warning that another device can no longer log in.
    WarnsNever,
    /// No intent before `POST /devices`.
    NoIntent,
    /// A message with a password.
    LogsPassword,
    /// Former fault: the warning that a device can no longer log in comes after the run has succeeded.
    WarnsAfterwards,
    /// Former fault: a deletion is repeated after a lost reply.
    DeletesTwice,
    /// Former fault: the target is restored after a deletion whose reply was lost, although an earlier request to create the user may still
    /// be carried out.
    ForgetsRequest,
    /// Former fault: an intent is cleared without a warning.
    ClearsSilently,
}

// Promise: each deliberate fault is found within a minute.
#[test]
fn each_flaw_is_found() {
    for (flaw, mode, start, sets_passwords) in [
        (Flaw::WritesAfterAsking, Mode::Update, Start::Empty, true),
        (Flaw::SkipsLogin, Mode::Refuse, Start::Empty, true),
        (Flaw::DrawsAgain, Mode::Update, Start::Empty, true),
        (Flaw::NeverRestores, Mode::Refuse, Start::LostUser, true),
        (Flaw::AlwaysRestores, Mode::Update, Start::Empty, true),
        (Flaw::AsksTwice, Mode::Assigned, Start::Empty, true),
        (Flaw::DeletesUnchecked, Mode::Recreate, Start::Doubtful, false),
        (Flaw::RecreatesWorking, Mode::Recreate, Start::Empty, false),
        (Flaw::BelievesRefusals, Mode::Update, Start::LostUser, true),
        (Flaw::WarnsNever, Mode::Update, Start::Empty, true),
        (Flaw::NoIntent, Mode::Assigned, Start::Empty, true),
        (Flaw::LogsPassword, Mode::Update, Start::Empty, true),
        (Flaw::WarnsAfterwards, Mode::Update, Start::Empty, true),
        (Flaw::DeletesTwice, Mode::Recreate, Start::LostUser, false),
        (Flaw::ClearsSilently, Mode::Assigned, Start::Empty, true),
        (Flaw::ForgetsRequest, Mode::Recreate, Start::LostUser, false),
    ] {
        let begin = Instant::now();
        let size: Size = flawed(flaw, mode, start, sets_passwords);
        let violation = explore(&size).expect_err(&format!("{flaw:?} is not found"));
        println!("{flaw:?}: found after {} ms: {}", begin.elapsed().as_millis(), violation.why);
        assert!(begin.elapsed().as_secs() < 60, "{flaw:?}");
    }
}
