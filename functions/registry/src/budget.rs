//! A budget: a bounded resource that clients share fairly, for instance memory, open files, or password checks.
//!
//! All requests together are bounded by a [`Budget`] for each resource. It guarantees:
//!
//! * The grants never exceed the total.
//! * A client that already has some gets more only while its total stays at most [`SHARE`] times what remains free
//!   (three quarters to one quarter). So a client without a grant finds something, however much another client has. A
//!   client without a grant gets what it asks for as soon as that much is free.
//! * The queue is bounded, and fair between clients. The client with the smallest grants is served first. Of several
//!   with the same amount, the one that was served least recently is first, so the clients take turns even with a
//!   budget of one unit. When the queue is full, the newest request of the client with the most waiting requests is
//!   refused. That need not be the request that has just arrived.
//!
//! A budget has no clock. A caller that waits with a timeout drops the future.

mod arrival;
mod client_key;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

pub use arrival::ArrivalRate;
pub use client_key::ClientKey;
use foldhash::fast::RandomState;

/// A client may have this many times the amount that stays free. A single client gets three quarters of the total. Of
/// `n` clients that all want everything, each gets 3/(3n + 1), and 1/(3n + 1) stays free for the next client.
pub const SHARE: u64 = 3;

/// The queue is full, and this request's client has the most requests in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many requests of one client are waiting")]
pub struct Refused;

/// A total of units, from which [`Grant`]s are taken. Clones share it.
#[derive(Clone)]
pub struct Budget(Arc<SharedBudget>);

struct SharedBudget {
    total: u64,
    max_waiting: usize,
    state: Mutex<BudgetState>,
}

#[derive(Default)]
struct BudgetState {
    free: u64,
    clients: HashMap<ClientKey, Account, RandomState>,
    /// The number of waiting requests of all clients.
    waiting: usize,
    /// The number of the next request; numbers follow the order of arrival.
    next: u64,
    /// The number of grants so far.
    grants: u64,
}

/// The grants and waiting requests of one client. It exists only while the client has any of them.
#[derive(Default)]
struct Account {
    held: u64,
    /// The number of this client's last grant, in the count of all grants. A new account starts with the number before
    /// the last of all grants. So it comes before the client that was served last, and not before a client that has
    /// been waiting. This matters for a client that asks for one grant at a time, since its account is deleted in
    /// between.
    served: u64,
    /// Oldest first.
    queue: VecDeque<Request>,
    /// The number of its grants that are behind, and the sum of their rates.
    behind: u64,
    rates: u64,
}

struct Request {
    number: u64,
    amount: u64,
    answer: Arc<Mutex<Decision>>,
}

#[derive(Default)]
struct Decision {
    decided: Option<Result<(), Refused>>,
    waker: Option<Waker>,
}

impl Budget {
    /// A budget of `total` units, with at most `max_waiting` waiting requests.
    #[must_use]
    pub fn new(total: u64, max_waiting: usize) -> Self {
        let state = BudgetState {
            free: total,
            ..BudgetState::default()
        };
        Self(Arc::new(SharedBudget {
            total,
            max_waiting,
            state: Mutex::new(state),
        }))
    }

    /// The number of all units.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.total
    }

    /// The number of free units.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.0.lock().free
    }

    /// The number of waiting requests.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting
    }

    /// Takes `amount` units without waiting. `None`: `client` may not have them now, or a waiting request comes first.
    /// More than the total counts as the total.
    #[must_use]
    pub fn try_take(&self, client: ClientKey, amount: u64) -> Option<Grant> {
        let amount = amount.min(self.0.total);
        let mut state = self.0.lock();
        let granted = state.is_next(client) && state.grant(client, amount);
        drop(state);
        granted.then(|| self.granted(client, amount))
    }

    /// Waits for `amount` units for `client`. More than the total counts as the total; such a grant is then the only
    /// one.
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

