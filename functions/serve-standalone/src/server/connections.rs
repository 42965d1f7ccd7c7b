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
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::connection::{Activity, Pace, Phase};

/// Connections beyond the bound that wait for a place, or only ask whether the server lives.
pub(crate) const LOBBY: usize = 64;
/// Connections that were told to leave and have not left yet.
pub(crate) const LEAVING: usize = 64;
/// How long a request waits in the lobby for a place.
const WAIT: Duration = Duration::from_secs(5);
/// How often it looks whether somebody can be sent away by now.
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
    leaving: usize,
    /// Requests in the lobby that wait for a place, oldest first.
    waiting: VecDeque<Waiting>,
    draining: bool,
}

struct Member {
    client: ClientKey,
    activity: Arc<Activity>,
    standing: Standing,
    placed: Arc<AtomicBool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Placed,
    Lobby,
    Leaving,
}

struct Waiting {
    id: u64,
    client: ClientKey,
    granted: oneshot::Sender<()>,
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
        // Those that leave do so within a second; meanwhile they are still here.
        loop {
            let ended = self.0.ended.notified();
            if self.lock().leaving < LEAVING {
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
        let member = Member {
            client,
            activity,
            standing,
            placed: placed.clone(),
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

    fn tell(&self, state: &State) {
        if state.draining {
            return;
        }
        let phase = if state.waiting.is_empty() {
            Phase::Serving
        } else {
            Phase::Crowded
        };
        self.0.phase.send_if_modified(|told| {
            let changed = *told != phase;
            *told = phase;
            changed
        });
    }

    /// Gives free places to those who wait: first to the client that has fewest.
    fn serve(&self, state: &mut State) {
        while state.taken < self.0.places {
            let next = (0..state.waiting.len()).min_by_key(|index| state.held(state.waiting[*index].client));
            let Some(waiting) = next.and_then(|index| state.waiting.remove(index)) else {
                break;
            };
            if waiting.granted.send(()).is_ok() {
                state.place(waiting.id);
            }
        }
        self.tell(state);
    }
}

impl State {
    fn held(&self, client: ClientKey) -> usize {
        self.by_client.get(&client).copied().unwrap_or_default()
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
        self.leaving += 1;
        if before == Standing::Placed {
            self.release(client);
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
        // Silent, with half a head, or kept for later.
        let is_new = pace.served == 0 && now.saturating_duration_since(pace.born) < NEW;
        return (greedier || !is_new).then_some((2, held, Reverse(0), still));
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
                Standing::Leaving => state.leaving -= 1,
                Standing::Lobby => {}
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
        let connections = &self.connections;
        let deadline = Instant::now() + WAIT;
        let (granted, mut grant) = oneshot::channel();
        {
            let mut state = connections.lock();
            let Some(member) = state.members.get(&self.id) else {
                return false;
            };
            let (client, standing) = (member.client, member.standing);
            match standing {
                Standing::Placed => return true,
                Standing::Leaving => return false,
                Standing::Lobby if connections.make_room(&mut state, client) => {
                    state.place(self.id);
                    return true;
                }
                Standing::Lobby => {}
            }
            state.waiting.push_back(Waiting {
                id: self.id,
                client,
                granted,
            });
            connections.tell(&state);
        }
        let _guard = StopsWaiting(self);
        loop {
            match timeout(LOOK, &mut grant).await {
                Ok(granted) => return granted.is_ok(),
                Err(_) if Instant::now() >= deadline => return false,
                Err(_) => {}
            }
            let mut state = connections.lock();
            let client = match state.members.get(&self.id) {
                Some(member) if member.standing == Standing::Lobby => member.client,
                // It was granted between the two looks, or the connection has to leave.
                member => return member.is_some_and(|member| member.standing == Standing::Placed),
            };
            if connections.make_room(&mut state, client) {
                state.place(self.id);
                return true;
            }
            // Those that had not begun when they were told before are told again.
            if !state.draining {
                connections.0.phase.send_replace(Phase::Crowded);
            }
        }
    }

    /// Whether the connection has a place, as nearly all have.
    pub(crate) fn is_placed(&self) -> bool {
        self.placed.load(Ordering::Acquire)
    }
}

struct StopsWaiting<'a>(&'a ConnectionPlace);

impl Drop for StopsWaiting<'_> {
    fn drop(&mut self) {
        let ConnectionPlace { connections, id, .. } = self.0;
        let mut state = connections.lock();
        state.waiting.retain(|waiting| waiting.id != *id);
        connections.tell(&state);
    }
}
