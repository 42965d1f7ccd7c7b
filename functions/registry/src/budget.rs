//! A bounded resource that clients share fairly: memory, open files, turns to have a password verified.
//!
//! [`Budget`] is the one way to bound what requests hold together. It keeps three promises:
//!
//! * Never more than the total is granted.
//! * A client holds at most [`SHARE`] times what is left free, so that a client that has nothing yet finds something,
//!   however much another one holds. A client that holds nothing gets what it asks for as soon as that much is free.
//! * The queue is bounded, and ordered by client: who holds least is served first, and of several that hold as much the
//!   one that was not served for longest, so that a budget of one unit goes round. At the bound the newest request of
//!   the client with the most waiting requests is refused, which need not be the one that has just come.
//!
//! It has no clock: a caller that waits for a limited time drops the future.

mod arrival;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

pub use arrival::ArrivalRate;
use foldhash::fast::RandomState;

/// How many times the free rest one client may hold. Alone it gets three quarters of the total; of `n` clients that all
/// want everything each gets 3/(3n + 1), and 1/(3n + 1) stays free for the next one.
pub const SHARE: u64 = 3;

/// For whom something is held: an address, or the registry itself.
///
/// IPv6 addresses count by their /64 network, which is what one host is usually given.
// One number, since it is compared and hashed some times for each request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(u128);

impl ClientKey {
    /// Work of the registry's own: collection, checks, start-up; also requests whose client is not known.
    // No network ends with these bits.
    pub const INTERNAL: Self = Self(u128::MAX);

    /// The client at `address`.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().into(),
            IpAddr::V6(address) => u128::from(address) >> 64 << 64,
        })
    }
}

impl Default for ClientKey {
    fn default() -> Self {
        Self::INTERNAL
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::INTERNAL => f.write_str("internal"),
            Self(number) => Ipv6Addr::from(number).to_canonical().fmt(f),
        }
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The queue is full, and this request's client has the most requests in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many requests of one client are waiting")]
pub struct Refused;

/// A total of units, handed out as [`Grant`]s. Clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    total: u64,
    max_waiting: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: u64,
    clients: HashMap<ClientKey, Account, RandomState>,
    /// How many requests wait, over all clients.
    waiting: usize,
    /// Numbers requests in the order in which they came.
    next: u64,
    /// How many grants there were.
    grants: u64,
}

/// What one client holds and waits for. It exists only while there is something of either.
#[derive(Default)]
struct Account {
    held: u64,
    /// Which of all grants was this client's last. A new account begins with the one before the last of all: so it comes
    /// before the client that was served last, and not before one that has been waiting, although a client that asks for
    /// one thing at a time is forgotten in between.
    served: u64,
    /// Oldest first.
    queue: VecDeque<Request>,
    /// How many of its grants are behind, and the sum of their rates.
    behind: u64,
    rates: u64,
}

struct Request {
    number: u64,
    amount: u64,
    answer: Arc<Mutex<Answer>>,
}

#[derive(Default)]
struct Answer {
    decided: Option<Result<(), Refused>>,
    waker: Option<Waker>,
}

impl Budget {
    /// `total` units, and at most `max_waiting` requests that wait for some.
    #[must_use]
    pub fn new(total: u64, max_waiting: usize) -> Self {
        let state = State {
            free: total,
            ..State::default()
        };
        Self(Arc::new(Shared {
            total,
            max_waiting,
            state: Mutex::new(state),
        }))
    }

