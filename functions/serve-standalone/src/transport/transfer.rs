//! The transfer of an answer: how many of its bytes the HTTP library has, and how many were written to the socket.
//!
//! HTTP libraries take a part of a body long before they can write it. With HTTP/2, a part may wait for the client's window
//! without end. So the library gets each part as a [`Part`], which counts its bytes when they are written. The body of an
//! answer and all its parts share one [`Transfer`]. Everything that the answer holds (memory, the exchange, its log line) ends
//! with the last of them: when the last byte was written to the socket or was discarded.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use registry::memory::Memory;
use tokio::time::Instant;

use super::activity::{AnswerInFlight, Exchange, ReaderState};
use super::streams::StreamTask;
use crate::access_log::Entry;
use crate::metrics::Measured;

/// A client that reads fewer bytes of an answer than this within the stall timeout has stalled. Otherwise a client that reads
/// a byte a minute would keep the memory of the answer until the timeout of the whole answer.
pub(crate) const MIN_PROGRESS: u64 = 1 << 10;

/// An answer from its head to the last byte that is written.
pub(super) struct Transfer {
    /// The length of the body in bytes.
    length: u64,
    deadline: Instant,
    begun: Instant,
    handed: AtomicU64,
    written: AtomicU64,
    /// The number of written bytes when progress was last noted, and the time of that, in milliseconds after `begun`.
    noted: AtomicU64,
    noted_at: AtomicU64,
    /// Whether the HTTP library has the last part of the body.
    handed_over: AtomicBool,
    /// The body, while it waits for parts to be written.
    body: AtomicWaker,
    /// The task of the stream, with HTTP/2.
    task: Option<StreamTask>,
    measured: Measured,
    entry: Option<Entry>,
    memory: Option<Mutex<Memory>>,
    // The last field: when the exchange ends, everything else has ended.
    exchange: Exchange,
}

impl Transfer {
    pub(super) fn new(
        length: u64,
        total: Duration,
        exchange: Exchange,
        memory: Option<Memory>,
        measured: Measured,
        entry: Option<Entry>,
    ) -> Self {
        let begun = Instant::now();
        let memory = memory.map(|mut memory| {
            // The speed of the client is measured from now on.
            memory.look(0, false);
            Mutex::new(memory)
        });
        Self {
            length,
            deadline: begun + total,
            begun,
            handed: AtomicU64::new(0),
            written: AtomicU64::new(0),
            noted: AtomicU64::new(0),
            noted_at: AtomicU64::new(0),
            handed_over: AtomicBool::new(false),
            body: AtomicWaker::new(),
            task: exchange.activity().is_multiplexed().then(StreamTask::current).flatten(),
            measured,
            entry,
            memory,
            exchange,
        }
    }

    pub(super) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Whether the HTTP library has the last byte of the body.
    pub(super) fn is_handed(&self) -> bool {
        self.handed.load(Ordering::Acquire) >= self.length
    }

    /// A part for the HTTP library.
    pub(super) fn part(self: &Arc<Self>, bytes: Bytes) -> Part {
        if self.in_flight() == 0 {
            // From now on the answer waits for the client; before, it waited for the store.
            self.note(self.written.load(Ordering::Acquire));
        }
        self.handed.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        Part {
            bytes,
            transfer: self.clone(),
        }
    }

    /// Wakes the body when bytes are written.
    pub(super) fn wake(&self, waker: &Waker) {
        self.body.register(waker);
    }

    /// Notes that the HTTP library has the whole body.
    pub(super) fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Release);
    }

    fn note(&self, written: u64) {
        self.noted.store(written, Ordering::Relaxed);
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.noted_at.store(since, Ordering::Release);
    }

    fn wrote(&self, bytes: usize) {
        let written = self.written.fetch_add(bytes as u64, Ordering::AcqRel) + bytes as u64;
        self.measured.metrics().sent(bytes);
        if written >= self.noted.load(Ordering::Relaxed) + MIN_PROGRESS {
            self.note(written);
        }
        self.body.wake();
    }
}

impl AnswerInFlight for Transfer {
    fn in_flight(&self) -> u64 {
        let written = self.written.load(Ordering::Acquire);
        self.handed.load(Ordering::Acquire).saturating_sub(written)
    }

    fn reader_state(&self, now: Instant, stall: Duration, may_give_way: bool) -> ReaderState {
        let waits = self.in_flight() > 0;
        let until = if waits {
            self.begun + Duration::from_millis(self.noted_at.load(Ordering::Acquire)) + stall
        } else {
            now + stall
        };
        let until = until.min(self.deadline);
        if now >= until {
            return ReaderState::Stalled;
        }
        let Some(memory) = self.memory.as_ref().filter(|_| may_give_way) else {
            return ReaderState::Good(until);
        };
        let written = self.written.load(Ordering::Acquire);
        let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        match memory.look(written, waits) {
            Some(millis) => ReaderState::Good(until.min(now + Duration::from_millis(millis))),
            None => ReaderState::GivesWay,
        }
    }

    fn cut(&self) -> bool {
        match &self.task {
            Some(task) if !self.handed_over.load(Ordering::Acquire) => {
                task.abort();
                true
            }
            _ => false,
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let written = *self.written.get_mut();
        let whole = written >= self.length;
        if !whole {
            self.measured.cut();
        }
        if let Some(entry) = self.entry.take() {
            entry.write(written, whole);
        }
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("length", &self.length)
            .field("handed", &self.handed)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// Bytes that the HTTP library writes to the socket.
#[derive(Debug)]
pub(crate) struct Part {
    bytes: Bytes,
    transfer: Arc<Transfer>,
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    /// HTTP libraries advance a buffer by the bytes that the socket has taken. The exception are very small frames, which are
    /// first copied together with their head.
    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.transfer.wrote(count);
    }
}
