//! A small HTTPS client: one connection per request, without retries or redirects.

use crate::{DevApi, Tls};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::runtime::Builder;

/// A bidirectional byte stream.
pub(super) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

#[derive(Clone)]
pub(super) struct Client {
    address: SocketAddr,
    /// The source address; `None`: the system's choice.
    source: Option<Ipv4Addr>,
    prefix: String,
    /// `None`: plain http.
    tls: Option<Arc<ClientConfig>>,
    bearer: Option<String>,
    /// An additional header line of each request.
    header: Option<&'static str>,
    pub(super) timeout: Duration,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
    /// Whether the connection ended cleanly.
    pub(super) complete: bool,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Returns the status with the error code, if any.
    pub(super) fn outcome(&self) -> (u16, Option<u64>) {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        (self.status, body["errorCode"].as_u64())
    }
}

/// Trusts the roots in the server's CA file and speaks these TLS versions.
pub(super) fn config(api: &DevApi, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(api.ca_file()).unwrap();
    roots.add(ca).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Client {
    pub(super) fn of(api: &DevApi) -> Self {
        let tls = (api.state.options.tls != Tls::Plain).then(|| Arc::new(config(api, rustls::ALL_VERSIONS)));
        Self {
            address: api.address,
            source: None,
            prefix: api.state.options.path_prefix.clone(),
            tls,
            bearer: None,
            header: None,
            timeout: Duration::from_secs(10),
        }
    }

    pub(super) fn with_bearer(&self, token: &str) -> Self {
        Self { bearer: Some(token.to_owned()), ..self.clone() }
    }

    pub(super) fn with_header(&self, header: &'static str) -> Self {
        Self { header: Some(header), ..self.clone() }
    }

    /// Returns the same client with another loopback address as its source.
    pub(super) fn with_source(&self, source: [u8; 4]) -> Self {
        Self { source: Some(source.into()), ..self.clone() }
    }

    pub(super) fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = self.connect_tcp()?;
        stream.set_read_timeout(Some(self.timeout))?;
        let Some(config) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(connection, stream)))
    }

    /// The standard library can't set the source address of a connection; tokio can.
    fn connect_tcp(&self) -> io::Result<TcpStream> {
        let Some(source) = self.source else { return TcpStream::connect(self.address) };
        let connecting = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            socket.connect(self.address).await?.into_std()
        };
        let stream = Builder::new_current_thread().enable_io().build()?.block_on(connecting)?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    pub(super) fn text(&self, method: &str, path: &str, body: &str, keep: bool) -> String {
        let bearer = match &self.bearer {
            Some(token) => format!("authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        let header = self.header.map(|line| format!("{line}\r\n")).unwrap_or_default();
        format!(
            "{method} {}{path} HTTP/1.1\r\nhost: localhost\r\nconnection: {}\r\n{bearer}{header}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.prefix,
            if keep { "keep-alive" } else { "close" },
            body.len(),
        )
    }

    /// Sends a request; an error means that no answer arrived at all.
    pub(super) fn try_send(&self, method: &str, path: &str, body: &str) -> io::Result<Reply> {
        let mut stream = self.connect()?;
        stream.write_all(self.text(method, path, body, false).as_bytes())?;
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(split) = split else {
            end?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let body = answer.split_off(split + 4);
        let head = String::from_utf8(answer).unwrap();
        Ok(Reply { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head, body, complete: end.is_ok() })
    }

    pub(super) fn send(&self, method: &str, path: &str, body: &str) -> Reply {
        self.try_send(method, path, body).unwrap()
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &body.to_string())
    }
}
