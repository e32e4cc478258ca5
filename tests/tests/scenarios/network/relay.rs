//! A high-latency link: each piece of data arrives some time after it was sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// Relays connections until dropped, in the network namespace of the thread that started it.
pub(super) struct Relay {
    pub(super) port: u16,
    /// Dropping it ends the relay's thread.
    _running: oneshot::Sender<()>,
}

impl Relay {
    /// Relays from a free port of this address to another of its ports; each direction takes so many milliseconds.
    pub(super) fn start(address: &str, to: u16, delay: u64) -> anyhow::Result<Self> {
        let address: Ipv4Addr = address.parse()?;
        let listener = std::net::TcpListener::bind((address, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let (running, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (to, delay) = ((address, to).into(), Duration::from_millis(delay));
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    _ = serve(listener, to, delay) => {}
                }
            });
        });
        Ok(Self { port, _running: running })
    }
}

async fn serve(listener: std::net::TcpListener, to: SocketAddr, delay: Duration) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (client, _) = listener.accept().await?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = TcpStream::connect(to).await?.into_split();
        tokio::spawn(late(from_client, to_server, delay));
        tokio::spawn(late(from_server, to_client, delay));
    }
}

/// Forwards data with a delay, in order.
async fn late(mut from: impl AsyncRead + Unpin + Send + 'static, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (sender, mut pieces) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut piece = vec![0; 16 * 1024];
        while let Ok(size @ 1..) = from.read(&mut piece).await {
            // The receiver may be gone.
            let _ = sender.send((Instant::now() + delay, piece.get(..size).unwrap_or_default().to_vec()));
        }
    });
    while let Some((due, piece)) = pieces.recv().await {
        sleep_until(due).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}
