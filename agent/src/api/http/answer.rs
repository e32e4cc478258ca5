//! An answer of the server, read with size and time limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use zeroize::Zeroizing;

use crate::api::fault::{Fault, OutsideValidity, Problem, class_of, needs_error_object};
use crate::api::json::error_code;
use crate::common::clock::Timestamp;

use super::Call;
use super::verifier::Chain;

/// Maximum size of an answer in bytes; a login answer has about two thousand.
pub const LARGEST_ANSWER: usize = 64 * 1024;
/// Maximum wait for a `Retry-After`, equal to the agent's own longest wait. A server that needs longer can repeat it, and a wrong
/// header can't put a device out of service for years.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// The wait for an invalid `Retry-After`. The server asks to wait, so a retry at once would be wrong.
const UNREADABLE_RETRY_AFTER: Duration = Duration::from_mins(1);

/// An answer with any status. `Debug` does not show its body.
pub struct Answer {
    step: String,
    host: String,
    /// The HTTP status.
    pub status: u16,
    /// How long the server asked to wait, at most [`LONGEST_RETRY_AFTER`].
    pub retry_after: Option<Duration>,
    /// The `Date` header.
    pub date: Option<Timestamp>,
    /// The certificate chain that the server presented; `None` without TLS.
    pub chain: Option<Arc<Chain>>,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// Creates an answer to a call at `host` without an HTTP response.
    pub fn new(call: &Call<'_>, host: &str, status: u16, headers: &HeaderMap, body: Vec<u8>) -> Self {
        let date = text(headers, &DATE).and_then(Timestamp::from_http_date);
        let wait = headers.get(RETRY_AFTER);
        Self {
            step: call.step(),
            host: host.to_owned(),
            status,
            retry_after: wait.map(|value| retry_after(value.to_str().unwrap_or(""), date)),
            date,
            chain: None,
            body: Zeroizing::new(body),
        }
    }

    /// Creates an answer with an empty body from the head of a response.
    pub(super) fn head_of(call: &Call<'_>, host: &str, response: &Response, chain: Option<Arc<Chain>>) -> Self {
        Self { chain, ..Self::new(call, host, response.status().as_u16(), response.headers(), Vec::new()) }
    }

    /// Reads the body of the response into this answer.
    pub(super) async fn with_body_of(mut self, response: Response) -> Result<Self, Problem> {
        self.body = body_of(response).await?;
        Ok(self)
    }

    /// Refuses an answer over a connection whose certificates were accepted for an unknown time, unless they are valid at its
    /// `Date`.
    ///
    /// # Errors
    /// The answer has no `Date`, or the certificates are not valid then.
    pub fn check_unknown_time(self) -> Result<Self, Fault> {
        match &self.chain {
            Some(chain) if chain.is_time_unknown() => match self.date {
                Some(_) => self.check_date().map(|()| self),
                None => Err(self.fault(Problem::NoDate)),
            },
            _ => Ok(self),
        }
    }

    /// Checks that all certificates of the server are valid at the `Date` of this answer, with a tolerance of 30 s.
    ///
    /// # Errors
    /// A certificate is not valid at that time.
    pub fn check_date(&self) -> Result<(), Fault> {
        let (Some(date), Some(chain)) = (self.date, &self.chain) else { return Ok(()) };
        chain.agrees_with(date).map_err(|error| {
            let why = OutsideValidity::of(&error);
            self.fault(Problem::OutsideCertificate { date, why })
        })
    }

    /// Returns the body of an answer with an expected status.
    ///
    /// # Errors
    /// Any other status, classified; or a web page with any status, because the API sends none.
    pub fn accept(&self, statuses: &[u16]) -> Result<&[u8], Fault> {
        let is_page = self.body.trim_ascii_start().starts_with(b"<");
        if statuses.contains(&self.status) {
            return if is_page { Err(self.fault(Problem::NotJson)) } else { Ok(&self.body) };
        }
        let code = error_code(&self.body);
        let class = class_of(self.status, code, self.retry_after.is_some());
        Err(self.fault(match self.status {
            status @ 300..=399 => Problem::Redirect(status),
            status if is_page && needs_error_object(status) => Problem::Page { status, class },
            status => Problem::Status { status, code, class },
        }))
    }

    /// Creates a fault of the call that this answer belongs to.
    pub fn fault(&self, problem: Problem) -> Fault {
        Fault { step: self.step.clone(), host: self.host.clone(), retry_after: self.retry_after, problem }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.step).field(&self.host).field(&self.status).finish()
    }
}

/// Reads the body of a response, up to the maximum size.
async fn body_of(mut response: Response) -> Result<Zeroizing<Vec<u8>>, Problem> {
    // Allocated with the full size: a Vec that grows leaves copies of the token in memory.
    let length = response.content_length().and_then(|length| usize::try_from(length).ok());
    let mut body = Zeroizing::new(Vec::with_capacity(length.unwrap_or(LARGEST_ANSWER).min(LARGEST_ANSWER)));
    while let Some(chunk) = response.chunk().await.map_err(|e| Problem::of_transport(&e))? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(Problem::TooLarge(LARGEST_ANSWER));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Returns the trimmed text of a header.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// Parses `Retry-After` (RFC 9110, 10.2.3): seconds, or an HTTP date, relative to the answer's own `Date`.
fn retry_after(value: &str, date: Option<Timestamp>) -> Duration {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        Some(value.parse().map_or(Duration::MAX, Duration::from_secs))
    } else {
        Timestamp::from_http_date(value).zip(date).map(|(until, now)| until.since(now))
    };
    wait.unwrap_or(UNREADABLE_RETRY_AFTER).min(LONGEST_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::super::tests::{DAY, GET, response};
    use super::*;

    // Promise: both forms of Retry-After are accepted, long ones are limited, and an invalid one means a minute.
    #[test]
    fn retry_after_in_both_forms() {
        let date = Timestamp::from_http_date(DAY);
        for (value, seconds) in [
            ("0", 0),
            (" 7 ", 7),
            ("3600", 3600),
            ("3601", 3600),
            ("99999999999999999999999999", 3600),
            ("Sun, 03 May 2026 10:00:30 GMT", 30),
            ("Sun, 03 May 2026 09:00:00 GMT", 0),
            ("Sun, 03 May 2099 09:00:00 GMT", 3600),
            ("-1", 60),
            ("1.5", 60),
            ("soon", 60),
            ("", 60),
        ] {
            assert_eq!(retry_after(value, date).as_secs(), seconds, "{value}");
        }
        assert_eq!(retry_after("Sun, 03 May 2026 10:00:30 GMT", None).as_secs(), 60);
    }

    // Promise: an answer of the maximum size is read completely, and a larger one is refused.
    #[test]
    fn the_size_limit_is_exact() {
        assert_eq!(LARGEST_ANSWER, 65_536);
        let runtime = Builder::new_current_thread().build().unwrap();
        for (size, is_read) in [(0, true), (LARGEST_ANSWER, true), (LARGEST_ANSWER + 1, false)] {
            let body = runtime.block_on(body_of(response(&[], vec![b' '; size])));
            assert_eq!(body.map(|body| body.len()).ok(), is_read.then_some(size));
        }
    }

    // Promise: `Debug` of an answer does not show its body.
    #[test]
    fn bodies_are_not_shown() {
        let head = Answer::head_of(&GET, "api.example", &response(&[], Vec::new()), None);
        let answer = Answer { body: Zeroizing::new(b"hush".to_vec()), ..head };
        assert_eq!(format!("{answer:?}"), "Answer(\"GET /\", \"api.example\", 200)");
    }
}
