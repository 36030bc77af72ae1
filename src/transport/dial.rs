//! From a URL to an open TLS connection that speaks HTTP/2, with an ear on what the peer says.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::{
    Uri,
    http::uri::{Authority, Scheme},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Url;

/// Addresses of one host that are tried.
const ADDRESSES: usize = 8;
/// How long an address has the field to itself before the next one is tried beside it (RFC 8305 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// After this long without traffic the kernel asks whether the peer is still there; routers forget idle flows after minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// How often the kernel asks again.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Where a provider listens.
#[derive(Clone)]
pub struct Endpoint {
    host: String,
    port: u16,
    authority: Authority,
    prefix: String,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Endpoint {
    /// Reads an `https` URL; `tls` brings the trusted roots and is made to demand HTTP/2.
    pub fn new(url: &Url, tls: &ClientConfig) -> Result<Self, String> {
        if url.scheme() != "https" {
            return Err(format!("a provider's URL starts with https, {url} does not"));
        }
        let host = url.host_str().ok_or_else(|| format!("{url} names no host"))?;
        let port = url.port_or_known_default().unwrap_or(443);
        let authority = if url.port().is_some() { format!("{host}:{port}") } else { host.to_owned() };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            authority: authority.parse().map_err(|_| format!("{authority:?} cannot be asked for"))?,
            name: ServerName::try_from(host.clone()).map_err(|_| format!("{host:?} is not a name of a server"))?,
            prefix: url.path().trim_end_matches('/').to_owned(),
            host,
            port,
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    /// The absolute URI of `path`, which starts with a slash.
    pub fn uri(&self, path: &str) -> Result<Uri, hyper::http::Error> {
        let path = if self.prefix.is_empty() { path.to_owned() } else { format!("{}{path}", self.prefix) };
        Uri::builder().scheme(Scheme::HTTPS).authority(self.authority.clone()).path_and_query(path).build()
    }

    /// Host and port, for people.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// Looks the host up afresh, connects, and shakes hands; the error is for people.
    pub(super) async fn dial(&self) -> Result<Heard<TlsStream<TcpStream>>, String> {
        let tcp = self.tcp().await?;
        let tls = self.tls.connect(self.name.clone(), tcp).await.map_err(|error| format!("TLS failed: {error}"))?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("the server does not speak HTTP/2".to_owned());
        }
        Ok(Heard { io: tls, ear: Arc::new(Ear::new()), unreported: false })
    }

    async fn tcp(&self) -> Result<TcpStream, String> {
        let found = lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| format!("looking up the host failed: {error}"))?;
        let mut rest = found.take(ADDRESSES);
        let mut tries = FuturesUnordered::new();
        let mut failure = "the host has no address".to_owned();
        loop {
            let more = match rest.next() {
                Some(address) => {
                    tries.push(open(address));
                    true
                }
                None if tries.is_empty() => return Err(failure),
                None => false,
            };
            tokio::select! {
                Some(tried) = tries.next() => match tried {
                    Ok(stream) => return Ok(stream),
                    Err(error) => failure = format!("connecting failed: {error}"),
                },
                () = sleep(STAGGER), if more => {}
            }
        }
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

/// Knows when the peer was last heard.
pub(super) struct Ear {
    opened: Instant,
    heard_ms: AtomicU64,
    /// Rung after what was heard has been taken in.
    pub(super) news: Notify,
}

impl Ear {
    fn new() -> Self {
        Self { opened: Instant::now(), heard_ms: AtomicU64::new(0), news: Notify::new() }
    }

    /// When the connection was opened.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// When the peer last sent anything.
    pub(super) fn last_heard(&self) -> Instant {
        self.opened + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    fn hear(&self) {
        let ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(ms, Ordering::Relaxed);
    }
}

/// A stream that rings its [`Ear`] when a burst has been read to its end: by then the HTTP/2 layer has taken in its SETTINGS and
/// GOAWAY frames, of which it tells nobody.
pub(super) struct Heard<T> {
    io: T,
    ear: Arc<Ear>,
    unreported: bool,
}

impl<T> Heard<T> {
    pub(super) fn ear(&self) -> Arc<Ear> {
        Arc::clone(&self.ear)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if polled.is_pending() && self.unreported {
            self.unreported = false;
            self.ear.news.notify_one();
        }
        ready!(polled)?;
        self.unreported = true;
        self.ear.hear();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
