//! How much is served at once.
//!
//! Nobody waits in line here: who comes when all places are taken is told to come back (429), so that those who have
//! a place are served in time.

use std::sync::Arc;

use osc_api::status::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::server::Limits;

/// Bodies are counted in pieces of this many bytes.
const PIECE: usize = 1024;
/// Seconds after which a client who found no place should try again.
const RETRY: u32 = 1;

/// The places there are.
pub(crate) struct Load {
    limits: Limits,
    requests: Semaphore,
    watches: Arc<Semaphore>,
    bodies: Semaphore,
}

impl Load {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            requests: Semaphore::new(limits.requests),
            watches: Arc::new(Semaphore::new(limits.watches)),
            bodies: Semaphore::new(limits.all_bodies_bytes / PIECE),
        }
    }

    /// A place for a request that ends by itself.
    ///
    /// # Errors
    /// 429 when there is none.
    pub fn request(&self) -> Result<SemaphorePermit<'_>, Status> {
        self.requests.try_acquire().map_err(|_| full("requests"))
    }

    /// A place for a watch.
    ///
    /// # Errors
    /// 429 when there is none.
    pub fn watch(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.watches).try_acquire_owned().map_err(|_| full("watches"))
    }

    /// Room for some bytes of a body.
    ///
    /// # Errors
    /// 429 when the bodies under way take all of it.
    pub fn body(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Status> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX);
        self.bodies.try_acquire_many(pieces).map_err(|_| full("request bodies"))
    }

    /// Requests being served, watches aside.
    pub fn requests_now(&self) -> usize {
        self.limits.requests - self.requests.available_permits()
    }

    /// Watches being served.
    pub fn watches_now(&self) -> usize {
        self.limits.watches - self.watches.available_permits()
    }
}

fn full(what: &str) -> Status {
    Status::too_many_requests(format!("too many {what}, please try again later"), RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let limits = Limits { requests: 1, watches: 1, all_bodies_bytes: 4 * PIECE, ..Limits::default() };
        let load = Load::new(limits);
        let (request, watch, body) =
            (load.request().unwrap(), load.watch().unwrap(), load.body(3 * PIECE + 1).unwrap());
        assert_eq!((load.requests_now(), load.watches_now()), (1, 1));
        for refused in [load.request().err(), load.watch().err(), load.body(1).err()] {
            let refused = refused.expect("no place");
            assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, Some(1)));
        }
        drop((request, watch, body));
        assert!(load.request().is_ok() && load.watch().is_ok() && load.body(4 * PIECE).is_ok());
        assert_eq!((load.requests_now(), load.watches_now()), (0, 0));
    }
}
