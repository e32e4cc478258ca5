//! The client for one API: one constructor for both programs, one way to make a call.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Proxy, Response, redirect};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::api::fault::{Fault, Limit, Problem};
use crate::api::proxy_url::ProxyUrl;
use crate::api::transport::Transport;
use crate::api::url::ApiUrl;
use crate::common::clock::{ServerTime, Timestamp};

use super::Answer;
use super::ApiClient;
use super::CaFile;
use super::Call;
use super::HttpError;
use super::TlsClock;
use super::tls;
use super::verifier::{Chain, ChainVerifier};

/// How long a connection is kept that nobody uses: less than servers do (nginx: 75 s), which would close it under a call.
const LONGEST_IDLE: Duration = Duration::from_secs(20);

/// How long connecting may take, shared by the addresses of one family: one that is dead leaves time for the next within a call.
/// The other family is tried beside it after 300 ms (RFC 8305), so that dead IPv6 costs no more than that.
const LONGEST_CONNECT: Duration = Duration::from_secs(8);

/// How often a call in progress looks whether the network has changed, and how long it may take from then on.
const LOOK: Duration = Duration::from_millis(250);
const GRACE: Duration = Duration::from_millis(500);

/// How the server is reached and validated.
#[derive(Debug)]
pub struct Options<'a> {
    /// CA certificates beside the usual roots.
    pub ca: Option<&'a CaFile>,
    /// The HTTP proxy that TLS is tunnelled through; plain http never goes there. No environment variable is read.
    pub proxy: Option<&'a ProxyUrl>,
    /// The time for certificates.
    pub clock: Arc<dyn TlsClock>,
}

/// The client, for one API.
#[derive(Debug)]
pub struct Http {
    api: ApiUrl,
    client: reqwest::Client,
    verifier: Arc<ChainVerifier>,
    /// As messages name it.
    proxy: Option<String>,
    /// There until the client is dropped.
    runtime: Option<Runtime>,
    /// What the last answer that came through TLS said the time is.
    date: ServerTime,
    clock: Arc<dyn TlsClock>,
    /// Says that a call in progress waits for a network that is not the one of now.
    is_overtaken: Option<Overtaken>,
}

/// Says whether the network has become another one since it was last asked.
pub struct Overtaken(Box<dyn Fn() -> bool + Send + Sync>);

impl Overtaken {
    /// By this function.
    pub fn new(has_changed: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Box::new(has_changed))
    }

    /// Asks it.
    pub fn has_changed(&self) -> bool {
        self.0()
    }
}

