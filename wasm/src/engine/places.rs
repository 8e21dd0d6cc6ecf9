//! Who gets the pool's places: an instance has one for as long as it lives, and a node has some thousands. A pod whose
//! requests never end must not have them all, so most are taken in turn by everybody, and the rest is kept for pods that
//! have few.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places that a pod has for its requests beside those that all share.
const OWN_PLACES: usize = 4;

/// The places that all pods share: three quarters of the pool.
#[derive(Clone)]
pub(crate) struct Places(Arc<Semaphore>);

impl Places {
    pub(crate) fn new(pool_size: u32) -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(pool_size).unwrap_or(usize::MAX) / 4 * 3)))
    }

    /// A pod's part.
    pub(crate) fn of_pod(&self) -> PodPlaces {
        PodPlaces { shared: self.0.clone(), own: Arc::new(Semaphore::new(OWN_PLACES)) }
    }
}

/// The places that one pod may take.
pub(crate) struct PodPlaces {
    shared: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

impl PodPlaces {
    /// A place, until it is dropped: one of the pod's own where one is left, else a shared one in turn.
    pub(crate) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            own = self.own.clone().acquire_owned() => own.ok(),
            shared = self.shared.clone().acquire_owned() => shared.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn who_has_few_finds_a_place_whatever_others_hold() {
        let places = Places::new(40);
        let (greedy, modest) = (places.of_pod(), places.of_pod());
        let mut held = Vec::new();
        while let Some(place) = greedy.take().now_or_never() {
            held.push(place.unwrap());
        }
        assert_eq!(held.len(), 30 + OWN_PLACES);
        let mut few = Vec::new();
        while let Some(place) = modest.take().now_or_never() {
            few.push(place.unwrap());
        }
        assert_eq!(few.len(), OWN_PLACES);
        held.pop();
        drop(held.remove(10));
        assert!(modest.take().now_or_never().is_some());
    }
}
