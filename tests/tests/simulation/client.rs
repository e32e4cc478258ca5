//! The connection from the device to the API: network, certificates, and the weather.

use std::sync::Arc;
use std::time::Duration;

use azaion_agent::api::fault::{Fault, Limit, Problem};
use azaion_agent::api::http::{Answer, ApiClient, Call, ChainVerifier, Overtaken, TlsClock};
use azaion_agent::api::transport::Transport;
use azaion_agent::api::url::ApiUrl;
use azaion_agent::common::clock::{Clock, ServerTime, Timestamp};
use azaion_agent::device::run::Caller;
use hyper::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use rustls::CertificateError::{ExpiredContext, NotValidYetContext};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName, UnixTime};
use serde_json::Value;

use super::api::{Reply, time_at};
use super::invariants;
use super::secrets::{HOST, secrets};
use super::weather::Weather;
use super::world::World;

/// Duration of a call without delays.
const CALL: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Client {
    world: Arc<World>,
    api: ApiUrl,
    clock: Arc<dyn TlsClock>,
    overtaken: Option<Overtaken>,
    verifier: ChainVerifier,
    date: ServerTime,
}

impl Client {
    pub(crate) fn new(world: Arc<World>, api: &ApiUrl, clock: Arc<dyn TlsClock>, overtaken: Option<Overtaken>) -> Self {
        let verifier = ChainVerifier::new(Arc::clone(&secrets().verifier), Arc::clone(&clock));
        Self { world, api: api.clone(), clock, overtaken, verifier, date: ServerTime::default() }
    }

    /// Advances the clock; fails if the network has changed meanwhile.
    fn takes(&self, time: Duration) -> Result<(), Problem> {
        let end = self.world.now() + time;
        while self.world.now() < end {
            self.world.pass(end.saturating_sub(self.world.now()).min(LOOK.max(time / 8)));
            if self.overtaken.as_ref().is_some_and(Overtaken::has_changed) {
                return Err(Problem::Overtaken);
            }
        }
        Ok(())
    }

    fn connect(&self) -> Result<(), Problem> {
        let (now, network) = (self.world.now(), self.world.state().network);
        if network == 0 {
            return Err(failed(Transport::NameLookup));
        }
        // One connection serves all calls of a client.
        if self.verifier.last_chain().is_some() {
            return Ok(());
        }
        let name = ServerName::try_from(HOST).unwrap();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(self.clock.now().unix()));
        let certificate = secrets().certificate(time_at(now));
        let verified = self.verifier.verify_server_cert(certificate, &[], &name, &[], time);
        verified.map(drop).map_err(|error| match error {
            rustls::Error::InvalidCertificate(ExpiredContext { not_after, .. }) => {
                failed(Transport::Expired { until: Some(Timestamp::from_unix(not_after.as_secs())) })
            }
            rustls::Error::InvalidCertificate(NotValidYetContext { .. }) => failed(Transport::NotYetValid),
            _ => failed(Transport::Tls),
        })
    }

    /// Executes the call on the API.
    fn ask(&self, call: &Call<'_>, weather: Weather) -> Reply {
        let body: Value = call.body.as_ref().map(|body| serde_json::from_slice(body).unwrap()).unwrap_or_default();
        let state = &mut *self.world.state();
        let flaw = if let Weather::Flawed(flaw) = weather { Some(flaw) } else { None };
        match call.path {
            "/login" => {
                if state.how.0.caller == Caller::Unit {
                    state.api.unit_logins.push(state.now);
                }
                state.api.login(&body, state.now, flaw, &mut state.dice)
            }
            "/token/refresh" => state.api.refresh(&body, state.now, flaw, &mut state.dice),
            _ => state.api.keys(call.is_uncached, state.now),
        }
    }

    /// Returns the answer that arrives.
    fn exchange(&self, call: &Call<'_>, limit: Duration) -> Result<Reply, Problem> {
        let weather = self.world.state().weather;
        let page = |status, retry_after| Reply { retry_after, ..Reply::new(status, "<html>hotel</html>") };
        match weather {
            Weather::Refused => return Err(failed(Transport::Refused)),
            Weather::Silent { is_done } => {
                if is_done {
                    drop(self.ask(call, weather));
                }
                self.takes(limit)?;
                return Err(failed(Transport::Timeout));
            }
            Weather::Slow(time) if time >= limit => {
                drop(self.ask(call, weather));
                self.takes(limit)?;
                return Err(failed(Transport::Timeout));
            }
            Weather::Slow(time) => self.takes(time)?,
            _ => self.takes(CALL.min(limit))?,
        }
        let is_for_keys = call.path.starts_with("/.well-known");
        Ok(match weather {
            Weather::Down { status, retry_after } => Reply { retry_after, ..Reply::new(status, "") },
            Weather::Page { status, retry_after } => page(status, retry_after),
            Weather::Json { status } => Reply::new(status, r#"{"error":"not here"}"#),
            Weather::NoKeys { status } if is_for_keys => page(status, None),
            Weather::Cut => {
                let heard = self.world.state().api.refusals.len();
                let mut reply = self.ask(call, weather);
                self.world.state().api.unheard(heard);
                reply.body.truncate(reply.body.len() / 2);
                reply
            }
            _ => self.ask(call, weather),
        })
    }

    fn answer(&self, call: &Call<'_>, limit: Duration) -> Result<Answer, Problem> {
        self.connect()?;
        let reply = self.exchange(call, limit)?;
        self.world.tell(|| format!("    {} {:?}", reply.status, reply.retry_after));
        let mut headers = HeaderMap::new();
        if self.world.state().weather != Weather::NoDate {
            let date =
                httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(time_at(self.world.now()).unix()));
            headers.insert(DATE, HeaderValue::from_str(&date).unwrap());
        }
        if let Some(seconds) = reply.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        let mut answer = Answer::new(call, self.api.authority(), reply.status, &headers, reply.body.into_bytes());
        answer.chain = self.verifier.last_chain();
        Ok(answer)
    }
}

impl ApiClient for Client {
    fn api(&self) -> &ApiUrl {
        &self.api
    }

    fn call(&self, call: &Call<'_>, limit: Limit) -> Result<Answer, Fault> {
        let fail = |problem| Fault { step: call.step(), host: HOST.to_owned(), retry_after: None, problem };
        let limit = limit.map_err(|why| fail(Problem::NotCalled(why)))?;
        self.world.tell(|| format!("    {}", call.step()));
        invariants::before_call(&self.world, call);
        let heard = self.world.state().api.refusals.len();
        let answer = self.answer(call, limit).map_err(fail).and_then(Answer::check_unknown_time);
        // The device counts refusals that it accepts as genuine, for the `device.conf` that it has read.
        let is_counted = answer.is_ok() && self.world.state().is_run_current();
        if !is_counted {
            self.world.state().api.unheard(heard);
        }
        self.world.state().idle_since = self.world.now();
        if let Err(fault) = &answer {
            self.world.tell(|| format!("    {}", fault.problem));
        }
        let answer = answer?;
        if answer.chain.is_some()
            && let Some(date) = answer.date
        {
            self.date.learn(date, Clock::boot(self.world.as_ref()));
        }
        invariants::after_call(&self.world, &answer);
        Ok(answer)
    }

    fn server_date(&self) -> Option<Timestamp> {
        self.date.at(Clock::boot(self.world.as_ref()))
    }
}

fn failed(kind: Transport) -> Problem {
    Problem::Transport { kind, detail: "".into(), before_request: false, proxy: None }
}
