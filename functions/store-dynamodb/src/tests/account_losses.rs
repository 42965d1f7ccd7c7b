//! Two administrators disable, remove and make the same accounts and remove their keys, at the same time, crash, and lose
//! answers. After every step, the accounts, what was withdrawn and the audit trail are those of the same changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use registry::auth::AccountName;
use registry::store::access::{
    AccessChange, AccessState, AccessStore, Account, AccountChange, AccountKey, Applied, AuditEvent, AuditKind, KeyHash,
};
use registry::store::{Context, Timestamp, Uid};

use super::administrators::{Careless, Mistake, account, number};
use super::operations::run_alone;
use super::search::{ALL_PROFILES, CRASHES, FaultProfile, maximum_schedules, only_seed, share};
use super::world::World;
use crate::DynamoStore;
use crate::memory::{FaultRates, Items};
use crate::records::attributes;
use crate::scheduler::{Random, Rules};
use crate::table::{Attributes, Table, Value};

/// The accounts that both administrators change.
const ACCOUNTS: [&str; 2] = ["one", "two"];
/// How many changes each administrator makes.
const CHANGES: usize = 3;
/// How many keys a new account has.
const KEYS: usize = 2;

/// What the row of an account says of what it may lose.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Holding {
    generation: u64,
    disabled: bool,
    keys: String,
}

impl Holding {
    fn of(account: &Account) -> Self {
        Self {
            generation: account.generation,
            disabled: account.disabled,
            keys: serde_json::to_string(&account.keys).expect("keys"),
        }
    }

    fn read(row: &Attributes) -> Self {
        Self {
            generation: number(Some(row), attributes::GENERATION),
            disabled: row.contains_key(attributes::DISABLED),
            keys: text(Some(row), attributes::KEYS),
        }
    }
}

/// A change that was sent, what it leaves, and its answer.
struct Sent {
    version: u64,
    account: String,
    holding: Option<Holding>,
    withdrawn: String,
    event: Uid,
    answer: Option<Applied>,
}

/// All changes of a schedule.
type Log = Arc<Mutex<Vec<Sent>>>;

struct Administrator {
    world: World,
    store: DynamoStore,
    log: Log,
}

impl Administrator {
    async fn change_all(&self) {
        for _ in 0..CHANGES {
            let chosen = ACCOUNTS[usize::from(self.world.random() % 2 == 1)];
            while !self.change(chosen).await {}
        }
    }

