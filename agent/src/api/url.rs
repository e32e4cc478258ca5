//! The URL of the admin API, validated once so that no password is sent unencrypted.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;

/// The API's base URL: https, or plain http to a loopback address; no user, query or fragment.
///
/// It has only characters that a `device.conf` value may have, so that it can always be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiUrl {
    /// The given text without trailing slashes.
    text: String,
    url: Url,
}

/// Why a text is not an acceptable URL. The text is not repeated, because it may contain a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiUrlError {
    /// Not a URL.
    #[error("not a URL such as https://admin.example.com")]
    Malformed,
    /// Neither https nor http.
    #[error("the scheme must be https")]
    Scheme,
    /// Plain http to another machine.
    #[error("plain http is accepted only to a loopback address such as 127.0.0.1; use https")]
    PlainHttp,
    /// A user or password inside the URL.
    #[error("a user or password inside the URL is refused")]
    UserInfo,
    /// A query or fragment.
    #[error("a query or fragment is refused")]
    Query,
    /// A character that a `device.conf` value can't have.
    #[error("only the characters A-Z a-z 0-9 @ % + = : , . / _ - are allowed")]
    Character,
}

/// Maximum number of characters between two dots of a name (RFC 1035, 2.3.4).
const LONGEST_LABEL: usize = 63;

/// Whether `value` can stand in a `device.conf` line without quoting.
pub fn is_plain_value(value: &str) -> bool {
    value.bytes().all(|b| b.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(&b))
}

impl FromStr for ApiUrl {
    type Err = ApiUrlError;

    fn from_str(given: &str) -> Result<Self, ApiUrlError> {
        // First of all, so that the two fields can't differ.
        let text = given.trim_end_matches('/');
        let url = Url::parse(text).map_err(|_| ApiUrlError::Malformed)?;
        let host = url.host_str().ok_or(ApiUrlError::Malformed)?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(host) => {}
            "http" => return Err(ApiUrlError::PlainHttp),
            _ => return Err(ApiUrlError::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ApiUrlError::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(ApiUrlError::Query);
        }
        if !is_plain_value(text) {
            return Err(ApiUrlError::Character);
        }
        if !is_written_out(text, &url) || !host.split('.').all(|label| label.len() <= LONGEST_LABEL) {
            return Err(ApiUrlError::Malformed);
        }
        Ok(Self { text: text.to_owned(), url })
    }
}

/// Whether the text contains host and port literally: the URL parser also accepts `https:host`, `https:///host`,
/// `https://%61.example` or `http://2130706433`, which a person, a shell or another program would read differently.
fn is_written_out(text: &str, url: &Url) -> bool {
    let plain = format!("{}://{}", url.scheme(), url.authority());
    let rest = text.get(plain.len()..).filter(|_| text.to_ascii_lowercase().starts_with(&plain));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':']))
}

