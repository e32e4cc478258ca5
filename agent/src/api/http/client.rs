//! The HTTP client for one API, with the same settings in both programs.

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

/// How long an idle connection is kept: shorter than servers do (nginx: 75 s), which could otherwise close it during a call.
const LONGEST_IDLE: Duration = Duration::from_secs(20);

/// How long connecting may take, shared by the addresses of one family: an unreachable one leaves time for the next within a call.
/// The other family is tried in parallel after 300 ms (RFC 8305), so that broken IPv6 costs no more than that.
const LONGEST_CONNECT: Duration = Duration::from_secs(8);

/// How often a call in progress checks whether the network has changed.
const NETWORK_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a call in progress may still take after the network has changed.
const GRACE: Duration = Duration::from_millis(500);

/// How to reach and validate the server.
#[derive(Debug)]
pub struct Options<'a> {
    /// CA certificates in addition to the public roots.
    pub ca: Option<&'a CaFile>,
    /// The HTTP proxy for TLS tunnels; plain http never uses it. No environment variable is read.
    pub proxy: Option<&'a ProxyUrl>,
    /// The clock for certificate validation.
    pub clock: Arc<dyn TlsClock>,
}

/// The HTTP client for one API.
#[derive(Debug)]
pub struct Http {
    api: ApiUrl,
    client: reqwest::Client,
    verifier: Arc<ChainVerifier>,
    /// The proxy's URL for messages.
    proxy: Option<String>,
    /// `Some` until the client is dropped.
    runtime: Option<Runtime>,
    /// The time according to the last answer over TLS.
    date: ServerTime,
    clock: Arc<dyn TlsClock>,
    /// Detects that the network has changed during a call.
    is_overtaken: Option<Overtaken>,
}

/// Detects a change of the network since the last check, which makes a call in progress obsolete.
pub struct Overtaken(Box<dyn Fn() -> bool + Send + Sync>);

impl Overtaken {
    /// Creates a detector from a function that returns whether the network has changed since its last call.
    pub fn new(has_changed: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Box::new(has_changed))
    }

    /// Whether the network has changed since the last check.
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
        // A blocked name lookup (getaddrinfo can't be cancelled) must not delay the end of the program.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Http {
    /// Creates a client that trusts the public roots (Mozilla's) and those of [`Options::ca`].
    ///
    /// # Errors
    /// The CA file has no usable certificate, or the system does not provide the resources.
    #[expect(clippy::disallowed_methods, reason = "the only constructor")]
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
            // `localhost` is always a loopback address, even if /etc/hosts differs.
            .resolve_to_addrs("localhost", &localhost)
            .user_agent(concat!("azaion/", env!("CARGO_PKG_VERSION")));
        let proxy = proxy.filter(|_| api.is_tls()).map(ProxyUrl::url);
        if let Some(proxy) = proxy {
            let tunnel = Proxy::https(proxy.clone()).map_err(|e| HttpError::Client(e.into()))?;
            // One connection per call, so that the chain verified last belongs to the call, see `chain_of`.
            builder = builder.proxy(tunnel).pool_max_idle_per_host(0);
        }
        let client = builder.build().map_err(|e| HttpError::Client(e.into()))?;
        // A separate thread notices at once when the server closes an idle connection: it would be unknown whether a call sent on
        // it was carried out.
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

    /// Aborts calls soon after the network has changed: a lookup or a connection that began before could take ten seconds to fail.
    #[must_use]
    pub fn given_up_when(mut self, is_overtaken: Overtaken) -> Self {
        self.is_overtaken = Some(is_overtaken);
        self
    }

    /// Waits for a call to end; once the network has changed, only for [`GRACE`]. `None` if the call was aborted.
    async fn until_overtaken<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let Some(network) = &self.is_overtaken else { return Some(call.await) };
        let mut call = pin!(call);
        loop {
            match timeout(NETWORK_CHECK_INTERVAL, call.as_mut()).await {
                Ok(done) => return Some(done),
                Err(_) if network.has_changed() => return timeout(GRACE, call).await.ok(),
                Err(_) => {}
            }
        }
    }

    /// Stores the time of an answer that came over TLS.
    fn learn(&self, answer: &Answer) {
        if let (Some(date), Some(_)) = (answer.date, &answer.chain) {
            self.date.learn(date, self.clock.boot());
        }
    }

    /// Builds the HTTP request of a call.
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
            // The request needs its own copy, which is wiped like ours.
            request = request.header(CONTENT_TYPE, "application/json").body(Bytes::from_owner(body.clone()));
        }
        request.build()
    }

    /// Returns the certificate chain of the connection of this response; `None` without TLS.
    fn chain_of(&self, response: &Response) -> Result<Option<Arc<Chain>>, Problem> {
        if !self.api.is_tls() {
            return Ok(None);
        }
        let presented =
            response.extensions().get::<reqwest::tls::TlsInfo>().and_then(reqwest::tls::TlsInfo::peer_certificate);
        let chain = match (presented, &self.proxy) {
            (Some(own), _) => self.verifier.chain_of(own),
            // reqwest does not report the server's certificate in a tunnel, where each call has its own connection.
            (None, Some(_)) => self.verifier.last_chain(),
            (None, None) => None,
        };
        chain.map(Some).ok_or(Problem::Form("the connection's certificate was not verified"))
    }

    /// Converts an error below HTTP, and adds the proxy of the call.
    fn transport(&self, error: &reqwest::Error) -> Problem {
        match (Problem::of_transport(error), &self.proxy) {
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
        // The runtime exists as long as the client.
        let runtime = self.runtime.as_ref().ok_or_else(|| fail(Problem::Form("the client was dropped")))?;
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

/// Creates the `Authorization` header, hidden in `Debug` and wiped after use.
fn bearer_header(token: &SecretString) -> HeaderValue {
    let text = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
    // Wiped when the last reference is dropped. A token that is not a valid header value is not a valid token; the server refuses
    // it.
    let value = HeaderValue::from_maybe_shared(Bytes::from_owner(text));
    let mut value = value.unwrap_or_else(|_| HeaderValue::from_static("Bearer invalid"));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests;
