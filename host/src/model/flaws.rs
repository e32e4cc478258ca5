//! Deliberate faults: a run as it would be if the code had them. Each breaks a promise, or the check would see nothing.
//!
//! They change what passes between the code and its targets and API, so that the code itself needs no hook for them.

use std::time::Instant;

use super::explore::explore;
use super::host::Mode;
use super::sizes::{Size, Start, flawed};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Flaw {
    /// The password is written only after the API was asked.
    WritesAfterAsking,
    /// No login after the API has said that the user exists.
    SkipsLogin,
    /// A new password although one is in the target.
    DrawsAgain,
    /// The targets are not restored.
    NeverRestores,
    /// The targets are cleared also where the API may have the password.
    AlwaysRestores,
    /// `POST /devices` once more after a reply that was lost.
    AsksTwice,
    /// The password of a file that is not used is not tried before the user is deleted.
    DeletesUnchecked,
    /// The password in the target is not tried before the user is deleted.
    RecreatesWorking,
    /// A login that was refused counts as one.
    BelievesRefusals,
    /// Nobody is told that another device can't log in any more.
    SaysNothing,
    /// No intent before `POST /devices`.
    NoIntent,
    /// A message with a password.
    TellsPassword,
    /// As the code was: the warning of a device that can no longer log in comes after the run has succeeded.
    SaysAfterwards,
    /// As the code was: a deletion is repeated after a reply that was lost.
    DeletesTwice,
    /// As the code was: the target is restored after a deletion whose reply was lost, though an earlier request to make the user may still
    /// be carried out.
    ForgetsRequest,
    /// As the code was: an intent is cleared without a word.
    ClearsSilently,
}

// Promise: each deliberate fault is found, within a minute.
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
        (Flaw::SaysNothing, Mode::Update, Start::Empty, true),
        (Flaw::NoIntent, Mode::Assigned, Start::Empty, true),
        (Flaw::TellsPassword, Mode::Update, Start::Empty, true),
        (Flaw::SaysAfterwards, Mode::Update, Start::Empty, true),
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
