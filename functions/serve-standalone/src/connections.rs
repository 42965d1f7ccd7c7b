//! The limit of connections: which connections exist, and which one is closed when there are too many.
//!
//! The number of connection *slots* is limited. If all are in use, the server closes one
//! connection for a new one: of the client with the most connections, the one with the least progress. If none can be
//! closed, the new connection waits in a small *waiting area*. There the server answers health
//! checks, and other requests wait a few seconds for a slot. So the server accepts connections whatever its clients do.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry::budget::ClientKey;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::transport::{Activity, Pace};

/// The state of the server, which all connections watch.
///
/// `hyper_util::server::graceful` does not fit: it tells all connections to end, once, and none that is still in its TLS
/// handshake. Here connections of some clients end when others need a slot, and a handshake ends with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No connection is closed for another one.
    Serving,
    /// Connections wait for a slot. The number is the smallest number of slots that one of their clients has.
    /// Connections of clients with at least this number are closed after the exchange in progress, or at once if there
    /// is none.
    Crowded(usize),
    /// The server is ending: all connections are closed in the same way.
    Draining,
}

/// Size of the waiting area: connections above the limit that wait for a slot or send health checks.
pub(crate) const WAITING_AREA: usize = 64;
/// Maximum number of connections that the server is closing at a time.
pub(crate) const LEAVING: usize = 64;
/// Maximum time for which a request waits in the waiting area for a slot.
const WAIT: Duration = Duration::from_secs(5);
/// Time between two searches of waiting requests for a connection that can be closed.
const LOOK: Duration = Duration::from_millis(250);
/// A connection is closed for another one of the same client only if it has moved no byte for this time.
const STUCK: Duration = Duration::from_secs(10);
/// A connection without a request so far is closed for another client only after this time, unless its own client has more
/// connections.
const NEW: Duration = Duration::from_secs(1);

/// All connections of a server.
#[derive(Clone)]
pub(crate) struct Connections(Arc<SharedConnections>);

struct SharedConnections {
    slots: usize,
    table: Mutex<ConnectionTable>,
    phase: watch::Sender<Phase>,
    /// Notified when a connection has ended.
    ended: Notify,
}

#[derive(Default)]
struct ConnectionTable {
    next: u64,
    members: HashMap<u64, Member>,
    /// Slots in use, by all clients and by each client.
    taken: usize,
    by_client: HashMap<ClientKey, usize>,
    /// Connections that the server is closing, oldest first.
    leaving: VecDeque<u64>,
    /// Connections in the waiting area whose requests wait for a slot, oldest first.
    waiting: Vec<u64>,
    /// The time of the next search for a connection that can be closed for them.
    next_look: Option<Instant>,
    draining: bool,
}

struct Member {
    client: ClientKey,
    activity: Arc<Activity>,
    stage: ConnectionStage,
    has_slot: Arc<AtomicBool>,
    /// Notified when the stage has changed.
    changed: Arc<Notify>,
    /// Number of requests of the connection that wait for its slot.
    requests: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ConnectionStage {
    HasSlot,
    /// In the waiting area.
    Waiting,
    Leaving,
}

/// Counts a connection until this is dropped.
pub(crate) struct CountedConnection {
    connections: Connections,
    id: u64,
}

/// Tells the exchanges of a connection whether it has a slot.
#[derive(Clone)]
pub(crate) struct ConnectionSlot {
    connections: Connections,
    id: u64,
    has_slot: Arc<AtomicBool>,
    changed: Arc<Notify>,
}

impl Connections {
    /// At most `slots` connections, and those in the waiting area. `phase` tells connections that others wait.
    pub(crate) fn new(slots: usize, phase: watch::Sender<Phase>) -> Self {
        Self(Arc::new(SharedConnections {
            slots: slots.max(1),
            table: Mutex::default(),
            phase,
            ended: Notify::new(),
        }))
    }

