//! The API as the command line names it: address, roots, admin credentials, and the time for all calls together.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use azaion_agent::clock::{Clock, SystemClock};
use azaion_agent::exit::Exit;
use azaion_agent::http::{Http, HttpError};
use azaion_agent::retry::{POLICY, Retry};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::cli::ApiOptions;
use crate::failure::failure;

/// How the admin proves who it is.
#[derive(Debug)]
pub(crate) enum AdminCredentials {
    /// E-mail and password, for one login a run.
    Password { email: String, password: SecretString },
    /// An access token that somebody else got.
    Token(SecretString),
}

/// A client for the API that the options name.
pub(crate) fn http(options: &ApiOptions) -> Result<Http, HttpError> {
    Http::new(&options.api_url, options.ca_file.as_deref(), Arc::new(SystemClock))
}

/// The time for all calls of this run, counted from now.
pub(crate) fn retry<'a>(options: &ApiOptions, clock: &'a dyn Clock) -> Retry<'a> {
    Retry::within(Duration::from_secs(options.deadline), POLICY, clock)
}

/// The admin's credentials, from where the options and the environment say.
pub(crate) fn admin_credentials(options: &ApiOptions) -> anyhow::Result<AdminCredentials> {
    if let Some(file) = &options.admin_token_file {
        return secret_file(file, "the admin token").map(AdminCredentials::Token);
    }
    let email = options.admin_email.clone().unwrap_or_default();
    let password = match &options.admin_password_file {
        Some(file) => secret_file(file, "the admin password")?,
        None => password_without_file(&email)?,
    };
    Ok(AdminCredentials::Password { email, password })
}

fn password_without_file(email: &str) -> anyhow::Result<SecretString> {
    if let Some(password) = std::env::var("AZAION_ADMIN_PASSWORD").ok().map(Zeroizing::new).filter(|p| !p.is_empty()) {
        return Ok(SecretString::from(password.as_str()));
    }
    if !std::io::stdin().is_terminal() {
        let message = "there is no admin password; give --admin-password-file FILE, or set AZAION_ADMIN_PASSWORD";
        return Err(failure(Exit::Config, message));
    }
    let password = rpassword::prompt_password(format!("Password of {email}: "))
        .map_err(|error| failure(Exit::Config, format!("asking for the admin password: {error}")))?;
    Ok(SecretString::from(password))
}

/// The first line of a file; anything after it is a mistake that would otherwise lead to a puzzling refusal.
fn secret_file(path: &Path, what: &str) -> anyhow::Result<SecretString> {
    let fail = |problem: &str| failure(Exit::Config, format!("reading {what} from {}: {problem}", path.display()));
    let bytes = Zeroizing::new(fs::read(path).map_err(|error| fail(&error.to_string()))?);
    let text = std::str::from_utf8(&bytes).map_err(|_| fail("it is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err(fail("it is empty")),
        line if line.contains(['\n', '\r', '\0']) => Err(fail("it has more than one line")),
        line => Ok(SecretString::from(line)),
    }
}
