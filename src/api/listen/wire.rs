//! A connection below HTTP. One whose other side takes nothing is let go, so that nobody keeps a connection by not reading.

use std::{
    future::{pending, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_io_timeout::TimeoutWriter;

/// How long a write may wait for the other side.
pub const STUCK: Duration = Duration::from_secs(30);

/// A TCP connection, whose reader can put back what it has read.
pub struct Wire {
    tcp: Pin<Box<TimeoutWriter<TcpStream>>>,
    /// Before what comes from TCP.
    put_back: Bytes,
    is_sent: Arc<AtomicBool>,
}

impl Wire {
    pub fn new(tcp: TcpStream) -> Self {
        // Small answers are not to wait for others; where it cannot be had, they do.
        tcp.set_nodelay(true).ok();
        // Who has gone without a word takes what is sent for as long as there is room in the kernel; it is to be noticed all the same.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(STUCK)).ok();
        let mut tcp = TimeoutWriter::new(tcp);
        tcp.set_timeout(Some(STUCK));
        Self { tcp: Box::pin(tcp), put_back: Bytes::new(), is_sent: Arc::new(AtomicBool::new(true)) }
    }

    /// Whether all that has been written has been flushed after it. hyper tries to write and flush all that it has before it rests, so then
    /// it has nothing.
    pub fn is_sent(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_sent)
    }

    /// Whether the other side begins with these bytes; it may take its time.
    pub async fn begins_with(&mut self, prefix: &[u8]) -> io::Result<bool> {
        let mut read = Vec::with_capacity(prefix.len());
        while read.len() < prefix.len() && prefix.starts_with(&read) {
            if (&mut *self).take((prefix.len() - read.len()) as u64).read_buf(&mut read).await? == 0 {
                break;
            }
        }
        self.put_back(&read);
        Ok(read == prefix)
    }

    /// Puts these bytes before what is read next.
    pub fn put_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.put_back = [bytes, &self.put_back].concat().into();
        }
    }

    /// Waits until the other side has gone. If it says more instead, that is left for later, and from then on only reading and writing tell.
    pub async fn gone(&self) -> io::Error {
        if self.put_back.is_empty() {
            let mut byte = [0];
            let mut byte = ReadBuf::new(&mut byte);
            match poll_fn(|context| self.tcp.get_ref().poll_peek(context, &mut byte)).await {
                Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        pending().await
    }

    fn note_sent(&self, is_sent: bool) {
        self.is_sent.store(is_sent, Ordering::Relaxed);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.put_back.is_empty() {
            return self.tcp.as_mut().poll_read(context, buffer);
        }
        let count = self.put_back.len().min(buffer.remaining());
        buffer.put_slice(&self.put_back.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.note_sent(false);
        self.tcp.as_mut().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note_sent(false);
        self.tcp.as_mut().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.tcp.as_mut().poll_flush(context))?;
        self.note_sent(true);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.as_mut().poll_shutdown(context)
    }
}
