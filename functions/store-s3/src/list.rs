//! Lists the objects of the store.

use registry::store::blobs::StoredObject;
use registry::store::{Cursor, Slice, StoreError};

use crate::requests::AttemptTimeout;
use crate::statistics::Operation;
use crate::store::S3Store;
use crate::time::CallDeadline;

/// Maximum number of objects in one response.
const PAGE: usize = 1000;

impl S3Store {
    /// Staged bytes are listed under the location of their object. Keys in another form are skipped: they belong to
    /// other applications.
    pub(crate) async fn objects(
        &self,
        deadline: CallDeadline,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<StoredObject>, StoreError> {
        let prefix = self.keys.prefix();
        let limit = i32::try_from(limit.clamp(1, PAGE)).unwrap_or(1);
        // The cursor is a key and not the store's continuation token, because a listing may be resumed much later.
        let start = after.map(|after| format!("{prefix}{}", after.0));
        let bucket = &self.bucket;
        let answer = bucket
            .call(Operation::ListObjectsV2, deadline, || {
                let request = bucket
                    .client
                    .list_objects_v2()
                    .bucket(&bucket.name)
                    .prefix(prefix)
                    .max_keys(limit)
                    .set_start_after(start.clone())
                    .set_expected_bucket_owner(bucket.owner.clone());
                (request.send(), AttemptTimeout::SHORT)
            })
            .await?;
        let is_truncated = answer.is_truncated.unwrap_or(false);
        let (mut items, mut last) = (Vec::new(), None);
        for object in answer.contents.unwrap_or_default() {
            let key = object.key.unwrap_or_default();
            if let Some(location) = self.keys.location(&key) {
                let size = object.size.and_then(|size| size.try_into().ok()).unwrap_or(0);
                items.push(StoredObject { location, size });
            }
            last = Some(key);
        }
        let next = last.filter(|_| is_truncated);
        let next = next.map(|key| Cursor(key.strip_prefix(prefix).unwrap_or(&key).to_owned()));
        Ok(Slice { items, next })
    }
}
