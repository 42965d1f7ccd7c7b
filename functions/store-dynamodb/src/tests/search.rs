//! Many schedules of one scenario.
//!
//! | environment variable | |
//! |---|---|
//! | `ROADSTEAD_SCHEDULES` | how many schedules of each scenario, with crashes and without; 2,000 if not set |
//! | `ROADSTEAD_SEED` | only this one, and prints every request of it |

use std::collections::BTreeSet;
use std::env;

use super::acts::{Act, Actor, PLAN, at_once};
use super::cast::{TAGS, references};
use super::invariants;
use super::linearizable::is_linearizable;
use super::mutant::Mutation;
use super::world::{HOUR, World};
use crate::memory::Faults;
use crate::scheduler::{Random, Rules};

/// A situation, and those who meet in it.
#[derive(Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// What one after the other has done before.
    pub(super) before: &'static [Act],
    /// What they do at once, each one thing after the other.
    pub(super) tasks: &'static [&'static [Act]],
    /// Whether each act is to have happened at one moment.
    pub(super) judged: bool,
    /// Whether few schedules reach its race.
    pub(super) seldom: bool,
}

/// What those who race may meet besides each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// Nothing.
    Calm,
    /// Some crash.
    Crashes,
    /// Some crash, and requests fail, or are done without an answer.
    Faults,
    /// Requests are also done late, when others may have undone what was answered: what callers see is not judged.
    Late,
}

pub(super) const ALL_WEATHER: [Weather; 4] = [Weather::Calm, Weather::Crashes, Weather::Faults, Weather::Late];

/// In how many of a thousand steps somebody crashes.
const CRASHES: u64 = 30;

/// Ten times what it takes on average to find the mistake (see `mutations`) that is found last, `CheckOnce`: 195, and 660 at
/// most for 40 different first seeds. The others take a third of that or less. `tests/run --full` asks for 20,000.
const SCHEDULES: u64 = 2_000;

/// How many times as many a scenario gets whose race few schedules reach: `SyncOnce` takes 4,800 on average, and 18,000 at
/// most for 20 different first seeds.
const SELDOM: u64 = 10;

fn schedules() -> u64 {
    let set = env::var("ROADSTEAD_SCHEDULES").ok();
    set.map_or(SCHEDULES, |set| set.parse().expect("ROADSTEAD_SCHEDULES is a number"))
}

/// Tries the scenario in all weathers: as often as is asked for, with crashes and without, and less often in weather
/// that only adds to that.
pub(super) fn search(scenario: &Scenario) {
    // Large ones, whose answers are not judged, take as many in all weathers together.
    let schedules = schedules() * if scenario.seldom { SELDOM } else { 1 };
    let schedules = if scenario.judged {
        schedules
    } else {
        (schedules * 2).div_ceil(5)
    };
    for weather in ALL_WEATHER {
        let schedules = match weather {
            Weather::Calm | Weather::Crashes => schedules,
            Weather::Faults => schedules.div_ceil(2),
            Weather::Late => schedules.div_ceil(4),
        };
        if let Some(failure) = first_failure(scenario, weather, None, schedules) {
            panic!("{failure}");
        }
    }
}

/// The first schedule in which something is wrong.
pub(super) fn first_failure(
    scenario: &Scenario,
    weather: Weather,
    mutation: Option<Mutation>,
    schedules: u64,
) -> Option<String> {
    let only = env::var("ROADSTEAD_SEED").ok();
    let only: Option<u64> = only.map(|seed| seed.parse().expect("ROADSTEAD_SEED is a number"));
    let seeds = only.map_or(0..schedules, |seed| seed..seed + 1);
    let mut seeds = seeds.into_iter();
    seeds.find_map(|seed| {
        let world = World::new(seed, only.is_some(), mutation);
        let broken = schedule(scenario, weather, seed, &world).err()?;
        Some(format!(
            "{} ({weather:?}): {broken}\nagain with ROADSTEAD_SEED={seed}",
            scenario.name
        ))
    })
}

