//! One registry under test, and the load that is driven against it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::address::Target;
use crate::client::{BenchClient, Failure};
use crate::cloud::Meters;
use crate::content::{Pool, Series};
use crate::measure::{Process, Sample};
use crate::rows::{Bound, Row, Scale, Work};
use crate::task::Task;

/// Failures after which a pass ends.
const ENOUGH: u64 = 10;

/// Time for what a row needs before it can begin.
const PREPARATION: Duration = Duration::from_mins(15);

/// What all registries of one run share: the load and its content.
pub(crate) struct Plan {
    /// Workers, each with a connection of its own.
    pub(crate) clients: u64,
    /// How much is done.
    pub(crate) scale: Scale,
    pool: Pool,
    series: HashMap<u64, Arc<Series>>,
}

impl Plan {
    /// A plan whose content follows from `seed`.
    pub(crate) fn new(clients: u64, scale: Scale, seed: u64) -> Self {
        Self {
            clients,
            scale,
            pool: Pool::new(seed),
            series: HashMap::new(),
        }
    }

    /// The blobs that a row calls of `size` bytes, hashed once for all registries.
    pub(crate) fn series(&mut self, size: u64) -> Arc<Series> {
        let size = self.scale.size(size);
        Arc::clone(
            self.series
                .entry(size)
                .or_insert_with(|| Arc::new(Series::new(&self.pool, size))),
        )
    }
}

/// A registry under test.
pub(crate) struct Site {
    target: Arc<Target>,
    process: Option<Process>,
    meters: Option<Meters>,
    /// Begins every repository's name, so that nothing of another run or another life of the data is met.
    label: String,
    passes: u64,
    /// Tags put so far, by repository.
    pub(crate) tags: HashMap<String, u64>,
    /// Images pushed for a catalog.
    pub(crate) images: u64,
}

impl Site {
    /// The registry at `target`, served by `process` if that is known.
    pub(crate) fn new(target: Target, process: Option<u32>, label: &str) -> Self {
        Self {
            target: Arc::new(target),
            process: process.map(Process::new),
            meters: None,
            label: format!("bench/{label}"),
            passes: 0,
            tags: HashMap::new(),
            images: 0,
        }
    }

    /// The same with the servers behind it measured too.
    pub(crate) fn metered(self, meters: Option<Meters>) -> Self {
        Self { meters, ..self }
    }

    /// The same registry and data after a new start.
    pub(crate) fn restarted(&mut self, target: Target, process: u32) {
        self.target = Arc::new(target);
        self.process = Some(Process::new(process));
    }

    /// One pass of a row: prepares, checks, loads, checks again. Only the load is measured.
    pub(crate) async fn pass(&mut self, plan: &mut Plan, row: &Row) -> Sample {
        self.passes += 1;
        let task = match self.prepare(plan, row).await {
            Ok(task) => Arc::new(task),
            Err(failure) => return failed(&failure, "prepare"),
        };
        let bound = plan.scale.bound(row);
        let mut client = BenchClient::new(Arc::clone(&self.target));
        // Reads are warmed and checked before, writes can only be checked after.
        let reads = matches!(*task, Task::Reads(_) | Task::PullImages(_));
        if reads && let Err(failure) = task.verify(&mut client, bound.count).await {
            return failed(&failure, "check");
        }
        // What earlier rows left to be written must not slow this one.
        if !plan.scale.smoke {
            rustix::fs::sync();
        }
        let before = self.meters.as_ref().map(Meters::read);
        let mut sample = self.drive(&task, 0, plan.clients, bound).await;
        if let Some((meters, before)) = self.meters.as_ref().zip(before.as_ref()) {
            match meters.since(before) {
                // Bytes that were pushed are there. A log of another form than is read here would look like none at all.
                Ok(spent) if row.pushes_blobs() && sample.errors.is_empty() && spent.requests.registry.is_empty() => {
                    let error = "the log of the S3 server tells of no request of the registry";
                    sample.errors.push(error.to_owned());
                }
                Ok(spent) => sample.behind = Some(spent),
                Err(error) => sample.errors.push(format!("the log of the S3 server: {error}")),
            }
        }
        let done = sample.latencies.len() as u64;
        if let Work::PutTags(_) = row.work {
            self.tags.insert(self.tagged(row.work), done);
        }
        if !reads
            && sample.errors.is_empty()
            && let Err(failure) = task.verify(&mut client, done).await
        {
            sample.errors.push(format!("check: {}", failure.chain()));
        }
        sample
    }

