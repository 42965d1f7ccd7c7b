//! The catalog: a repository's row is there before its first manifest can be seen, and a collection deletes it when the
//! repository has neither manifests nor links (see [`collect`](crate::collect)).
//!
//! The row is apart from the transaction that publishes, because every push of a repository would otherwise contend for
//! it. So whoever is about to publish makes sure that the row is there without a mark, and whoever deletes it has marked
//! it long before, and looks for manifests while the mark stands.

use oci::RepositoryName;
use registry::store::{StoreError, Timestamp};

use super::StoreCall;
use super::commit::unmark;
use crate::keys;
use crate::mutation::{Mutation, active};
use crate::records::CatalogRow;
use crate::table::{Write, WriteCondition};

impl StoreCall<'_> {
    /// Sees to it that the row is there and not marked; one that is missing is written if `created` says since when.
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
                    item: CatalogRow { created, mark: None }.item(repository),
                    condition: WriteCondition::Absent,
                },
                (Some(row), _) if row.mark.is_some() && !active(Mutation::KeepCatalogMark) => {
                    unmark(key.clone(), WriteCondition::Exists)
                }
                (Some(_), _) => break,
            };
            if self.main.write(&write).await?.is_done() {
                break;
            }
            // It came, or went, meanwhile.
            self.main.lost_race(round).await?;
            round += 1;
        }
        self.known.remember(repository, self.cx.now);
        Ok(())
    }

    /// Whether the row was there without a mark a short while ago.
    pub(crate) fn is_known_to_be_listed(&self, repository: &RepositoryName) -> bool {
        self.known.contains(repository, self.cx.now)
    }
}