    /// How many units there are in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.total
    }

    /// How many units are free.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.0.lock().free
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting
    }

    /// `amount` units, if `client` may have them now and nobody waits who would be served before it. More than the total
    /// counts as the total.
    #[must_use]
    pub fn try_take(&self, client: ClientKey, amount: u64) -> Option<Grant> {
        let amount = amount.min(self.0.total);
        let mut state = self.0.lock();
        let granted = state.is_next(client) && state.grant(client, amount);
        drop(state);
        granted.then(|| self.granted(client, amount))
    }

    /// Waits for `amount` units for `client`. More than the total counts as the total: whoever asks for it is alone then.
    pub fn take(&self, client: ClientKey, amount: u64) -> Take {
        Take {
            budget: self.clone(),
            client,
            amount: amount.min(self.0.total),
            waiting: None,
        }
    }

    fn granted(&self, client: ClientKey, amount: u64) -> Grant {
        Grant {
            budget: self.clone(),
            client,
            amount,
            behind: None,
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("total", &self.0.total)
            .field("free", &self.free())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn account(&mut self, client: ClientKey) -> &mut Account {
        let served = self.grants.saturating_sub(1);
        self.clients.entry(client).or_insert_with(|| Account {
            served,
            ..Account::default()
        })
    }

    /// Whether no waiting request is served before a new one of `client`.
    fn is_next(&self, client: ClientKey) -> bool {
        self.waiting == 0 || {
            let own = self.clients.get(&client);
            let held = own.map_or(0, |account| account.held);
            own.is_none_or(|account| account.queue.is_empty())
                && self
                    .clients
                    .values()
                    .all(|account| account.queue.is_empty() || account.held > held)
        }
    }

    /// Whether a client that holds so much may have so much more of what is free.
    fn may_have(free: u64, held: u64, amount: u64) -> bool {
        amount <= free && (held == 0 || held + amount <= SHARE.saturating_mul(free - amount))
    }

    fn grant(&mut self, client: ClientKey, amount: u64) -> bool {
        let served = self.grants + 1;
        match self.clients.entry(client) {
            Entry::Occupied(mut account) => {
                let account = account.get_mut();
                if !Self::may_have(self.free, account.held, amount) {
                    return false;
                }
                account.held += amount;
                account.served = served;
            }
            Entry::Vacant(account) => {
                if !Self::may_have(self.free, 0, amount) {
                    return false;
                }
                account.insert(Account {
                    held: amount,
                    served,
                    ..Account::default()
                });
            }
        }
        self.free -= amount;
        self.grants = served;
        true
    }

    /// Puts a request into the queue. At the bound another one is refused, or this one.
    fn enqueue(&mut self, client: ClientKey, amount: u64, max_waiting: usize) -> Result<Waiting, Refused> {
        if self.waiting >= max_waiting {
            let own = self.clients.get(&client).map_or(0, |account| account.queue.len());
            let greediest = self
                .clients
                .iter()
                .max_by_key(|(_, account)| account.queue.len())
                .map(|(client, account)| (*client, account.queue.len()));
            let Some((greediest, _)) = greediest.filter(|(_, length)| *length > own) else {
                return Err(Refused);
            };
            if let Some(request) = self
                .clients
                .get_mut(&greediest)
                .and_then(|account| account.queue.pop_back())
            {
                self.waiting -= 1;
                request.decide(Err(Refused));
            }
            self.forget(greediest);
        }
        let number = self.next;
        self.next += 1;
        self.waiting += 1;
        let answer = Arc::<Mutex<Answer>>::default();
        self.account(client).queue.push_back(Request {
            number,
            amount,
            answer: answer.clone(),
        });
        Ok(Waiting { number, answer })
    }

    /// Serves the queue as far as it goes: of the clients that wait the one that holds least, then the one that was not
    /// served for longest, then the one that has waited longest. A client that may have no more for now is passed over;
    /// one whose request is only too large for what is free is waited for, or large requests would starve.
    fn serve(&mut self) {
        if self.waiting == 0 {
            return;
        }
        let mut order: Vec<_> = self
            .clients
            .iter()
            .filter_map(|(client, account)| {
                let first = account.queue.front()?;
                Some((account.held, account.served, first.number, *client))
            })
            .collect();
        order.sort_unstable();
        let mut index = 0;
        while let Some((held, _, _, client)) = order.get(index).copied() {
            let Some(amount) = self
                .clients
                .get(&client)
                .and_then(|account| account.queue.front())
                .map(|request| request.amount)
            else {
                index += 1;
                continue;
            };
            if self.grant(client, amount) {
                let account = self.account(client);
                if let Some(request) = account.queue.pop_front() {
                    self.waiting -= 1;
                    request.decide(Ok(()));
                }
                // Its next request counts by what it holds now.
                let account = self.account(client);
                if let Some(first) = account.queue.front() {
                    order[index] = (account.held, account.served, first.number, client);
                    order[index..].sort_unstable();
                } else {
                    index += 1;
                }
            } else if amount > self.free && held == 0 {
                return;
            } else {
                index += 1;
            }
        }
    }

    fn give_back(&mut self, client: ClientKey, amount: u64) {
        self.free += amount;
        if let Entry::Occupied(mut account) = self.clients.entry(client) {
            account.get_mut().held -= amount;
            if account.get().is_over() {
                account.remove();
            }
        }
        self.serve();
    }

    fn withdraw(&mut self, client: ClientKey, number: u64) {
        if let Some(account) = self.clients.get_mut(&client) {
            let before = account.queue.len();
            account.queue.retain(|request| request.number != number);
            self.waiting -= before - account.queue.len();
        }
        self.forget(client);
        self.serve();
    }

    fn falls_behind(&mut self, client: ClientKey, rate: u64) {
        let account = self.account(client);
        account.behind += 1;
        account.rates = account.rates.saturating_add(rate);
    }

    fn catches_up(&mut self, client: ClientKey, rate: u64) {
        if let Some(account) = self.clients.get_mut(&client) {
            account.behind = account.behind.saturating_sub(1);
            account.rates = account.rates.saturating_sub(rate);
        }
    }

    /// Whether a grant of `client` that is behind, at `rate`, is one of those to end.
    fn must_give_way(&self, client: ClientKey, rate: u64) -> bool {
        let Some(own) = self.clients.get(&client).filter(|_| self.waiting > 0) else {
            return false;
        };
        // Who holds little does not make room for the queue of one who holds more.
        let is_for_others = self
            .clients
            .iter()
            .any(|(other, account)| !account.queue.is_empty() && (*other == client || account.held < own.held));
        let is_greediest = self
            .clients
            .values()
            .all(|account| account.behind == 0 || account.held <= own.held);
        is_for_others && is_greediest && rate.saturating_mul(own.behind) <= own.rates
    }

    fn forget(&mut self, client: ClientKey) {
        if let Entry::Occupied(account) = self.clients.entry(client)
            && account.get().is_over()
        {
            account.remove();
        }
    }
}

impl Account {
    fn is_over(&self) -> bool {
        self.held == 0 && self.queue.is_empty() && self.behind == 0
    }
}

impl Request {
    fn decide(self, decision: Result<(), Refused>) {
        let mut answer = lock(&self.answer);
        answer.decided = Some(decision);
        let waker = answer.waker.take();
        drop(answer);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn lock(answer: &Mutex<Answer>) -> MutexGuard<'_, Answer> {
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The future of [`Budget::take`]. Dropped, it leaves the queue.
#[must_use]
pub struct Take {
    budget: Budget,
    client: ClientKey,
    amount: u64,
    waiting: Option<Waiting>,
}

struct Waiting {
    number: u64,
    answer: Arc<Mutex<Answer>>,
}

impl Future for Take {
    type Output = Result<Grant, Refused>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.waiting.is_none() {
            if let Some(grant) = self.budget.try_take(self.client, self.amount) {
                return Poll::Ready(Ok(grant));
            }
            let mut state = self.budget.0.lock();
            let waiting = state.enqueue(self.client, self.amount, self.budget.0.max_waiting);
            // Room may have come between the two looks.
            state.serve();
            drop(state);
            match waiting {
                Ok(waiting) => self.waiting = Some(waiting),
                Err(refused) => return Poll::Ready(Err(refused)),
            }
        }
        let Some(waiting) = &self.waiting else {
            return Poll::Pending;
        };
        let mut answer = lock(&waiting.answer);
        let Some(decision) = answer.decided.take() else {
            answer.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        drop(answer);
        self.waiting = None;
        Poll::Ready(decision.map(|()| self.budget.granted(self.client, self.amount)))
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        let Some(waiting) = self.waiting.take() else { return };
        let mut state = self.budget.0.lock();
        let decided = lock(&waiting.answer).decided.take();
        match decided {
            // Granted, and nobody has taken it.
            Some(Ok(())) => state.give_back(self.client, self.amount),
            Some(Err(Refused)) => {}
            None => state.withdraw(self.client, waiting.number),
        }
    }
}

/// Some units, until it is dropped.
#[must_use]
pub struct Grant {
    budget: Budget,
    client: ClientKey,
    amount: u64,
    /// At which rate, if it is known to be behind.
    behind: Option<u64>,
}

impl Grant {
    /// How many units.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// For whom.
    #[must_use]
    pub fn client(&self) -> ClientKey {
        self.client
    }

    /// Takes `amount` more, or nothing, without waiting. `false`: the client may not have them now.
    pub fn try_grow(&mut self, amount: u64) -> bool {
        let Some(more) = self.budget.try_take(self.client, amount) else {
            return false;
        };
        self.merge(more);
        true
    }

    /// Gives back all but `amount` units.
    pub fn shrink_to(&mut self, amount: u64) {
        let rest = self.amount.saturating_sub(amount);
        if rest > 0 {
            self.amount = amount;
            self.budget.0.lock().give_back(self.client, rest);
        }
    }

    /// A part of it, as a grant of its own: `amount` units, or as many as there are.
    pub fn split(&mut self, amount: u64) -> Self {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Self {
            budget: self.budget.clone(),
            client: self.client,
            amount,
            behind: None,
        }
    }

    /// Tells that what this is held for gets on at `rate` only, which is less than it should, in a unit that all holders
    /// of the budget share. `true`: others wait, and this is one that has to give way. Of the clients whose grants are
    /// behind the one that holds most is asked for some: for those that are no faster than all of its slow ones are on
    /// average. Nobody gives way to a client that holds as much as he does, or more.
    #[must_use]
    pub fn falls_behind(&mut self, rate: u64) -> bool {
        let mut state = self.budget.0.lock();
        if let Some(before) = self.behind.replace(rate) {
            state.catches_up(self.client, before);
        }
        state.falls_behind(self.client, rate);
        state.must_give_way(self.client, rate)
    }

    /// Tells that what this is held for gets on as it should.
    pub fn catches_up(&mut self) {
        if let Some(rate) = self.behind.take() {
            self.budget.0.lock().catches_up(self.client, rate);
        }
    }

    /// Adds a grant of the same budget and client. One of another stays what it is, and is given back at once.
    pub fn merge(&mut self, mut other: Self) {
        if other.client == self.client && Arc::ptr_eq(&other.budget.0, &self.budget.0) {
            self.amount += std::mem::take(&mut other.amount);
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("client", &self.client)
            .field("amount", &self.amount)
            .finish_non_exhaustive()
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut state = self.budget.0.lock();
        if let Some(rate) = self.behind {
            state.catches_up(self.client, rate);
        }
        if self.amount > 0 {
            state.give_back(self.client, self.amount);
        } else {
            // What holds nothing has an account, too.
            state.forget(self.client);
        }
    }
}

#[cfg(test)]
mod tests;
