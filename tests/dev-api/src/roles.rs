//! The form of roles in JSON.

use clap::ValueEnum;
use serde_json::Value;

/// The numbers of roles. Only that of `CompanionPC` is known; the others are invented, so that a server that uses
/// numbers can represent the users of tests.
const NUMBERS: [(&str, u64); 4] = [("Operator", 10), ("CompanionPC", 30), ("Admin", 40), ("ApiAdmin", 1000)];

/// The form in which the server accepts and returns a role; the form of the real servers is unknown. The claim of a
/// token is the name in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleForm {
    /// The name, such as `"CompanionPC"`; a number is answered with 400.
    Name,
    /// The number, such as 30, as .NET does without a string converter; a name or an unknown number is answered with 400.
    Number,
    /// Accepts both and returns the name, as .NET does with its string converter.
    Either,
}

impl RoleForm {
    /// Parses the role of a request; `None` if this server can't read it. Any word is a name, because not all roles are
    /// known.
    pub(super) fn read(self, role: &Value) -> Option<String> {
        let by_name = || {
            let name = role.as_str()?;
            let is_word = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic());
            is_word.then(|| name.to_owned())
        };
        let by_number = || {
            let wanted = role.as_u64()?;
            NUMBERS.iter().find(|(_, number)| *number == wanted).map(|(name, _)| (*name).to_owned())
        };
        match self {
            Self::Name => by_name(),
            Self::Number => by_number(),
            Self::Either => by_name().or_else(by_number),
        }
    }

    /// Formats the role of an answer; one without a number here is 0.
    pub(super) fn write(self, name: &str) -> Value {
        match self {
            Self::Name | Self::Either => name.into(),
            Self::Number => NUMBERS.iter().find(|(of, _)| *of == name).map_or(0, |(_, number)| *number).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // Promise: each form accepts exactly its own values, and returns the role in its own form.
    #[test]
    fn forms() {
        let device = Some("CompanionPC".to_owned());
        for (form, by_name, by_number, given) in [
            (RoleForm::Name, device.clone(), None, json!("CompanionPC")),
            (RoleForm::Number, None, device.clone(), json!(30)),
            (RoleForm::Either, device.clone(), device, json!("CompanionPC")),
        ] {
            assert_eq!(form.read(&json!("CompanionPC")), by_name, "{form:?}");
            assert_eq!(form.read(&json!(30)), by_number, "{form:?}");
            assert_eq!(form.write("CompanionPC"), given, "{form:?}");
            for other in [json!(31), json!(-1), json!(30.5), json!("30"), json!(""), json!(null), json!([30])] {
                assert_eq!(form.read(&other), None, "{form:?} {other}");
            }
        }
        assert_eq!(RoleForm::Number.write("Gardener"), 0);
    }
}
