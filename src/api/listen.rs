//! Where connections come in. One whose other side takes nothing is let go, so that nobody keeps a connection by not reading.

use std::{io, net::SocketAddr, time::Duration};

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;

/// How long a write may wait for the other side.
const STUCK: Duration = Duration::from_secs(30);

/// A listener for a router.
#[derive(Debug)]
pub struct Port(TcpListener);

impl Port {
    /// Takes connections of `listener`.
    pub fn new(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl Listener for Port {
    type Io = std::pin::Pin<Box<TimeoutStream<TcpStream>>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Small answers are not to wait for others; where it cannot be had, they do.
        stream.set_nodelay(true).ok();
        // Who has gone without a word takes what is sent for as long as there is room in the kernel; it is to be noticed all the same.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(STUCK)).ok();
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(STUCK));
        (Box::pin(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