/// Whether a host is a loopback address.
///
/// `localhost` counts: the HTTP client pins that name to `127.0.0.1` and `::1` (RFC 6761, 6.3).
fn is_loopback(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl ApiUrl {
    /// Returns the URL as text, without trailing slashes.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the name or IP address of the server.
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns host and port for messages, such as `admin.example.com:8443`.
    pub fn authority(&self) -> &str {
        self.url.authority()
    }

    /// Returns the TCP port, by default that of the scheme.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(443)
    }

    /// Whether the connection uses TLS.
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Returns the URL of one route; `path` starts with a slash.
    pub(crate) fn route(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A label of 64 letters.
    const LONG_LABEL: &str = "https://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example";

    // Promise: a password is sent only through TLS, or to this machine.
    #[test]
    fn accepts_only_safe_addresses() {
        for (text, expected) in [
            ("https://admin.azaion.com", Ok("https://admin.azaion.com")),
            ("https://admin.azaion.com:8443/base/", Ok("https://admin.azaion.com:8443/base")),
            ("http://127.0.0.1:8080", Ok("http://127.0.0.1:8080")),
            ("http://localhost:8080/", Ok("http://localhost:8080")),
            ("http://127.9.9.9", Ok("http://127.9.9.9")),
            ("http://[::1]:8080", Err(ApiUrlError::Character)),
            ("http://admin.azaion.com", Err(ApiUrlError::PlainHttp)),
            ("http://127.0.0.1.example.com", Err(ApiUrlError::PlainHttp)),
            ("http://localhost.example.com", Err(ApiUrlError::PlainHttp)),
            ("http://192.168.1.1", Err(ApiUrlError::PlainHttp)),
            ("ftp://admin.azaion.com", Err(ApiUrlError::Scheme)),
            ("https://me:word@admin.azaion.com", Err(ApiUrlError::UserInfo)),
            ("https://me@admin.azaion.com", Err(ApiUrlError::UserInfo)),
            ("https://:word@admin.azaion.com", Err(ApiUrlError::UserInfo)),
            ("https://admin.azaion.com/?a=b", Err(ApiUrlError::Query)),
            ("https://admin.azaion.com/#x", Err(ApiUrlError::Query)),
            ("https://admin.azaion.com/a b", Err(ApiUrlError::Character)),
            ("admin.azaion.com", Err(ApiUrlError::Malformed)),
            ("https://", Err(ApiUrlError::Malformed)),
            ("https://Admin.Azaion.com:443/x", Ok("https://Admin.Azaion.com:443/x")),
            ("https://admin.azaion.com//", Ok("https://admin.azaion.com")),
            (LONG_LABEL, Err(ApiUrlError::Malformed)),
            ("https:admin.azaion.com", Err(ApiUrlError::Malformed)),
            ("https:///admin.azaion.com", Err(ApiUrlError::Malformed)),
            ("https://@admin.azaion.com", Err(ApiUrlError::Malformed)),
            ("https://%61dmin.azaion.com", Err(ApiUrlError::Malformed)),
            ("http://2130706433:1", Err(ApiUrlError::Malformed)),
            ("", Err(ApiUrlError::Malformed)),
        ] {
            let got = text.parse::<ApiUrl>();
            assert_eq!(got.as_ref().map(ApiUrl::as_str).map_err(|e| *e), expected, "{text}");
        }
    }

    // Promise: a URL that was written to a device.conf is equal when it is read (found by fuzzing: the path was `//`).
    #[test]
    fn survives_writing_and_reading() {
        for text in ["https://a.example//", "https://a.example:///", "https://a.example/base//"] {
            let url: ApiUrl = text.parse().unwrap();
            assert_eq!(url.as_str().parse(), Ok(url), "{text}");
        }
    }

    // Promise: host, port and TLS are those of the URL, with the default port of the scheme.
    #[test]
    fn is_split_into_its_parts() {
        for (text, host, authority, port, is_tls) in [
            ("https://a.example", "a.example", "a.example", 443, true),
            ("https://a.example:8443/base", "a.example", "a.example:8443", 8443, true),
            ("http://localhost/", "localhost", "localhost", 80, false),
            ("http://127.0.0.1:8080", "127.0.0.1", "127.0.0.1:8080", 8080, false),
        ] {
            let url: ApiUrl = text.parse().unwrap();
            let got = (url.host(), url.authority(), url.port(), url.is_tls());
            assert_eq!(got, (host, authority, port, is_tls), "{text}");
            assert_eq!(url.to_string(), text.trim_end_matches('/'));
        }
    }

    // Promise: a path prefix in the URL precedes every route.
    #[test]
    fn routes_keep_the_prefix() {
        for (base, route) in [
            ("https://a.example", "https://a.example/login"),
            ("https://a.example/base/", "https://a.example/base/login"),
        ] {
            assert_eq!(base.parse::<ApiUrl>().unwrap().route("/login").as_str(), route);
        }
    }
}
