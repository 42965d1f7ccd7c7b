//! Many schedules of one scenario.
//!
//! | environment variable | |
//! |---|---|
//! | `ROADSTEAD_SCHEDULES` | how many schedules of each scenario, with crashes and without; 2,000 if not set; the search for mutations does not use it |
//! | `ROADSTEAD_SEED` | only this one, and prints every request of it |

use std::collections::BTreeSet;
use std::env;

use super::fixtures::{TAGS, references};
use super::invariants;
use super::linearizable::is_linearizable;
use super::mutant::Mutation;
use super::operations::{Caller, Operation, PLAN, run_alone};
use super::world::{HOUR, World};
use crate::memory::FaultRates;
use crate::scheduler::{Random, Rules};

/// A situation, and the tasks that race in it.
#[derive(Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// The operations before the race, one after the other.
    pub(super) before: &'static [Operation],
    /// The tasks that race, each a list of operations.
    pub(super) tasks: &'static [&'static [Operation]],
    /// Whether the answers must be linearizable.
    pub(super) judged: bool,
    /// Whether few schedules reach its race.
    pub(super) seldom: bool,
}

/// The faults that the tasks meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultProfile {
    /// None.
    Reliable,
    /// Tasks crash.
    Crashes,
    /// Tasks crash, and requests fail or are done without an answer.
    Faults,
    /// Requests are also done late, when others may have undone what was answered. The answers are not judged.
    Late,
}

pub(super) const ALL_PROFILES: [FaultProfile; 4] = [
    FaultProfile::Reliable,
    FaultProfile::Crashes,
    FaultProfile::Faults,
    FaultProfile::Late,
];

/// In how many of a thousand steps a task crashes.
pub(super) const CRASHES: u64 = 30;

/// The default number of schedules of a scenario, with crashes and without. `tests/run --full` asks for 20,000.
///
/// With it, at least 11 schedules find each mutation of `mutations`, on average over many seeds: 11 find `CheckOnce` (one in
/// 71 of those without crashes, and no other), 12 find `SyncOnce`, 31 find `PendingDeletionFirst`, and more find the others.
pub(super) const SCHEDULES: u64 = 2_000;

/// The factors for a scenario whose race few schedules reach, without crashes and with them. `SyncOnce` is found by one in
/// 1,360 schedules without crashes. With the other profiles, the reads of `assert_repairable` come first and repair what it
/// leaves.
const SELDOM: (u64, u64) = (20, 5);

/// How many schedules of a scenario are searched with a fault profile: `most` with crashes and without, and fewer with the
/// profiles that add faults to that.
pub(super) fn schedules(scenario: &Scenario, profile: FaultProfile, most: u64) -> u64 {
    let most = match (scenario.seldom, profile) {
        (false, _) => most,
        (true, FaultProfile::Reliable) => most * SELDOM.0,
        (true, _) => most * SELDOM.1,
    };
    // Scenarios whose answers are not judged are large: they get two fifths of that number.
    let most = if scenario.judged { most } else { (most * 2).div_ceil(5) };
    share(profile, most)
}

/// How many of `most` schedules a search has with a fault profile.
pub(super) fn share(profile: FaultProfile, most: u64) -> u64 {
    match profile {
        FaultProfile::Reliable | FaultProfile::Crashes => most,
        FaultProfile::Faults => most.div_ceil(2),
        FaultProfile::Late => most.div_ceil(4),
    }
}

/// Searches the scenario with all fault profiles.
pub(super) fn search(scenario: &Scenario) {
    let most = maximum_schedules();
    for profile in ALL_PROFILES {
        let mut failures = failures(scenario, profile, None, schedules(scenario, profile, most));
        if let Some(failure) = failures.next() {
            panic!("{failure}");
        }
    }
}

/// How many schedules a search has: [`SCHEDULES`], or what `ROADSTEAD_SCHEDULES` says.
pub(super) fn maximum_schedules() -> u64 {
    let most = env::var("ROADSTEAD_SCHEDULES").ok();
    most.map_or(SCHEDULES, |set| set.parse().expect("ROADSTEAD_SCHEDULES is a number"))
}

/// The seed to which `ROADSTEAD_SEED` restricts every search.
pub(super) fn only_seed() -> Option<u64> {
    let only = env::var("ROADSTEAD_SEED").ok();
    only.map(|seed| seed.parse().expect("ROADSTEAD_SEED is a number"))
}

