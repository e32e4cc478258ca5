//! The admin's access token, shared by all calls of a run: got when it is first needed, by one login, and again once it
//! has run out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use azaion_agent::api::fault::{Class, Fault, Problem};
use azaion_agent::api::http::ApiClient;
use azaion_agent::api::retry::Budget;
use azaion_agent::api::session::login;
use azaion_agent::common::clock::Clock;
use azaion_agent::common::exit::Exit;
use secrecy::{ExposeSecret, SecretString};

use super::role::LearnedForm;
use crate::admin_api::connection::{AdminCredentials, admin_credentials};
use crate::cli::ApiOptions;
use crate::error::{Error, Result, failure};

/// A token that is refused before this time has not run out: the admin may not do what was asked for.
const FRESH: Duration = Duration::from_mins(1);

/// The admin of this run.
#[derive(Debug)]
pub(crate) struct AdminLogin<'a> {
    options: &'a ApiOptions,
    clock: &'a dyn Clock,
    state: Mutex<State>,
    /// How this server takes the role of new users.
    pub(super) role: LearnedForm,
}

#[derive(Debug, Default)]
struct State {
    /// Read once, for a person may have been asked for it.
    credentials: Option<AdminCredentials>,
    token: Option<Token>,
    /// Why the API did not let the admin in, and the exit code. It is not asked again: ten failures lock an account.
    refused: Option<(Exit, String)>,
}

#[derive(Debug)]
struct Token {
    text: SecretString,
    /// When it was got, on the boot clock.
    since: Duration,
}

impl<'a> AdminLogin<'a> {
    pub(crate) fn new(options: &'a ApiOptions, clock: &'a dyn Clock) -> Self {
        Self { options, clock, state: Mutex::default(), role: LearnedForm::default() }
    }

    /// The same with credentials that need not be read.
    #[cfg(test)]
    pub(crate) fn with_credentials(
        options: &'a ApiOptions,
        clock: &'a dyn Clock,
        credentials: AdminCredentials,
    ) -> Self {
        let state = State { credentials: Some(credentials), ..State::default() };
        Self { state: Mutex::new(state), ..Self::new(options, clock) }
    }

    /// Whether a token was given, instead of a password.
    pub(crate) fn has_token_file(&self) -> bool {
        self.options.admin_token_file.is_some()
    }

    /// Reads the credentials, or asks for them, before anything else is on the terminal.
    pub(crate) fn prepare(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.credentials.is_none() {
            state.credentials = Some(admin_credentials(self.options)?);
        }
        Ok(())
    }

    /// Whether the API has refused the admin, or its answer can't be accepted, so that nothing more can be done.
    pub(crate) fn is_refused(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).refused.is_some()
    }

    /// The token. Those who come while one logs in wait for it.
    pub(crate) fn token(&self, http: &dyn ApiClient, budget: &Budget<'_>) -> Result<SecretString> {
        self.prepare()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &state.token {
            return Ok(token.text.clone());
        }
        if let Some((exit, why)) = &state.refused {
            return Err(failure(*exit, why.clone()));
        }
        let text = match state.credentials.take() {
            Some(AdminCredentials::Token(token)) => token,
            Some(AdminCredentials::Password { email, password }) => {
                let done = budget.run(|limit| login(http, &email, &password, limit));
                state.credentials = Some(AdminCredentials::Password { email: email.clone(), password });
                done.map(|(tokens, _)| tokens.access).map_err(|fault| {
                    // An answer that is not the API's may be a refusal in a form that we don't know.
                    let is_for_good = matches!(fault.class(), Class::Refused | Class::Protocol);
                    let error = login_failure(fault, &email);
                    state.refused = is_for_good.then(|| (error.exit(), error.line()));
                    error
                })?
            }
            None => return Err(failure(Exit::Internal, "the admin's credentials are gone")),
        };
        state.token = Some(Token { text: text.clone(), since: self.clock.boot() });
        Ok(text)
    }

    /// The API refuses what the admin asks for: nothing more is asked in this run.
    pub(crate) fn give_up(&self, why: &Error) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.token = None;
        state.refused = Some((why.exit(), why.line()));
    }

    /// Forgets a token that the API has refused, if it may have run out. Whether there is another to be had.
    pub(crate) fn forget(&self, refused: &SecretString) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.boot();
        match &state.token {
            Some(token) if token.text.expose_secret() == refused.expose_secret() => {
                let has_run_out = now.saturating_sub(token.since) >= FRESH;
                if has_run_out {
                    state.token = None;
                }
                has_run_out
            }
            _ => true,
        }
    }
}

fn login_failure(fault: Fault, email: &str) -> Error {
    let context = match (&fault.problem, fault.class()) {
        (Problem::Mfa, _) => {
            format!("logging in as the admin {email}; use --admin-token-file with an account that has MFA")
        }
        (_, Class::Refused) => format!("logging in as the admin {email}; are e-mail and password right?"),
        _ => format!("logging in as the admin {email}"),
    };
    Error::from(fault).context(context)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
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

    /// Moves only when it is told to, or when somebody waits.
    #[derive(Debug, Default)]
    struct Still(Mutex<Duration>);

    impl Clock for Still {
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

    /// Answers each login with this status, this body, and in it a token of its own; how many there were.
    fn serve(status: u16, body: &'static str) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let logins = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&logins);
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut reader = BufReader::new(connection.try_clone().unwrap());
                let head: Vec<String> =
                    reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
                let length = head
                    .iter()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
                reader.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
                let body = body.replace("NUMBER", &counter.fetch_add(1, Ordering::SeqCst).to_string());
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
                connection.write_all(answer.as_bytes()).unwrap();
            }
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

    // Promise: a token that the API takes no longer is renewed by one login, whoever notices first; one that is refused while
    // it is fresh has not run out, and is not.
    #[test]
    fn a_token_that_has_run_out_is_renewed_once() {
        let (url, logins) = serve(200, TOKEN);
        let (dir, clock) = (TempDir::new().unwrap(), Still::default());
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
        // Another worker has the old one still; it is told that there is another, and the new one stays.
        let second = token();
        assert!(login.forget(&first) && second.expose_secret() != first.expose_secret());
        assert_eq!((token().expose_secret(), logins.load(Ordering::SeqCst)), (second.expose_secret(), 2));
        assert!(!login.forget(&second) && !login.is_refused());
    }

    // Promise: all workers that need a token at the same time share one login; a password that is refused is tried once, and so is
    // one that is met with an answer that is not the API's, which is not called a refusal.
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
            let (dir, clock) = (TempDir::new().unwrap(), Still::default());
            let options = options(url, Some(file(&dir, "p")), None);
            let login = AdminLogin::new(&options, &clock);
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let budget = Budget::new(Duration::from_mins(5), POLICY, &clock);
                        let got = login.token(&http(&options), &budget);
                        assert_eq!(got.map(drop).map_err(|error| error.exit()).err(), exit);
                    });
                }
            });
            assert_eq!((logins.load(Ordering::SeqCst), login.is_refused()), (1, exit.is_some()));
        }
    }

    // Promise: a token that was given is read again once it has run out, for somebody may have put a new one there; nobody
    // logs in.
    #[test]
    fn a_given_token_is_read_again() {
        let (url, logins) = serve(200, TOKEN);
        let (dir, clock) = (TempDir::new().unwrap(), Still::default());
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
}
