//! A wire to a server that can be cut and mended.

use std::sync::Arc;

use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Listens on a port of its own and passes everything on.
pub struct Proxy {
    pub port: u16,
    intact: Arc<watch::Sender<bool>>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    pub async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let intact = Arc::new(watch::Sender::new(true));
        let state = Arc::clone(&intact);
        let accepting = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (target, mut state) = (target.clone(), state.subscribe());
                tokio::spawn(async move {
                    if !*state.borrow() {
                        return;
                    }
                    let mut far = TcpStream::connect(target).await.unwrap();
                    let _ = near.set_nodelay(true).and(far.set_nodelay(true));
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|intact| !intact) => {}
                    }
                });
            }
        });
        Self { port, intact, accepting }
    }

    /// One that ends each connection when so many bytes have come from the server: the last of `cuts` first, and none when they are used up.
    pub async fn cutting(target: String, mut cuts: Vec<Option<usize>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (target, cut) = (target.clone(), cuts.pop().flatten());
                tokio::spawn(async move {
                    let far = TcpStream::connect(target).await.unwrap();
                    let _ = near.set_nodelay(true).and(far.set_nodelay(true));
                    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
                        (near.into_split(), far.into_split());
                    let down = async {
                        match cut {
                            Some(bytes) => tokio::io::copy(&mut (&mut far_in).take(bytes as u64), &mut near_out).await,
                            None => tokio::io::copy(&mut far_in, &mut near_out).await,
                        }
                    };
                    // Both ways end with the first.
                    tokio::select! {
                        _ = down => {}
                        _ = tokio::io::copy(&mut near_in, &mut far_out) => {}
                    }
                });
            }
        });
        Self { port, intact: Arc::new(watch::Sender::new(true)), accepting }
    }

    /// Ends all connections, and every new one at once.
    pub fn cut(&self) {
        self.intact.send_replace(false);
    }

    pub fn mend(&self) {
        self.intact.send_replace(true);
    }
}
