//! Two administrators change accounts and the policy at the same time, crash, and lose answers, while a third task initialises
//! the table. After every step, all of a change is there or nothing of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use registry::store::access::{
    AccessChange, AccessStore, Account, AccountChange, AccountKind, Applied, AuditEvent, AuditKind, PolicyForm,
    PolicyVersion,
};
use registry::store::{Context, Uid};

use super::operations::run_alone;
use super::search::{ALL_PROFILES, CRASHES, FaultProfile, maximum_schedules, only_seed, share};
use super::world::World;
use crate::DynamoStore;
use crate::keys;
use crate::layout::{VERSION, WITH_ACCOUNTS};
use crate::memory::{FaultRates, Items, MemoryTable};
use crate::records::attributes;
use crate::scheduler::{Random, Rules};
use crate::schema;
use crate::table::{
    Attributes, Consistency, Item, ItemKey, ItemPage, RangeQuery, Table, TableError, Value, Write, WriteCondition,
    Written,
};

/// How many changes each administrator makes.
const CHANGES: usize = 3;

/// A mistake that an instance makes on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    /// The writes of a change are sent one after the other.
    OneByOne,
    /// The state is written whatever its version is.
    BlindState,
    /// A refused change does not look for its event.
    ForgetEvent,
    /// The layout version stays as it is.
    KeepLayout,
}

/// A table of an instance that makes this mistake.
pub(super) struct Careless {
    pub(super) table: MemoryTable,
    pub(super) mistake: Mistake,
}

fn is_state(key: &ItemKey) -> bool {
    (key.partition.as_str(), key.sort.as_str()) == ("A", "state")
}

impl Careless {
    fn rewritten(&self, write: &Write) -> Option<Write> {
        let mut write = write.clone();
        match (self.mistake, &mut write) {
            (Mistake::BlindState, Write::Update { key, condition, .. }) if is_state(key) => {
                *condition = WriteCondition::Always;
            }
            (Mistake::KeepLayout, Write::Update { key, .. }) if key.sort == "schema" => return None,
            _ => {}
        }
        Some(write)
    }
}

#[async_trait]
impl Table for Careless {
    async fn get(&self, key: &ItemKey, consistency: Consistency) -> Result<Option<Item>, TableError> {
        if self.mistake == Mistake::ForgetEvent && key.partition.starts_with("U#") {
            return Ok(None);
        }
        self.table.get(key, consistency).await
    }

    async fn query(&self, query: &RangeQuery) -> Result<ItemPage, TableError> {
        self.table.query(query).await
    }

    async fn scan(&self, after: Option<&ItemKey>, limit: usize) -> Result<ItemPage, TableError> {
        self.table.scan(after, limit).await
    }

    async fn write(&self, write: &Write) -> Result<Written, TableError> {
        self.table.write(write).await
    }

    async fn transact(&self, writes: &[Write], token: &str) -> Result<Written, TableError> {
        let writes: Vec<Write> = writes.iter().filter_map(|write| self.rewritten(write)).collect();
        if self.mistake != Mistake::OneByOne {
            return self.table.transact(&writes, token).await;
        }
        for (number, write) in writes.iter().enumerate() {
            if self.table.write(write).await? != Written::Done {
                return Ok(Written::Refused(vec![number]));
            }
        }
        Ok(Written::Done)
    }

    async fn batch_get(&self, keys: &[ItemKey]) -> Result<(Vec<Item>, Vec<ItemKey>), TableError> {
        self.table.batch_get(keys).await
    }

    async fn batch_write(&self, writes: &[Write]) -> Result<Vec<Write>, TableError> {
        self.table.batch_write(writes).await
    }
}

/// A change that was sent, and its answer.
struct Sent {
    version: u64,
    account: String,
    policy: bool,
    event: Uid,
    answer: Option<Applied>,
}

/// All changes of a schedule.
type Log = Arc<Mutex<Vec<Sent>>>;

