//! Targets and an API client in memory. Each effect gets its result from the log of the run's observations; at the end of the log the
//! execution ends, as by a crash.

mod target;

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azaion_agent::api::fault::{Fault, Limit, Problem};
use azaion_agent::api::http::{Answer, ApiClient, Call, HeaderMap, Method};
use azaion_agent::api::transport::Transport;
use azaion_agent::api::url::ApiUrl;
use azaion_agent::common::clock::{Clock, Timestamp};
use azaion_agent::common::device_conf::MODE;
use serde_json::Value;

use super::effects::{Missing, Op, Seen};
use super::flaws::Flaw;
use super::world::{Account, File, Password, Reply, Request};
use crate::target::{Error, Result};
pub(super) use target::MemoryTarget;

pub(super) const ADMIN: &str = "admin@azaion.com";
pub(super) const ADMIN_PASSWORD: &str = "the-admins-password";
const PASSWORD_KEY: &str = "AZAION_DEVICE_PASSWORD=";

/// Payload of the unwinding that ends an execution.
pub(super) struct Stop;

/// One execution of a run.
#[derive(Debug)]
pub(super) struct Script {
    state: Mutex<State>,
    flaw: Option<Flaw>,
    pub(super) clock: StillClock,
    api: ApiUrl,
}

#[derive(Debug)]
struct State {
    log: std::vec::IntoIter<Seen>,
    next: Option<Op>,
    /// Random passwords with their numbers.
    drawn: Vec<(String, Password)>,
    /// Writes that [`Flaw::WritesAfterAsking`] has delayed.
    unwritten: Vec<(usize, Option<File>)>,
    /// Whether a request other than a login was made.
    has_asked: bool,
    /// Whether the last reply of the API was that the user exists.
    exists: bool,
}

impl Script {
    pub(super) fn new(log: Vec<Seen>, flaw: Option<Flaw>, api: ApiUrl) -> Arc<Self> {
        let state = State {
            log: log.into_iter(),
            next: None,
            drawn: Vec::new(),
            unwritten: Vec::new(),
            has_asked: false,
            exists: false,
        };
        Arc::new(Self { state: Mutex::new(state), flaw, clock: StillClock::default(), api })
    }

    /// Returns the effect at which the log ended.
    pub(super) fn next(&self) -> Option<Op> {
        self.with(|state| state.next.take())
    }

    /// Returns the random passwords of this execution.
    pub(super) fn drawn(&self) -> Vec<String> {
        self.with(|state| state.drawn.iter().map(|(text, _)| text.clone()).collect())
    }

