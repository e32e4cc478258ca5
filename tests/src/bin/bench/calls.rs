//! The API calls of a batch alone: a login, and a new user for each device, with as many threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use azaion_agent::api::http::{ApiClient, CaFile, Call, Http, Method, Options};
use azaion_agent::api::json;
use azaion_agent::api::session;
use azaion_agent::api::url::ApiUrl;
use azaion_agent::common::clock::SystemClock;
use azaion_agent::common::identity::{ROLE, Serial, new_password};
use azaion_tests::dev_api::{ADMIN_EMAIL, ADMIN_PASSWORD};
use secrecy::{ExposeSecret, SecretString};

/// The default number of workers of a batch.
const JOBS: usize = 8;
/// Time limit of a call.
const LIMIT: Duration = Duration::from_secs(10);

/// Options of the calls; the benchmark starts them as a separate process, as it starts the batch.
#[derive(clap::Args)]
pub(crate) struct Calls {
    api: ApiUrl,
    ca_file: PathBuf,
    first: usize,
    last: usize,
}

#[derive(serde::Serialize)]
struct NewUser<'a> {
    email: &'a str,
    password: &'a str,
    role: &'a str,
}

impl Calls {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let token =
            session::login(&self.client()?, ADMIN_EMAIL, &SecretString::from(ADMIN_PASSWORD), Ok(LIMIT))?.0.access;
        let next = AtomicUsize::new(self.first);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..JOBS).map(|_| scope.spawn(|| self.work(&token, &next))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
        })
    }

    fn client(&self) -> anyhow::Result<Http> {
        Ok(Http::new(
            &self.api,
            Options { ca: Some(&CaFile::read(&self.ca_file)?), proxy: None, clock: Arc::new(SystemClock) },
        )?)
    }

    fn work(&self, token: &SecretString, next: &AtomicUsize) -> anyhow::Result<()> {
        let http = self.client()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number > self.last {
                return Ok(());
            }
            create(&http, token, number)?;
        }
    }
}

/// Returns the serial of a number in the form that a batch uses.
pub(crate) fn serial(number: usize) -> String {
    format!("AZJN-{number:06}")
}

fn create(http: &Http, token: &SecretString, number: usize) -> anyhow::Result<()> {
    let serial: Serial = serial(number).parse()?;
    let (email, password) = (serial.email(), new_password().context("a password")?);
    let body = json::body(&NewUser { email: &email, password: password.expose_secret(), role: ROLE });
    let call = Call { method: Method::POST, path: "/users", body: Some(body), bearer: Some(token), is_uncached: false };
    let status = http.call(&call, Ok(LIMIT))?.status;
    ensure!(status == 201, "POST /users: {status}");
    Ok(())
}
