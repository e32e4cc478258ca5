//! The role of a new account, by name or by number. The API's documents show both. A server without a converter for names answers 400
//! to a name; the first request of a run detects that.

use std::sync::atomic::{AtomicBool, Ordering};

use azaion_agent::common::identity::{ROLE, ROLE_NUMBER};
use serde::Serialize;

/// The role in the body of `POST /users`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Role {
    Name(&'static str),
    Number(u32),
}

impl Role {
    pub(super) const NAME: Self = Self::Name(ROLE);
    pub(super) const NUMBER: Self = Self::Number(ROLE_NUMBER);
}

/// The form of the role that this server accepts, as learned in this run.
#[derive(Debug, Default)]
pub(super) struct LearnedForm {
    is_by_number: AtomicBool,
    is_confirmed: AtomicBool,
}

impl LearnedForm {
    /// Returns the form to use.
    pub(super) fn form(&self) -> Role {
        if self.is_by_number.load(Ordering::Relaxed) { Role::NUMBER } else { Role::NAME }
    }

    /// Records that the API accepts the number.
    pub(super) fn set_by_number(&self) {
        self.is_by_number.store(true, Ordering::Relaxed);
    }

    /// Returns whether the number is used and not yet confirmed to mean this role.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.form() == Role::NUMBER && !self.is_confirmed.load(Ordering::Relaxed)
    }

    /// Records that an account created with the number has this role.
    pub(super) fn confirm(&self) {
        self.is_confirmed.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: the role is sent as `"CompanionPC"` or as 30; the number is confirmed once in a run.
    #[test]
    fn forms() {
        let texts = [Role::NAME, Role::NUMBER].map(|role| serde_json::to_string(&role).unwrap());
        assert_eq!(texts, ["\"CompanionPC\"", "30"]);
        let learned = LearnedForm::default();
        assert!(learned.form() == Role::NAME && !learned.is_unconfirmed());
        learned.set_by_number();
        assert!(learned.form() == Role::NUMBER && learned.is_unconfirmed());
        learned.confirm();
        assert!(learned.form() == Role::NUMBER && !learned.is_unconfirmed());
    }
}
