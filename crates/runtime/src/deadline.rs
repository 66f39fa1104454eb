//! Points in time by which something on the outside must have happened.

use std::time::Duration;

use tokio::time::Instant;

/// A point in time that several steps share, so that a slow first step leaves
/// less for the next instead of starting a new clock.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    total: Duration,
}

/// The deadline passed; carries the whole span that was allowed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
pub struct Elapsed(pub Duration);

impl Deadline {
    /// A deadline `span` from now.
    pub fn after(span: Duration) -> Self {
        Self { at: Instant::now() + span, total: span }
    }

    /// What is left; zero once it has passed.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The whole span this deadline was made with.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// Whether the time is up.
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }

    /// Runs `work` until the deadline, dropping it then. Only as cancel-safe as
    /// `work` is.
    ///
    /// # Errors
    /// [`Elapsed`] when the time is up first.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Elapsed> {
        tokio::time::timeout_at(self.at, work).await.map_err(|_| Elapsed(self.total))
    }
}
