//! Login and token refresh: the request and answer formats of `POST /login` and `POST /token/refresh`.
//!
//! Three generations of the API are in use. None reports its version; their answers differ in their fields and in the spelling of
//! the names (`accessToken`, `access_token`, `AccessToken`).

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::api::fault::{Fault, Limit, Problem};
use crate::api::http::{Answer, ApiClient, Call, Method};
use crate::api::json;

/// The tokens from a login. `Debug` does not show the tokens.
#[derive(Debug)]
pub struct Tokens {
    /// The access token, a JWT.
    pub access: SecretString,
    /// The refresh token, if the server issues them.
    pub refresh: Option<RefreshToken>,
}

/// A refresh token and the name of its field in the answer, which the request has to use.
#[derive(Clone, Debug)]
pub struct RefreshToken {
    /// `refreshToken`, `refresh_token` or `RefreshToken`.
    pub field: String,
    /// The token; it works only once.
    pub token: SecretString,
}

/// Logs in with `POST /login`.
///
/// # Errors
/// There is no answer, or it has no token.
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
    request_tokens(http, "/login", body, limit)
}

/// Renews the tokens with `POST /token/refresh`.
///
/// Never call it twice with the same token: the server ends the session when it sees a used one.
///
/// # Errors
/// There is no answer, or it has no token; the caller has to log in then.
pub fn refresh(http: &dyn ApiClient, refresh: &RefreshToken, limit: Limit) -> Result<(Tokens, Answer), Fault> {
    let body = json::body(&std::collections::BTreeMap::from([(refresh.field.as_str(), refresh.token.expose_secret())]));
    request_tokens(http, "/token/refresh", body, limit)
}

/// Sends a request for tokens.
fn request_tokens(
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

/// A login answer in all spellings. The oldest servers send only `token`; newer ones repeat the access token there.
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

/// Parses the answer to a login or a refresh.
///
/// # Errors
/// The body is not JSON, has no token, or requires a second factor.
pub fn tokens_of(body: &[u8]) -> Result<Tokens, Problem> {
    let answer: LoginAnswer = json::read(body, "an object with the token as a string")?;
    if answer.mfa_required {
        return Err(Problem::Mfa);
    }
    let access = answer.access.or(answer.token).ok_or(Problem::Form("it has no token"))?;
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

    // Promise: the answers of all generations are parsed in every spelling; other answers are classified as invalid or damaged.
    #[test]
    fn parses_every_spelling() {
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

    // Promise: `Debug` never shows a token.
    #[test]
    fn tokens_are_not_shown() {
        let tokens = tokens_of(br#"{"token":"hush","refreshToken":"hush"}"#).unwrap();
        assert!(!format!("{tokens:?}").contains("hush"));
    }
}
