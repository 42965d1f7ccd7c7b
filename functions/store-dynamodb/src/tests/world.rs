//! The world of a scenario: the tables, the objects that exist, the time, and all answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use registry::clock::ServiceClock;
use registry::store::{Context, Timestamp, Uid};

use super::dated::Dated;
use super::fixtures::FIXTURES;
use super::linearizable::{CallResult, Event, RecordedCall};
use super::mutant::{MutantTable, Mutation};
use crate::DynamoStore;
use crate::memory::{FaultRates, MemoryTable};
use crate::retrying::RetryEnvironment;
use crate::scheduler::{Random, Scheduler};
use crate::table::{Table, Value};

/// An hour, in milliseconds.
pub(super) const HOUR: u64 = 3_600_000;
/// The time at which a scenario begins.
pub(super) const START: Timestamp = Timestamp(1_900_000_000_000);
/// The size of every blob and manifest.
pub(super) const SIZE: u64 = 10;
/// The maximum time of a call.
const CALL_TIMEOUT: u64 = 60_000;

/// One world. Clones are the same.
#[derive(Clone)]
pub(super) struct World {
    pub(super) main: MemoryTable,
    pub(super) local: MemoryTable,
    pub(super) scheduler: Scheduler,
    shared: Arc<Mutex<Shared>>,
    /// By how many milliseconds the clock of this instance is ahead.
    ahead: i64,
    /// The mistake that every instance makes.
    mutation: Option<Mutation>,
}

struct Shared {
    now: Timestamp,
    random: Random,
    objects: BTreeSet<String>,
    objects_lost: bool,
    /// The objects that were lost or damaged at any time.
    lost: BTreeSet<String>,
    /// Those among them that exist with wrong bytes.
    damaged: BTreeSet<String>,
    /// The objects in use, by the keys of their blob records.
    named: BTreeMap<String, String>,
    /// The last time at which each object became unreferenced.
    unnamed: BTreeMap<String, Timestamp>,
    /// The first object that was deleted too early.
    deleted_too_early: Option<String>,
    lossy: bool,
    history: Vec<Event>,
    /// Counts the beginnings and ends of calls.
    timestamp: usize,
}

/// The pace of an instance whose waits end when the scheduler picks it.
struct ScheduledPace {
    scheduler: Option<Scheduler>,
    random: Mutex<Random>,
}

#[async_trait]
impl RetryEnvironment for ScheduledPace {
    fn elapsed(&self) -> Duration {
        // The maximum number of steps, and not the time, ends tasks that conflict for ever.
        Duration::ZERO
    }

    async fn sleep(&self, _time: Duration) {
        if let Some(scheduler) = &self.scheduler {
            scheduler.turn().await;
        }
    }

    async fn alarm(&self, _at: Duration) {
        std::future::pending::<()>().await;
    }

