//! What is taken out of hyper while it waits, be it for an answer or for more of one. hyper keeps two buffers of 8 KiB for each connection, of
//! which a poll or a stream that waits needs neither (decision 15).

use std::{
    convert::Infallible,
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
    http::{HeaderMap, Method, Request, Version, header::CONNECTION, request::Parts},
    response::Response,
};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    upgrade::OnUpgrade,
};
use tokio::{io::AsyncWriteExt as _, task::yield_now};
use tower::Service as _;

use super::wire::Wire;

/// So much of what a body gives at once is sent at once.
const AT_ONCE: usize = 64;

/// Who has sent a request, and over what.
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

    /// From here on the request waits, or what it is answered does. What it takes meanwhile is worth saving.
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

/// What is taken out of hyper.
pub enum Waiting {
    /// The answer to a request.
    Answer(BoxFuture<'static, Response>),
    /// The rest of an answer, in chunks (RFC 9112 §7.1).
    Body(Body),
}

/// What is to become of a connection that hyper is at.
#[derive(Clone, Default)]
pub struct Aside {
    waiting: Arc<Mutex<Option<Waiting>>>,
    /// Said by the handler; it does not know of the rest, or what lies here would keep itself.
    waits: Arc<AtomicBool>,
    is_upgrade: Arc<AtomicBool>,
}

impl Aside {
    /// What waits, to be gone on with without hyper.
    pub fn take(&self) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, waiting: Waiting) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(waiting);
    }

    /// Whether it may become something else than HTTP.
    pub fn is_upgrade(&self) -> bool {
        self.is_upgrade.load(Ordering::Relaxed)
    }

    fn is_waiting(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }
}

/// A router, for one connection.
pub struct Answers {
    router: Router,
    address: SocketAddr,
    /// Only HTTP/1.1 can be set aside.
    aside: Option<Aside>,
    /// To the first request: it waited for that.
    answer: Mutex<Option<Response>>,
}

impl Answers {
    pub fn new(router: Router, address: SocketAddr) -> Self {
        Self { router, address, aside: None, answer: Mutex::default() }
    }

    pub fn set_aside(self, aside: Aside, answer: Option<Response>) -> Self {
        Self { aside: Some(aside), answer: Mutex::new(answer), ..self }
    }
}

impl hyper::service::Service<Request<Incoming>> for Answers {
    type Response = Response<Answered>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Answering {
        if let Some(answer) = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Answering { answer: Some(std::future::ready(answer).boxed()), aside: None };
        }
        let is_upgrade = request.extensions().get::<OnUpgrade>().is_some();
        if let Some(aside) = &self.aside {
            aside.waits.store(false, Ordering::Relaxed);
            aside.is_upgrade.fetch_or(is_upgrade, Ordering::Relaxed);
        }
        let aside = self.aside.clone().filter(|aside| !aside.is_upgrade() && can_wait(&request));
        let waits = aside.as_ref().map(|aside| Arc::clone(&aside.waits));
        request.extensions_mut().insert(Peer { address: Some(self.address), waits });
        let answer = self.router.clone().call(request).map(|Ok(answer)| answer);
        // Whoever polls hyper has to learn of an upgrade before hyper is through.
        let answer = if is_upgrade { yield_now().then(|()| answer).boxed() } else { answer.boxed() };
        Answering { answer: Some(answer), aside }
    }
}

/// Whether nothing of a request would be lost with hyper, and the connection is to be kept after it.
fn can_wait(request: &Request<Incoming>) -> bool {
    let is_last = |headers: &HeaderMap| {
        let mut options =
            headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && request.body().is_end_stream()
        && !is_last(request.headers())
}

/// An answer that is coming.
pub struct Answering {
    answer: Option<BoxFuture<'static, Response>>,
    aside: Option<Aside>,
}

impl Future for Answering {
    type Output = Result<Response<Answered>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // What has been set aside is no longer waited for here.
        let this = &mut *self;
        let Some(answer) = &mut this.answer else { return Poll::Pending };
        match (answer.poll_unpin(context), this.aside.take_if(|aside| aside.is_waiting())) {
            (Poll::Ready(answer), aside) => Poll::Ready(Ok(answer.map(|body| Answered {
                aside: aside.filter(|_| body.size_hint().exact().is_none()),
                body: Some(body),
            }))),
            (Poll::Pending, Some(aside)) => {
                if let Some(answer) = this.answer.take() {
                    aside.put(Waiting::Answer(answer));
                }
                Poll::Pending
            }
            (Poll::Pending, None) => Poll::Pending,
        }
    }
}

/// What is answered; if it waits, only as far as it was there at once.
pub struct Answered {
    body: Option<Body>,
    aside: Option<Aside>,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Pending };
        let polled = Pin::new(body).poll_frame(context);
        if polled.is_pending()
            && let Some(aside) = self.aside.take()
            && let Some(body) = self.body.take()
        {
            aside.put(Waiting::Body(body));
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

/// Sends the rest of an answer, until it ends; in chunks, as hyper has begun it.
pub async fn tell(wire: &mut Wire, body: Body) -> super::Result<()> {
    let mut chunks = body.into_data_stream().ready_chunks(AT_ONCE);
    loop {
        let chunk = tokio::select! {
            chunk = chunks.next() => chunk,
            gone = wire.gone() => return Err(gone.into()),
        };
        let Some(chunk) = chunk else { break };
        let chunk = chunk.into_iter().collect::<Result<Vec<Bytes>, _>>()?.concat();
        // One without anything in it would be the last.
        if !chunk.is_empty() {
            wire.write_all(&[format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat()).await?;
        }
    }
    Ok(wire.write_all(b"0\r\n\r\n").await?)
}