    /// Makes `row` ready for [`Site::read_as`].
    pub(crate) async fn ready(&mut self, plan: &mut Plan, row: &Row) -> Result<Arc<Task>, Failure> {
        self.passes += 1;
        self.prepare(plan, row).await.map(Arc::new)
    }

    /// One pass of reads that are ready, with the credentials of `target`: checks, then loads. Only the load is measured.
    pub(crate) async fn read_as(
        &mut self,
        target: &Arc<Target>,
        plan: &Plan,
        task: &Arc<Task>,
        bound: Bound,
    ) -> Sample {
        let mut client = BenchClient::new(Arc::clone(target));
        if let Err(failure) = task.verify(&mut client, bound.count).await {
            return failed(&failure, "check");
        }
        if !plan.scale.smoke {
            rustix::fs::sync();
        }
        let own = std::mem::replace(&mut self.target, Arc::clone(target));
        let sample = self.drive(task, 0, plan.clients, bound).await;
        self.target = own;
        sample
    }

    /// Runs operations from number `first` on with `clients` workers, and measures them.
    async fn drive(&self, task: &Arc<Task>, first: u64, clients: u64, bound: Bound) -> Sample {
        let next = Arc::new(AtomicU64::new(first));
        let failures = Arc::new(AtomicU64::new(0));
        let last = first + bound.count;
        if let Some(process) = self.process {
            process.forget_peak();
        }
        let cpu = || (self.process.and_then(Process::cpu), Process::own().cpu());
        let before = cpu();
        let start = Instant::now();
        let mut workers = JoinSet::new();
        for _ in 0..clients.min(bound.count) {
            let mut client = BenchClient::new(Arc::clone(&self.target));
            let (task, next, failures) = (Arc::clone(task), Arc::clone(&next), Arc::clone(&failures));
            workers.spawn(async move {
                let mut own = Sample::default();
                while start.elapsed() < bound.time && failures.load(Ordering::Relaxed) < ENOUGH {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= last {
                        break;
                    }
                    let begin = Instant::now();
                    match task.operate(&mut client, number).await {
                        Ok(moved) => {
                            own.latencies.push(begin.elapsed());
                            own.bytes += moved.bytes;
                            own.commits.extend(moved.commit);
                        }
                        Err(failure) => {
                            failures.fetch_add(1, Ordering::Relaxed);
                            own.errors.push(failure.chain());
                        }
                    }
                }
                own
            });
        }
        let mut sample = Sample::default();
        for own in workers.join_all().await {
            sample.latencies.extend(own.latencies);
            sample.commits.extend(own.commits);
            sample.bytes += own.bytes;
            sample.errors.extend(own.errors);
        }
        sample.elapsed = start.elapsed();
        let after = cpu();
        sample.server_cpu = spent(before.0, after.0);
        sample.client_cpu = spent(before.1, after.1);
        sample.peak = self.process.and_then(Process::peak);
        sample
    }

    /// Does `count` operations and fails if one of them does.
    pub(crate) async fn complete(&self, plan: &Plan, task: Task, first: u64, count: u64) -> Result<(), Failure> {
        let bound = Bound {
            count,
            time: PREPARATION,
        };
        let sample = self.drive(&Arc::new(task), first, plan.clients, bound).await;
        match sample.errors.into_iter().next() {
            Some(error) => Err(Failure::Unready(error)),
            None if (sample.latencies.len() as u64) < count => {
                Err(Failure::Unready(format!("not done within {} s", PREPARATION.as_secs())))
            }
            None => Ok(()),
        }
    }

    /// A name that no other pass uses.
    pub(crate) fn fresh(&self) -> String {
        self.named(&format!("{:03}", self.passes))
    }

    /// A name that begins as all names here do.
    pub(crate) fn named(&self, end: &str) -> String {
        format!("{}-{end}", self.label)
    }
}

fn failed(failure: &Failure, stage: &str) -> Sample {
    Sample {
        errors: vec![format!("{stage}: {}", failure.chain())],
        ..Sample::default()
    }
}

fn spent(before: Option<Duration>, after: Option<Duration>) -> Option<Duration> {
    Some(after?.saturating_sub(before?))
}
