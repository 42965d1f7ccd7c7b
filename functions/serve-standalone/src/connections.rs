//! Which connections there are, and which of them has to go when there are too many.
//!
//! There is a bounded number of *places*. A connection that finds none takes the place of another one, which is told to
//! leave: of the client with the most connections the one that gets on least. Where nobody is to be sent away, the
//! connection comes into the *lobby*, which is small: there it is answered when it asks whether the server lives, and
//! otherwise waits a moment for a place. So the server goes on accepting, whatever its clients do.

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

/// What all connections are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing.
    Serving,
    /// Connections wait for a place. Of their clients the one with fewest places has this many; connections of clients with
    /// as many or more end after the exchange in progress, at once if there is none.
    Crowded(usize),
    /// The server ends: the same, for good.
    Draining,
}

/// Connections beyond the bound that wait for a place, or only ask whether the server lives.
pub(crate) const LOBBY: usize = 64;
/// Connections that were told to leave and have not left yet.
pub(crate) const LEAVING: usize = 64;
/// How long a request waits in the lobby for a place.
const WAIT: Duration = Duration::from_secs(5);
/// How often one of those that wait looks whether somebody can be sent away by now.
const LOOK: Duration = Duration::from_millis(250);
/// A connection is not sent away for others of its own client before it has moved no byte for this time.
const STUCK: Duration = Duration::from_secs(10);
/// A connection that has asked nothing yet is not sent away for others before this time, unless its client has more
/// connections than theirs.
const NEW: Duration = Duration::from_secs(1);

/// All connections of a server.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Shared>);

struct Shared {
    places: usize,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    /// Told when a connection has ended.
    ended: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    members: HashMap<u64, Member>,
    /// Places taken, over all clients and by client.
    taken: usize,
    by_client: HashMap<ClientKey, usize>,
    /// Those that were told to leave, oldest first.
    leaving: VecDeque<u64>,
    /// Those in the lobby whose requests wait for a place, oldest first.
    waiting: Vec<u64>,
    /// Before then nobody looks again whom to send away for them.
    next_look: Option<Instant>,
    draining: bool,
}

struct Member {
    client: ClientKey,
    activity: Arc<Activity>,
    standing: Standing,
    placed: Arc<AtomicBool>,
    /// Told when the standing has changed.
    changed: Arc<Notify>,
    /// How many requests wait for the place of the connection.
    requests: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Placed,
    Lobby,
    Leaving,
}

/// A connection that is counted until this is dropped.
pub(crate) struct Counted {
    connections: Connections,
    id: u64,
}

/// Where the exchanges of a connection ask for a place.
#[derive(Clone)]
pub(crate) struct ConnectionPlace {
    connections: Connections,
    id: u64,
    placed: Arc<AtomicBool>,
    changed: Arc<Notify>,
}

impl Connections {
    /// At most `places`, and those in the lobby. `phase` tells connections that others wait.
    pub(crate) fn new(places: usize, phase: watch::Sender<Phase>) -> Self {
        Self(Arc::new(Shared {
            places: places.max(1),
            state: Mutex::default(),
            phase,
            ended: Notify::new(),
        }))
    }

    /// Counts a new connection, and sends another one away for it if it has to. `None`: there is no room for it, not
    /// even in the lobby.
    pub(crate) async fn admit(&self, peer: IpAddr, activity: Arc<Activity>) -> Option<(Counted, ConnectionPlace)> {
        // Those that leave are still here until they have said goodbye. Clients that take their time keep nobody waiting.
        loop {
            let ended = self.0.ended.notified();
            if self.lock().has_few_leaving() {
                break;
            }
            ended.await;
        }
        let client = ClientKey::of(peer);
        let mut state = self.lock();
        let standing = if self.make_room(&mut state, client) {
            Standing::Placed
        } else if state.make_lobby(client) {
            Standing::Lobby
        } else {
            return None;
        };
        let id = state.next;
        state.next += 1;
        if standing == Standing::Placed {
            state.take(client);
        }
        let placed = Arc::new(AtomicBool::new(standing == Standing::Placed));
        let changed = Arc::new(Notify::new());
        let member = Member {
            client,
            activity,
            standing,
            placed: placed.clone(),
            changed: changed.clone(),
            requests: 0,
        };
        state.members.insert(id, member);
        drop(state);
        let counted = Counted {
            connections: self.clone(),
            id,
        };
        let admission = ConnectionPlace {
            connections: self.clone(),
            id,
            placed,
            changed,
        };
        Some((counted, admission))
    }

    /// From now on connections end after what they are doing.
    pub(crate) fn drain(&self) {
        self.lock().draining = true;
        self.0.phase.send_replace(Phase::Draining);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().members.len()
    }

