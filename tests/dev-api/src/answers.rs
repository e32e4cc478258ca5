//! Answers in the server's casing, and the numeric error codes.

use super::{Casing, Generation, Options};
use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

/// An error code with its status and message in G1 and G2.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: u32,
    pub(super) status: StatusCode,
    pub(super) message: &'static str,
}

const fn problem(code: u32, status: StatusCode, message: &'static str) -> Problem {
    Problem { code, status, message }
}

pub(super) const NO_SUCH_EMAIL: Problem = problem(10, StatusCode::CONFLICT, "No such email found.");
pub(super) const EMAIL_EXISTS: Problem = problem(20, StatusCode::CONFLICT, "Email already exists.");
pub(super) const WRONG_PASSWORD: Problem = problem(30, StatusCode::CONFLICT, "Wrong password.");
// Invalid lengths are errors of the request itself, so they get 400; the 409 errors above are about users that exist or
// don't.
pub(super) const PASSWORD_LENGTH: Problem =
    problem(32, StatusCode::BAD_REQUEST, "Password should be at least 8 characters.");
pub(super) const EMAIL_LENGTH: Problem = problem(35, StatusCode::BAD_REQUEST, "Email should be 8 to 160 characters.");
pub(super) const WRONG_EMAIL: Problem = problem(37, StatusCode::BAD_REQUEST, "Wrong email.");
pub(super) const DISABLED: Problem = problem(38, StatusCode::CONFLICT, "User is disabled.");
pub(super) const OTHER_HARDWARE: Problem = problem(40, StatusCode::CONFLICT, "Hardware mismatch.");
pub(super) const LOCKED: Problem = problem(50, StatusCode::LOCKED, "Account is locked.");
pub(super) const LIMITED: Problem = problem(51, StatusCode::TOO_MANY_REQUESTS, "Too many login attempts.");
pub(super) const INVALID_REFRESH: Problem = problem(52, StatusCode::UNAUTHORIZED, "Invalid refresh token.");
pub(super) const NO_SUCH_SESSION: Problem = problem(53, StatusCode::NOT_FOUND, "No such session found.");
pub(super) const INVALID_CREDENTIALS: Problem = problem(70, StatusCode::UNAUTHORIZED, "Invalid credentials.");

/// An answer before it is serialised to the connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn json(status: StatusCode, body: &Value) -> Self {
        Self { body: body.to_string().into(), ..Self::empty(status) }
            .with("content-type", "application/json; charset=utf-8")
    }

    #[must_use]
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Builds an error body of the API; without a code it has only the message.
    pub(super) fn error(casing: Casing, status: StatusCode, code: Option<u32>, message: &str) -> Self {
        let code = code.map(|code| ("errorCode", code.into()));
        let fields = code.into_iter().chain([("message", message.into())]);
        Self::json(status, &object(casing, fields))
    }

    /// Builds an error without a code.
    pub(super) fn failure(options: &Options, status: StatusCode, message: &str) -> Self {
        if status == StatusCode::BAD_REQUEST && !options.codes_in_400 {
            return Self::problem_details("Bad Request", None);
        }
        Self::error(options.error_casing, status, None, message)
    }

    /// Builds an error with its code.
    pub(super) fn problem(options: &Options, problem: &Problem) -> Self {
        if problem.status == StatusCode::BAD_REQUEST && !options.codes_in_400 {
            let field = if *problem == PASSWORD_LENGTH { "Password" } else { "Email" };
            let errors = json!({ field: [problem.message] });
            return Self::problem_details("One or more validation errors occurred.", Some(errors));
        }
        Self::error(options.error_casing, problem.status, Some(problem.code), problem.message)
    }

    /// Builds a 400 as ASP.NET writes it (RFC 9457), in camel case whatever the server's casing.
    fn problem_details(title: &str, errors: Option<Value>) -> Self {
        const NO_TRACE: &str = "00-00000000000000000000000000000000-0000000000000000-00";
        let mut body = json!({
            "type": "https://tools.ietf.org/html/rfc9110#section-15.5.1",
            "title": title,
            "status": 400,
            "traceId": NO_TRACE,
        });
        if let (Some(errors), Some(fields)) = (errors, body.as_object_mut()) {
            fields.insert("errors".to_owned(), errors);
        }
        Self { body: body.to_string().into(), ..Self::empty(StatusCode::BAD_REQUEST) }
            .with("content-type", "application/problem+json; charset=utf-8")
    }

    /// Builds the answer to a refused login: in G2b the same opaque answer for every reason.
    pub(super) fn refused_login(options: &Options, problem: &Problem, retry_after: Option<i64>) -> Self {
        let problem = match options.generation {
            Generation::G1 | Generation::G2 => problem,
            Generation::G2b => &INVALID_CREDENTIALS,
        };
        let answer = Self::problem(options, problem);
        match retry_after {
            Some(seconds) => answer.with("retry-after", &seconds.to_string()),
            None => answer,
        }
    }
}

/// Builds a JSON object whose field names, given in camel case, are spelled in this casing.
pub(super) fn object<'a>(casing: Casing, fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let fields = fields.into_iter().map(|(name, value)| (casing.spell(name), value));
    Value::Object(fields.collect::<Map<_, _>>())
}
