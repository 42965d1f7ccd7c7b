//! What a connection is doing, shared between its socket and the exchanges on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use tokio::time::Instant;

use crate::requests::RequestPlace;

/// Counts the exchanges of one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    born: Instant,
    open: AtomicU32,
    ended: AtomicU32,
    /// When the last exchange ended, in milliseconds after `born`.
    idle_since: AtomicU64,
    multiplexed: AtomicBool,
    linger: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            open: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            linger: AtomicBool::new(false),
        }
    }

    /// When the connection was opened.
    pub(super) fn born(&self) -> Instant {
        self.born
    }

    /// How many exchanges are in progress.
    pub(super) fn open(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }

    /// How many exchanges have ended, modulo 2^32.
    pub(super) fn served(&self) -> u32 {
        self.ended.load(Ordering::Acquire)
    }

    /// When the last exchange ended.
    pub(super) fn idle_since(&self) -> Instant {
        self.born + std::time::Duration::from_millis(self.idle_since.load(Ordering::Acquire))
    }

    /// Whether this is HTTP/2.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    pub(super) fn set_multiplexed(&self, multiplexed: bool) {
        self.multiplexed.store(multiplexed, Ordering::Relaxed);
    }

    /// Asks that the connection, when it is closed, waits for the client to notice: it is still sending a body that
    /// nobody reads, and a reset could take the answer from it before it was read.
    pub(crate) fn linger(&self) {
        self.linger.store(true, Ordering::Release);
    }

    pub(super) fn lingers(&self) -> bool {
        self.linger.load(Ordering::Acquire)
    }

    /// Begins an exchange, which lasts until the value is dropped.
    pub(crate) fn begin(self: Arc<Self>) -> Exchange {
        self.open.fetch_add(1, Ordering::AcqRel);
        Exchange {
            activity: self,
            place: None,
        }
    }
}

/// One request and its response, in progress.
#[derive(Debug)]
pub(crate) struct Exchange {
    activity: Arc<Activity>,
    place: Option<Arc<RequestPlace>>,
}

impl Exchange {
    /// The connection's.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// The same, whose request has a place until the exchange has ended.
    pub(crate) fn occupying(mut self, place: Arc<RequestPlace>) -> Self {
        self.place = Some(place);
        self
    }

    /// The place of its request.
    pub(crate) fn place(&self) -> Option<Arc<RequestPlace>> {
        self.place.clone()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let activity = &self.activity;
        let since = u64::try_from(activity.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        activity.idle_since.store(since, Ordering::Release);
        activity.ended.fetch_add(1, Ordering::AcqRel);
        activity.open.fetch_sub(1, Ordering::AcqRel);
    }
}