impl fmt::Debug for Overtaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Overtaken")
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        // A name lookup that hangs (getaddrinfo can't be cancelled) must not hold the end of the program up.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Http {
    /// A client that trusts the usual roots (Mozilla's) and those of [`Options::ca`].
    ///
    /// # Errors
    /// The CA file can't be used, or the system refuses what a client needs.
    #[expect(clippy::disallowed_methods, reason = "this is the one constructor")]
    pub fn new(api: &ApiUrl, Options { ca, proxy, clock }: Options<'_>) -> Result<Self, HttpError> {
        let localhost = [([127, 0, 0, 1], 0).into(), ([0, 0, 0, 0, 0, 0, 0, 1], 0).into()];
        let (tls, verifier) = tls::config(ca, Arc::clone(&clock))?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .tls_info(true)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(LONGEST_CONNECT)
            .pool_idle_timeout(LONGEST_IDLE)
            // A loopback address by name stays one, whatever /etc/hosts says.
            .resolve_to_addrs("localhost", &localhost)
            .user_agent(concat!("azaion/", env!("CARGO_PKG_VERSION")));
        let proxy = proxy.filter(|_| api.is_tls()).map(ProxyUrl::url);
        if let Some(proxy) = proxy {
            let tunnel = Proxy::https(proxy.clone()).map_err(|e| HttpError::Client(e.into()))?;
            // So that the chain that was verified last is that of the call, see `chain_of`.
            builder = builder.proxy(tunnel).pool_max_idle_per_host(0);
        }
        let client = builder.build().map_err(|e| HttpError::Client(e.into()))?;
        // A thread of its own sees at once that the server has closed a connection that nobody uses: a call that goes out on one
        // may or may not have been carried out.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = Some(runtime.map_err(|e| HttpError::Client(e.into()))?);
        let proxy = proxy.map(|url| url.as_str().trim_end_matches('/').to_owned());
        Ok(Self {
            api: api.clone(),
            client,
            verifier,
            proxy,
            runtime,
            date: ServerTime::default(),
            clock,
            is_overtaken: None,
        })
    }

    /// The same, which gives a call up soon after the network has changed: a lookup or a connection that began before may take ten
    /// seconds to notice.
    #[must_use]
    pub fn given_up_when(mut self, is_overtaken: Overtaken) -> Self {
        self.is_overtaken = Some(is_overtaken);
        self
    }

    /// Waits for a call; not for its end once the network has changed, unless it is about to succeed.
    async fn until_overtaken<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let Some(network) = &self.is_overtaken else { return Some(call.await) };
        let mut call = pin!(call);
        loop {
            match timeout(LOOK, call.as_mut()).await {
                Ok(done) => return Some(done),
                Err(_) if network.has_changed() => return timeout(GRACE, call).await.ok(),
                Err(_) => {}
            }
        }
    }

    fn learn(&self, answer: &Answer) {
        if let (Some(date), Some(_)) = (answer.date, &answer.chain) {
            self.date.learn(date, self.clock.boot());
        }
    }

    fn request(&self, call: &Call<'_>, limit: Duration) -> reqwest::Result<reqwest::Request> {
        let mut request = self.client.request(call.method.clone(), self.api.route(call.path)).timeout(limit);
        if let Some(bearer) = call.bearer {
            request = request.header(AUTHORIZATION, bearer_header(bearer));
        }
        if call.is_uncached {
            request = request.header(CACHE_CONTROL, "no-cache");
        }
        if call.body.is_none() && call.method == Method::POST {
            // Some gateways answer 411 without it (RFC 9110, 8.6).
            request = request.header(CONTENT_LENGTH, "0");
        }
        if let Some(body) = &call.body {
            // The request needs a copy of its own, which is wiped as ours is.
            request = request.header(CONTENT_TYPE, "application/json").body(Bytes::from_owner(body.clone()));
        }
        request.build()
    }

    /// The certificates behind this response; `None` where there was no TLS.
    fn chain_of(&self, response: &Response) -> Result<Option<Arc<Chain>>, Problem> {
        if !self.api.is_tls() {
            return Ok(None);
        }
        let shown =
            response.extensions().get::<reqwest::tls::TlsInfo>().and_then(reqwest::tls::TlsInfo::peer_certificate);
        let chain = match (shown, &self.proxy) {
            (Some(own), _) => self.verifier.chain_of(own),
            // reqwest does not say what the server showed in a tunnel. There each call has a connection of its own.
            (None, Some(_)) => self.verifier.last_chain(),
            (None, None) => None,
        };
        chain.map(Some).ok_or(Problem::Form("its certificate is not one that was verified"))
    }

    /// What went wrong below HTTP, with the proxy that the call went through.
    fn transport(&self, error: &reqwest::Error) -> Problem {
        match (transport(error), &self.proxy) {
            (Problem::Transport { kind, detail, before_request, .. }, proxy @ Some(_)) => {
                Problem::Transport { kind, detail, before_request, proxy: proxy.as_deref().map(Into::into) }
            }
            (problem, _) => problem,
        }
    }
}

impl ApiClient for Http {
    fn api(&self) -> &ApiUrl {
        &self.api
    }

