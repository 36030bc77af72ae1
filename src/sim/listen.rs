//! Takes TLS connections for the simulators, each in a task of its own that ends with the simulator.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long after a failed accept (out of file descriptors, most likely) the next is tried.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The tasks of one simulator and the word that ends them.
#[derive(Clone, Default)]
pub(super) struct Tasks {
    pub stop: CancellationToken,
    pub tracker: TaskTracker,
}

impl Tasks {
    /// Runs `task` until it ends or the simulator stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }
}

/// Accepts until the simulator stops; `serve` gets each connection once TLS stands.
pub(super) async fn accept<F, Fut>(listener: TcpListener, tls: Arc<rustls::ServerConfig>, tasks: Tasks, serve: F)
where
    F: Fn(TlsStream<TcpStream>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the simulator cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        tasks.spawn(async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => serve(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with the simulator failed"),
                Err(_) => tracing::debug!("a TLS handshake with the simulator took too long"),
            }
        });
    }
}
