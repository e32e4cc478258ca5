//! The response to `POST /devices`: an identity created by the server, with its password. The server sends the password only once.

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

/// The response, with keys in each casing that servers use.
#[derive(Deserialize)]
struct Reply {
    #[serde(alias = "Serial")]
    serial: String,
    #[serde(alias = "Email")]
    email: String,
    #[serde(alias = "Password")]
    password: SecretString,
}

/// Parses the response.
///
/// # Errors
/// The response is invalid; the message has the e-mail if there is one.
pub(super) fn parse(body: &[u8]) -> Result<Assigned, String> {
    let reply: Reply = json::read(body, "an object with serial, email and password").map_err(|p| p.to_string())?;
    let is_valid = |text: &str| !text.is_empty() && is_plain_value(text);
    if !is_valid(&reply.email) || !is_email(&reply.email) {
        return Err("the e-mail in the response is not valid in device.conf".to_owned());
    }
    let invalid = match () {
        () if !is_valid(&reply.serial) => "serial",
        () if !is_valid(reply.password.expose_secret()) => "password",
        () => {
            let identity = Identity { serial: reply.serial, email: reply.email };
            return Ok(Assigned { identity, password: reply.password });
        }
    };
    Err(format!("the {invalid} of {} in the response is not valid in device.conf", reply.email))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: the identity is parsed in each casing; values that are not valid in device.conf are refused, without printing the secret.
    #[test]
    fn every_casing_is_parsed() {
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