impl SharedBudget {
    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BudgetState {
    fn account(&mut self, client: ClientKey) -> &mut Account {
        let served = self.grants.saturating_sub(1);
        self.clients.entry(client).or_insert_with(|| Account {
            served,
            ..Account::default()
        })
    }

    /// Whether a new request of `client` comes before every waiting request.
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

    /// Whether a client that has `held` units may have `amount` more of the `free` ones.
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

    /// Adds a request to the queue. If the queue is full, another request is refused, or this one.
    fn enqueue(&mut self, client: ClientKey, amount: u64, max_waiting: usize) -> Result<QueuedTake, Refused> {
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
            self.remove_if_idle(greediest);
        }
        let number = self.next;
        self.next += 1;
        self.waiting += 1;
        let answer = Arc::<Mutex<Decision>>::default();
        self.account(client).queue.push_back(Request {
            number,
            amount,
            answer: answer.clone(),
        });
        Ok(QueuedTake { number, answer })
    }

    /// Serves the queue as far as possible. Of the waiting clients, the one with the smallest grants is first, then the
    /// one that was served least recently, then the one that has waited longest. A client that may have no more now is
    /// skipped. A request that is larger than the free rest is not skipped, because large requests would never be
    /// served otherwise.
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
                // The client's next request counts with its new grants.
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

    fn release(&mut self, client: ClientKey, amount: u64) {
        self.free += amount;
        if let Entry::Occupied(mut account) = self.clients.entry(client) {
            account.get_mut().held -= amount;
            if account.get().is_idle() {
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
        self.remove_if_idle(client);
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

    /// Whether a grant of `client` that is behind, with the rate `rate`, must end.
    fn must_give_way(&self, client: ClientKey, rate: u64) -> bool {
        let Some(own) = self.clients.get(&client).filter(|_| self.waiting > 0) else {
            return false;
        };
        // A client with few units need not release them for the queue of a client that has more.
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

    fn remove_if_idle(&mut self, client: ClientKey) {
        if let Entry::Occupied(account) = self.clients.entry(client)
            && account.get().is_idle()
        {
            account.remove();
        }
    }
}

impl Account {
    fn is_idle(&self) -> bool {
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

fn lock(answer: &Mutex<Decision>) -> MutexGuard<'_, Decision> {
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The future of [`Budget::take`]. Dropping it removes the request from the queue.
#[must_use]
pub struct Take {
    budget: Budget,
    client: ClientKey,
    amount: u64,
    waiting: Option<QueuedTake>,
}

struct QueuedTake {
    number: u64,
    answer: Arc<Mutex<Decision>>,
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
            // Units may have become free between the two checks.
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
            // The request was granted, and the grant was not taken.
            Some(Ok(())) => state.release(self.client, self.amount),
            Some(Err(Refused)) => {}
            None => state.withdraw(self.client, waiting.number),
        }
    }
}

/// A grant of some units. Dropping it returns the units.
#[must_use]
pub struct Grant {
    budget: Budget,
    client: ClientKey,
    amount: u64,
    /// The rate of the grant, if it is behind.
    behind: Option<u64>,
}

impl Grant {
    /// The number of units.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// The client.
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

    /// Returns all but `amount` units.
    pub fn shrink_to(&mut self, amount: u64) {
        let rest = self.amount.saturating_sub(amount);
        if rest > 0 {
            self.amount = amount;
            self.budget.0.lock().release(self.client, rest);
        }
    }

    /// Splits off a grant of `amount` units, or of as many as there are.
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

    /// Notes that the work with this grant is behind: it progresses only with `rate`, in a unit that all users of the
    /// budget share. `true`: other requests wait, and this grant must end.
    ///
    /// Of the clients whose grants are behind, the one with the most units must end some. Of its grants, those must end
    /// whose rate is at most the average of its slow ones. No client must end a grant for a client that has as much as
    /// it has, or more.
    #[must_use]
    pub fn falls_behind(&mut self, rate: u64) -> bool {
        let mut state = self.budget.0.lock();
        if let Some(before) = self.behind.replace(rate) {
            state.catches_up(self.client, before);
        }
        state.falls_behind(self.client, rate);
        state.must_give_way(self.client, rate)
    }

    /// Notes that the work with this grant is not behind any more.
    pub fn catches_up(&mut self) {
        if let Some(rate) = self.behind.take() {
            self.budget.0.lock().catches_up(self.client, rate);
        }
    }

    /// Adds a grant of the same budget and client. A grant of another budget or client is not added, and its units are
    /// returned at once.
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
            state.release(self.client, self.amount);
        } else {
            // A grant of no units has an account, too.
            state.remove_if_idle(self.client);
        }
    }
}

#[cfg(test)]
mod tests;