    fn random(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

impl World {
    /// An empty world. Half of all worlds have one table for everything.
    pub(super) fn new(seed: u64, traced: bool, mutation: Option<Mutation>) -> Self {
        let scheduler = Scheduler::new(traced);
        let mut random = Random::new(seed);
        let main = MemoryTable::scheduled(FaultRates::NONE, random.next(), &scheduler);
        let local = if random.happens(500) {
            main.clone()
        } else {
            MemoryTable::scheduled(FaultRates::NONE, random.next(), &scheduler)
        };
        Self {
            main,
            local,
            scheduler,
            shared: Arc::new(Mutex::new(Shared {
                now: START,
                random,
                objects: BTreeSet::new(),
                objects_lost: false,
                lost: BTreeSet::new(),
                damaged: BTreeSet::new(),
                named: BTreeMap::new(),
                unnamed: BTreeMap::new(),
                deleted_too_early: None,
                lossy: false,
                history: Vec::new(),
                timestamp: 0,
            })),
            ahead: 0,
            mutation,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_faults(&self, faults: FaultRates) {
        self.main.set_faults(faults);
        self.local.set_faults(faults);
        self.lock().lossy = faults.lost > 0;
    }

    /// Another instance of the registry, whose requests wait for their turn.
    pub(super) fn instance(&self) -> DynamoStore {
        let (main, local) = (self.main.clone(), self.local.clone());
        self.over(main, local, Some(self.scheduler.clone()))
    }

    /// The same world for an instance whose clock is ahead by this number of hours.
    pub(super) fn with_clock_ahead(&self, hours: i64) -> Self {
        let hour = i64::try_from(HOUR).expect("a small number");
        Self {
            ahead: hours * hour,
            ..self.clone()
        }
    }

    /// The time by the clock of this instance.
    pub(super) fn own_clock(&self) -> Timestamp {
        Timestamp(self.now().0.saturating_add_signed(self.ahead))
    }

    /// Another instance, which learns the time from the answers of its tables.
    pub(super) fn instance_that_learns_the_time(&self) -> DynamoStore {
        let clock = Arc::<ServiceClock>::default();
        let dated = |table: &MemoryTable| {
            Arc::new(Dated {
                table: table.clone(),
                world: self.clone(),
                clock: clock.clone(),
            })
        };
        let random = Mutex::new(Random::new(self.random()));
        let scheduler = Some(self.scheduler.clone());
        let pace: Arc<dyn RetryEnvironment> = Arc::new(ScheduledPace { scheduler, random });
        let store = DynamoStore::over(dated(&self.main), dated(&self.local), &pace);
        if self.mutation == Some(Mutation::TrustClock) {
            store
        } else {
            store.with_clock(clock)
        }
    }

    /// Another instance, whose requests wait for no turn.
    pub(super) fn alone(&self) -> DynamoStore {
        self.over(self.main.unscheduled(), self.local.unscheduled(), None)
    }

    fn over(&self, main: MemoryTable, local: MemoryTable, scheduler: Option<Scheduler>) -> DynamoStore {
        let tables: [Arc<dyn Table>; 2] = match self.mutation {
            Some(mutation) => MutantTable::over(mutation, main, local),
            None => [Arc::new(main), Arc::new(local)],
        };
        self.instance_over(tables, scheduler)
    }

    /// Another instance, over these tables.
    pub(super) fn instance_over(
        &self,
        [main, local]: [Arc<dyn Table>; 2],
        scheduler: Option<Scheduler>,
    ) -> DynamoStore {
        let random = Mutex::new(Random::new(self.random()));
        let pace: Arc<dyn RetryEnvironment> = Arc::new(ScheduledPace { scheduler, random });
        DynamoStore::over(main, local, &pace)
    }

    pub(super) fn random(&self) -> u64 {
        self.lock().random.next()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.lock().now
    }

    pub(super) fn is_first_day(&self) -> bool {
        self.now().millis_since(START) < 24 * HOUR
    }

    pub(super) fn pass(&self, millis: u64) {
        let mut shared = self.lock();
        shared.now = shared.now.plus_millis(millis);
    }

    pub(super) fn cx(&self) -> Context {
        let now = self.own_clock();
        let mut shared = self.lock();
        Context::internal(now, CALL_TIMEOUT, Uid(shared.random.next()))
    }

    pub(super) fn make_object(&self, key: String) {
        self.lock().objects.insert(key);
    }

    pub(super) fn delete_object(&self, key: &str) {
        let mut shared = self.lock();
        shared.objects.remove(key);
        shared.objects_lost = true;
    }

    /// The object of a digest by its blob record.
    fn object_of(&self, name: u8) -> Option<String> {
        let partition = format!("B#{}", FIXTURES.digest(name));
        self.main
            .look(|items| match items.attributes(&partition, "B")?.get("object") {
                Some(Value::S(object)) => Some(object.clone()),
                _ => None,
            })
    }

    /// Deletes or damages the object of a digest.
    pub(super) fn lose(&self, name: u8) {
        let Some(object) = self.object_of(name) else {
            return;
        };
        self.scheduler.trace(|| format!("{object} is lost"));
        let mut shared = self.lock();
        if shared.random.happens(500) {
            shared.objects.remove(&object);
        } else {
            shared.damaged.insert(object.clone());
        }
        shared.lost.insert(object);
        shared.objects_lost = true;
    }

    /// Restores the object of a digest if it was lost and is still in use.
    pub(super) fn bring_back(&self, name: u8) {
        let Some(object) = self.object_of(name) else {
            return;
        };
        let mut shared = self.lock();
        if shared.lost.contains(&object) {
            shared.objects.insert(object.clone());
            shared.damaged.remove(&object);
        }
        self.scheduler.trace(|| format!("{object} is back"));
    }

    /// Whether an object exists with its own bytes.
    pub(super) fn is_whole(&self, object: &str) -> bool {
        let shared = self.lock();
        shared.objects.contains(object) && !shared.damaged.contains(object)
    }

    /// The objects that were lost or damaged at any time.
    pub(super) fn lost(&self) -> BTreeSet<String> {
        self.lock().lost.clone()
    }

    /// Deletes an object whose deletion was pending. An object that was in use must have been unreferenced for `grace`
    /// milliseconds.
    pub(super) fn delete_scheduled(&self, key: &str, grace: u64) {
        self.delete_object(key);
        let mut shared = self.lock();
        let lost = shared.unnamed.get(key).copied();
        if lost.is_some_and(|lost| shared.now.millis_since(lost) < grace) {
            shared.deleted_too_early.get_or_insert_with(|| key.to_owned());
        }
    }

    /// The object that was deleted too soon after it became unreferenced, if there is one.
    pub(super) fn deleted_too_early(&self) -> Option<String> {
        self.lock().deleted_too_early.clone()
    }

    /// This blob record names that object now, or none.
    pub(super) fn names(&self, record: &str, object: Option<&str>) {
        let mut shared = self.lock();
        let before = match object {
            Some(object) => shared.named.insert(record.to_owned(), object.to_owned()),
            None => shared.named.remove(record),
        };
        if let Some(before) = before.filter(|before| Some(before.as_str()) != object) {
            let now = shared.now;
            shared.unnamed.insert(before, now);
        }
    }

    pub(super) fn objects(&self) -> BTreeSet<String> {
        self.lock().objects.clone()
    }

    /// Whether objects were deleted since the last call.
    pub(super) fn take_objects_lost(&self) -> bool {
        std::mem::take(&mut self.lock().objects_lost)
    }

    /// A call begins. Until [`World::answered`], it may have happened or not.
    pub(super) fn called(&self, call: RecordedCall) -> usize {
        let mut shared = self.lock();
        let began = shared.timestamp;
        shared.timestamp += 1;
        shared.history.push(Event {
            began,
            ended: usize::MAX,
            call,
            answer: CallResult::Unknown,
        });
        shared.history.len() - 1
    }

    pub(super) fn answered(&self, call: usize, answer: CallResult) {
        let mut shared = self.lock();
        let ended = shared.timestamp;
        shared.timestamp += 1;
        let event = &mut shared.history[call];
        (event.ended, event.answer) = (ended, answer);
        self.scheduler
            .trace(|| format!("{:?} is answered {answer:?}", event.call));
    }

    /// The call has certainly changed nothing.
    pub(super) fn withdraw(&self, call: usize) {
        self.lock().history[call].call = RecordedCall::Link(0, 0);
    }

    /// Whether answers are lost.
    pub(super) fn is_lossy(&self) -> bool {
        self.lock().lossy
    }

    pub(super) fn history(&self) -> Vec<Event> {
        self.lock().history.clone()
    }
}
