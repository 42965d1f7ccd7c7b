//! Finds some blobs that can be pulled according to the metadata.

use oci::{Manifest, ManifestLimits};
use registry::store::metadata::{Content, MetadataStore};
use registry::store::{Context, Location, StoreError};

/// Number of repositories that are read, and number of manifests in each.
const LOOKED_AT: usize = 3;

/// The locations of objects that have links and are not recorded as lost: `most` of them, or a few more. It reads lists and
/// single keys only, because a server need not have the permission to scan its table.
pub(super) async fn locations(
    metadata: &dyn MetadataStore,
    cx: Context,
    most: usize,
) -> Result<Vec<Location>, StoreError> {
    let mut found = Vec::new();
    for repository in metadata.repositories(cx, None, LOOKED_AT).await?.items {
        for digest in metadata.manifests(cx, &repository, None, LOOKED_AT).await?.items {
            let Some(record) = metadata.manifest(cx, &repository, &digest).await? else {
                continue;
            };
            let bytes = match record.content {
                Content::Inline(bytes) => bytes,
                Content::Stored(location) => {
                    found.push(location);
                    continue;
                }
                Content::Defective(..) | Content::Damaged(_) => continue,
            };
            // A manifest that was accepted under other limits may not be parsed now; it is skipped.
            let Ok(manifest) = Manifest::parse(&bytes, Some(&record.media_type), &ManifestLimits::default()) else {
                continue;
            };
            for reference in manifest.references.iter().take(most) {
                let link = metadata.link(cx, &repository, &reference.descriptor.digest).await?;
                found.extend(link.filter(|link| link.defect.is_none()).map(|link| link.location));
            }
            if found.len() >= most {
                return Ok(found);
            }
        }
    }
    Ok(found)
}
