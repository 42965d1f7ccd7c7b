//! A client that pushes, deletes and reads, and knows what must exist: its [`pushes`], its [`deletions`], requests whose answer
//! the policy decides ([`challenges`]), and the [`verification`] of what must exist.

mod challenges;
mod deletions;
mod pushes;
mod verification;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use oci::Digest;
use registry::auth::ActionKind;
use registry::store::access::AuditKind;

use super::client::{Answer, RoundRobinClient, TestRequest};
use super::clock::{Clock, MINUTE, Random, TimeWindow};
use super::pool::{Document, Pool};
use super::releases::Releases;
use super::trail::Acknowledged;
use super::{ChurnOptions, ChurnStatistics, Shared, users};

/// The number of repositories in which all workers push and delete.
const SHARED: usize = 2;

/// The number of images that several workers push, each in its own repository.
const COMMON: usize = 6;

fn own(worker: usize) -> String {
    format!("own/{}", users::user(worker))
}

fn shared(number: usize) -> String {
    format!("shared/{number}")
}

/// All repositories of a churn.
pub(super) fn repositories(workers: usize) -> Vec<String> {
    (0..workers).map(own).chain((0..SHARED).map(shared)).collect()
}

/// A manifest that was acknowledged, and that no other worker deletes.
#[derive(Clone, Debug)]
struct Pushed {
    repository: String,
    document: Document,
}

/// Why a push did not succeed.
enum Unpushed {
    /// It was interrupted, and may take effect later.
    Cut,
    /// Another worker deleted a blob that it had found.
    Refused,
    /// A tag is immutable, or may only be created.
    Protected,
}

pub(super) struct Worker {
    client: RoundRobinClient,
    /// Sends no credentials.
    stranger: RoundRobinClient,
    clock: Arc<Clock>,
    options: ChurnOptions,
    pool: Pool,
    random: Random,
    number: usize,
    serial: u64,
    manifests: Vec<Pushed>,
    /// The tags of the worker's own repository.
    tags: BTreeMap<String, Digest>,
    /// The immutable tags that any worker knows.
    releases: Arc<Releases>,
    /// The manifests, with their repositories, to which a frozen tag may belong that keeps them: an interrupted push may have
    /// given them an immutable tag, or they have a tag that freezes later.
    perhaps_frozen: Vec<(String, Digest)>,
    /// The changes that were acknowledged.
    pub(super) acknowledged: Vec<Acknowledged>,
    /// An interrupted request may still take effect in the worker's own repository.
    uncertain: bool,
    /// The time windows of interrupted requests, which may still be running.
    lingering: VecDeque<TimeWindow>,
    pub(super) statistics: ChurnStatistics,
}

impl Worker {
    pub(super) fn new(shared: &Shared, number: usize) -> Self {
        Self {
            client: shared.client.signed_in(&users::user(number)),
            stranger: shared.client.clone(),
            clock: shared.clock.clone(),
            options: shared.options,
            pool: shared.pool.clone(),
            random: Random::new(shared.options.seed.wrapping_mul(1000) + number as u64),
            number,
            serial: 0,
            manifests: Vec::new(),
            tags: BTreeMap::new(),
            releases: shared.releases.clone(),
            perhaps_frozen: Vec::new(),
            acknowledged: Vec::new(),
            uncertain: false,
            lingering: VecDeque::new(),
            statistics: ChurnStatistics::default(),
        }
    }

    pub(super) async fn work(&mut self) {
        for _ in 0..self.options.operations {
            if self.lingering.len() > 1 {
                self.lingering.pop_front();
            }
            self.rest(60 * MINUTE).await;
            match self.random.below(100) {
                0..30 => self.push_image().await,
                30..38 => self.push_index().await,
                38..46 => self.push_again().await,
                46..56 => self.delete_manifest().await,
                56..62 => self.delete_tag().await,
                62..70 => self.delete_blob().await,
                70..76 => self.abandon().await,
                76..82 => self.ask().await,
                82..87 => self.return_a_draft().await,
                _ => self.verify_one().await,
            }
        }
        self.challenge_a_release().await;
        self.lingering.clear();
    }

    /// Asserts that everything that was acknowledged and not deleted exists.
    pub(super) async fn verify_all(&mut self) {
        for pushed in self.manifests.clone() {
            self.verify(&pushed).await;
        }
        for (tag, digest) in self.tags.clone() {
            self.verify_tag(&tag, &digest).await;
        }
    }

    /// Waits for up to `millis` milliseconds.
    async fn rest(&mut self, millis: u64) {
        let millis = self.random.next() % millis;
        self.clock.rest(millis).await;
    }

    async fn send(&self, call: TestRequest) -> Answer {
        self.client.send(call).await
    }

    fn own(&self) -> String {
        own(self.number)
    }

    /// The worker's own repository, or a shared one.
    fn somewhere(&mut self) -> String {
        if self.random.percent(60) {
            self.own()
        } else {
            shared(self.random.below(SHARED))
        }
    }

    fn name(&mut self) -> String {
        self.serial += 1;
        format!("worker {} pushes {}", self.number, self.serial)
    }

    fn may(&self, action: ActionKind, repository: &str) -> bool {
        users::may(Some(self.number), action, repository)
    }

    fn acknowledge(&mut self, kind: AuditKind, repository: &str, reference: &impl ToString) {
        self.acknowledged.push(Acknowledged {
            kind,
            principal: users::user(self.number),
            repository: repository.to_owned(),
            reference: reference.to_string(),
        });
    }

    /// Any tag, also one that a rule freezes.
    fn tag(&mut self) -> String {
        let number = self.random.below(64);
        match self.random.below(100) {
            0..25 => users::release(number),
            25..35 => users::late_release(number),
            35..50 => users::draft(number),
            _ => format!("t{}", number % 8),
        }
    }
}
