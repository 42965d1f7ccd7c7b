//! Checks a registry: whether what its records say of each other, and of the objects in the blob store, is so.
//!
//! Two walks: over all records, each of which is compared with what it refers to (`records`), then over all objects,
//! each of which must be named by something (`objects`). The registry goes on serving. So whatever does not agree is
//! only a suspicion, and is reported when the record that it was read from is still the same after the look that found
//! it: had both been right, the change in between would show.
//!
//! What was found lost is told under the names by which it was pulled (`pulls`). Nothing is written, unless the check is to
//! repair what can be repaired without the bytes (`repair`). Findings come one by one, as they are made. What is held in memory: a slice
//! of records, and 16 bytes (about 40 with the table around them) for each object that is named by a record of bytes, by
//! a session or by a grave, and for each that seems to have no name.

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
pub use self::run::{Event, Options, Summary};
use self::run::{Over, Run};
use crate::environment::Environment;
use crate::store::StoreError;
use crate::stores::Stores;

/// Checks everything once.
///
/// # Errors
/// A store could not be read. What was found until then was told. What is damaged is a finding and no error.
pub async fn check(
    stores: &Stores,
    environment: Arc<dyn Environment>,
    options: &Options,
    tell: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Summary, StoreError> {
    let mut run = Run {
        over: Over {
            stores,
            environment,
            options,
        },
        tell,
        summary: Summary::default(),
    };
    let (named, losses) = run.records().await?;
    run.not_pullable(losses).await?;
    run.objects(named).await?;
    Ok(run.summary)
}

impl Run<'_> {
    /// Looks at every record, and tells which objects they name, and what is lost.
    async fn records(&mut self) -> Result<(objects::Named, pulls::Losses), StoreError> {
        let mut named = objects::Named::default();
        let mut losses = pulls::Losses::default();
        let mut next = None;
        loop {
            let limit = self.over.options.slice;
            let records = &self.over.stores.records;
            let slice = records.walk(self.over.cx(), next.as_ref(), limit).await?;
            for record in &slice.items {
                named.add_record(record);
                if let Ok(record) = record {
                    self.count(record);
                }
            }
            let over = &self.over;
            let looked: Vec<records::Looked> = stream::iter(slice.items)
                .map(|record| over.look(record))
                .buffered(over.options.at_once)
                .try_collect()
                .await?;
            for looked in looked {
                self.summary.hashed += looked.hashed;
                self.summary.absent += looked.absent;
                for finding in &looked.findings {
                    losses.add(finding);
                    self.found(finding);
                    if self.over.options.repair {
                        self.repair(finding).await?;
                    }
                }
            }
            (self.tell)(Event::Progress(&self.summary));
            next = slice.next;
            if next.is_none() {
                return Ok((named, losses));
            }
        }
    }
}
