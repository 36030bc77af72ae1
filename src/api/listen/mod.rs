//! Where connections come in: HTTP/1.1 and HTTP/2 without TLS, by hyper. Who waits on HTTP/1.1 is set aside meanwhile (decision 15).

mod aside;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use axum::{Router, response::Response, serve::Listener};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::aside::Peer;
use self::{
    aside::{Handover, Routes, Waiting},
    wire::Wire,
};

/// By which a client begins that knows that the server speaks HTTP/2 (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What hyper reads in the place of a request that has waited: it writes an answer only to who asks.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const LAST_STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";

/// Answers who connects, in tasks of `work`, until `stop`: then each connection ends with the request that it is at.
pub fn serve(mut listener: TcpListener, router: Router, stop: &CancellationToken, work: &TaskTracker) {
    let (stop, tasks) = (stop.clone(), work.clone());
    work.spawn(async move {
        loop {
            let (tcp, address) = tokio::select! {
                // Without files for another connection it waits until there are.
                taken = Listener::accept(&mut listener) => taken,
                () = stop.cancelled() => return,
            };
            let connection = Connection { router: router.clone(), address, stop: stop.clone() };
            tasks.spawn(async move {
                if let Err(error) = connection.serve(tcp).await {
                    tracing::trace!(%error, "a connection has broken off");
                }
            });
        }
    });
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct Connection {
    router: Router,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, tcp: TcpStream) -> Result<()> {
        let mut wire = Wire::new(tcp);
        let is_http2 = tokio::select! {
            biased;
            is_http2 = wire.begins_with(HTTP2_PREFACE) => is_http2?,
            () = self.stop.cancelled() => return Ok(()),
        };
        if is_http2 {
            return Box::pin(self.http2(wire)).await;
        }
        let mut answer = None;
        // In a box, so that nothing of it is kept while somebody waits.
        while let Some((back, waiting)) = Box::pin(self.http1(wire, answer.take())).await? {
            wire = back;
            match waiting {
                Waiting::Answer { coming, is_last } => {
                    answer = tokio::select! {
                        come = coming => Some(come),
                        gone = wire.gone() => return Err(gone.into()),
                    };
                    wire.put_back(if is_last || self.stop.is_cancelled() { LAST_STAND_IN } else { STAND_IN });
                }
                Waiting::Body { rest, is_last } => {
                    aside::send_rest(&mut wire, rest).await?;
                    if is_last {
                        return Ok(wire.shutdown().await?);
                    }
                }
            }
        }
        Ok(())
    }

    async fn http2(&self, wire: Wire) -> Result<()> {
        let routes = Routes::new(self.router.clone(), self.address);
        let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(wire), routes);
        Ok(self.until(pin!(connection), Future::poll, http2::Connection::graceful_shutdown).await?)
    }

    /// Until it is over, or somebody waits: that goes on without hyper, and then there is a next time.
    async fn http1(&self, wire: Wire, answer: Option<Response>) -> Result<Option<(Wire, Waiting)>> {
        let (handover, is_sent) = (Handover::default(), wire.is_sent());
        let routes = Routes::new(self.router.clone(), self.address).with_handover(handover.clone(), answer);
        let mut connection = http1::Builder::new().serve_connection(TokioIo::new(wire), routes).with_upgrades();
        let done = |connection: Pin<&mut http1::UpgradeableConnection<_, _>>, context: &mut Context<'_>| {
            if let Poll::Ready(over) = connection.poll(context) {
                return Poll::Ready(over.map(|()| None));
            }
            // What has not been sent would be lost with hyper.
            let waiting = if is_sent.load(Ordering::Relaxed) { handover.take() } else { None };
            waiting.map_or(Poll::Pending, |waiting| Poll::Ready(Ok(Some(waiting))))
        };
        let finish = http1::UpgradeableConnection::graceful_shutdown;
        let waiting = self.until(Pin::new(&mut connection), done, finish).await?;
        Ok(waiting.zip(connection.into_parts()).map(|(waiting, parts)| {
            let mut wire = parts.io.into_inner();
            wire.put_back(&parts.read_buf);
            (wire, waiting)
        }))
    }

    /// Polls a connection until it is done; from the stop on only to the end of what it is at.
    async fn until<C, T>(
        &self,
        mut connection: Pin<&mut C>,
        mut poll: impl FnMut(Pin<&mut C>, &mut Context<'_>) -> Poll<T>,
        finish: impl FnOnce(Pin<&mut C>),
    ) -> T {
        let (mut stopped, mut finish) = (pin!(self.stop.cancelled()), Some(finish));
        poll_fn(|context| {
            // First, for what has been read before the stop is to be answered.
            let done = poll(connection.as_mut(), context);
            if done.is_ready() || finish.is_none() || stopped.as_mut().poll(context).is_pending() {
                return done;
            }
            if let Some(finish) = finish.take() {
                finish(connection.as_mut());
            }
            poll(connection.as_mut(), context)
        })
        .await
    }
}