    /// Counts a new connection, and closes another one for it if necessary. `None` if even the waiting area is full.
    pub(crate) async fn admit(
        &self,
        peer: IpAddr,
        activity: Arc<Activity>,
    ) -> Option<(CountedConnection, ConnectionSlot)> {
        // A connection exists until its graceful close is complete. If too many are closing, the oldest is cut off, so
        // that slow clients do not delay others.
        loop {
            let ended = self.0.ended.notified();
            if self.lock().has_few_leaving() {
                break;
            }
            ended.await;
        }
        let client = ClientKey::of(peer);
        let mut table = self.lock();
        let stage = if self.free_slot(&mut table, client) {
            ConnectionStage::HasSlot
        } else if table.make_space_to_wait(client) {
            ConnectionStage::Waiting
        } else {
            return None;
        };
        let id = table.next;
        table.next += 1;
        if stage == ConnectionStage::HasSlot {
            table.take(client);
        }
        let has_slot = Arc::new(AtomicBool::new(stage == ConnectionStage::HasSlot));
        let changed = Arc::new(Notify::new());
        let member = Member {
            client,
            activity,
            stage,
            has_slot: has_slot.clone(),
            changed: changed.clone(),
            requests: 0,
        };
        table.members.insert(id, member);
        drop(table);
        let counted = CountedConnection {
            connections: self.clone(),
            id,
        };
        let admission = ConnectionSlot {
            connections: self.clone(),
            id,
            has_slot,
            changed,
        };
        Some((counted, admission))
    }

    /// Closes all connections after their exchanges in progress.
    pub(crate) fn drain(&self) {
        self.lock().draining = true;
        self.0.phase.send_replace(Phase::Draining);
    }

    /// The number of connections.
    pub(crate) fn count(&self) -> usize {
        self.lock().members.len()
    }

    /// Completes when there are no connections.
    pub(crate) async fn empty(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionTable> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection of `client` may have a slot: one is free, or was made free.
    fn free_slot(&self, table: &mut ConnectionTable, client: ClientKey) -> bool {
        if table.taken < self.0.slots {
            return true;
        }
        let Some(victim) = table.victim(client) else {
            return false;
        };
        table.send_away(victim);
        true
    }

    /// Tells connections whether others wait. This wakes every connection, so it reports that others wait only after a
    /// search has found no connection to close.
    fn tell(&self, table: &ConnectionTable, has_looked: bool) {
        if table.draining {
            return;
        }
        let least = table.waiting.iter().map(|id| table.held_beside(*id)).min();
        let phase = match least {
            None => Phase::Serving,
            Some(least) if has_looked => Phase::Crowded(least),
            Some(_) => return,
        };
        self.0.phase.send_if_modified(|phase_before| {
            // Connections that had not begun at the last time are notified again.
            let changed = has_looked || *phase_before != phase;
            *phase_before = phase;
            changed
        });
    }

    /// Gives slots to waiting connections, first to the client with the fewest slots. It uses free slots and, from time
    /// to time, closes connections to free their slots.
    fn serve(&self, table: &mut ConnectionTable) {
        let now = Instant::now();
        let mut has_looked = false;
        while let Some(next) = (0..table.waiting.len()).min_by_key(|index| table.held_beside(table.waiting[*index])) {
            let id = table.waiting[next];
            if table.taken >= self.0.slots {
                if table.next_look.is_some_and(|next| now < next) || table.leaving.len() >= LEAVING {
                    break;
                }
                let victim = table.client(id).and_then(|client| table.victim(client));
                let Some(victim) = victim else {
                    // No connection can be closed for the other clients either, because they have as many slots or
                    // more.
                    table.next_look = Some(now + LOOK);
                    has_looked = true;
                    break;
                };
                table.send_away(victim);
            }
            table.waiting.remove(next);
            table.give_slot(id);
        }
        self.tell(table, has_looked);
    }

    /// The stage of the connection after free slots were given out, and the time of the next search.
    fn look(&self, id: u64) -> (Option<ConnectionStage>, Instant) {
        let mut table = self.lock();
        self.serve(&mut table);
        let stage = table.members.get(&id).map(|member| member.stage);
        let soon = Instant::now() + LOOK;
        (stage, table.next_look.map_or(soon, |next| next.min(soon)))
    }
}

impl ConnectionTable {
    fn held(&self, client: ClientKey) -> usize {
        self.by_client.get(&client).copied().unwrap_or_default()
    }

    fn client(&self, id: u64) -> Option<ClientKey> {
        self.members.get(&id).map(|member| member.client)
    }

    /// The number of slots of the client of a connection.
    fn held_beside(&self, id: u64) -> usize {
        self.client(id).map_or(0, |client| self.held(client))
    }

    /// Whether one more connection may be closed. If not, cuts off the oldest of those that are closing.
    fn has_few_leaving(&self) -> bool {
        if self.leaving.len() < LEAVING {
            return true;
        }
        if let Some(first) = self.leaving.front().and_then(|id| self.members.get(id)) {
            first.activity.cut_off();
        }
        false
    }

    fn take(&mut self, client: ClientKey) {
        self.taken += 1;
        *self.by_client.entry(client).or_default() += 1;
    }

