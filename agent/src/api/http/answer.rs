//! An answer of the server, read with limits.

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
use super::client::transport;
use super::verifier::Chain;

/// Bytes that an answer may have at most; a login answer has about two thousand.
pub const LARGEST_ANSWER: usize = 64 * 1024;
/// The longest wait that a `Retry-After` can ask for: the longest that the agent itself imposes. A server that
/// wants more says so again, and a mistaken header can't put a unit out of service for years.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// The wait for a `Retry-After` that can't be read. The server asks to wait, so it must not be asked again at once.
const UNREADABLE_RETRY_AFTER: Duration = Duration::from_mins(1);

/// An answer, whatever its status. `Debug` does not show its body.
pub struct Answer {
    step: String,
    host: String,
    /// The HTTP status.
    pub status: u16,
    /// How long the server asked to wait, at most [`LONGEST_RETRY_AFTER`].
    pub retry_after: Option<Duration>,
    /// The `Date` header.
    pub date: Option<Timestamp>,
    /// The certificates that the server presented; `None` where there was no TLS.
    pub chain: Option<Arc<Chain>>,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// An answer that came in another way than by HTTP, to a call at `host`.
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

    /// The head of a response to the call `step`; the body is empty.
    pub(super) fn head_of(call: &Call<'_>, host: &str, response: &Response, chain: Option<Arc<Chain>>) -> Self {
        Self { chain, ..Self::new(call, host, response.status().as_u16(), response.headers(), Vec::new()) }
    }

    /// This answer with the rest of the response.
    pub(super) async fn with_body_of(mut self, response: Response) -> Result<Self, Problem> {
        self.body = body_of(response).await?;
        Ok(self)
    }

    /// Refuses an answer over a connection whose certificates were accepted for an unknown time, unless its `Date` says a time at
    /// which they are valid.
    ///
    /// # Errors
    /// It does not.
    pub fn check_unknown_time(self) -> Result<Self, Fault> {
        match &self.chain {
            Some(chain) if chain.is_time_unknown() => match self.date {
                Some(_) => self.check_date().map(|()| self),
                None => Err(self.fault(Problem::NoDate)),
            },
            _ => Ok(self),
        }
    }

    /// Checks that all certificates of the server are valid at the `Date` of this answer, give or take 30 s.
    ///
    /// # Errors
    /// They are not.
    pub fn check_date(&self) -> Result<(), Fault> {
        let (Some(date), Some(chain)) = (self.date, &self.chain) else { return Ok(()) };
        chain.agrees_with(date).map_err(|error| {
            let why = OutsideValidity::of(&error);
            self.fault(Problem::OutsideCertificate { date, why })
        })
    }

    /// The body of an answer with an expected status.
    ///
    /// # Errors
    /// Any other status, with what it means; or a web page, which is not from the API, whatever its status is.
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

    /// A fault of this answer.
    pub fn fault(&self, problem: Problem) -> Fault {
        Fault { step: self.step.clone(), host: self.host.clone(), retry_after: self.retry_after, problem }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.step).field(&self.host).field(&self.status).finish()
    }
}

async fn body_of(mut response: Response) -> Result<Zeroizing<Vec<u8>>, Problem> {
    // As large as it can get from the start: a Vec that grows leaves copies of the token behind.
    let length = response.content_length().and_then(|length| usize::try_from(length).ok());
    let mut body = Zeroizing::new(Vec::with_capacity(length.unwrap_or(LARGEST_ANSWER).min(LARGEST_ANSWER)));
    while let Some(chunk) = response.chunk().await.map_err(|e| transport(&e))? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(Problem::TooLarge(LARGEST_ANSWER));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or an HTTP date, which counts from the answer's own `Date`.
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

    // Promise: both forms of Retry-After are obeyed, absurd ones are cut, and garbage is a minute.
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

    // Promise: an answer as large as may be is read whole, and one that is larger not at all.
    #[test]
    fn an_answer_has_an_end() {
        assert_eq!(LARGEST_ANSWER, 65_536);
        let runtime = Builder::new_current_thread().build().unwrap();
        for (size, is_read) in [(0, true), (LARGEST_ANSWER, true), (LARGEST_ANSWER + 1, false)] {
            let body = runtime.block_on(body_of(response(&[], vec![b' '; size])));
            assert_eq!(body.map(|body| body.len()).ok(), is_read.then_some(size));
        }
    }

    // Promise: an answer does not show its body in a `Debug`.
    #[test]
    fn bodies_are_not_shown() {
        let head = Answer::head_of(&GET, "api.example", &response(&[], Vec::new()), None);
        let answer = Answer { body: Zeroizing::new(b"hush".to_vec()), ..head };
        assert_eq!(format!("{answer:?}"), "Answer(\"GET /\", \"api.example\", 200)");
    }
}
