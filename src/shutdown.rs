//! Signals: a run that is told to stop ends at a safe point, within the ten seconds that a runner
//! gives.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The runner kills what still runs ten seconds after its first signal.
const PATIENCE: Duration = Duration::from_secs(9);

/// Tells whether, and by which signal, the run was told to stop.
#[derive(Clone)]
pub struct Shutdown(watch::Receiver<Option<i32>>);

impl Shutdown {
    /// Listens for SIGTERM and SIGINT from now on.
    ///
    /// # Errors
    /// Handlers that cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        let (tell, requested) = watch::channel(None);
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let mut signals = signal(kind)?;
            let tell = tell.clone();
            tokio::spawn(async move {
                if signals.recv().await.is_some() {
                    tell.send_replace(Some(kind.as_raw_value()));
                }
            });
        }
        Ok(Self(requested))
    }

    pub fn signal(&self) -> Option<i32> {
        *self.0.borrow()
    }

    /// Ends when the run is told to stop.
    pub async fn requested(&self) -> i32 {
        let mut requested = self.0.clone();
        match requested.wait_for(Option::is_some).await {
            Ok(signal) => signal.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends when there is no time left to wind down.
    pub async fn expired(&self) -> i32 {
        let signal = self.requested().await;
        tokio::time::sleep(PATIENCE).await;
        signal
    }

    /// Sleeps, but no longer than until the run is told to stop.
    pub async fn sleep(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = self.requested() => {}
        }
    }
}