    /// Changes an account, from the present state. `false`: another change came first.
    async fn change(&self, name: &str) -> bool {
        let cx = self.world.cx();
        // In this order: the change is conditional on everything that came after the state was read.
        let state = self.store.state(cx).await.expect("state");
        let name: AccountName = name.parse().expect("a name");
        let before = self.store.account(self.world.cx(), &name).await.expect("account");
        let (state, after) = self.next(state, before, &name, cx);
        let event = AuditEvent::new(
            AuditKind::AccountChanged,
            "admin".to_owned(),
            cx.now,
            Uid(self.world.random()),
        );
        let sent = Sent {
            version: state.version,
            account: name.to_string(),
            holding: after.as_ref().map(Holding::of),
            withdrawn: serde_json::to_string(&state.withdrawn).expect("what was withdrawn"),
            event: event.id,
            answer: None,
        };
        let account = match after {
            Some(after) => AccountChange::Put(Box::new(after)),
            None => AccountChange::Remove(name),
        };
        let change = AccessChange {
            state,
            account: Some(account),
            policy: None,
            event: Some(event),
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

    /// The state and the account after a change: an account is made, enabled or disabled, loses a key, or is removed.
    fn next(
        &self,
        mut state: AccessState,
        before: Option<Account>,
        name: &AccountName,
        cx: Context,
    ) -> (AccessState, Option<Account>) {
        state.version += 1;
        let Some(mut account) = before else {
            state.accounts += 1;
            return (state, Some(self.made(name, cx)));
        };
        let (choice, key) = (self.world.random() % 3, account.keys.keys().next().copied());
        if let (0, Some(key)) = (choice, key) {
            account.keys.remove(&key);
            state.withdrawn.withdraw_key(key, cx.now);
            return (state, Some(account));
        }
        if choice == 1 && account.disabled {
            account.disabled = false;
            return (state, Some(account));
        }
        account.generation = Account::next_generation(Some(account.generation), cx.now);
        state
            .withdrawn
            .withdraw_principal(&account.principal(), account.generation, cx.now);
        if choice == 1 {
            account.disabled = true;
            return (state, Some(account));
        }
        // The state may have been read before the account was made. Then the change is not written.
        state.accounts = state.accounts.saturating_sub(1);
        (state, None)
    }

    fn made(&self, name: &AccountName, cx: Context) -> Account {
        let mut made = account(name.as_str(), cx);
        while made.keys.len() < KEYS {
            let id = format!("{:08}", self.world.random() % 100_000_000);
            made.keys.insert(id.parse().expect("an id"), key(cx.now));
        }
        made
    }
}

fn key(now: Timestamp) -> AccountKey {
    AccountKey {
        hash: KeyHash([7; 32]),
        scope: None,
        created: now,
        by: "admin".to_owned(),
        expires: None,
    }
}

fn text(attributes: Option<&Attributes>, name: &str) -> String {
    match attributes.and_then(|attributes| attributes.get(name)) {
        Some(Value::S(text)) => text.clone(),
        _ => String::new(),
    }
}

/// What must be true after every step: the state, the accounts and the audit trail are those after the changes that made the
/// versions up to the present one.
fn check(items: &Items, log: &[Sent]) -> Result<(), String> {
    let state = items.attributes("A", "state");
    let version = number(state, attributes::VERSION);
    let events: BTreeSet<String> = items
        .iter()
        .filter(|(partition, ..)| partition.starts_with("U#"))
        .filter_map(|(_, sort, _)| sort.split_once('#').map(|(_, id)| id.to_owned()))
        .collect();
    let mut made = BTreeMap::new();
    for sent in log {
        let is_recorded = events.contains(&sent.event.to_string());
        let contradiction = match sent.answer {
            Some(Applied::Applied) => !is_recorded,
            Some(Applied::Conflict) => is_recorded,
            None => false,
        };
        if contradiction {
            return Err(format!(
                "the change to version {} is recorded: {is_recorded}, the answer was {:?}",
                sent.version, sent.answer
            ));
        }
        if is_recorded && made.insert(sent.version, sent).is_some() {
            return Err(format!("two changes made version {}", sent.version));
        }
    }
    let count = made.len() as u64;
    if (count, events.len() as u64) != (version, version) || made.keys().next_back().copied().unwrap_or(0) != version {
        return Err(format!(
            "version {version} with {count} changes and {} events",
            events.len()
        ));
    }
    let mut accounts = BTreeMap::new();
    for sent in made.values() {
        match &sent.holding {
            Some(holding) => drop(accounts.insert(sent.account.clone(), holding.clone())),
            None => drop(accounts.remove(&sent.account)),
        }
    }
    let rows = items.collection("A");
    let rows = rows.filter_map(|(sort, row)| Some((sort.strip_prefix("a#")?.to_owned(), Holding::read(row))));
    let rows: BTreeMap<_, _> = rows.collect();
    if rows != accounts || number(state, attributes::ACCOUNTS) != accounts.len() as u64 {
        return Err(format!(
            "version {version} has the accounts {rows:?}, and not {accounts:?}"
        ));
    }
    let withdrawn = text(state, attributes::WITHDRAWN);
    match made.values().next_back() {
        Some(last) if last.withdrawn != withdrawn => Err(format!(
            "version {version} has withdrawn {withdrawn}, and not {}",
            last.withdrawn
        )),
        _ => Ok(()),
    }
}

fn schedule(seed: u64, profile: FaultProfile, mistake: Option<Mistake>) -> Result<(), String> {
    let world = World::new(seed, only_seed().is_some(), None);
    let mut random = Random::new(seed ^ u64::MAX);
    let log = Log::default();
    let first = Administrator {
        store: world.alone(),
        world: world.clone(),
        log: log.clone(),
    };
    for name in ACCOUNTS {
        assert!(run_alone(first.change(name)), "{name} is made");
    }
    world.set_faults(match profile {
        FaultProfile::Reliable | FaultProfile::Crashes => FaultRates::NONE,
        FaultProfile::Faults => FaultRates::SOME,
        FaultProfile::Late => FaultRates::LATE,
    });
    let tasks = (0..2).map(|_| {
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
        };
        let task: futures_util::future::BoxFuture<'static, ()> =
            Box::pin(async move { administrator.change_all().await });
        task
    });
    let tasks = tasks.collect();
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
fn an_account_loses_something_with_its_tokens_and_its_event_or_not_at_all() {
    for profile in ALL_PROFILES {
        let schedules = share(profile, maximum_schedules());
        if let Some(failure) = failures(profile, None, schedules).next() {
            panic!("{failure}");
        }
    }
}

#[test]
fn mistakes_in_losses_of_accounts_are_found() {
    const SCHEDULES: u64 = 500;
    for mistake in [Mistake::OneByOne, Mistake::BlindState, Mistake::ForgetEvent] {
        let found = ALL_PROFILES
            .iter()
            .flat_map(|profile| failures(*profile, Some(mistake), SCHEDULES));
        assert!(only_seed().is_some() || found.take(3).count() == 3, "{mistake:?}");
    }
}
