//! One thread that runs many requests of a registry at once, in an order that a seed decides.
//!
//! The futures are the real ones. Each request to the table is a [`Turn`]: it waits until the scheduler picks it, is
//! then done as one step, and its task goes on to its next request. A crash drops a task while it waits, which is what
//! a client that hangs up does, and what a process that dies looks like from the table.
//!
//! Uniform choice alone rarely lets one task stand still while the others finish, and many races need just that. So
//! the seed also chooses a temper: even, stubborn (whoever ran runs on), or partial (tasks have weights, which change
//! now and then).

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;

/// A schedule that has not come to an end after so many requests never will.
const MOST_STEPS: usize = 20_000;

/// Randomness that is the same for the same seed (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike.
        let mut random = Self(seed.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is small and not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a small number");
        usize::try_from(self.next() % bound).expect("less than a small number")
    }

    /// Whether something happens that does so in `often` of a thousand cases.
    pub(crate) fn happens(&mut self, often: u64) -> bool {
        often > 0 && self.next() % 1000 < often
    }
}

/// How the next request is chosen.
#[derive(Clone, Copy, Debug)]
enum Temper {
    Even,
    Stubborn,
    Partial,
}

/// Runs tasks whose requests take turns. Clones are the same scheduler.
#[derive(Clone, Default)]
pub(crate) struct Scheduler {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    waiting: Vec<Waiting>,
    tickets: u64,
    /// The task that is being polled.
    running: usize,
    traced: bool,
    step: usize,
}

struct Waiting {
    ticket: u64,
    task: usize,
    waker: Waker,
}

/// Waits to be picked.
pub(crate) struct Turn {
    scheduler: Scheduler,
    ticket: Option<u64>,
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let scheduler = self.scheduler.clone();
        let mut shared = scheduler.lock();
        if let Some(ticket) = self.ticket {
            let Some(waiting) = shared.waiting.iter_mut().find(|waiting| waiting.ticket == ticket) else {
                return Poll::Ready(());
            };
            waiting.waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        let ticket = shared.tickets;
        shared.tickets += 1;
        let task = shared.running;
        let waker = cx.waker().clone();
        shared.waiting.push(Waiting { ticket, task, waker });
        self.ticket = Some(ticket);
        Poll::Pending
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.scheduler.lock().waiting.retain(|waiting| waiting.ticket != ticket);
        }
    }
}

/// What the tasks may meet, and who watches them.
pub(crate) struct Rules<'a> {
    /// In how many of a thousand steps the task whose turn it is crashes instead.
    pub(crate) crashes: u64,
    /// Looks at the table after every step; what it says ends the schedule.
    pub(crate) watch: &'a mut dyn FnMut() -> Result<(), String>,
}

impl Scheduler {
    /// A scheduler that prints what is done if `traced`.
    pub(crate) fn new(traced: bool) -> Self {
        let scheduler = Self::default();
        scheduler.lock().traced = traced;
        scheduler
    }

    /// Waits until the scheduler picks the caller.
    pub(crate) fn turn(&self) -> Turn {
        Turn {
            scheduler: self.clone(),
            ticket: None,
        }
    }

    /// Prints what is done, if somebody wants to know.
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        let shared = self.lock();
        if shared.traced {
            println!("step {} task {}: {}", shared.step, shared.running, what());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs all tasks until each has ended or crashed. What goes wrong, panics included, is said in the error.
    pub(crate) fn run(
        &self,
        tasks: Vec<BoxFuture<'static, ()>>,
        random: &mut Random,
        rules: &mut Rules<'_>,
    ) -> Result<(), String> {
        let mut tasks: Vec<_> = tasks.into_iter().map(Some).collect();
        let mut weights: Vec<usize> = tasks.iter().map(|_| 1 + random.below(16)).collect();
        let temper = [Temper::Even, Temper::Stubborn, Temper::Partial][random.below(3)];
        for task in 0..tasks.len() {
            // Nobody runs before the schedule says so.
            let body = tasks[task].take().expect("not yet begun");
            let turn = self.turn();
            tasks[task] = Some(Box::pin(async move {
                turn.await;
                body.await;
            }));
            self.poll(&mut tasks, task)?;
        }
        for _ in 0..MOST_STEPS {
            let Some((task, waker)) = self.pick(temper, &mut weights, random) else {
                return match tasks.iter().position(Option::is_some) {
                    None => Ok(()),
                    Some(task) => Err(format!("task {task} waits for something that is no request")),
                };
            };
            if random.happens(rules.crashes) {
                self.trace(|| format!("task {task} crashes"));
                tasks[task] = None;
                continue;
            }
            waker.wake();
            self.poll(&mut tasks, task)?;
            (rules.watch)()?;
        }
        Err("the tasks hinder each other for ever".to_owned())
    }

    /// Takes one request out of those that wait.
    fn pick(&self, temper: Temper, weights: &mut [usize], random: &mut Random) -> Option<(usize, Waker)> {
        let mut shared = self.lock();
        if shared.waiting.is_empty() {
            return None;
        }
        let running = shared.running;
        let stubborn = || shared.waiting.iter().position(|waiting| waiting.task == running);
        let index = match temper {
            Temper::Stubborn if random.below(8) > 0 => stubborn(),
            Temper::Partial => {
                if random.below(32) == 0 {
                    weights[random.below(weights.len())] = 1 + random.below(16);
                }
                let total: usize = shared.waiting.iter().map(|waiting| weights[waiting.task]).sum();
                let mut left = random.below(total);
                shared.waiting.iter().position(|waiting| {
                    let weight = weights[waiting.task];
                    let chosen = left < weight;
                    left = left.saturating_sub(weight);
                    chosen
                })
            }
            Temper::Even | Temper::Stubborn => None,
        };
        let index = index.unwrap_or_else(|| random.below(shared.waiting.len()));
        let picked = shared.waiting.swap_remove(index);
        shared.running = picked.task;
        shared.step += 1;
        Some((picked.task, picked.waker))
    }

    /// Lets a task go on to its next request.
    fn poll(&self, tasks: &mut [Option<BoxFuture<'static, ()>>], task: usize) -> Result<(), String> {
        self.lock().running = task;
        let Some(future) = &mut tasks[task] else {
            return Ok(());
        };
        let mut cx = Context::from_waker(Waker::noop());
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx))) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => tasks[task] = None,
            Err(panic) => {
                tasks[task] = None;
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                return Err(format!("task {task} panicked: {}", text.unwrap_or_default()));
            }
        }
        Ok(())
    }
}

/// Lets other tasks run first.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