    fn release(&mut self, client: ClientKey) {
        self.taken -= 1;
        if let Some(held) = self.by_client.get_mut(&client) {
            *held -= 1;
            if *held == 0 {
                self.by_client.remove(&client);
            }
        }
    }

    fn give_slot(&mut self, id: u64) {
        let Some(member) = self
            .members
            .get_mut(&id)
            .filter(|member| member.stage == ConnectionStage::Waiting)
        else {
            return;
        };
        member.stage = ConnectionStage::HasSlot;
        member.has_slot.store(true, Ordering::Release);
        member.changed.notify_waiters();
        let client = member.client;
        self.take(client);
    }

    fn send_away(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let (client, before) = (member.client, member.stage);
        member.stage = ConnectionStage::Leaving;
        member.activity.dismiss();
        member.changed.notify_waiters();
        self.leaving.push_back(id);
        match before {
            ConnectionStage::HasSlot => self.release(client),
            ConnectionStage::Waiting | ConnectionStage::Leaving => self.waiting.retain(|waiting| *waiting != id),
        }
    }

    /// The connection to close for a new one of `client`.
    fn victim(&self, client: ClientKey) -> Option<u64> {
        let now = Instant::now();
        let own = self.held(client);
        let with_slots = self
            .members
            .iter()
            .filter(|(_, member)| member.stage == ConnectionStage::HasSlot);
        with_slots
            .filter_map(|(id, member)| {
                let held = self.held(member.client);
                let rank = rank(&member.activity.pace(), held, own, now)?;
                Some((rank, *id))
            })
            .max()
            .map(|(_, id)| id)
    }

    /// Makes space in the waiting area. First it closes connections there without a request, then the newest connection
    /// of the client with the most connections there. `false` if that would be the new connection.
    fn make_space_to_wait(&mut self, client: ClientKey) -> bool {
        let waiting_area: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.stage == ConnectionStage::Waiting)
            .map(|(id, member)| (*id, member.client, member.activity.pace().open == 0))
            .collect();
        if waiting_area.len() < WAITING_AREA {
            return true;
        }
        let count = |client: ClientKey| waiting_area.iter().filter(|(_, other, _)| *other == client).count();
        let own = count(client);
        let silent = waiting_area.iter().filter(|(_, _, silent)| *silent);
        let victim = silent
            .max_by_key(|(id, client, _)| (count(*client), Reverse(*id)))
            .or_else(|| {
                let greedier = waiting_area.iter().filter(|(_, client, _)| count(*client) > own + 1);
                greedier.max_by_key(|(id, client, _)| (count(*client), *id))
            })
            .map(|(id, _, _)| *id);
        if let Some(victim) = victim {
            self.send_away(victim);
        }
        victim.is_some()
    }
}

/// The rank of a connection among those that can be closed for a client with `own` slots; its own client has `held`.
/// The highest rank is closed first. `None` if the connection is not closed.
fn rank(pace: &Pace, held: usize, own: usize, now: Instant) -> Option<(u8, usize, Reverse<u64>, Duration)> {
    let still = now.saturating_duration_since(pace.moved);
    let greedier = held > own + 1;
    if pace.open == 0 {
        // It has sent nothing or a part of a head, or is idle. The client with the fewest slots keeps its connections.
        let is_new = pace.served == 0 && now.saturating_duration_since(pace.born) < NEW;
        return (greedier || (!is_new && held >= own)).then_some((2, held, Reverse(0), still));
    }
    // It has a request in progress, or its client must read an answer.
    if !greedier && (still < STUCK || !pace.waits_for_reader) {
        return None;
    }
    Some((u8::from(pace.waits_for_reader), held, Reverse(pace.speed), still))
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let connections = &self.connections;
        let mut table = connections.lock();
        if let Some(member) = table.members.remove(&self.id) {
            match member.stage {
                ConnectionStage::HasSlot => table.release(member.client),
                ConnectionStage::Leaving => table.leaving.retain(|leaving| *leaving != self.id),
                ConnectionStage::Waiting => table.waiting.retain(|waiting| *waiting != self.id),
            }
        }
        connections.serve(&mut table);
        drop(table);
        connections.0.ended.notify_waiters();
    }
}

impl ConnectionSlot {
    /// Waits until the connection has a slot, for a request that needs one. `false` if it gets no slot in time.
    pub(crate) async fn wait(&self) -> bool {
        let deadline = Instant::now() + WAIT;
        let _waiting = WaitingRequest::begin(self);
        loop {
            let changed = self.changed.notified();
            let (stage, next_look) = self.connections.look(self.id);
            match stage {
                Some(ConnectionStage::HasSlot) => return true,
                Some(ConnectionStage::Waiting) if Instant::now() < deadline => {}
                _ => return false,
            }
            // It searches again after a notification and after the timeout.
            let _ = timeout_at(next_look.min(deadline), changed).await;
        }
    }

