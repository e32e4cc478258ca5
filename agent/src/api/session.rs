//! Logging in and renewing: the wire form of `POST /login` and `POST /token/refresh`.
//!
//! Three generations of the API are in the field at once. None says which it is; their answers differ in
//! what they hold and in how they spell it (`accessToken`, `access_token`, `AccessToken`).

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::api::fault::{Fault, Limit, Problem};
use crate::api::http::{Answer, ApiClient, Call, Method};
use crate::api::json;

/// What a login gives. `Debug` does not show the tokens.
#[derive(Debug)]
pub struct Tokens {
    /// The access token, a JWT.
    pub access: SecretString,
    /// The refresh token, where the server has such.
    pub refresh: Option<RefreshToken>,
}

/// A refresh token and the name of the field that it came in, under which it goes back.
#[derive(Clone, Debug)]
pub struct RefreshToken {
    /// `refreshToken`, `refresh_token` or `RefreshToken`.
    pub field: String,
    /// Works once.
    pub token: SecretString,
}

/// `POST /login`.
///
/// # Errors
/// No answer, or one that gives no token.
pub fn login(
    http: &dyn ApiClient,
    email: &str,
    password: &SecretString,
    limit: Limit,
) -> Result<(Tokens, Answer), Fault> {
    #[derive(Serialize)]
    struct Body<'a> {
        email: &'a str,
        password: &'a str,
    }
    let body = json::body(&Body { email, password: password.expose_secret() });
    ask(http, "/login", body, limit)
}

/// `POST /token/refresh`. Never made twice with the same token: a server that sees a used one ends the session.
///
/// # Errors
/// No answer, or one that gives no token; log in then.
pub fn refresh(http: &dyn ApiClient, refresh: &RefreshToken, limit: Limit) -> Result<(Tokens, Answer), Fault> {
    let body = json::body(&std::collections::BTreeMap::from([(refresh.field.as_str(), refresh.token.expose_secret())]));
    ask(http, "/token/refresh", body, limit)
}

fn ask(
    http: &dyn ApiClient,
    path: &'static str,
    body: Zeroizing<Vec<u8>>,
    limit: Limit,
) -> Result<(Tokens, Answer), Fault> {
    let answer =
        http.call(&Call { method: Method::POST, path, body: Some(body), bearer: None, is_uncached: false }, limit)?;
    let tokens = answer.accept(&[200]).and_then(|body| tokens_of(body).map_err(|problem| answer.fault(problem)))?;
    Ok((tokens, answer))
}

/// A login answer in all its spellings. `token` is all that the oldest servers give, and newer ones repeat there.
#[derive(Deserialize)]
struct LoginAnswer {
    #[serde(alias = "access_token", alias = "AccessToken")]
    #[serde(rename = "accessToken")]
    access: Option<SecretString>,
    #[serde(alias = "Token")]
    token: Option<SecretString>,
    #[serde(rename = "refreshToken")]
    refresh_camel: Option<SecretString>,
    #[serde(rename = "refresh_token")]
    refresh_snake: Option<SecretString>,
    #[serde(rename = "RefreshToken")]
    refresh_pascal: Option<SecretString>,
    #[serde(default, alias = "mfaRequired", alias = "MfaRequired")]
    mfa_required: bool,
}

/// Reads the answer to a login or a refresh.
///
/// # Errors
/// It is no JSON, has no token, or asks for a second factor.
pub fn tokens_of(body: &[u8]) -> Result<Tokens, Problem> {
    let answer: LoginAnswer = json::read(body, "an object with the token as a string")?;
    if answer.mfa_required {
        return Err(Problem::Mfa);
    }
    let access = answer.access.or(answer.token).ok_or(Problem::Form("there is no token in it"))?;
    let refresh = [
        ("refreshToken", answer.refresh_camel),
        ("refresh_token", answer.refresh_snake),
        ("RefreshToken", answer.refresh_pascal),
    ];
    let refresh =
        refresh.into_iter().find_map(|(field, token)| Some(RefreshToken { field: field.into(), token: token? }));
    Ok(Tokens { access, refresh })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: the answers of all generations are read in every spelling, and what is none is told apart.
    #[test]
    fn reads_every_spelling() {
        for (body, expected) in [
            (r#"{"token":"t"}"#, "t -"),
            (r#"{"Token":"t"}"#, "t -"),
            (r#"{"accessToken":"a","refreshToken":"r","token":"a"}"#, "a refreshToken=r"),
            (r#"{"access_token":"a","refresh_token":"r","accessExp":"x"}"#, "a refresh_token=r"),
            (r#"{"AccessToken":"a","RefreshToken":"r","Token":"a"}"#, "a RefreshToken=r"),
            (r#"{"token":"t","refreshToken":null}"#, "t -"),
            (r#"{"mfa_required":true,"mfa_token":"m","expires_in":300}"#, "mfa"),
            ("{}", "form"),
            (r#"{"token":7}"#, "form"),
            (r#"{"token":null}"#, "form"),
            ("[]", "form"),
            (r#""token""#, "form"),
            ("", "not json"),
            ("<html>", "not json"),
            ("404 page not found", "not json"),
            (r#"[{"token""#, "not json"),
            (r#"{"token":"#, "not json"),
        ] {
            let got = match tokens_of(body.as_bytes()) {
                Ok(Tokens { access, refresh: None }) => format!("{} -", access.expose_secret()),
                Ok(Tokens { access, refresh: Some(r) }) => {
                    format!("{} {}={}", access.expose_secret(), r.field, r.token.expose_secret())
                }
                Err(Problem::Mfa) => "mfa".into(),
                Err(Problem::Form(_)) => "form".into(),
                Err(Problem::NotJson) => "not json".into(),
                Err(other) => format!("{other:?}"),
            };
            assert_eq!(got, expected, "{body}");
        }
    }

    // Promise: a token never shows in a `Debug`.
    #[test]
    fn tokens_are_not_shown() {
        let tokens = tokens_of(br#"{"token":"hush","refreshToken":"hush"}"#).unwrap();
        assert!(!format!("{tokens:?}").contains("hush"));
    }
}
