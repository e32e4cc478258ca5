//! The connections: accepting, TLS, HTTP/1.1, and the faults at this level.

use super::Tls;
use super::answers::Answer;
use super::faults::{Fault, Payload};
use super::routes::{Call, handle, route_path};
use super::state::{State, lock};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// The largest accepted request body in bytes; a larger one closes the connection.
const LARGEST_BODY: usize = 64 * 1024;

/// The pause after a failed accept.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// Accepts connections until stopped; the port is free again once this returns.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    state: Arc<State>,
    mut stop: watch::Receiver<()>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        tokio::select! {
            _ = stop.changed() => return Ok(()),
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else {
                    // Possibly out of file descriptors, which become free as connections end.
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                };
                let mut stop = stop.clone();
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = stop.changed() => {}
                        () = connection(stream, peer.ip().to_canonical(), state) => {}
                    }
                });
            }
        }
    }
}

/// Serves one connection to its end; errors concern only the client.
async fn connection(stream: TcpStream, peer: IpAddr, state: Arc<State>) {
    // Disables Nagle's algorithm for small answers; without this they would only be slower.
    let _ = stream.set_nodelay(true);
    if state.options.tls.is_mute() {
        lock(&state.log).arrived("CONNECT".to_owned(), "/".to_owned(), peer);
        // However it ended, the client saw the intended behaviour.
        let _ = mute(stream, state.options.tls).await;
        return;
    }
    let tls = lock(&state.tls).clone();
    match (tls, state.options.tls) {
        (None, _) => http(stream, peer, state).await,
        (Some(config), kind) => {
            let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
            match kind {
                Tls::ThenSays(bytes) => drop(say(stream, bytes, peer, &state).await),
                _ => http(stream, peer, state).await,
            }
        }
    }
}

/// Serves a connection without HTTP.
async fn mute(mut stream: TcpStream, tls: Tls) -> io::Result<()> {
    if tls != Tls::Reset {
        // The content does not matter.
        let _size = stream.read(&mut [0; 4096]).await?;
    }
    match tls {
        Tls::Silent => pending().await,
        Tls::Says(bytes) => {
            stream.write_all(bytes).await?;
            stream.shutdown().await?;
            // Unread data would turn the close into a reset.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
        }
        // With a linger time of zero, closing sends a reset.
        _ => stream.set_zero_linger(),
    }
}

/// Records the request and answers it with these bytes.
async fn say<S>(mut stream: S, bytes: &[u8], peer: IpAddr, state: &State) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = vec![0; LARGEST_BODY];
    let size = stream.read(&mut request).await?;
    let head = String::from_utf8_lossy(request.get(..size).unwrap_or_default()).into_owned();
    let mut words = head.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    lock(&state.log).arrived(method, route_path(&state.options.path_prefix, &path), peer);
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}

async fn http<S>(stream: S, peer: IpAddr, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The numbers of requests in progress and completed.
    let (busy, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let service = service_fn(|request| async {
        busy.fetch_add(1, Ordering::Relaxed);
        let answered = answer(Arc::clone(&state), peer, request).await;
        busy.fetch_sub(1, Ordering::Relaxed);
        done.fetch_add(1, Ordering::Relaxed);
        answered
    });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    loop {
        let before = done.load(Ordering::Relaxed);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(state.options.idle.unwrap_or(NEVER)) => {}
        }
        if busy.load(Ordering::Relaxed) == 0 && done.load(Ordering::Relaxed) == before {
            connection.as_mut().graceful_shutdown();
        }
    }
}

/// Longer than any test.
const NEVER: Duration = Duration::from_hours(24);

