//! The certificate of the traffic listener while the sidecar runs: has it changed, and is the new one any good?
//!
//! Looks every few seconds, as the configuration does, on the blocking pool. A good pair serves whoever connects
//! from then on; connections that are open keep theirs. A bad one is refused: what serves goes on, and the log
//! and a metric say so until it is mended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
use crate::config::TlsServer;
use crate::limits;
use crate::net::tls_server::{self, Identity, Seen};
use crate::proxy::Shared;
use crate::telemetry::{NoLabels, Telemetry};

/// What the traffic listener shows.
pub(super) struct Certificates {
    clock: Clock,
    traffic: Arc<Shared>,
    telemetry: Arc<Telemetry>,
    watched: Mutex<Option<Watched>>,
}

#[derive(Clone)]
struct Watched {
    files: TlsServer,
    seen: Seen,
}

impl Certificates {
    /// Serves this identity from now on; none is plain HTTP.
    pub(super) fn new(
        clock: Clock,
        traffic: Arc<Shared>,
        telemetry: Arc<Telemetry>,
        files: Option<&TlsServer>,
        identity: Option<Identity>,
    ) -> Arc<Self> {
        let this = Self { clock, traffic, telemetry, watched: Mutex::default() };
        this.adopt(files, identity);
        Arc::new(this)
    }

    /// Takes over what another configuration names.
    pub(super) fn adopt(&self, files: Option<&TlsServer>, identity: Option<Identity>) {
        let mut watched = self.watched();
        match (files, identity) {
            (Some(files), Some(identity)) => {
                *watched = Some(Watched { files: files.clone(), seen: identity.seen });
                self.serve(identity);
            }
            _ => {
                *watched = None;
                self.traffic.serve_tls(None);
                self.telemetry.tls_last_reload_successful.clear();
                self.telemetry.tls_not_after.clear();
            }
        }
    }

    /// Looks until it is dropped.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(limits::RELOAD_POLL).await;
            self.look().await;
        }
    }

    async fn look(&self) {
        let Some(Watched { files, seen }) = self.watched().clone() else { return };
        let looking = tokio::task::spawn_blocking(move || (tls_server::look(&files, seen), files));
        // A panic of the reader: what serves goes on.
        let Ok((Some((seen, found)), files)) = looking.await else { return };
        let mut watched = self.watched();
        // A reload may have named others meanwhile.
        let Some(current) = watched.as_mut().filter(|current| current.files == files) else { return };
        current.seen = seen;
        match found {
            Ok(identity) => {
                tracing::info!(certificate = %files.cert_file.display(), "the certificate is reloaded");
                self.serve(identity);
            }
            Err(problem) => {
                self.telemetry.tls_last_reload_successful.get_or_create(&NoLabels {}).set(0);
                tracing::error!("the new certificate is refused, the one before serves on: {problem}");
            }
        }
    }

    fn serve(&self, identity: Identity) {
        let now = self.clock.unix_seconds(self.clock.now());
        if (identity.not_after as f64) <= now {
            tracing::warn!("the certificate of the traffic listener has expired: clients will refuse it");
        }
        self.telemetry.tls_last_reload_successful.get_or_create(&NoLabels {}).set(1);
        self.telemetry.tls_not_after.get_or_create(&NoLabels {}).set(identity.not_after as f64);
        self.traffic.serve_tls(Some(identity.config));
    }

    fn watched(&self) -> MutexGuard<'_, Option<Watched>> {
        // Nothing panics while it is held.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
