//! An answer on its way: which of its bytes the connection has, and which of them the socket.
//!
//! HTTP libraries take a part of a body long before they can write it: under HTTP/2 it may wait for the client's window
//! as long as the client likes. So a part goes to the library as a [`Part`], which counts when its bytes are written.
//! An answer's [`Transfer`] is shared by its body and by all of its parts, and everything that is held for the answer
//! (memory, the exchange, its line in the log) ends with the last of them: when the last byte was written to the
//! socket, or was given up.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use registry::memory::Memory;
use tokio::time::Instant;

use super::activity::{AnswerInFlight, Exchange, Standing};
use super::streams::StreamTask;
use crate::access_log::Entry;
use crate::metrics::Measured;

/// A client that reads fewer bytes than this of an answer within the stall timeout has stalled, as if it had read none.
/// Otherwise a byte a minute would hold what the answer needs for as long as a whole answer may take.
pub(crate) const MIN_PROGRESS: u64 = 1 << 10;

/// An answer from its head to the last byte that is written.
pub(super) struct Transfer {
    /// How many bytes the body has.
    length: u64,
    deadline: Instant,
    begun: Instant,
    handed: AtomicU64,
    written: AtomicU64,
    /// How much was written when progress was last noted, and when that was, in milliseconds after `begun`.
    noted: AtomicU64,
    noted_at: AtomicU64,
    /// Whether the body has given its last part to the library.
    handed_over: AtomicBool,
    /// The body, while it waits for parts to be written.
    body: AtomicWaker,
    /// The stream's task, under HTTP/2.
    task: Option<StreamTask>,
    measured: Measured,
    entry: Option<Entry>,
    memory: Option<Mutex<Memory>>,
    // The last one: who waits for the exchange to end finds the rest done.
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
            // From now on it is measured how fast the client reads.
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

    /// Whether the last byte of the body was given to the library.
    pub(super) fn is_handed(&self) -> bool {
        self.handed.load(Ordering::Acquire) >= self.length
    }

    /// A part for the library.
    pub(super) fn part(self: &Arc<Self>, bytes: Bytes) -> Part {
        if self.in_flight() == 0 {
            // From now on the client is waited for; before, it was the store.
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

    /// The body will be asked for nothing more.
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

    fn standing(&self, now: Instant, stall: Duration, may_give_way: bool) -> Standing {
        let waits = self.in_flight() > 0;
        let until = if waits {
            self.begun + Duration::from_millis(self.noted_at.load(Ordering::Acquire)) + stall
        } else {
            now + stall
        };
        let until = until.min(self.deadline);
        if now >= until {
            return Standing::Stalled;
        }
        let Some(memory) = self.memory.as_ref().filter(|_| may_give_way) else {
            return Standing::Good(until);
        };
        let written = self.written.load(Ordering::Acquire);
        let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        match memory.look(written, waits) {
            Some(millis) => Standing::Good(until.min(now + Duration::from_millis(millis))),
            None => Standing::GivesWay,
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

/// Bytes on their way to the socket.
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

    /// Libraries advance a buffer by what the socket has taken. The exception are frames of some bytes, which are copied
    /// together with their head first.
    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.transfer.wrote(count);
    }
}