/// Answers one request. An error closes the connection without an answer.
async fn answer(state: Arc<State>, peer: IpAddr, request: Request<Incoming>) -> io::Result<Response<Payload>> {
    let method = request.method().as_str().to_owned();
    let path = route_path(&state.options.path_prefix, request.uri().path());
    let number = lock(&state.log).arrived(method.clone(), path.clone(), peer);
    let header = |name| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    let mut call = Call {
        method,
        path,
        query: request.uri().query().unwrap_or_default().to_owned(),
        peer,
        content_type: header(CONTENT_TYPE),
        authorization: header(AUTHORIZATION),
        is_no_cache: header(CACHE_CONTROL).is_some_and(|value| value.contains("no-cache")),
        body: Bytes::new(),
    };
    call.body = Limited::new(request.into_body(), LARGEST_BODY).collect().await.map_err(io::Error::other)?.to_bytes();
    lock(&state.log).amend(number, |request| {
        request.body_bytes = call.body.len();
        request.is_no_cache = call.is_no_cache;
    });
    if let Some(hook) = state.take_hook(&call.method, &call.path) {
        // A hook that panics breaks the connection, so that the test notices.
        tokio::task::spawn_blocking(hook).await?;
    }
    let fault = lock(&state.script).next(&call.method, &call.path);
    let (answer, payload) = carry_out(&state, call, fault).await?;
    lock(&state.log).amend(number, |request| {
        request.status = Some(answer.status.as_u16());
    });
    respond(&state, answer, payload)
}

/// Handles a request with its fault, if any; returns the answer's head and body.
async fn carry_out(state: &Arc<State>, call: Call, fault: Option<Fault>) -> io::Result<(Answer, Payload)> {
    let handled = async |bad_token| {
        let state = Arc::clone(state);
        let handling = move || handle(&state, &call, Option::as_ref(&bad_token));
        tokio::task::spawn_blocking(handling).await
    };
    let answer = match fault {
        None => handled(None).await?,
        Some(Fault::Token(bad)) => handled(Some(bad)).await?,
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time).await;
            handled(None).await?
        }
        Some(Fault::DropBefore) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Fault::DropAfter) => {
            handled(None).await?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Some(Fault::Hang) => pending().await,
        Some(Fault::Truncate) => {
            let answer = handled(None).await?;
            let payload = Payload::half(answer.body.clone());
            let length = answer.body.len().to_string();
            return Ok((answer.with("content-length", &length), payload));
        }
        Some(Fault::Drip(pause)) => {
            let answer = handled(None).await?;
            let payload = Payload::drip(answer.body.clone(), pause);
            return Ok((answer, payload));
        }
        Some(Fault::Huge(size)) => return Ok((json_head(), Payload::huge(size))),
        Some(Fault::Endless) => return Ok((json_head(), Payload::endless())),
        Some(Fault::Redirect(location)) => Answer::empty(StatusCode::TEMPORARY_REDIRECT).with("location", &location),
        Some(Fault::Status { code, error, headers }) => scripted_status(state, code, error, headers)?,
        Some(Fault::Answer { status, content_type, body, headers }) => {
            let mut answer = Answer::empty(StatusCode::from_u16(status).map_err(io::Error::other)?)
                .with("content-type", &content_type);
            answer.headers.extend(headers);
            answer.body = body.into();
            answer
        }
    };
    let payload = Payload::whole(answer.body.clone());
    Ok((answer, payload))
}

fn json_head() -> Answer {
    Answer::empty(StatusCode::OK).with("content-type", "application/json; charset=utf-8")
}

fn scripted_status(state: &State, code: u16, error: Option<u32>, headers: Vec<(String, String)>) -> io::Result<Answer> {
    let status = StatusCode::from_u16(code).map_err(io::Error::other)?;
    let mut answer = match error {
        None => Answer::empty(status),
        Some(_) => Answer::error(state.options.error_casing, status, error, "A scripted error."),
    };
    answer.headers.extend(headers);
    Ok(answer)
}

fn respond(state: &State, answer: Answer, payload: Payload) -> io::Result<Response<Payload>> {
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers {
        headers.append(
            HeaderName::try_from(name).map_err(io::Error::other)?,
            HeaderValue::try_from(value).map_err(io::Error::other)?,
        );
    }
    if state.options.date_header
        && !headers.contains_key(hyper::header::DATE)
        && let Some(date) = state.date()
    {
        let date = HeaderValue::try_from(date).map_err(io::Error::other)?;
        headers.insert(hyper::header::DATE, date);
    }
    let mut response = Response::new(payload);
    *response.status_mut() = answer.status;
    *response.headers_mut() = headers;
    Ok(response)
}