struct Administrator {
    world: World,
    store: DynamoStore,
    log: Log,
    number: usize,
}

impl Administrator {
    async fn change_all(&self) {
        for number in 0..CHANGES {
            let mut attempt = 0;
            while !self.change(number, attempt).await {
                attempt += 1;
            }
        }
    }

    /// Makes an account, and at times a policy, from the present state. `false`: another change came first.
    async fn change(&self, number: usize, attempt: usize) -> bool {
        let cx = self.world.cx();
        let mut state = self.store.state(cx).await.expect("state");
        state.version += 1;
        state.accounts += 1;
        let name = format!("robot-{}-{number}-{attempt}", self.number);
        let event = AuditEvent::new(
            AuditKind::AccountCreated,
            "admin".to_owned(),
            cx.now,
            Uid(self.world.random()),
        );
        let policy = (number == 1).then(|| PolicyVersion {
            version: state.version,
            document: "{}".to_owned(),
            source: String::new(),
            form: PolicyForm::Json,
            principal: "admin".to_owned(),
            at: cx.now,
            note: None,
        });
        let sent = Sent {
            version: state.version,
            account: format!("a#{name}"),
            policy: policy.is_some(),
            event: event.id,
            answer: None,
        };
        let change = AccessChange {
            account: Some(AccountChange::Put(Box::new(account(&name, cx)))),
            policy,
            event: Some(event),
            state,
        };
        let index = {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push(sent);
            log.len() - 1
        };
        // Made again, as by a caller that has not got the answer.
        for _ in 0..2 {
            let answer = self.store.apply(self.world.cx(), &change).await.expect("apply");
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let before = log[index].answer.replace(answer);
            assert!(
                before.is_none_or(|before| before == answer),
                "{before:?}, then {answer:?}"
            );
        }
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log[index].answer == Some(Applied::Applied)
    }
}

/// A robot without keys.
pub(super) fn account(name: &str, cx: Context) -> Account {
    Account {
        name: name.parse().expect("a name"),
        kind: AccountKind::Robot,
        generation: cx.now.0,
        disabled: false,
        groups: BTreeSet::new(),
        grants: Vec::new(),
        password: None,
        keys: [].into(),
        created: cx.now,
        by: "admin".to_owned(),
    }
}

/// The number of an attribute; 0 if it is missing.
pub(super) fn number(attributes: Option<&Attributes>, name: &str) -> u64 {
    match attributes.and_then(|attributes| attributes.get(name)) {
        Some(Value::N(number)) => *number,
        _ => 0,
    }
}

/// What must be true after every step.
fn check(items: &Items, log: &[Sent]) -> Result<(), String> {
    let state = items.attributes("A", "state");
    let version = number(state, attributes::VERSION);
    let accounts = items.collection("A").filter(|(sort, _)| sort.starts_with("a#")).count() as u64;
    let events: BTreeSet<String> = items
        .iter()
        .filter(|(partition, ..)| partition.starts_with("U#"))
        .filter_map(|(_, sort, _)| sort.split_once('#').map(|(_, id)| id.to_owned()))
        .collect();
    if (accounts, events.len() as u64, number(state, attributes::ACCOUNTS)) != (version, version, version) {
        return Err(format!(
            "version {version} with {accounts} accounts and {} events",
            events.len()
        ));
    }
    let layout = number(items.attributes("K", "schema"), attributes::VERSION);
    let marked = (layout >= WITH_ACCOUNTS, items.attributes("A", "audit").is_some());
    if marked != (version > 0, version > 0) {
        return Err(format!("version {version} with layout {layout}: {marked:?}"));
    }
    let mut versions = BTreeSet::new();
    for sent in log {
        let is_there = items.attributes("A", &sent.account).is_some();
        if events.contains(&sent.event.to_string()) != is_there {
            return Err(format!("{} is there: {is_there}, its event is not", sent.account));
        }
        let policy = format!("policy#{:016x}", sent.version);
        if sent.policy && is_there && items.attributes("A", &policy).is_none() {
            return Err(format!("{} is there without its policy", sent.account));
        }
        if is_there && !versions.insert(sent.version) {
            return Err(format!("two changes made version {}", sent.version));
        }
        let contradiction = match sent.answer {
            Some(Applied::Applied) => !is_there,
            Some(Applied::Conflict) => is_there,
            None => false,
        };
        if contradiction {
            return Err(format!(
                "{} is there: {is_there}, the answer was {:?}",
                sent.account, sent.answer
            ));
        }
    }
    Ok(())
}