/// The schedules that fail, of this number of schedules.
pub(super) fn failures(
    scenario: &Scenario,
    profile: FaultProfile,
    mutation: Option<Mutation>,
    schedules: u64,
) -> impl Iterator<Item = String> {
    let only = only_seed();
    let seeds = only.map_or(0..schedules, |seed| seed..seed + 1);
    seeds.filter_map(move |seed| {
        let world = World::new(seed, only.is_some(), mutation);
        let broken = schedule(scenario, profile, seed, &world).err()?;
        Some(format!(
            "{} ({profile:?}): {broken}\nagain with ROADSTEAD_SEED={seed}",
            scenario.name
        ))
    })
}

fn schedule(scenario: &Scenario, profile: FaultProfile, seed: u64, world: &World) -> Result<(), String> {
    run_alone(Caller::alone(world).run_all(scenario.before));
    invariants::after_step(world)?;
    invariants::hold(world)?;

    let mut random = Random::new(seed ^ u64::MAX);
    world.set_faults(match profile {
        FaultProfile::Reliable | FaultProfile::Crashes => FaultRates::NONE,
        FaultProfile::Faults => FaultRates::SOME,
        FaultProfile::Late => FaultRates::LATE,
    });
    let tasks = scenario.tasks.iter().map(|operations| {
        let caller = Caller::among_others(world);
        let operations: &'static [Operation] = operations;
        let task: futures_util::future::BoxFuture<'static, ()> =
            Box::pin(async move { caller.run_all(operations).await });
        task
    });
    let mut rules = Rules {
        crashes: if profile == FaultProfile::Reliable { 0 } else { CRASHES },
        watch: &mut || invariants::after_step(world),
    };
    world.scheduler.run(tasks.collect(), &mut random, &mut rules)?;
    world.set_faults(FaultRates::NONE);
    invariants::histories(world)?;
    invariants::events(world)?;
    assert_repairable(scenario, world, profile)?;
    read_everything(scenario, world);
    let history = world.history();
    let judged = scenario.judged && profile != FaultProfile::Late;
    if judged && !is_linearizable(&history, references) {
        let lines = history.iter().map(|event| format!("\n  {event:?}"));
        let lines = lines.collect::<String>();
        return Err(format!("no order of these calls explains their answers:{lines}"));
    }
    collect_everything(world)
}

/// After a loss, one more push of the right bytes, in any repository, repairs everything. After crashes and late
/// requests, reads come first.
fn assert_repairable(scenario: &Scenario, world: &World, profile: FaultProfile) -> Result<(), String> {
    let operations = || scenario.before.iter().chain(scenario.tasks.iter().copied().flatten());
    let lost = operations().filter_map(|operation| match *operation {
        Operation::Lose(name) => Some(name),
        _ => None,
    });
    let lost: BTreeSet<u8> = lost.collect();
    let caller = Caller::alone(world);
    for name in &lost {
        if profile != FaultProfile::Reliable {
            run_alone(caller.run_all(&[Operation::Pull(0, *name), Operation::Pull(1, *name)]));
        }
        run_alone(caller.run_all(&[Operation::Push(0, *name)]));
    }
    invariants::after_step(world)?;
    if lost.is_empty() {
        Ok(())
    } else {
        invariants::all_is_whole(world)
    }
}

/// Reads everything that the scenario has touched.
fn read_everything(scenario: &Scenario, world: &World) {
    let caller = Caller::alone(world);
    let all = || scenario.before.iter().chain(scenario.tasks.iter().copied().flatten());
    let touched = |kind: fn(&Operation) -> Option<(u8, u8)>| {
        let mut touched: Vec<_> = all().filter_map(kind).collect();
        touched.sort_unstable();
        touched.dedup();
        touched
    };
    for (r, name) in touched(Operation::link) {
        run_alone(caller.run_all(&[Operation::Link(r, name)]));
    }
    for (r, name) in touched(Operation::manifest) {
        run_alone(caller.run_all(&[Operation::Manifest(r, name)]));
    }
    for r in 0..2 {
        for tag in 0..TAGS {
            if all().any(|operation| operation.has_tag(r, tag)) {
                run_alone(caller.run_all(&[Operation::Read(r, tag)]));
            }
        }
    }
}

/// Lets days pass and collects: no garbage may be left, and nothing may be lost.
fn collect_everything(world: &World) -> Result<(), String> {
    const ROUNDS: usize = 8;
    let caller = Caller::alone(world);
    let mut plan = PLAN;
    plan.deep = true;
    let mut left = invariants::garbage(world);
    for _ in 0..ROUNDS {
        if left.is_none() {
            break;
        }
        world.pass(26 * HOUR);
        run_alone(async {
            caller.collect(&plan).await;
            caller.sweep().await;
            caller.pending_deletions().await;
        });
        invariants::after_step(world)?;
        left = invariants::garbage(world);
    }
    match left {
        Some(left) => Err(format!("this is never collected: {left}")),
        None => invariants::hold(world),
    }
}
