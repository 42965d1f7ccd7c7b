//! The catalog. The row of a repository exists before its first manifest is visible, or since it was created. Collection deletes it when the
//! repository has neither manifests nor links (see [`collect`](crate::collect)).
//!
//! The row is not part of the transaction that publishes a manifest, because all pushes to a repository would then
//! contend for it. So a publisher first makes sure that the row exists without a mark. Collection marks the row long
//! before it deletes it, and looks for manifests while the mark is present.

use oci::RepositoryName;
use registry::store::access::Author;
use registry::store::{StoreError, Timestamp};

use super::StoreCall;
use super::commit::unmark;
use crate::keys;
use crate::records::{CatalogRow, attributes};
use crate::table::{Value, Write, WriteCondition, Written};

impl StoreCall<'_> {
    /// Makes sure that the row exists without a mark. Writes a missing row only if `created` gives its time of
    /// creation.
    pub(crate) async fn keep_listed(
        &self,
        repository: &RepositoryName,
        created: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        if self.known.contains(repository, self.cx.now) {
            return Ok(());
        }
        let key = keys::repository(repository);
        let mut round = 0;
        loop {
            let item = self.main.get(&key).await?;
            let row = item.as_ref().map(CatalogRow::read).transpose()?;
            let write = match (row, created) {
                (None, None) => return Ok(()),
                (None, Some(created)) => Write::Put {
                    item: CatalogRow {
                        created,
                        permanent: false,
                        mark: None,
                    }
                    .item(repository),
                    condition: WriteCondition::Absent,
                },
                (Some(row), _) if row.mark.is_some() => unmark(key.clone(), WriteCondition::Exists),
                (Some(_), _) => break,
            };
            if self.main.write(&write).await?.is_done() {
                break;
            }
            // Another request has written or deleted the row meanwhile.
            self.main.lost_race(round).await?;
            round += 1;
        }
        self.known.remember(repository, self.cx.now);
        Ok(())
    }

    /// Lists a repository, and makes it permanent. `true`: it was not listed.
    ///
    /// It removes the mark of a collection pass. A pass that has read the row before may still write its mark, but no
    /// later pass deletes a permanent row.
    pub(super) async fn create_repository(
        &self,
        repository: &RepositoryName,
        author: &Author,
    ) -> Result<bool, StoreError> {
        let key = keys::repository(repository);
        let mut round = 0;
        loop {
            let item = self.main.get(&key).await?;
            let row = item.as_ref().map(CatalogRow::read).transpose()?;
            let write = match row {
                None => Write::Put {
                    item: CatalogRow {
                        created: self.cx.now,
                        permanent: true,
                        mark: None,
                    }
                    .item(repository),
                    condition: WriteCondition::Absent,
                },
                // An unanswered try of this call that was applied would have answered the next one.
                Some(row) if row.permanent => return Ok(false),
                Some(_) => Write::Update {
                    key: key.clone(),
                    set: vec![(attributes::PERMANENT, Value::N(1))],
                    remove: vec![attributes::MARK],
                    // So that one of racing calls changes it, and has the event.
                    condition: WriteCondition::Lacks(attributes::PERMANENT),
                },
            };
            let event = author.repository_created(self.cx, repository, row.is_some());
            if self.main.transact(&[self.event(event).await?, write]).await? == Written::Done {
                return Ok(row.is_none());
            }
            self.main.lost_race(round).await?;
            round += 1;
        }
    }

    /// Whether the row existed without a mark a short time ago.
    pub(crate) fn is_known_to_be_listed(&self, repository: &RepositoryName) -> bool {
        self.known.contains(repository, self.cx.now)
    }
}