fn schedule(seed: u64, profile: FaultProfile, mistake: Option<Mistake>) -> Result<(), String> {
    let world = World::new(seed, only_seed().is_some(), None);
    let mut random = Random::new(seed ^ u64::MAX);
    if random.happens(500) {
        // As an earlier program has left it.
        let attributes = [(attributes::VERSION.to_owned(), Value::N(1))].into();
        let key = keys::schema();
        let row = Write::Put {
            item: Item { key, attributes },
            condition: WriteCondition::Always,
        };
        let written = run_alone(world.main.unscheduled().write(&row));
        written.map_err(|error| error.to_string())?;
    }
    world.set_faults(match profile {
        FaultProfile::Reliable | FaultProfile::Crashes => FaultRates::NONE,
        FaultProfile::Faults => FaultRates::SOME,
        FaultProfile::Late => FaultRates::LATE,
    });
    let log = Log::default();
    let tasks = (0..2).map(|number| {
        let tables = [&world.main, &world.local].map(|table| -> Arc<dyn Table> {
            match mistake {
                Some(mistake) => Arc::new(Careless {
                    table: table.clone(),
                    mistake,
                }),
                None => Arc::new(table.clone()),
            }
        });
        let administrator = Administrator {
            store: world.instance_over(tables, Some(world.scheduler.clone())),
            world: world.clone(),
            log: log.clone(),
            number,
        };
        let task: futures_util::future::BoxFuture<'static, ()> =
            Box::pin(async move { administrator.change_all().await });
        task
    });
    let mut tasks: Vec<_> = tasks.collect();
    let (store, cx) = (world.instance(), world.cx());
    tasks.push(Box::pin(async move {
        let version = schema::write_version(store.main.within(cx), "table").await;
        assert!(version.expect("init") >= VERSION);
    }));
    let mut rules = Rules {
        crashes: if profile == FaultProfile::Reliable { 0 } else { CRASHES },
        watch: &mut || {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            world.main.look(|items| check(items, &log))
        },
    };
    world.scheduler.run(tasks, &mut random, &mut rules)
}

/// The schedules that fail.
fn failures(profile: FaultProfile, mistake: Option<Mistake>, schedules: u64) -> impl Iterator<Item = String> {
    let seeds = only_seed().map_or(0..schedules, |seed| seed..seed + 1);
    seeds.filter_map(move |seed| {
        let broken = schedule(seed, profile, mistake).err()?;
        Some(format!("{profile:?}: {broken}\nagain with ROADSTEAD_SEED={seed}"))
    })
}

#[test]
fn changes_of_two_administrators_are_made_as_a_whole_or_not_at_all() {
    for profile in ALL_PROFILES {
        let schedules = share(profile, maximum_schedules());
        if let Some(failure) = failures(profile, None, schedules).next() {
            panic!("{failure}");
        }
    }
}

#[test]
fn mistakes_in_changes_of_administration_are_found() {
    const SCHEDULES: u64 = 500;
    for mistake in [
        Mistake::OneByOne,
        Mistake::BlindState,
        Mistake::ForgetEvent,
        Mistake::KeepLayout,
    ] {
        let found = ALL_PROFILES
            .iter()
            .flat_map(|profile| failures(*profile, Some(mistake), SCHEDULES));
        assert!(only_seed().is_some() || found.take(3).count() == 3, "{mistake:?}");
    }
}
