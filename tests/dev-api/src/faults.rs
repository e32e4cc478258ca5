//! Faults that a test scripts, and the response bodies that implement them.

use super::BadToken;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// What goes wrong with one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers with this status; the request is not handled.
    Status {
        /// The HTTP status.
        code: u16,
        /// The numeric error code of the body; if absent, the body is empty.
        error: Option<u32>,
        /// Further headers, such as `Retry-After`.
        headers: Vec<(String, String)>,
    },
    /// Closes the connection without an answer; the request is not handled.
    DropBefore,
    /// Handles the request, then closes the connection without an answer.
    DropAfter,
    /// Delays the request, then handles it as usual.
    Delay(Duration),
    /// Never answers; the request is not handled.
    Hang,
    /// Handles the request, sends the correct `Content-Length` and half of the body, then closes the connection.
    Truncate,
    /// 200 with a body of so many bytes that begins like a login answer; the request is not handled.
    Huge(usize),
    /// 200 with an endless body that begins like a login answer; the request is not handled.
    Endless,
    /// Handles the request and sends the body one byte at a time, with this pause between bytes.
    Drip(Duration),
    /// 307 with this `Location`; the request is not handled.
    Redirect(String),
    /// Sends this answer; the request is not handled.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The `Content-Type`.
        content_type: String,
        /// The body.
        body: String,
        /// Further headers.
        headers: Vec<(String, String)>,
    },
    /// Handles a login or refresh successfully, but with a bad access token.
    Token(BadToken),
}

/// The pending faults of each route, in order.
#[derive(Default)]
pub(super) struct Script(HashMap<(String, String), VecDeque<(Fault, usize)>>);

impl Script {
    pub(super) fn add(&mut self, method: &str, path: &str, fault: Fault, times: usize) {
        let route = (method.to_owned(), path.to_owned());
        self.0.entry(route).or_default().push_back((fault, times));
    }

    /// Returns the fault for the request that has just arrived, if any.
    pub(super) fn next(&mut self, method: &str, path: &str) -> Option<Fault> {
        let queue = self.0.get_mut(&(method.to_owned(), path.to_owned()))?;
        loop {
            match queue.front_mut()? {
                (_, 0) => drop(queue.pop_front()),
                (fault, times) => {
                    // `usize::MAX` means always.
                    if *times != usize::MAX {
                        *times -= 1;
                    }
                    return Some(fault.clone());
                }
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// How a body ends.
#[derive(Clone, Copy)]
enum End {
    Complete,
    Broken,
    Never,
}

/// A response body that may be slow, broken or endless.
pub(super) struct Payload {
    left: Bytes,
    /// The size of a frame, in bytes.
    frame: usize,
    /// The time between two frames.
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    end: End,
}

impl Payload {
    /// The whole body at once.
    pub(super) fn whole(body: Bytes) -> Self {
        Self { frame: body.len().max(1), left: body, pause: Duration::ZERO, timer: None, end: End::Complete }
    }

    /// The whole body, one byte at a time.
    pub(super) fn drip(body: Bytes, pause: Duration) -> Self {
        Self { frame: 1, pause, ..Self::whole(body) }
    }

    /// Half of the body, then the connection breaks.
    pub(super) fn half(mut body: Bytes) -> Self {
        /// hyper flushes only while it waits for more data, so the body must wait.
        const FLUSH: Duration = Duration::from_millis(10);
        body.truncate(body.len() / 2);
        Self { pause: FLUSH, end: End::Broken, ..Self::whole(body) }
    }

    /// A body that begins like a login answer and has this size.
    pub(super) fn huge(size: usize) -> Self {
        const START: &[u8] = b"{\"token\":\"";
        const END: &[u8] = b"\"}";
        let mut body = START.to_vec();
        body.resize(size.saturating_sub(END.len()).max(START.len()), b'a');
        body.extend_from_slice(END);
        body.truncate(size);
        Self::whole(body.into())
    }

    /// A body that begins like a login answer and never ends: 16 MB/s at most.
    pub(super) fn endless() -> Self {
        const FRAME: usize = 16 * 1024;
        Self { pause: Duration::from_millis(1), end: End::Never, ..Self::huge(FRAME) }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(timer) = &mut self.timer {
            match timer.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.timer = None,
            }
        }
        if self.left.is_empty() {
            match self.end {
                End::Complete => return Poll::Ready(None),
                End::Broken => return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))),
                End::Never => self.left = vec![b'a'; self.frame].into(),
            }
        }
        if !self.pause.is_zero() {
            self.timer = Some(Box::pin(tokio::time::sleep(self.pause)));
        }
        let size = self.frame.min(self.left.len());
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(size)))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            End::Complete => SizeHint::with_exact(self.left.len() as u64),
            End::Broken | End::Never => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faults apply per route in the order they were scripted, each as often as requested.
    #[test]
    fn a_script_is_first_in_first_out() {
        let mut script = Script::default();
        script.add("POST", "/login", Fault::Hang, 2);
        script.add("POST", "/login", Fault::Truncate, 0);
        script.add("POST", "/login", Fault::Endless, usize::MAX);
        let mut next = || script.next("POST", "/login");
        assert!(matches!(next(), Some(Fault::Hang)));
        assert!(matches!(next(), Some(Fault::Hang)));
        assert!(matches!(next(), Some(Fault::Endless)));
        assert!(matches!(next(), Some(Fault::Endless)));
        assert!(script.next("GET", "/login").is_none());
        script.clear();
        assert!(script.next("POST", "/login").is_none());
    }
}
