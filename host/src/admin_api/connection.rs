//! The API as the command line names it: address, roots, admin credentials, and the time for all calls together.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use azaion_agent::api::http::{self, CaFile, Http};
use azaion_agent::api::proxy_url::{ProxyUrl, ProxyUrlError};
use azaion_agent::api::retry::{Budget, POLICY, Policy};
use azaion_agent::api::url::{ApiUrl, ApiUrlError};
use azaion_agent::common::clock::{Clock, SystemClock};
use azaion_agent::common::exit::Exit;
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::cli::ApiOptions;
use crate::error::{Error, Result, failure};
use crate::interrupt;
use crate::resolved_path::{PathError, ResolvedPath};
use crate::ui::prompt;

/// Bytes that a file with the admin's secret may have at most.
const LARGEST_SECRET: usize = 16 * 1024;

const PASSWORD_VARIABLE: &str = "AZAION_ADMIN_PASSWORD";

/// How the admin proves who it is.
#[derive(Debug)]
pub(crate) enum AdminCredentials {
    /// E-mail and password, for one login a run.
    Password { email: String, password: SecretString },
    /// An access token that somebody else got.
    Token(SecretString),
}

/// Judges what the command line says about the API, before anything is done.
pub(crate) fn api_url(options: &ApiOptions) -> Result<ApiUrl> {
    if options.admin_token_file.is_none() && options.admin_email.as_deref().is_none_or(str::is_empty) {
        return Err(failure(Exit::Usage, "who is the admin? give --admin-email, or --admin-token-file"));
    }
    let parsed = options.api_url.parse();
    parsed.map_err(|error: ApiUrlError| {
        failure(Exit::Usage, format!("the address given as --api-url can't be used: {error}"))
    })
}

/// The client for the API, one for the whole run.
pub(crate) fn http(api: &ApiUrl, options: &ApiOptions) -> Result<Http> {
    let (ca, proxy) = (ca_file(options)?, proxy(api, options)?);
    Ok(Http::new(api, http::Options { ca: ca.as_ref(), proxy: proxy.as_ref(), clock: Arc::new(SystemClock) })?)
}

/// The proxy that the options name.
fn proxy(api: &ApiUrl, options: &ApiOptions) -> Result<Option<ProxyUrl>> {
    // As of a variable that is there and empty.
    let Some(text) = options.proxy.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    let proxy = text.parse().map_err(|error: ProxyUrlError| {
        failure(Exit::Usage, format!("the address given as --proxy can't be used: {error}"))
    })?;
    if !api.is_tls() {
        log::warn!("the API is on this machine, by plain http, so the proxy is not used");
    }
    Ok(Some(proxy))
}

/// The CA file that the options name.
fn ca_file(options: &ApiOptions) -> Result<Option<CaFile>> {
    // As of a variable that is there and empty.
    let Some(path) = options.ca_file.as_deref().filter(|file| !file.as_os_str().is_empty()) else { return Ok(None) };
    let file = open_to_read(path, "the CA certificates")?;
    Ok(Some(CaFile::read_from(file, path)?))
}

/// The time for the calls of one device and the waits between them; `usual` where the command line names none.
pub(crate) fn budget<'a>(options: &ApiOptions, usual: Duration, clock: &'a dyn Clock) -> Budget<'a> {
    // A call that is given up early may be carried out all the same, and the next run would have to set another password.
    let policy = Policy { least: Duration::from_secs(5), ..POLICY };
    Budget::new(options.deadline.map_or(usual, Duration::from_secs), policy, clock)
}

/// The usual time for the calls of a device alone.
pub(crate) const USUAL_DEADLINE: Duration = Duration::from_secs(30);

/// The admin's credentials, from where the options and the environment say.
pub(crate) fn admin_credentials(options: &ApiOptions) -> Result<AdminCredentials> {
    if let Some(file) = &options.admin_token_file {
        return secret_file(file, "the admin token").map(AdminCredentials::Token);
    }
    let email = options.admin_email.clone().unwrap_or_default();
    let password = match options.admin_password_file.as_ref().filter(|file| !file.as_os_str().is_empty()) {
        Some(file) => secret_file(file, "the admin password")?,
        None => password_without_file(&email)?,
    };
    Ok(AdminCredentials::Password { email, password })
}

