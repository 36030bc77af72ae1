//! The relay: all floors put together, started and stopped.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    api::{self, Api, ApiParts},
    config::{Config, Role},
    dispatch::{Dispatcher, Janitor},
    domain::{credential::AnyTokenUri, time::Clock},
    live::Live,
    metrics::Metrics,
    secret::Secrets,
    store::{Store, StoreOptions},
    transport::{TransportConfig, Transports},
};

/// Calls under way at the end get this long (contract §10).
const LAST_CALLS: Duration = Duration::from_secs(20);
/// A provider call is over after this long at the usual lease of 45 s (contract §8); in the same measure at another.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Who does the work between the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// Dispatcher and janitor run by themselves, if their roles are on.
    Runs,
    /// Whoever holds the relay steps them: for tests that turn the clock.
    Stepped,
}

/// A relay that is running. One that is dropped takes on nothing new; [`stop`](Self::stop) also waits for what is under way.
pub struct Relay {
    address: Option<SocketAddr>,
    store: Store,
    transports: Transports,
    dispatcher: Dispatcher,
    janitor: Janitor,
    /// Ends what takes on new work.
    stop: DropGuard,
    /// What takes on work, and the calls that it has begun.
    work: TaskTracker,
}

impl Relay {
    /// Opens the store, starts what the roles say, and listens.
    pub async fn start(
        config: &Config,
        clock: Clock,
        options: StoreOptions,
        background: Background,
    ) -> anyhow::Result<Self> {
        let secrets = Secrets::derive(config.require_master_key()?);
        let lease = Duration::from_secs(u64::from(config.lease_s));
        let options = StoreOptions { lease, ..options };
        let (stop, work, metrics) = (CancellationToken::new(), TaskTracker::new(), Metrics::default());
        // The writers end when the last handle to the store goes, after all who write.
        let store = Store::open(
            config.database_url.expose_secret(),
            secrets.clone(),
            clock.clone(),
            options,
            metrics.clone(),
            &TaskTracker::new(),
        )
        .await?;

        let listener = if config.roles.contains(&Role::Api) { Some(bind(config.listen).await?) } else { None };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let public_url = public_url(config, address);
        let transports = Transports::new(
            TransportConfig {
                apns_url: config.apns_url.clone(),
                fcm_url: config.fcm_url.clone(),
                extra_ca_pem: config.extra_ca_pem.clone().map(String::into_bytes),
                poll_url: Api::poll_url(&public_url),
                call_timeout: CALL_TIMEOUT.min(lease / 3),
            },
            clock.clone(),
            metrics,
            work.clone(),
        )?;
        let dispatcher = Dispatcher::new(store.clone(), transports.clone(), clock.clone(), lease, work.clone());
        let janitor = Janitor::new(store.clone());
        let dispatches = background == Background::Runs && config.roles.contains(&Role::Dispatch);
        let live = Live::start(store.clone(), config.live_connections, &work, &stop);
        let api = Api::new(ApiParts {
            store: store.clone(),
            live,
            transports: transports.clone(),
            secrets,
            clock,
            operator_key: config.operator_key.clone(),
            public_url,
            any_token_uri: if config.fcm_url.is_some() { AnyTokenUri::Yes } else { AnyTokenUri::No },
            dispatcher_beat: dispatches.then(|| dispatcher.heartbeat().reader()),
        });
        if let Some(admin) = config.admin_listen {
            api::serve(bind(admin).await?, api.clone().admin_router(), &stop, &work);
        }
        if let Some(listener) = listener {
            api::serve(listener, api.router(), &stop, &work);
        }
        if dispatches {
            dispatcher.run(&work, &stop);
        }
        if background == Background::Runs && config.roles.contains(&Role::Janitor) {
            janitor.run(&work, &stop);
        }
        Ok(Self { address, store, transports, dispatcher, janitor, stop: stop.drop_guard(), work })
    }

    /// Where the API listens, if this process has that role.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The store, for tests and benches.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The dispatcher, to be stepped.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// The janitor, to be stepped.
    pub fn janitor(&self) -> &Janitor {
        &self.janitor
    }

    /// Stops in two stages: nothing new is begun, then what is under way gets its time.
    pub async fn stop(self) {
        drop(self.stop);
        self.work.close();
        let calls = async {
            while self.dispatcher.calls_under_way() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.transports.close();
            self.work.wait().await;
        };
        if tokio::time::timeout(LAST_CALLS, calls).await.is_err() {
            tracing::warn!(calls = self.dispatcher.calls_under_way(), "stopped before all calls had ended");
        }
        self.store.close().await;
    }
}

/// The URL that goes out with pushes; a port that was chosen at the start is filled in.
fn public_url(config: &Config, address: Option<SocketAddr>) -> String {
    match address {
        Some(address) if config.listen.port() == 0 && config.public_url == format!("http://{}", config.listen) => {
            format!("http://{address}")
        }
        _ => config.public_url.clone(),
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
