//! What is taken out of hyper while it waits, be it for an answer or for more of one. hyper keeps two buffers of 8 KiB for each connection, of
//! which a poll or a stream that waits needs neither (decision 15).

use std::{
    convert::Infallible,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::FromRequestParts,
    http::{
        Method, Request, Version,
        header::{CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING},
        request::Parts,
    },
    response::Response,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::{io::AsyncWriteExt as _, time::timeout};
use tower::Service as _;

use super::wire::{STUCK, Wire};

/// So many bytes of a body are gathered, and one frame more, and sent at once.
const AT_ONCE: usize = 16 * 1024;

/// Who has sent a request; and its connection, as far as a handler has a say in it.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    address: Option<SocketAddr>,
    waits: Option<Arc<AtomicBool>>,
}

impl Peer {
    /// Where it came from.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }

    /// From here on the request waits, or what it is answered does: what its connection takes meanwhile is worth saving. It sees to it itself
    /// that it ends when the relay does.
    pub fn waits(&self) {
        if let Some(waits) = &self.waits {
            waits.store(true, Ordering::Relaxed);
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// What goes on without hyper. Whether it is the last of its connection, the client has said.
pub enum Waiting {
    /// The answer to a request.
    Answer { coming: BoxFuture<'static, Response>, is_last: bool },
    /// The rest of an answer whose beginning hyper has sent, in chunks (RFC 9112 §7.1).
    Body { rest: Body, is_last: bool },
}

/// Where it lies until hyper has been left.
#[derive(Clone, Default)]
pub struct Handover {
    waiting: Arc<Mutex<Option<Waiting>>>,
    /// Said by the handler, which is given this and no more: an answer that lay here and held all of it would keep itself.
    waits: Arc<AtomicBool>,
}

impl Handover {
    /// What is to go on without hyper.
    pub fn take(&self) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, waiting: Waiting) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(waiting);
    }
}

/// A router, for one connection.
pub struct Routes {
    router: Router,
    address: SocketAddr,
    /// Only HTTP/1.1 is ever left.
    handover: Option<Handover>,
    /// What the first request is answered, if it stands in for one that has waited.
    answer: Mutex<Option<Response>>,
}

impl Routes {
    pub fn new(router: Router, address: SocketAddr) -> Self {
        Self { router, address, handover: None, answer: Mutex::default() }
    }

    pub fn with_handover(self, handover: Handover, answer: Option<Response>) -> Self {
        Self { handover: Some(handover), answer: Mutex::new(answer), ..self }
    }
}

impl hyper::service::Service<Request<Incoming>> for Routes {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn call(&self, mut request: Request<Incoming>) -> AnswerFuture {
        if let Some(answer) = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return AnswerFuture { coming: Some(std::future::ready(answer).boxed()), leave: None };
        }
        let leave = self.handover.clone().filter(|_| can_leave(&request)).map(|handover| {
            handover.waits.store(false, Ordering::Relaxed);
            Leave { handover, is_last: is_last(&request) }
        });
        let waits = leave.as_ref().map(|leave| Arc::clone(&leave.handover.waits));
        request.extensions_mut().insert(Peer { address: Some(self.address), waits });
        let coming = self.router.clone().call(request).map(|Ok(answer)| answer);
        AnswerFuture { coming: Some(coming.boxed()), leave }
    }
}

/// Whether nothing is lost if a request leaves hyper: no framing but that of HTTP/1.1, no body that has not been read.
fn can_leave(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11 && request.method() == Method::GET && request.body().is_end_stream()
}

fn is_last(request: &Request<Incoming>) -> bool {
    let options =
        request.headers().get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.map(<[u8]>::trim_ascii).any(|option| option.eq_ignore_ascii_case(b"close"))
}

/// How a request that waits leaves hyper.
struct Leave {
    handover: Handover,
    is_last: bool,
}

/// An answer that is coming.
pub struct AnswerFuture {
    /// Nothing, once it comes without hyper.
    coming: Option<BoxFuture<'static, Response>>,
    leave: Option<Leave>,
}

impl Future for AnswerFuture {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(coming) = &mut this.coming else { return Poll::Pending };
        let polled = coming.poll_unpin(context);
        // By now it has said whether it waits.
        let leave = this.leave.take_if(|leave| leave.handover.waits.load(Ordering::Relaxed));
        match (polled, leave) {
            (Poll::Ready(answer), leave) => {
                let leave = leave.filter(|_| is_chunked(&answer));
                Poll::Ready(Ok(answer.map(|body| AnswerBody { body: Some(body), leave })))
            }
            (Poll::Pending, Some(Leave { handover, is_last })) => {
                if let Some(coming) = this.coming.take() {
                    handover.put(Waiting::Answer { coming, is_last });
                }
                Poll::Pending
            }
            (Poll::Pending, None) => Poll::Pending,
        }
    }
}

/// Whether hyper sends the body of an answer in chunks, and the connection is kept or not as the request says.
fn is_chunked(answer: &Response) -> bool {
    let framing = [CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER, CONNECTION];
    answer.body().size_hint().exact().is_none() && framing.iter().all(|name| !answer.headers().contains_key(name))
}

/// What is answered; if it waits, only as much as was there at once.
pub struct AnswerBody {
    body: Option<Body>,
    leave: Option<Leave>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Pending };
        let polled = Pin::new(body).poll_frame(context);
        if polled.is_pending()
            && let Some(Leave { handover, is_last }) = self.leave.take()
            && let Some(rest) = self.body.take()
        {
            handover.put(Waiting::Body { rest, is_last });
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

/// Sends the rest of an answer, until it ends or the other side is gone. Who takes less than 16 KiB in half a minute is let go.
pub async fn send_rest(wire: &mut Wire, mut rest: Body) -> super::Result<()> {
    loop {
        let mut chunks = Vec::new();
        let is_over = tokio::select! {
            is_over = poll_fn(|context| gather(&mut rest, &mut chunks, context)) => is_over?,
            gone = wire.gone() => return Err(gone.into()),
        };
        for part in chunks.chunks(AT_ONCE) {
            timeout(STUCK, wire.write_all(part)).await??;
        }
        if is_over {
            return Ok(());
        }
    }
}

/// Writes down what is there of a body, in chunks. Whether that is its end.
fn gather(body: &mut Body, chunks: &mut Vec<u8>, context: &mut Context<'_>) -> Poll<Result<bool, axum::Error>> {
    while chunks.len() < AT_ONCE {
        match Pin::new(&mut *body).poll_frame(context) {
            // One without anything in it would be the last.
            Poll::Ready(Some(frame)) => {
                if let Ok(data) = frame?.into_data()
                    && !data.is_empty()
                {
                    chunks.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                    chunks.extend_from_slice(&data);
                    chunks.extend_from_slice(b"\r\n");
                }
            }
            Poll::Ready(None) => {
                chunks.extend_from_slice(b"0\r\n\r\n");
                return Poll::Ready(Ok(true));
            }
            Poll::Pending if chunks.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Ok(false))
}