    fn with<T>(&self, access: impl FnOnce(&mut State) -> T) -> T {
        access(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the observation of an effect; ends the execution if there is none.
    fn observe(&self, op: Op) -> Seen {
        let seen = self.with(|state| {
            let seen = state.log.next();
            if seen.is_none() {
                state.next = Some(op);
            }
            seen
        });
        seen.unwrap_or_else(|| resume_unwind(Box::new(Stop)))
    }

    /// Returns the number of a password.
    fn number(&self, text: &str) -> Password {
        let known = self.with(|state| state.drawn.iter().find(|(drawn, _)| drawn == text).map(|(_, number)| *number));
        known.or_else(|| Password::parse(text)).unwrap_or_else(|| {
            let Seen::Drawn(number) = self.observe(Op::Draw) else { panic!("the execution is not deterministic") };
            self.with(|state| state.drawn.push((text.to_owned(), number)));
            number
        })
    }

    /// Returns a file with all random passwords replaced by their numbers.
    fn file(&self, bytes: &[u8], mode: u32) -> File {
        let mut text = std::str::from_utf8(bytes).unwrap().to_owned();
        if let Some(password) = text.lines().find_map(|line| line.strip_prefix(PASSWORD_KEY)).map(str::to_owned) {
            text = text.replace(&password, &self.number(&password).text());
            if self.flaw == Some(Flaw::LogsPassword) {
                log::warn!("{password} is written");
            }
        }
        File { text: text.into(), is_doubtful: mode != MODE }
    }

    fn put(&self, target: usize, file: Option<File>) -> Result<()> {
        if self.flaw == Some(Flaw::WritesAfterAsking) && !self.with(|state| state.has_asked) {
            self.with(|state| state.unwritten.push((target, file)));
            return Ok(());
        }
        match self.observe(Op::Put(target, file)) {
            Seen::Written => Ok(()),
            Seen::NotWritten => {
                Err(Error::Io { doing: "writing the target".to_owned(), source: nix::errno::Errno::EIO.into() })
            }
            other => panic!("{other:?} is not a result of a write"),
        }
    }

    /// Makes a call, changed by the flaw.
    fn request(&self, request: Request) -> Seen {
        let is_login = matches!(request, Request::Login(..));
        let is_drawn = |password| self.with(|state| state.drawn.iter().any(|(_, number)| *number == password));
        let is_skipped = match (self.flaw, request) {
            (Some(Flaw::RecreatesWorking), Request::Login(..)) => true,
            (Some(Flaw::DeletesUnchecked), Request::Login(_, password)) => !is_drawn(password),
            (Some(Flaw::SkipsLogin), Request::Login(..)) => self.with(|state| state.exists),
            _ => false,
        };
        if is_skipped {
            return Seen::Reply(Reply::Refused);
        }
        let mut seen = self.observe(Op::Call(request));
        let is_unclear = |seen: &Seen| matches!(seen, Seen::Missing { why: Missing::Busy | Missing::Lost, .. });
        let is_repeated = match request {
            Request::Devices => self.flaw == Some(Flaw::AsksTwice),
            Request::Delete(_) => self.flaw == Some(Flaw::DeletesTwice),
            _ => false,
        };
        if is_repeated && is_unclear(&seen) {
            seen = self.observe(Op::Call(request));
        }
        if self.flaw == Some(Flaw::BelievesRefusals) && is_login && seen == Seen::Reply(Reply::Refused) {
            seen = Seen::Reply(Reply::Token);
        }
        let unwritten = self.with(|state| {
            state.exists = seen == Seen::Reply(Reply::Exists);
            state.has_asked |= !is_login;
            if state.has_asked { std::mem::take(&mut state.unwritten) } else { Vec::new() }
        });
        for (target, file) in unwritten {
            let _ = self.put(target, file);
        }
        seen
    }

    fn parse(&self, call: &Call<'_>) -> Option<Request> {
        let body: Value = call.body.as_ref().map_or(Value::Null, |body| serde_json::from_slice(body).unwrap());
        let text = |key: &str| body[key].as_str().unwrap();
        if text_is(&body, "email", ADMIN) {
            return None;
        }
        let account = || Account::parse(text("email")).unwrap();
        let password = || self.number(text("password"));
        Some(match (&call.method, call.path) {
            (&Method::POST, "/login") => Request::Login(account(), password()),
            (&Method::POST, "/users") => Request::Create(account(), password()),
            (&Method::PATCH, "/users/password") => Request::SetPassword(account(), password()),
            (&Method::POST, "/devices") => Request::Devices,
            (&Method::DELETE, path) => Request::Delete(Account::parse(path.strip_prefix("/users/").unwrap()).unwrap()),
            _ => panic!("{} is not a call of provisioning", call.step()),
        })
    }
}

fn text_is(body: &Value, key: &str, text: &str) -> bool {
    body.get(key).and_then(Value::as_str) == Some(text)
}

impl ApiClient for Script {
    fn api(&self) -> &ApiUrl {
        &self.api
    }

    fn call(&self, call: &Call<'_>, limit: Limit) -> std::result::Result<Answer, Fault> {
        let fault = |problem| Fault { step: call.step(), host: "api".to_owned(), retry_after: None, problem };
        let answer = |status, body: String| Answer::new(call, "api", status, &HeaderMap::new(), body.into_bytes());
        limit.map_err(|why| fault(Problem::NotCalled(why)))?;
        let Some(request) = self.parse(call) else { return Ok(answer(200, r#"{"token":"the-admins"}"#.to_owned())) };
        let (why, is_last) = match self.request(request) {
            Seen::Reply(reply) => {
                let (status, body) = reply.render();
                return Ok(answer(status, body));
            }
            Seen::Missing { why, is_last } => (why, is_last),
            other => panic!("{other:?} is not a result of a call"),
        };
        if is_last {
            self.clock.sleep(Duration::from_hours(1));
        }
        let transport = |kind, before_request| {
            Err(fault(Problem::Transport { kind, detail: "model".into(), before_request, proxy: None }))
        };
        match why {
            Missing::NoConnection => transport(Transport::Refused, true),
            Missing::Lost => transport(Transport::Timeout, false),
            Missing::Busy => Ok(answer(503, String::new())),
        }
    }

    fn server_date(&self) -> Option<Timestamp> {
        None
    }
}

/// A clock that advances only in `sleep`.
#[derive(Debug, Default)]
pub(super) struct StillClock(Mutex<Duration>);

impl Clock for StillClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_unix(1_777_802_400)
    }

    fn boot(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep(&self, time: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }
}
