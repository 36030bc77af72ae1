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

use axum::{
    Router,
    http::{HeaderValue, header::CONNECTION},
    response::Response,
    serve::Listener,
};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::aside::Peer;
use self::{
    aside::{Answers, Aside, Waiting},
    wire::Wire,
};

/// By which a client begins that knows that the server speaks HTTP/2 (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What hyper is asked where the answer is there already, for it gives none unasked.
const ASKED_BEFORE: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

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
            is_http2 = wire.begins_with(HTTP2_PREFACE) => is_http2?,
            () = self.stop.cancelled() => return Ok(()),
        };
        if is_http2 {
            return Box::pin(self.http2(wire)).await;
        }
        let mut answer = None;
        // In a box, so that nothing of it is kept while somebody waits.
        while let Some((wire_again, waiting)) = Box::pin(self.http1(wire, answer.take())).await? {
            wire = wire_again;
            match waiting {
                Waiting::Answer(coming) => {
                    let mut come = tokio::select! {
                        come = coming => come,
                        gone = wire.gone() => return Err(gone.into()),
                    };
                    if self.stop.is_cancelled() {
                        come.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    wire.unread(ASKED_BEFORE);
                    answer = Some(come);
                }
                Waiting::Body(body) => aside::tell(&mut wire, body).await?,
            }
        }
        Ok(())
    }

    async fn http2(&self, wire: Wire) -> Result<()> {
        let answers = Answers::new(self.router.clone(), self.address);
        let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(wire), answers);
        Ok(self.until(pin!(connection), Future::poll, http2::Connection::graceful_shutdown).await?)
    }

    /// Until it is over, or somebody waits: that goes on without hyper, and then there is a next time.
    async fn http1(&self, wire: Wire, answer: Option<Response>) -> Result<Option<(Wire, Waiting)>> {
        let (aside, is_sent) = (Aside::default(), wire.is_sent());
        let answers = Answers::new(self.router.clone(), self.address).set_aside(aside.clone(), answer);
        let mut connection = http1::Builder::new().serve_connection(TokioIo::new(wire), answers);
        let next = |connection: Pin<&mut http1::Connection<_, _>>, context: &mut Context<'_>| {
            if let Poll::Ready(over) = connection.poll(context) {
                return Poll::Ready(over.map(|()| Next::Over));
            }
            if aside.is_upgrade() {
                return Poll::Ready(Ok(Next::Upgrade));
            }
            // What has not been sent would be lost with hyper.
            let waiting = if is_sent.load(Ordering::Relaxed) { aside.take() } else { None };
            waiting.map_or(Poll::Pending, |waiting| Poll::Ready(Ok(Next::Wait(waiting))))
        };
        match self.until(Pin::new(&mut connection), next, http1::Connection::graceful_shutdown).await? {
            Next::Over => Ok(None),
            Next::Upgrade => {
                let connection = pin!(connection.with_upgrades());
                self.until(connection, Future::poll, http1::UpgradeableConnection::graceful_shutdown).await?;
                Ok(None)
            }
            Next::Wait(waiting) => {
                let parts = connection.into_parts();
                let mut wire = parts.io.into_inner();
                wire.unread(&parts.read_buf);
                Ok(Some((wire, waiting)))
            }
        }
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

/// How a connection goes on.
enum Next {
    Over,
    /// One that may become something else, a WebSocket most likely: hyper stays with it.
    Upgrade,
    Wait(Waiting),
}
