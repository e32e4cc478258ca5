//! An HTTP proxy on a loopback port that tunnels connections (CONNECT), refuses them, or never answers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The most bytes of a request head.
const LONGEST_HEAD: usize = 16 * 1024;

/// What the proxy does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Tunnels it.
    Allow,
    /// Tunnels it to this address, whatever target it asks for.
    AllowTo(SocketAddr),
    /// Asks for a login: 407.
    AsksForLogin,
    /// Refuses it: 403.
    Refuses,
    /// Cannot reach the server: 502.
    CannotReach,
    /// Never answers.
    Hangs,
}

/// State of the proxy.
#[derive(Debug, Default)]
struct Seen {
    mode: Option<Mode>,
    connections: usize,
    heads: Vec<String>,
    /// All bytes received from clients.
    bytes: Vec<u8>,
    /// The open connections, both ends; `None` once the proxy has ended.
    open: Option<Vec<TcpStream>>,
}

/// A proxy that runs until dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Proxy {
    /// Starts it on a free port of the loopback address.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn start(mode: Mode) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Seen { mode: Some(mode), open: Some(Vec::new()), ..Seen::default() }));
        let shared = Arc::clone(&seen);
        thread::spawn(move || accept(&listener, &shared));
        Ok(Self { address, seen })
    }

    /// Returns the port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns its URL in the form that `agent.toml` uses.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets how it handles requests from now on.
    pub fn set_mode(&self, mode: Mode) {
        lock(&self.seen).mode = Some(mode);
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        lock(&self.seen).connections
    }

    /// Returns the heads of the requests, in the order of arrival.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.seen).heads.clone()
    }

    /// Returns whether a client has sent this text unencrypted, in a head or through a tunnel.
    pub fn has_seen(&self, text: &str) -> bool {
        lock(&self.seen).bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let open = lock(&self.seen).open.take();
        // Errors concern only the clients.
        open.into_iter().flatten().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        // Wakes the thread that accepts, which then sees that the proxy has ended.
        drop(TcpStream::connect(self.address));
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stores a connection, so that it is closed with the proxy; returns `false` if that has ended.
fn keep(seen: &Mutex<Seen>, stream: &TcpStream) -> bool {
    match (&mut lock(seen).open, stream.try_clone()) {
        (Some(open), Ok(stream)) => {
            open.push(stream);
            true
        }
        _ => false,
    }
}

fn accept(listener: &TcpListener, seen: &Arc<Mutex<Seen>>) {
    for client in listener.incoming().flatten() {
        if !keep(seen, &client) {
            return;
        }
        lock(seen).connections += 1;
        let seen = Arc::clone(seen);
        // Errors concern only the client.
        thread::spawn(move || drop(serve(client, &seen)));
    }
}

fn serve(mut client: TcpStream, seen: &Arc<Mutex<Seen>>) -> io::Result<()> {
    let head = head_of(&mut client)?;
    let mode = {
        let mut seen = lock(seen);
        seen.bytes.extend_from_slice(head.as_bytes());
        seen.heads.push(head.clone());
        seen.mode
    };
    let refusal = match mode {
        Some(Mode::Allow) if head.starts_with("CONNECT ") => {
            return tunnel(client, TcpStream::connect(target_of(&head)), seen);
        }
        Some(Mode::AllowTo(server)) if head.starts_with("CONNECT ") => {
            return tunnel(client, TcpStream::connect(server), seen);
        }
        // A proxy that forwards plain requests could read their content.
        Some(Mode::Allow | Mode::AllowTo(_)) => "405 Method Not Allowed\r\nAllow: CONNECT",
        Some(Mode::AsksForLogin) => "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"proxy\"",
        Some(Mode::Refuses) => "403 Forbidden",
        Some(Mode::CannotReach) => "502 Bad Gateway",
        // Until the client gives up, or the proxy ends.
        Some(Mode::Hangs) | None => return io::copy(&mut client, &mut io::sink()).map(drop),
    };
    write!(client, "HTTP/1.1 {refusal}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    client.shutdown(Shutdown::Write)
}

/// Reads a request's head byte by byte, so that nothing after it is consumed.
fn head_of(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
        if head.len() > LONGEST_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Returns the target of a CONNECT request.
fn target_of(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

fn tunnel(mut client: TcpStream, server: io::Result<TcpStream>, seen: &Arc<Mutex<Seen>>) -> io::Result<()> {
    let server = match server {
        Ok(server) if keep(seen, &server) => server,
        _ => return write!(client, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
    };
    write!(client, "HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        // Close both directions together: HTTP needs no half-closed connection.
        let done = io::copy(&mut from_server, &mut to_client);
        drop(to_client.shutdown(Shutdown::Both));
        done
    });
    let done = record(&mut client, server, seen);
    drop(back.join());
    done
}

/// Forwards what the client sends, and records a copy.
fn record(client: &mut TcpStream, mut server: TcpStream, seen: &Mutex<Seen>) -> io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let size = client.read(&mut piece)?;
        let sent = piece.get(..size).unwrap_or_default();
        if sent.is_empty() {
            return server.shutdown(Shutdown::Both);
        }
        lock(seen).bytes.extend_from_slice(sent);
        server.write_all(sent)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a server that echoes what it receives, once.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut said = [0; 5];
            stream.read_exact(&mut said).unwrap();
            stream.write_all(&said).unwrap();
        });
        address
    }

    /// Returns what comes back through the proxy for this request and these bytes.
    fn asked(proxy: &Proxy, head: &str, then: &[u8]) -> String {
        let mut stream = TcpStream::connect(proxy.address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(then).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    // Promise: a tunnel carries bytes in both directions; the proxy records head and bytes.
    #[test]
    fn a_tunnel_carries_both_ways() {
        let proxy = Proxy::start(Mode::Allow).unwrap();
        let head = format!("CONNECT {} HTTP/1.1\r\nhost: h\r\n\r\n", echo());
        let answer = asked(&proxy, &head, b"hello");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nhello"), "{answer}");
        assert_eq!((proxy.connections(), proxy.heads()), (1, vec![head]));
        assert!(proxy.has_seen("hello") && !proxy.has_seen("hush"));
        proxy.set_mode(Mode::AllowTo(echo()));
        let answer = asked(&proxy, "CONNECT name.example:443 HTTP/1.1\r\n\r\n", b"hello");
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    }

    // Promise: each refusal has its status, and only CONNECT requests are executed.
    #[test]
    fn refusals_have_their_status() {
        let connect = format!("CONNECT {} HTTP/1.1\r\n\r\n", echo());
        let get = format!("GET http://{}/ HTTP/1.1\r\n\r\n", echo());
        let proxy = Proxy::start(Mode::Allow).unwrap();
        assert!(asked(&proxy, &get, b"").starts_with("HTTP/1.1 405 "));
        for (mode, status) in [(Mode::AsksForLogin, 407), (Mode::Refuses, 403), (Mode::CannotReach, 502)] {
            proxy.set_mode(mode);
            assert!(asked(&proxy, &connect, b"").starts_with(&format!("HTTP/1.1 {status} ")));
        }
        assert_eq!(proxy.connections(), 4);
    }

    // Promise: a hanging proxy never answers until it ends.
    #[test]
    fn hangs_until_it_ends() {
        let proxy = Proxy::start(Mode::Hangs).unwrap();
        let mut stream = TcpStream::connect(proxy.address).unwrap();
        stream.write_all(b"CONNECT 127.0.0.1:9 HTTP/1.1\r\n\r\n").unwrap();
        while proxy.heads().is_empty() {
            thread::yield_now();
        }
        drop(proxy);
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
}