fn password_without_file(email: &str) -> Result<SecretString> {
    if let Some(password) = std::env::var(PASSWORD_VARIABLE).ok().map(Zeroizing::new).filter(|p| !p.is_empty()) {
        // As of `$(cat FILE)`.
        let password = without_byte_order_mark(&password, "the admin password", PASSWORD_VARIABLE);
        return Ok(SecretString::from(password));
    }
    if !std::io::stdin().is_terminal() {
        let message = "there is no admin password; give --admin-password-file FILE, or set AZAION_ADMIN_PASSWORD";
        return Err(failure(Exit::Config, message));
    }
    prompt::password(&format!("Password of {email}: "))
}

/// Opens a file that an option names. The outer error is that of strict modes, the inner one that of the system.
fn open_to_read(path: &Path, what: &str) -> Result<io::Result<File>> {
    match ResolvedPath::find(path) {
        Ok(place) => Ok(place.open_to_read()),
        Err(PathError::Io(error)) => Ok(Err(error)),
        Err(error @ PathError::Unsafe(_)) => Err(Error::from(error).context(format!("{what} in {}", path.display()))),
    }
}

/// The one line of a file; more would lead to a puzzling refusal.
fn secret_file(path: &Path, what: &str) -> Result<SecretString> {
    let fail = |problem: &str| failure(Exit::Config, format!("reading {what} from {}: {problem}", path.display()));
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_SECRET + 1));
    let file = open_to_read(path, what)?.map_err(|error| fail(&error.to_string()))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o077 != 0) {
        log::warn!("{} can be read by others than its owner; chmod 0600 it", path.display());
    }
    interrupt::while_reading(|| file.take(LARGEST_SECRET as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(&error.to_string()))?;
    if bytes.len() > LARGEST_SECRET {
        return Err(fail("it is larger than 16 KiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| fail("it is not UTF-8"))?;
    let text = without_byte_order_mark(text, what, &path.display().to_string());
    let line = text.strip_suffix('\n').unwrap_or(text);
    match line.strip_suffix('\r').unwrap_or(line) {
        "" => Err(fail("it is empty")),
        line if line.contains(['\n', '\r', '\0']) => Err(fail("it has more than one line")),
        line => Ok(SecretString::from(line)),
    }
}

/// A secret without the byte order mark that some editors put first: with it, each login fails, and ten failures lock the account.
fn without_byte_order_mark<'a>(text: &'a str, what: &str, source: &str) -> &'a str {
    let Some(rest) = text.strip_prefix('\u{feff}') else { return text };
    log::warn!(
        "{source} starts with a byte order mark, which is not taken as a part of {what}; save it as UTF-8 without one"
    );
    rest
}

#[cfg(test)]
mod tests {
    use std::fs;

    use secrecy::ExposeSecret;

    use super::*;

    // Promise: a secret is the one line of its file, without a byte order mark; what is longer than a secret is refused, not cut.
    #[test]
    fn secret_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().canonicalize().unwrap().join("secret");
        let longest = "x".repeat(LARGEST_SECRET);
        for (content, expected) in [
            ("hush", Ok("hush")),
            ("hush\r\n", Ok("hush")),
            ("\u{feff}hush\r\n", Ok("hush")),
            (longest.as_str(), Ok(longest.as_str())),
            ("", Err("it is empty")),
            ("\u{feff}\n", Err("it is empty")),
            ("hush\nhush\n", Err("more than one line")),
            (&format!("{longest}\nhush"), Err("larger than 16 KiB")),
            (&format!("{longest}\u{e4}"), Err("larger than 16 KiB")),
        ] {
            fs::write(&file, content).unwrap();
            let read = secret_file(&file, "the admin password").map_err(|error| error.line());
            match (read, expected) {
                (Ok(secret), Ok(expected)) => assert_eq!(secret.expose_secret(), expected),
                (Err(error), Err(part)) => {
                    assert!(error.contains(part) && !error.contains("hush"), "{error}");
                }
                (read, expected) => panic!("{:?} for {content:?}, not {expected:?}", read.map(|_| "a secret")),
            }
        }
    }
}