    /// Completes when there are none.
    pub(crate) async fn empty(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection of `client` may have a place: one is free, or was made free.
    fn make_room(&self, state: &mut State, client: ClientKey) -> bool {
        if state.taken < self.0.places {
            return true;
        }
        let Some(victim) = state.victim(client) else {
            return false;
        };
        state.send_away(victim);
        true
    }

    /// Tells connections whether others wait. That they do is told by who has looked in vain, and so not often: each of the
    /// connections hears of it.
    fn tell(&self, state: &State, has_looked: bool) {
        if state.draining {
            return;
        }
        let least = state.waiting.iter().map(|id| state.held_beside(*id)).min();
        let phase = match least {
            None => Phase::Serving,
            Some(least) if has_looked => Phase::Crowded(least),
            Some(_) => return,
        };
        self.0.phase.send_if_modified(|told| {
            // Those that had not begun when they were told before are told again.
            let changed = has_looked || *told != phase;
            *told = phase;
            changed
        });
    }

    /// Gives places to those who wait: first to the client that has fewest. Places that are free, and now and then such
    /// as others can be sent away from.
    fn serve(&self, state: &mut State) {
        let now = Instant::now();
        let mut has_looked = false;
        while let Some(next) = (0..state.waiting.len()).min_by_key(|index| state.held_beside(state.waiting[*index])) {
            let id = state.waiting[next];
            if state.taken >= self.0.places {
                if state.next_look.is_some_and(|next| now < next) || state.leaving.len() >= LEAVING {
                    break;
                }
                let victim = state.client(id).and_then(|client| state.victim(client));
                let Some(victim) = victim else {
                    // And nobody can be sent away for the others, who have as much or more.
                    state.next_look = Some(now + LOOK);
                    has_looked = true;
                    break;
                };
                state.send_away(victim);
            }
            state.waiting.remove(next);
            state.place(id);
        }
        self.tell(state, has_looked);
    }

    /// How the connection stands, once whoever can have a place has one; and when to look again.
    fn look(&self, id: u64) -> (Option<Standing>, Instant) {
        let mut state = self.lock();
        self.serve(&mut state);
        let standing = state.members.get(&id).map(|member| member.standing);
        let soon = Instant::now() + LOOK;
        (standing, state.next_look.map_or(soon, |next| next.min(soon)))
    }
}

impl State {
    fn held(&self, client: ClientKey) -> usize {
        self.by_client.get(&client).copied().unwrap_or_default()
    }

    fn client(&self, id: u64) -> Option<ClientKey> {
        self.members.get(&id).map(|member| member.client)
    }

    /// How many places the client of a connection holds.
    fn held_beside(&self, id: u64) -> usize {
        self.client(id).map_or(0, |client| self.held(client))
    }

    /// Whether there is room for one more that leaves. If not, the first of them has had its time.
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

    fn place(&mut self, id: u64) {
        let Some(member) = self
            .members
            .get_mut(&id)
            .filter(|member| member.standing == Standing::Lobby)
        else {
            return;
        };
        member.standing = Standing::Placed;
        member.placed.store(true, Ordering::Release);
        member.changed.notify_waiters();
        let client = member.client;
        self.take(client);
    }

    fn send_away(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let (client, before) = (member.client, member.standing);
        member.standing = Standing::Leaving;
        member.activity.dismiss();
        member.changed.notify_waiters();
        self.leaving.push_back(id);
        match before {
            Standing::Placed => self.release(client),
            Standing::Lobby | Standing::Leaving => self.waiting.retain(|waiting| *waiting != id),
        }
    }

    /// Who leaves for a new connection of `client`.
    fn victim(&self, client: ClientKey) -> Option<u64> {
        let now = Instant::now();
        let own = self.held(client);
        let placed = self
            .members
            .iter()
            .filter(|(_, member)| member.standing == Standing::Placed);
        placed
            .filter_map(|(id, member)| {
                let held = self.held(member.client);
                let rank = rank(&member.activity.pace(), held, own, now)?;
                Some((rank, *id))
            })
            .max()
            .map(|(_, id)| id)
    }

    /// Makes room in the lobby. What is there and asks nothing leaves first, then the newest of the client that has most
    /// there. `false`: that is the new one.
    fn make_lobby(&mut self, client: ClientKey) -> bool {
        let lobby: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.standing == Standing::Lobby)
            .map(|(id, member)| (*id, member.client, member.activity.pace().open == 0))
            .collect();
        if lobby.len() < LOBBY {
            return true;
        }
        let count = |client: ClientKey| lobby.iter().filter(|(_, other, _)| *other == client).count();
        let own = count(client);
        let silent = lobby.iter().filter(|(_, _, silent)| *silent);
        let victim = silent
            .max_by_key(|(id, client, _)| (count(*client), Reverse(*id)))
            .or_else(|| {
                let greedier = lobby.iter().filter(|(_, client, _)| count(*client) > own + 1);
                greedier.max_by_key(|(id, client, _)| (count(*client), *id))
            })
            .map(|(id, _, _)| *id);
        if let Some(victim) = victim {
            self.send_away(victim);
        }
        victim.is_some()
    }
}

