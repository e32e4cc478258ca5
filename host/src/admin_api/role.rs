//! How the role of a new user is written. Some documents of the API show its name, others its number; a server without a converter
//! of names answers 400 to one, and the first user of a run finds out.

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

/// What this run has learned of it.
#[derive(Debug, Default)]
pub(super) struct LearnedForm {
    by_number: AtomicBool,
    is_checked: AtomicBool,
}

impl LearnedForm {
    /// The form to begin with.
    pub(super) fn form(&self) -> Role {
        if self.by_number.load(Ordering::Relaxed) { Role::NUMBER } else { Role::NAME }
    }

    /// The API has taken the number.
    pub(super) fn takes_number(&self) {
        self.by_number.store(true, Ordering::Relaxed);
    }

    /// Whether users are made by a number of which nobody has seen yet that it means this role.
    pub(super) fn is_to_be_checked(&self) -> bool {
        self.form() == Role::NUMBER && !self.is_checked.load(Ordering::Relaxed)
    }

    /// A user that was made by the number has this role.
    pub(super) fn is_right(&self) {
        self.is_checked.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: the role goes out as `"CompanionPC"` or as 30; a number is checked once in a run.
    #[test]
    fn forms() {
        let texts = [Role::NAME, Role::NUMBER].map(|role| serde_json::to_string(&role).unwrap());
        assert_eq!(texts, ["\"CompanionPC\"", "30"]);
        let learned = LearnedForm::default();
        assert!(learned.form() == Role::NAME && !learned.is_to_be_checked());
        learned.takes_number();
        assert!(learned.form() == Role::NUMBER && learned.is_to_be_checked());
        learned.is_right();
        assert!(learned.form() == Role::NUMBER && !learned.is_to_be_checked());
    }
}
