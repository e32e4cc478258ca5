//! The answer to `POST /devices`: an identity that the server has made, with the password, which it says this once.

use azaion_agent::api::json;
use azaion_agent::api::url::is_plain_value;
use azaion_agent::common::device_conf::is_email;
use azaion_agent::common::identity::Identity;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// An identity with its password.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) identity: Identity,
    pub(crate) password: SecretString,
}

/// In all its spellings.
#[derive(Deserialize)]
struct Reply {
    #[serde(alias = "Serial")]
    serial: String,
    #[serde(alias = "Email")]
    email: String,
    #[serde(alias = "Password")]
    password: SecretString,
}

/// Reads the answer.
///
/// # Errors
/// Why it can't be used; with the e-mail, if it is there.
pub(super) fn parse(body: &[u8]) -> Result<Assigned, String> {
    let reply: Reply = json::read(body, "an object with serial, email and password").map_err(|p| p.to_string())?;
    let fits = |text: &str| !text.is_empty() && is_plain_value(text);
    if !fits(&reply.email) || !is_email(&reply.email) {
        return Err("the e-mail in the answer is not one that device.conf can hold".to_owned());
    }
    let what = match () {
        () if !fits(&reply.serial) => "serial",
        () if !fits(reply.password.expose_secret()) => "password",
        () => {
            let identity = Identity { serial: reply.serial, email: reply.email };
            return Ok(Assigned { identity, password: reply.password });
        }
    };
    Err(format!("the {what} of {} in the answer is not one that device.conf can hold", reply.email))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: the identity is read in each casing; an answer that device.conf can't hold is refused, its secret is not repeated.
    #[test]
    fn reads_every_spelling() {
        for (body, expected) in [
            (r#"{"Serial":"azj-0007","Email":"azj-0007@azaion.com","Password":"hush"}"#, Ok(())),
            (r#"{"serial":"azj-0007","email":"azj-0007@azaion.com","password":"hush"}"#, Ok(())),
            (r#"{"Serial":"azj-0007","email":"azj-0007@azaion.com","Password":"hush","Id":"x"}"#, Ok(())),
            (
                r#"{"Serial":"azj 7","Email":"azj-0007@azaion.com","Password":"hush"}"#,
                Err("serial of azj-0007@azaion.com"),
            ),
            (
                r#"{"Serial":"azj-0007","Email":"azj-0007@azaion.com","Password":"hu sh"}"#,
                Err("password of azj-0007@azaion.com"),
            ),
            (
                r#"{"Serial":"azj-0007","Email":"azj-0007@azaion.com","Password":""}"#,
                Err("password of azj-0007@azaion.com"),
            ),
            (r#"{"Serial":"azj-0007","Email":"azj-0007","Password":"hush"}"#, Err("e-mail")),
            (r#"{"Serial":"azj-0007","Password":"hush"}"#, Err("expected form")),
            (r#"{"Serial":"azj-0007","Email":"a@b","Password":7}"#, Err("expected form")),
            (r#"{"Serial":"azj-0007","Email":"a@b","#, Err("not JSON")),
            ("", Err("not JSON")),
        ] {
            match (parse(body.as_bytes()), expected) {
                (Ok(assigned), Ok(())) => {
                    let Identity { serial, email } = assigned.identity;
                    assert_eq!((serial.as_str(), email.as_str()), ("azj-0007", "azj-0007@azaion.com"));
                    assert_eq!(assigned.password.expose_secret(), "hush");
                }
                (Err(why), Err(part)) => assert!(why.contains(part) && !why.contains("hu"), "{body}: {why}"),
                (got, _) => panic!("{body}: {:?}", got.map(|assigned| assigned.identity)),
            }
        }
    }
}