/// How much a connection is one to send away, for a client that holds `own` places while the client of the connection
/// holds `held`. `None`: it stays.
fn rank(pace: &Pace, held: usize, own: usize, now: Instant) -> Option<(u8, usize, Reverse<u64>, Duration)> {
    let still = now.saturating_duration_since(pace.moved);
    let greedier = held > own + 1;
    if pace.open == 0 {
        // Silent, with half a head, or kept for later. Who holds least keeps that, whatever others do with more.
        let is_new = pace.served == 0 && now.saturating_duration_since(pace.born) < NEW;
        return (greedier || (!is_new && held >= own)).then_some((2, held, Reverse(0), still));
    }
    // Something is done for it, or waits for its client.
    if !greedier && (still < STUCK || !pace.waits_for_reader) {
        return None;
    }
    Some((u8::from(pace.waits_for_reader), held, Reverse(pace.speed), still))
}

impl Drop for Counted {
    fn drop(&mut self) {
        let connections = &self.connections;
        let mut state = connections.lock();
        if let Some(member) = state.members.remove(&self.id) {
            match member.standing {
                Standing::Placed => state.release(member.client),
                Standing::Leaving => state.leaving.retain(|leaving| *leaving != self.id),
                Standing::Lobby => state.waiting.retain(|waiting| *waiting != self.id),
            }
        }
        connections.serve(&mut state);
        drop(state);
        connections.0.ended.notify_waiters();
    }
}

impl ConnectionPlace {
    /// Waits a moment until the connection has a place, for a request that needs one. `false`: it gets none now.
    pub(crate) async fn wait(&self) -> bool {
        let deadline = Instant::now() + WAIT;
        let _waiting = Waiting::begin(self);
        loop {
            let changed = self.changed.notified();
            let (standing, next_look) = self.connections.look(self.id);
            match standing {
                Some(Standing::Placed) => return true,
                Some(Standing::Lobby) if Instant::now() < deadline => {}
                _ => return false,
            }
            // Woken or not, it looks.
            let _ = timeout_at(next_look.min(deadline), changed).await;
        }
    }

    /// How many places its client holds.
    pub(crate) fn held(&self) -> usize {
        self.connections.lock().held_beside(self.id)
    }

    /// Whether the connection has a place, as nearly all have.
    pub(crate) fn is_placed(&self) -> bool {
        self.placed.load(Ordering::Acquire)
    }
}

/// A request that waits, until this is dropped.
struct Waiting<'a>(&'a ConnectionPlace);

impl<'a> Waiting<'a> {
    fn begin(place: &'a ConnectionPlace) -> Self {
        let mut state = place.connections.lock();
        if let Some(member) = state.members.get_mut(&place.id) {
            member.requests += 1;
            if member.requests == 1 && member.standing == Standing::Lobby {
                state.waiting.push(place.id);
            }
        }
        Self(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let ConnectionPlace { connections, id, .. } = self.0;
        let mut state = connections.lock();
        let Some(member) = state.members.get_mut(id) else {
            return;
        };
        member.requests -= 1;
        if member.requests == 0 {
            state.waiting.retain(|waiting| waiting != id);
            connections.tell(&state, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    /// However many requests wait for a place, connections are told, and looked through, a few times a second.
    #[tokio::test(start_paused = true)]
    async fn requests_that_wait_look_for_a_place_together() {
        let (phase, mut told) = watch::channel(Phase::Serving);
        let connections = Connections::new(1, phase);
        let busy = Arc::new(Activity::new());
        let admitted = connections.admit(address(1), busy.clone()).await;
        let _exchange = busy.begin();
        assert!(admitted.is_some());
        let (_counted, place) = connections
            .admit(address(1), Arc::default())
            .await
            .expect("room in the lobby");
        let requests: Vec<_> = (0..500)
            .map(|number| {
                let place = place.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(number)).await;
                    place.wait().await
                })
            })
            .collect();
        let mut changes = 0;
        let counting = async {
            loop {
                told.changed().await.expect("the connections are there");
                changes += 1;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(4), counting).await;
        assert!((10..=20).contains(&changes), "{changes}");
        assert_eq!(*told.borrow(), Phase::Crowded(1));
        // The first one goes: all requests of the connection have its place.
        drop(admitted);
        for request in requests {
            assert!(request.await.expect("it ends"));
        }
        assert_eq!(*told.borrow(), Phase::Serving);
        assert_eq!(place.held(), 1);
    }

    /// Of two clients that wait the one that holds less is served first, whoever looks.
    #[tokio::test(start_paused = true)]
    async fn who_holds_least_has_the_next_place() {
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
            let (counted, place) = admitted.expect("room in the lobby");
            let waits = tokio::spawn(async move { place.wait().await });
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

    /// Those that take their time to leave are cut off when there are too many of them.
    #[tokio::test]
    async fn who_leaves_slowly_does_not_keep_others_out() {
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
            .expect("it is told");
        drop(counted);
        assert!(next.await.expect("it ends"));
    }
}
