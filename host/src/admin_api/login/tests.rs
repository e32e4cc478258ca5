use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use azaion_agent::api::http::Http;
use azaion_agent::api::retry::POLICY;
use azaion_agent::common::clock::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::admin_api::connection;
use crate::test_server;

/// A clock that advances only in `sleep`.
#[derive(Debug, Default)]
struct StillClock(Mutex<Duration>);

impl Clock for StillClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_unix(1_777_802_400)
    }

    fn boot(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

const TOKEN: &str = r#"{"token":"token-NUMBER"}"#;

/// Answers each login with this status and body, with a new token in it. Returns the address and the number of logins.
fn serve(status: u16, body: &'static str) -> (String, Arc<AtomicUsize>) {
    let logins = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&logins);
    let url = test_server::serve(move |_| {
        Some((status, body.replace("NUMBER", &counter.fetch_add(1, Ordering::SeqCst).to_string())))
    });
    (url, logins)
}

fn file(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("secret");
    File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path
}

fn options(api_url: String, password: Option<PathBuf>, token: Option<PathBuf>) -> ApiOptions {
    ApiOptions {
        api_url,
        ca_file: None,
        proxy: None,
        admin_email: Some("a@azaion.com".into()),
        admin_password_file: password,
        admin_token_file: token,
        deadline: None,
    }
}

fn http(options: &ApiOptions) -> Http {
    connection::http(&connection::api_url(options).unwrap(), options).unwrap()
}

// Promise: an expired token is renewed by one login, whichever worker notices first; a fresh token that is refused has not expired and
// is not renewed.
#[test]
fn an_expired_token_is_renewed_once() {
    let (url, logins) = serve(200, TOKEN);
    let (dir, clock) = (TempDir::new().unwrap(), StillClock::default());
    let options = options(url, Some(file(&dir, "p")), None);
    let (http, login) = (http(&options), AdminLogin::new(&options, &clock));
    let budget = Budget::new(Duration::from_mins(5), POLICY, &clock);
    let token = || login.token(&http, &budget).unwrap();
    let first = token();
    clock.sleep(FRESH.saturating_sub(Duration::from_secs(1)));
    assert!(!login.forget(&first));
    assert_eq!((token().expose_secret(), logins.load(Ordering::SeqCst)), (first.expose_secret(), 1));
    clock.sleep(Duration::from_secs(1));
    assert!(login.forget(&first));
    // Another worker still has the old token; it learns that there is another one, and the new token stays.
    let second = token();
    assert!(login.forget(&first) && second.expose_secret() != first.expose_secret());
    assert_eq!((token().expose_secret(), logins.load(Ordering::SeqCst)), (second.expose_secret(), 2));
    assert!(!login.forget(&second) && !login.is_refused());
}

// Promise: workers that need a token at the same time share one login; a refused password is tried once. An invalid response is not
// repeated either, and is no refusal.
#[test]
fn one_login_for_all_workers() {
    let refusal = r#"{"ErrorCode":70,"Message":"m"}"#;
    for (status, body, exit) in [
        (200, TOKEN, None),
        (401, refusal, Some(Exit::Refused)),
        (401, "", Some(Exit::Protocol)),
        (403, "<html>", Some(Exit::Protocol)),
    ] {
        let (url, logins) = serve(status, body);
        let (dir, clock) = (TempDir::new().unwrap(), StillClock::default());
        let options = options(url, Some(file(&dir, "p")), None);
        let login = AdminLogin::new(&options, &clock);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let budget = Budget::new(Duration::from_mins(5), POLICY, &clock);
                    let result = login.token(&http(&options), &budget);
                    assert_eq!(result.map(drop).map_err(|error| error.exit()).err(), exit);
                });
            }
        });
        assert_eq!((logins.load(Ordering::SeqCst), login.is_refused()), (1, exit.is_some()));
    }
}

// Promise: a token file is read again after the token has expired, because it may have been replaced; there is no login.
#[test]
fn a_token_file_is_read_again() {
    let (url, logins) = serve(200, TOKEN);
    let (dir, clock) = (TempDir::new().unwrap(), StillClock::default());
    let options = options(url, None, Some(file(&dir, "first-token")));
    let (http, login) = (http(&options), AdminLogin::new(&options, &clock));
    let budget = Budget::new(Duration::from_mins(5), POLICY, &clock);
    let first = login.token(&http, &budget).unwrap();
    file(&dir, "second-token");
    assert_eq!(login.token(&http, &budget).unwrap().expose_secret(), first.expose_secret());
    clock.sleep(FRESH);
    assert!(login.forget(&first));
    assert_eq!(login.token(&http, &budget).unwrap().expose_secret(), "second-token");
    assert_eq!(logins.load(Ordering::SeqCst), 0);
}
