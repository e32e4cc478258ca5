//! Classifies HTTP statuses and the API's error codes, and explains them in messages.

use super::Class;

/// Classifies an error status; `code` is that of the API's error object (`json::error_code`), if the answer is one.
///
/// Only an error object of the API is a refusal: proxies, firewalls and portals also answer with 401, 403 and 409, but know nothing
/// about the credentials. The codes are: 10 no such e-mail, 30 wrong password, 37 wrong e-mail, 38 disabled, 70 any of these. They
/// are documented with 409 (until 13 May 2026) and 401 (70, since 14 May); for 37, and for a validation (400), a missing user (404)
/// or a disabled one (403), no source names the status, so each of the five counts. With any other status the code is ignored: 423,
/// 429 and 5xx mean "later" with any content. A 401 with `Retry-After` is a rate limit or a lock.
pub fn class_of(status: u16, code: Option<u32>, asks_to_wait: bool) -> Class {
    match (status, code) {
        (401, _) if asks_to_wait => Class::Later,
        (400 | 401 | 403 | 404 | 409, Some(10 | 30 | 37 | 38 | 70)) => Class::Refused,
        (407 | 408 | 423 | 425 | 429 | 500..=599, _) => Class::Later,
        _ => Class::Protocol,
    }
}

/// Whether an answer with this status comes from the API only if it is the API's error object.
pub(crate) fn needs_error_object(status: u16) -> bool {
    matches!(status, 401 | 403 | 409)
}

/// Formats an error code for messages; empty without one.
pub(super) fn code_text(code: Option<u32>) -> String {
    code.map_or(String::new(), |code| format!(", error code {code}"))
}

/// Returns what happened and what to do, by status and error code. A refusal without a code concerns a token (the host's admin).
pub(super) fn hint(status: u16, code: Option<u32>, class: Class) -> &'static str {
    match (status, code, class) {
        (401, _, Class::Later) => ": the API asks to wait; too many logins, or the account is temporarily locked",
        (407, ..) => ": a proxy requires its own login; configure the proxy to accept this machine by its IP address",
        (423, ..) => ": the account is temporarily locked",
        (429, ..) => ": too many logins or other calls from this address; try again later",
        (408 | 425 | 500..=599, ..) => ": the API is temporarily unavailable",
        (_, Some(10 | 37), Class::Refused) => ": there is no account with this e-mail; create it on the admin API",
        (_, Some(30), Class::Refused) => ": the password is wrong; the account has another password",
        (_, Some(38), Class::Refused) => ": the account is disabled; enable it on the admin API",
        (_, Some(70), Class::Refused) => {
            ": the credentials are refused; check on the admin API that the account exists, is enabled and has this password"
        }
        (401, _, Class::Refused) => ": the token is not accepted",
        (403, _, Class::Refused) => ": not permitted for this account",
        (_, Some(10), _) => ": no account with this e-mail",
        (_, Some(20), _) => ": an account with this e-mail exists",
        (_, Some(50), _) => ": the account is temporarily locked",
        (_, Some(51), _) => ": too many logins from this address; try again later",
        (_, Some(52), _) => ": the refresh token is not accepted",
        (401 | 403 | 409, None, _) => {
            ": this is not an error of the API (it lacks ErrorCode or Message), so a proxy, a firewall or a gateway may intercept the \
             connection; have it let this machine through, or correct the API URL"
        }
        (400, None, _) => ": the request is not accepted, and no error code says why",
        (404, ..) => ": no such route; check the API URL",
        _ => "",
    }
}