fn schedule(scenario: &Scenario, weather: Weather, seed: u64, world: &World) -> Result<(), String> {
    at_once(Actor::alone(world).play(scenario.before));
    invariants::after_step(world)?;
    invariants::hold(world)?;

    let mut random = Random::new(seed ^ u64::MAX);
    world.set_faults(match weather {
        Weather::Calm | Weather::Crashes => Faults::NONE,
        Weather::Faults => Faults::SOME,
        Weather::Late => Faults::LATE,
    });
    let tasks = scenario.tasks.iter().map(|acts| {
        let actor = Actor::among_others(world);
        let acts: &'static [Act] = acts;
        let task: futures_util::future::BoxFuture<'static, ()> = Box::pin(async move { actor.play(acts).await });
        task
    });
    let mut rules = Rules {
        crashes: if weather == Weather::Calm { 0 } else { CRASHES },
        watch: &mut || invariants::after_step(world),
    };
    world.scheduler.run(tasks.collect(), &mut random, &mut rules)?;
    world.set_faults(Faults::NONE);
    invariants::histories(world)?;
    come_right(scenario, world, weather)?;
    ask(scenario, world);
    let history = world.history();
    let judged = scenario.judged && weather != Weather::Late;
    if judged && !is_linearizable(&history, references) {
        let lines = history.iter().map(|event| format!("\n  {event:?}"));
        let lines = lines.collect::<String>();
        return Err(format!("no order of these calls explains their answers:{lines}"));
    }
    clean(world)
}

/// After an accident, one more push of the right bytes makes everything whole, in whichever repository. Where somebody
/// was cut off, or done late, whoever reads comes first.
fn come_right(scenario: &Scenario, world: &World, weather: Weather) -> Result<(), String> {
    let acts = || scenario.before.iter().chain(scenario.tasks.iter().copied().flatten());
    let lost = acts().filter_map(|act| match *act {
        Act::Lose(name) => Some(name),
        _ => None,
    });
    let lost: BTreeSet<u8> = lost.collect();
    let actor = Actor::alone(world);
    for name in &lost {
        if weather != Weather::Calm {
            at_once(actor.play(&[Act::Pull(0, *name), Act::Pull(1, *name)]));
        }
        at_once(actor.play(&[Act::Push(0, *name)]));
    }
    invariants::after_step(world)?;
    if lost.is_empty() {
        Ok(())
    } else {
        invariants::all_is_whole(world)
    }
}

/// Asks for everything that the scenario has touched.
fn ask(scenario: &Scenario, world: &World) {
    let actor = Actor::alone(world);
    let all = || scenario.before.iter().chain(scenario.tasks.iter().copied().flatten());
    let touched = |kind: fn(&Act) -> Option<(u8, u8)>| {
        let mut touched: Vec<_> = all().filter_map(kind).collect();
        touched.sort_unstable();
        touched.dedup();
        touched
    };
    for (r, name) in touched(Act::link) {
        at_once(actor.play(&[Act::Link(r, name)]));
    }
    for (r, name) in touched(Act::manifest) {
        at_once(actor.play(&[Act::Manifest(r, name)]));
    }
    for r in 0..2 {
        for tag in 0..TAGS {
            if all().any(|act| act.has_tag(r, tag)) {
                at_once(actor.play(&[Act::Read(r, tag)]));
            }
        }
    }
}

/// Lets the days pass and collects: nothing may be left that nothing needs, and nothing may be lost.
fn clean(world: &World) -> Result<(), String> {
    const ROUNDS: usize = 8;
    let actor = Actor::alone(world);
    let mut plan = PLAN;
    plan.deep = true;
    let mut left = invariants::garbage(world);
    for _ in 0..ROUNDS {
        if left.is_none() {
            break;
        }
        world.pass(26 * HOUR);
        at_once(async {
            actor.collect(&plan).await;
            actor.sweep().await;
            actor.pending_deletions().await;
        });
        invariants::after_step(world)?;
        left = invariants::garbage(world);
    }
    match left {
        Some(left) => Err(format!("this is never collected: {left}")),
        None => invariants::hold(world),
    }
}
