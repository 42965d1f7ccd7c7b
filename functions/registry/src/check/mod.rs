//! Checks a registry: compares its records with each other, and with the objects in the blob store.
//!
//! A check makes two walks. The first is over all records, and compares each with what it refers to (`records`). The
//! second is over all objects, and looks for orphans (`objects`). The registry serves requests meanwhile. So a mismatch
//! is only a suspicion at first, because a request may have changed one side between the two reads. The check reads the
//! record again, and reports the mismatch only if the record has not changed.
//!
//! Content that was found lost is also reported as the manifests and blobs that cannot be pulled (`pulls`). The check
//! writes nothing, unless it is to repair what can be repaired without the bytes (`repair`). Findings are reported one
//! by one, as they are made.
//!
//! The memory contains a slice of records, 16 bytes (about 40 with the overhead of the table) for each object to which
//! a record, a session or a pending deletion refers, and the same for each object that seems to be an orphan.

mod finding;
mod manifests;
mod objects;
mod pulls;
mod records;
mod repair;
mod run;

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

pub use self::finding::Finding;
pub use self::run::{CheckOptions, Event, Summary};
use self::run::{CheckSetup, Run};
use crate::environment::Environment;
use crate::store::StoreError;
use crate::stores::Stores;

/// Runs one check.
///
/// # Errors
/// If a store could not be read. The findings until then were reported. Damaged data is a finding and not an error.
pub async fn check(
    stores: &Stores,
    environment: Arc<dyn Environment>,
    options: &CheckOptions,
    report: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Summary, StoreError> {
    let mut run = Run {
        setup: CheckSetup {
            stores,
            environment,
            options,
        },
        report,
        summary: Summary::default(),
    };
    let (referenced, losses) = run.records().await?;
    run.not_pullable(losses).await?;
    run.objects(referenced).await?;
    Ok(run.summary)
}

impl Run<'_> {
    /// Checks every record. Returns the objects to which the records refer, and the lost content.
    async fn records(&mut self) -> Result<(objects::ReferencedObjects, pulls::Losses), StoreError> {
        let mut referenced = objects::ReferencedObjects::default();
        let mut losses = pulls::Losses::default();
        let mut next = None;
        loop {
            let limit = self.setup.options.slice;
            let records = &self.setup.stores.records;
            let slice = records.walk(self.setup.cx(), next.as_ref(), limit).await?;
            for record in &slice.items {
                referenced.add_record(record);
                if let Ok(record) = record {
                    self.count(record);
                }
            }
            let setup = &self.setup;
            let results: Vec<records::RecordCheck> = stream::iter(slice.items)
                .map(|record| setup.check_record(record))
                .buffered(setup.options.at_once)
                .try_collect()
                .await?;
            for result in results {
                self.summary.hashed += result.hashed;
                self.summary.absent += result.absent;
                for finding in &result.findings {
                    losses.add(finding);
                    self.found(finding);
                    if self.setup.options.repair {
                        self.repair(finding).await?;
                    }
                }
            }
            (self.report)(Event::Progress(&self.summary));
            next = slice.next;
            if next.is_none() {
                return Ok((referenced, losses));
            }
        }
    }
}
