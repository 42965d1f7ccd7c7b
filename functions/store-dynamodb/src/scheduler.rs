//! Runs many requests of a registry in one thread, in an order that a seed decides.
//!
//! The futures are those of production. Each request to the table is a [`TaskTurn`]: it waits until the scheduler picks
//! it, and is then executed as one step; its task continues to its next request. A crash drops a waiting task. A client
//! that closes its connection has the same effect, and so has a process that dies, as far as the table can see.
//!
//! Uniform choice alone rarely keeps one task waiting while the others finish, but many races need exactly that. So the
//! seed also selects a policy: uniform, same task (the task that ran last usually continues), or weighted (tasks have
//! weights, which change from time to time).

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use registry::random::SplitMix64;

/// The maximum number of requests in a schedule. A schedule with more would never end.
const MAXIMUM_STEPS: usize = 20_000;

/// Random numbers that are a function of the seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Mixes the seed, so that neighbouring seeds give different first numbers.
        let mut random = Self(SplitMix64::new(seed.wrapping_mul(0xd134_2543_de82_ef95)));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number less than `bound`, which is small and not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a small number");
        usize::try_from(self.next() % bound).expect("less than a small number")
    }

    /// `true` with a probability of `per_mille` in a thousand.
    pub(crate) fn happens(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.next() % 1000 < per_mille
    }
}

/// How the next request is chosen.
#[derive(Clone, Copy, Debug)]
enum PickPolicy {
    Uniform,
    SameTask,
    Weighted,
}

/// Runs tasks whose requests take turns. Clones are the same scheduler.
#[derive(Clone, Default)]
pub(crate) struct Scheduler {
    shared: Arc<Mutex<SchedulerState>>,
}

#[derive(Default)]
struct SchedulerState {
    waiting: Vec<WaitingTask>,
    tickets: u64,
    /// The task that is polled at present.
    running: usize,
    traced: bool,
    step: usize,
}

struct WaitingTask {
    ticket: u64,
    task: usize,
    waker: Waker,
}

/// A future that completes when the scheduler picks it.
pub(crate) struct TaskTurn {
    scheduler: Scheduler,
    ticket: Option<u64>,
}

impl Future for TaskTurn {
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
        shared.waiting.push(WaitingTask { ticket, task, waker });
        self.ticket = Some(ticket);
        Poll::Pending
    }
}

impl Drop for TaskTurn {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.scheduler.lock().waiting.retain(|waiting| waiting.ticket != ticket);
        }
    }
}

/// The faults of a schedule, and the check after each step.
pub(crate) struct Rules<'a> {
    /// The probability that a task crashes instead of taking its turn, in parts of a thousand.
    pub(crate) crashes: u64,
    /// Checks the table after every step. An error ends the schedule.
    pub(crate) watch: &'a mut dyn FnMut() -> Result<(), String>,
}

impl Scheduler {
    /// A scheduler that prints each request if `traced`.
    pub(crate) fn new(traced: bool) -> Self {
        let scheduler = Self::default();
        scheduler.lock().traced = traced;
        scheduler
    }

    /// Waits for the caller's turn.
    pub(crate) fn turn(&self) -> TaskTurn {
        TaskTurn {
            scheduler: self.clone(),
            ticket: None,
        }
    }

    /// Prints a request, if this scheduler is traced.
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        let shared = self.lock();
        if shared.traced {
            println!("step {} task {}: {}", shared.step, shared.running, what());
        }
    }

    fn lock(&self) -> MutexGuard<'_, SchedulerState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs all tasks until each has ended or crashed. Failures, including panics of tasks, are returned as an error.
    pub(crate) fn run(
        &self,
        tasks: Vec<BoxFuture<'static, ()>>,
        random: &mut Random,
        rules: &mut Rules<'_>,
    ) -> Result<(), String> {
        let mut tasks: Vec<_> = tasks.into_iter().map(Some).collect();
        let mut weights: Vec<usize> = tasks.iter().map(|_| 1 + random.below(16)).collect();
        let policy = [PickPolicy::Uniform, PickPolicy::SameTask, PickPolicy::Weighted][random.below(3)];
        for task in 0..tasks.len() {
            // A task starts only when the schedule picks it.
            let body = tasks[task].take().expect("a task that has not started");
            let turn = self.turn();
            tasks[task] = Some(Box::pin(async move {
                turn.await;
                body.await;
            }));
            self.poll(&mut tasks, task)?;
        }
        for _ in 0..MAXIMUM_STEPS {
            let Some((task, waker)) = self.pick(policy, &mut weights, random) else {
                return match tasks.iter().position(Option::is_some) {
                    None => Ok(()),
                    Some(task) => Err(format!("task {task} waits for something other than a request")),
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
        Err("the tasks do not end: they keep hindering each other".to_owned())
    }

    /// Removes one request from those that wait, and returns it.
    fn pick(&self, policy: PickPolicy, weights: &mut [usize], random: &mut Random) -> Option<(usize, Waker)> {
        let mut shared = self.lock();
        if shared.waiting.is_empty() {
            return None;
        }
        let running = shared.running;
        let same_task = || shared.waiting.iter().position(|waiting| waiting.task == running);
        let index = match policy {
            PickPolicy::SameTask if random.below(8) > 0 => same_task(),
            PickPolicy::Weighted => {
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
            PickPolicy::Uniform | PickPolicy::SameTask => None,
        };
        let index = index.unwrap_or_else(|| random.below(shared.waiting.len()));
        let picked = shared.waiting.swap_remove(index);
        shared.running = picked.task;
        shared.step += 1;
        Some((picked.task, picked.waker))
    }

    /// Runs a task up to its next request.
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