    /// The number of slots of its client.
    pub(crate) fn held(&self) -> usize {
        self.connections.lock().held_beside(self.id)
    }

    /// Whether the connection has a slot.
    pub(crate) fn has_slot(&self) -> bool {
        self.has_slot.load(Ordering::Acquire)
    }
}

/// Counts a request as waiting until this is dropped.
struct WaitingRequest<'a>(&'a ConnectionSlot);

impl<'a> WaitingRequest<'a> {
    fn begin(slot: &'a ConnectionSlot) -> Self {
        let mut table = slot.connections.lock();
        if let Some(member) = table.members.get_mut(&slot.id) {
            member.requests += 1;
            if member.requests == 1 && member.stage == ConnectionStage::Waiting {
                table.waiting.push(slot.id);
            }
        }
        Self(slot)
    }
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        let ConnectionSlot { connections, id, .. } = self.0;
        let mut table = connections.lock();
        let Some(member) = table.members.get_mut(id) else {
            return;
        };
        member.requests -= 1;
        if member.requests == 0 {
            table.waiting.retain(|waiting| waiting != id);
            connections.tell(&table, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    /// However many requests wait for a slot, connections are notified, and searched, only a few times a second.
    #[tokio::test(start_paused = true)]
    async fn requests_that_wait_look_for_a_slot_together() {
        let (phase, mut seen) = watch::channel(Phase::Serving);
        let connections = Connections::new(1, phase);
        let busy = Arc::new(Activity::new());
        let admitted = connections.admit(address(1), busy.clone()).await;
        let _exchange = busy.begin();
        assert!(admitted.is_some());
        let (_counted, slot) = connections
            .admit(address(1), Arc::default())
            .await
            .expect("space in the waiting area");
        let requests: Vec<_> = (0..500)
            .map(|number| {
                let slot = slot.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(number)).await;
                    slot.wait().await
                })
            })
            .collect();
        let mut changes = 0;
        let counting = async {
            loop {
                seen.changed().await.expect("the connections are there");
                changes += 1;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(4), counting).await;
        assert!((10..=20).contains(&changes), "{changes}");
        assert_eq!(*seen.borrow(), Phase::Crowded(1));
        // The first request ends: the other requests of the connection have its slot.
        drop(admitted);
        for request in requests {
            assert!(request.await.expect("it ends"));
        }
        assert_eq!(*seen.borrow(), Phase::Serving);
        assert_eq!(slot.held(), 1);
    }

    /// Of two waiting clients, the one with fewer slots is served first, whichever of them searches.
    #[tokio::test(start_paused = true)]
    async fn the_client_with_the_fewest_slots_gets_the_next_one() {
        let (phase, _told) = watch::channel(Phase::Serving);
        let connections = Connections::new(2, phase);
        let mut held = Vec::new();
        for number in [1, 2] {
            let busy = Arc::new(Activity::new());
            held.push((connections.admit(address(number), busy.clone()).await, busy.begin()));
        }
        let mut waiting = Vec::new();
        for number in [1, 3] {
            let admitted = connections.admit(address(number), Arc::default()).await;
            let (counted, slot) = admitted.expect("space in the waiting area");
            let waits = tokio::spawn(async move { slot.wait().await });
            waiting.push((counted, waits));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(held.pop());
        tokio::time::sleep(Duration::from_millis(1)).await;
        let (_, modest) = &waiting[1];
        assert!(modest.is_finished());
        let (_, greedy) = &waiting[0];
        assert!(!greedy.is_finished());
    }

    /// Connections that close slowly are cut off when there are too many of them.
    #[tokio::test]
    async fn a_connection_that_closes_slowly_does_not_keep_others_out() {
        let (phase, _told) = watch::channel(Phase::Serving);
        let connections = Connections::new(1, phase);
        let mut slow = Vec::new();
        for _ in 0..=LEAVING {
            let activity = Arc::new(Activity::new());
            drop(activity.clone().begin());
            slow.push((connections.admit(address(1), activity.clone()).await, activity));
        }
        let next = tokio::spawn({
            let connections = connections.clone();
            async move { connections.admit(address(2), Arc::default()).await.is_some() }
        });
        let (counted, activity) = slow.remove(0);
        let cut = activity.is_cut_off();
        tokio::time::timeout(Duration::from_secs(10), cut)
            .await
            .expect("it is notified");
        drop(counted);
        assert!(next.await.expect("it ends"));
    }
}
