//! The connection to the API that the command line describes: address, CA certificates, proxy, admin credentials, time limit.

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

/// Largest size of a file with the admin's secret, in bytes.
const LARGEST_SECRET: usize = 16 * 1024;

const PASSWORD_VARIABLE: &str = "AZAION_ADMIN_PASSWORD";

/// Credentials of the admin.
#[derive(Debug)]
pub(crate) enum AdminCredentials {
    /// E-mail and password, for one login per run.
    Password { email: String, password: SecretString },
    /// An access token from a file.
    Token(SecretString),
}

/// Validates the options about the API, and returns its address.
pub(crate) fn api_url(options: &ApiOptions) -> Result<ApiUrl> {
    if options.admin_token_file.is_none() && options.admin_email.as_deref().is_none_or(str::is_empty) {
        return Err(failure(Exit::Usage, "no admin credentials given; use --admin-email or --admin-token-file"));
    }
    let parsed = options.api_url.parse();
    parsed.map_err(|error: ApiUrlError| failure(Exit::Usage, format!("invalid --api-url: {error}")))
}

/// Creates the API client; one per run.
pub(crate) fn http(api: &ApiUrl, options: &ApiOptions) -> Result<Http> {
    let (ca, proxy) = (ca_file(options)?, proxy(api, options)?);
    Ok(Http::new(api, http::Options { ca: ca.as_ref(), proxy: proxy.as_ref(), clock: Arc::new(SystemClock) })?)
}

/// Returns the proxy in the options.
fn proxy(api: &ApiUrl, options: &ApiOptions) -> Result<Option<ProxyUrl>> {
    // An environment variable may be set but empty.
    let Some(text) = options.proxy.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    let proxy =
        text.parse().map_err(|error: ProxyUrlError| failure(Exit::Usage, format!("invalid --proxy: {error}")))?;
    if !api.is_tls() {
        log::warn!("--proxy is ignored: the API is on this host, over plain http");
    }
    Ok(Some(proxy))
}

/// Reads the CA file in the options.
fn ca_file(options: &ApiOptions) -> Result<Option<CaFile>> {
    // An environment variable may be set but empty.
    let Some(path) = options.ca_file.as_deref().filter(|file| !file.as_os_str().is_empty()) else { return Ok(None) };
    let file = open_to_read(path, "the CA certificates")?;
    Ok(Some(CaFile::read_from(file, path)?))
}

/// Returns the time budget for the requests of one device and the waits between them; `usual` is the default.
pub(crate) fn budget<'a>(options: &ApiOptions, usual: Duration, clock: &'a dyn Clock) -> Budget<'a> {
    // The API may still carry out a request that is abandoned early; the next run would then have to set another password.
    let policy = Policy { least: Duration::from_secs(5), ..POLICY };
    Budget::new(options.deadline.map_or(usual, Duration::from_secs), policy, clock)
}

/// Default time budget for the requests of a single device.
pub(crate) const USUAL_DEADLINE: Duration = Duration::from_secs(30);

/// Reads the admin's credentials from the options, the environment, or the terminal.
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
        // `$(cat FILE)` keeps the byte order mark of the file.
        let password = without_byte_order_mark(&password, "the admin password", PASSWORD_VARIABLE);
        return Ok(SecretString::from(password));
    }
    if !std::io::stdin().is_terminal() {
        let message = "no admin password given; use --admin-password-file FILE or set AZAION_ADMIN_PASSWORD";
        return Err(failure(Exit::Config, message));
    }
    prompt::password(&format!("Password of {email}: "))
}

/// Opens a file named by an option. The outer error is from strict modes, the inner one from the system.
fn open_to_read(path: &Path, what: &str) -> Result<io::Result<File>> {
    match ResolvedPath::find(path) {
        Ok(resolved) => Ok(resolved.open_to_read()),
        Err(PathError::Io(error)) => Ok(Err(error)),
        Err(error @ PathError::Unsafe(_)) => Err(Error::from(error).context(format!("{what} in {}", path.display()))),
    }
}

/// Reads a secret from a file with a single line. Refuses more lines: the API would refuse the secret without a helpful reason.
fn secret_file(path: &Path, what: &str) -> Result<SecretString> {
    let fail = |problem: &str| failure(Exit::Config, format!("reading {what} from {}: {problem}", path.display()));
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_SECRET + 1));
    let file = open_to_read(path, what)?.map_err(|error| fail(&error.to_string()))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o077 != 0) {
        log::warn!("{} is readable by users other than its owner; run: chmod 0600 {0}", path.display());
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

/// Removes the byte order mark that some editors write: with it, each login would fail, and ten failures lock the account.
fn without_byte_order_mark<'a>(text: &'a str, what: &str, source: &str) -> &'a str {
    let Some(rest) = text.strip_prefix('\u{feff}') else { return text };
    log::warn!(
        "{source} starts with a byte order mark, which is not part of {what} and is ignored; save the file without it"
    );
    rest
}

#[cfg(test)]
mod tests {
    use std::fs;

    use secrecy::ExposeSecret;

    use super::*;

    // Promise: a secret is the only line of its file, without a byte order mark; a file that is too large is refused, not truncated.
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
