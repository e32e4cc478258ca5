//! The URL of an HTTP proxy that tunnels TLS (CONNECT, RFC 9110, 9.3.6).

use std::str::FromStr;

use reqwest::Url;

/// The URL of an HTTP proxy, `http://HOST:PORT`. TLS is end to end, so the proxy sees neither passwords nor tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl(Url);

/// Why a text is not the URL of a proxy. The text is not repeated, because it may contain a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    /// Not a URL with a host.
    #[error("the proxy is not a URL such as http://proxy.example.com:3128")]
    Malformed,
    /// The scheme is not http.
    #[error("the proxy must be an http:// URL; TLS is end to end through it")]
    Scheme,
    /// A user or password.
    #[error(
        "a user or password inside the proxy's URL is refused; configure the proxy to accept this machine by its IP address"
    )]
    UserInfo,
    /// A path, query or fragment.
    #[error("the proxy's URL must have only host and port")]
    Path,
}

impl ProxyUrl {
    /// Returns the URL.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Returns the name or IP address.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the TCP port.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(80)
    }
}

impl FromStr for ProxyUrl {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let url = Url::parse(text).map_err(|_| ProxyUrlError::Malformed)?;
        if url.scheme() != "http" {
            return Err(ProxyUrlError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ProxyUrlError::UserInfo);
        }
        if !url.has_host() {
            return Err(ProxyUrlError::Malformed);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyUrlError::Path);
        }
        Ok(Self(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: only a URL with host and port is accepted; errors never repeat a possible secret.
    #[test]
    fn only_host_and_port_are_a_proxy() {
        for (text, expected) in [
            ("http://proxy.example:3128", None),
            ("http://proxy.example", None),
            ("http://[::1]:3128/", None),
            ("proxy.example:3128", Some(ProxyUrlError::Scheme)),
            ("https://proxy.example:3128", Some(ProxyUrlError::Scheme)),
            ("socks5://proxy.example", Some(ProxyUrlError::Scheme)),
            ("http://hush@proxy.example", Some(ProxyUrlError::UserInfo)),
            ("http://u:hush@proxy.example", Some(ProxyUrlError::UserInfo)),
            ("http://proxy.example/path", Some(ProxyUrlError::Path)),
            ("http://proxy.example/?hush", Some(ProxyUrlError::Path)),
            ("", Some(ProxyUrlError::Malformed)),
            ("http://", Some(ProxyUrlError::Malformed)),
        ] {
            let error = text.parse::<ProxyUrl>().err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.is_some_and(|error| error.to_string().contains("hush")), "{text}");
        }
    }
}