    fn call(&self, call: &Call<'_>, limit: Limit) -> Result<Answer, Fault> {
        let host = || self.api.authority().to_owned();
        let fail = |problem| Fault { step: call.step(), host: host(), retry_after: None, problem };
        let limit = limit.map_err(|why| fail(Problem::NotCalled(why)))?;
        let request = self.request(call, limit).map_err(|e| fail(self.transport(&e)))?;
        // The runtime is gone only once the client is.
        let runtime = self.runtime.as_ref().ok_or_else(|| fail(Problem::Form("the client is gone")))?;
        let answer = async {
            let response = self.client.execute(request).await.map_err(|e| fail(self.transport(&e)))?;
            let chain = self.chain_of(&response).map_err(fail)?;
            let head = Answer::head_of(call, self.api.authority(), &response, chain);
            let answer = head.with_body_of(response).await.map_err(fail)?.check_unknown_time()?;
            self.learn(&answer);
            Ok(answer)
        };
        runtime.block_on(async { self.until_overtaken(answer).await.unwrap_or_else(|| Err(fail(Problem::Overtaken))) })
    }

    fn server_date(&self) -> Option<Timestamp> {
        self.date.at(self.clock.boot())
    }
}

/// What went wrong below HTTP.
pub(super) fn transport(error: &reqwest::Error) -> Problem {
    let (kind, detail) = Transport::of(error);
    Problem::Transport { kind, detail: detail.into(), before_request: error.is_connect(), proxy: None }
}

fn bearer_header(token: &SecretString) -> HeaderValue {
    let text = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
    // Wiped when the last that shares it is dropped. A token that can't stand in a header is no token; the server will
    // say so.
    let value = HeaderValue::from_maybe_shared(Bytes::from_owner(text));
    let mut value = value.unwrap_or_else(|_| HeaderValue::from_static("Bearer invalid"));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::super::tests::{DAY, GET, response};
    use super::super::verifier::tests::some_chain;
    use super::*;
    use crate::common::clock::virtual_clock::VirtualClock;

    // Promise: a bearer token does not show in a `Debug` of the request.
    #[test]
    fn the_bearer_header_is_sensitive() {
        assert_eq!(format!("{:?}", bearer_header(&SecretString::from("abc"))), "Sensitive");
    }

    // Promise: what an answer says of the time is read; it is believed only if it came through TLS.
    #[test]
    fn the_time_comes_through_tls_alone() {
        let clock = Arc::new(VirtualClock::at("2026-05-03T10:00:00Z"));
        let api = "https://api.example".parse().unwrap();
        let client =
            Http::new(&api, Options { ca: None, proxy: None, clock: Arc::clone(&clock) as Arc<dyn TlsClock> }).unwrap();
        let chain = Arc::new(some_chain());
        let day = Timestamp::from_http_date(DAY);
        let head = |headers: &[(&str, &str)]| Answer::head_of(&GET, "api", &response(headers, Vec::new()), None);
        let mut dated =
            head(&[("date", " Sun, 03 May 2026 10:00:00 GMT "), ("retry-after", "Sun, 03 May 2026 10:00:07 GMT")]);
        assert_eq!((dated.date, dated.retry_after), (day, Some(Duration::from_secs(7))));
        client.learn(&dated);
        assert_eq!(client.server_date(), None);
        dated.chain = Some(Arc::clone(&chain));
        client.learn(&dated);
        assert_eq!(client.server_date(), day);
        // The boot clock carries it on: what takes half a minute after the answer does not make the server's clock look wrong.
        clock.advance(Duration::from_secs(33));
        assert_eq!(client.server_date(), day.map(|day| day.plus(Duration::from_secs(33))));
        clock.advance(Duration::from_secs(27));
        client.learn(&dated);
        assert_eq!(client.server_date(), day);
        // One without keeps what is known.
        let mut undated = head(&[("date", "today")]);
        undated.chain = Some(chain);
        client.learn(&undated);
        assert_eq!(client.server_date(), day);
    }
}
