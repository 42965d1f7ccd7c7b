//! Lists: tags by end-8 (`GET /v2/<name>/tags/list`), and referrers by end-12 (`GET /v2/<name>/referrers/<digest>`). The cost
//! depends on the page, not on the list.

use http::{HeaderName, HeaderValue, Response};
use oci::{Descriptor, Digest, Manifest, MediaType, RepositoryName, Tag};
use serde::Serialize;

use super::manifest_bytes::UNLIMITED;
use crate::auth::{Permit, Pull};
use crate::body::ResponseBody;
use crate::call::Call;
use crate::error::Error;
use crate::memory::{Memory, Purpose};
use crate::query::PageRequest;
use crate::response;
use crate::store::StoreError;
use crate::store::metadata::Referrer;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The beginning of a page of referrers, which is an index. The descriptors follow, and then the end.
const INDEX_BEGINS: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#;
const INDEX_ENDS: &[u8] = b"]}";

/// The memory for a page of referrers at first, in addition to its rows. It is enough for most pages.
const FIRST_PAGE: usize = 128 << 10;

/// The memory for one row of a page of tags: the name, as a value and as JSON.
const TAG_ROW: usize = 320;

/// How many rows of referrers are read at once, at first and at most. Each may have annotations of 32 KiB. A whole page
/// of rows should not be in memory, only to be cut to the page's maximum size.
const FIRST_REFERRERS: usize = 16;
const REFERRERS_AT_ONCE: usize = 100;

/// The memory for a row of referrers, without its annotations.
const REFERRER_ROW: usize = 4 << 10;

#[derive(Serialize)]
struct TagList<'a> {
    name: &'a RepositoryName,
    tags: Vec<Tag>,
}

impl Call<'_> {
    /// end-8a, end-8b.
    pub(crate) async fn list_tags(
        &self,
        permit: Permit<Pull>,
        page: PageRequest,
    ) -> Result<Response<ResponseBody>, Error> {
        let name = permit.repository();
        let making = self.memory_for(Purpose::Page, page.limit.max(1) * TAG_ROW).await?;
        let (tags, more) = match page.limit {
            0 => (Vec::new(), false),
            limit => {
                let found = self
                    .stores
                    .metadata
                    .tags(self.cx(), name, page.last.as_deref(), limit)
                    .await?;
                (found.items, found.more)
            }
        };
        if tags.is_empty() && self.stores.metadata.repository(self.cx(), name).await?.is_none() {
            return Err(Error::NameUnknown);
        }
        let last = tags.last().filter(|_| more).cloned();
        let mut response = self.list(making, &TagList { name, tags }).await?;
        if let Some(last) = last {
            let path = format!("/v2/{name}/tags/list");
            response::link_next(response.headers_mut(), &path, page.limit, last.as_str(), None);
        }
        Ok(response)
    }

    /// end-12a, end-12b. An unknown subject has no referrers, and neither has an unknown repository. A filtered page
    /// may be short although another page follows.
    pub(crate) async fn list_referrers(
        &self,
        permit: Permit<Pull>,
        subject: Digest,
        artifact_type: Option<MediaType>,
        page: PageRequest,
    ) -> Result<Response<ResponseBody>, Error> {
        let name = permit.repository();
        let mut examined = page.last.as_deref().map(str::parse::<Digest>).transpose()?;
        // Takes the memory before anything is read.
        let mut index = IndexPage::begin(self).await?;
        let mut left = page.limit;
        let mut more = left > 0;
        'page: while left > 0 && more {
            let found = self
                .stores
                .metadata
                .referrers(self.cx(), name, &subject, examined.as_ref(), left.min(index.rows))
                .await?;
            more = found.more && !found.items.is_empty();
            let mut is_too_small = false;
            for referrer in found.items {
                let digest = referrer.descriptor.digest;
                if artifact_type.is_none() || referrer.descriptor.artifact_type == artifact_type {
                    // Reading a manifest uses the rest of a large page's memory.
                    if referrer.annotations_omitted && !index.is_large {
                        is_too_small = true;
                        break;
                    }
                    let (descriptor, _parsed) = self.complete(name, referrer).await?;
                    let descriptor = serde_json::to_vec(&descriptor).map_err(StoreError::failed)?;
                    if !index.fits(&descriptor) {
                        if !index.is_large {
                            is_too_small = true;
                            break;
                        }
                        more = true;
                        break 'page;
                    }
                    index.push(&descriptor);
                }
                examined = Some(digest);
                left -= 1;
            }
            if is_too_small {
                // The remaining rows are read again later, so that only the page is in memory while this waits.
                index.enlarge(self).await?;
                more = true;
            } else if more {
                index.try_read_faster();
            }
        }
        let mut response = index.end(self).await?;
        let headers = response.headers_mut();
        if artifact_type.is_some() {
            headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        if let Some(examined) = examined.filter(|_| more) {
            let path = format!("/v2/{name}/referrers/{subject}");
            let filter = artifact_type.as_ref().map(MediaType::as_str);
            response::link_next(headers, &path, page.limit, &examined.to_string(), filter);
        }
        Ok(response)
    }

    /// Completes a descriptor with the annotations in the manifest, if they were too large for the referrer's row. It
    /// gets none if the manifest was deleted since the page was read, or if its object is lost.
    async fn complete(
        &self,
        repository: &RepositoryName,
        referrer: Referrer,
    ) -> Result<(Descriptor, Option<Memory>), Error> {
        let mut descriptor = referrer.descriptor;
        let mut parsed = None;
        if referrer.annotations_omitted
            && let Some(record) = self
                .stores
                .metadata
                .manifest(self.cx(), repository, &descriptor.digest)
                .await?
        {
            let found = self.bytes_to_parse(repository, &descriptor.digest, &record).await?;
            let Some((bytes, memory)) = found else {
                return Ok((descriptor, None));
            };
            parsed = Some(memory);
            let manifest = Manifest::parse(&bytes, Some(&record.media_type), &UNLIMITED).map_err(StoreError::failed)?;
            descriptor.annotations = Some(manifest.annotations);
        }
        Ok((descriptor, parsed))
    }

    /// A list as JSON, with a memory permit of its own size instead of the permit for making it.
    pub(super) async fn list(&self, making: Memory, list: &impl Serialize) -> Result<Response<ResponseBody>, Error> {
        let body = serde_json::to_vec(list).map_err(StoreError::failed)?;
        let memory = self.memory_of_page(making, body.len()).await?;
        Ok(response::json("application/json", body.into()).map(|body| body.with_memory(Some(memory))))
    }

    /// The memory for a finished page. While this waits, the memory for making it is free for others, except the size
    /// of the page.
    async fn memory_of_page(&self, mut making: Memory, length: usize) -> Result<Memory, StoreError> {
        making.shrink_to(length);
        self.memory(length).await
    }
}

/// A page of referrers that is being made.
///
/// It starts with a small amount of memory. If the page needs more, it waits for the memory of the largest page, with
/// the purpose of large responses. So a small page does not wait for large ones, and no manifest waits for a page.
struct IndexPage {
    bytes: Vec<u8>,
    /// The maximum size of the page in bytes, now and at most.
    capacity: usize,
    max_capacity: usize,
    /// The permit for the page's bytes, and for the rows that are read at once.
    memory: Memory,
    rows: usize,
    /// The memory for one row.
    row: usize,
    is_large: bool,
}

impl IndexPage {
    async fn begin(call: &Call<'_>) -> Result<Self, StoreError> {
        let limits = &call.settings.limits;
        let capacity = limits.referrers_page_bytes.min(FIRST_PAGE);
        let row = limits.referrer_annotations_bytes.saturating_add(REFERRER_ROW);
        let rows = row.saturating_mul(FIRST_REFERRERS);
        Ok(Self {
            memory: call.memory_for(Purpose::Page, capacity.saturating_add(rows)).await?,
            bytes: INDEX_BEGINS.to_vec(),
            capacity,
            max_capacity: limits.referrers_page_bytes,
            rows: FIRST_REFERRERS,
            row,
            is_large: false,
        })
    }

    /// Whether one more descriptor fits. The first descriptor of a large page always does.
    fn fits(&self, descriptor: &[u8]) -> bool {
        let is_first = self.bytes.len() == INDEX_BEGINS.len();
        is_first && self.is_large || self.bytes.len() + 1 + descriptor.len() + INDEX_ENDS.len() <= self.capacity
    }

    fn push(&mut self, descriptor: &[u8]) {
        if self.bytes.len() > INDEX_BEGINS.len() {
            self.bytes.push(b',');
        }
        self.bytes.extend_from_slice(descriptor);
    }

    /// Waits for the memory of the largest page. No rows are in memory meanwhile.
    async fn enlarge(&mut self, call: &Call<'_>) -> Result<(), StoreError> {
        self.memory.shrink_to(self.bytes.len());
        let rows = self.row.saturating_mul(FIRST_REFERRERS);
        self.memory = call
            .memory_for(Purpose::Answer, self.max_capacity.saturating_add(rows))
            .await?;
        self.rows = FIRST_REFERRERS;
        self.capacity = self.max_capacity;
        self.is_large = true;
        // Reserves all at once: a buffer that is moved while it grows is in memory twice.
        self.bytes
            .reserve_exact(self.max_capacity.saturating_sub(self.bytes.len()));
        Ok(())
    }

    /// Reads twice as many rows at once, if their memory is free.
    fn try_read_faster(&mut self) {
        let rows = (2 * self.rows).min(REFERRERS_AT_ONCE) - self.rows;
        if rows > 0 && self.memory.try_grow(rows.saturating_mul(self.row)) {
            self.rows += rows;
        }
    }

    async fn end(mut self, call: &Call<'_>) -> Result<Response<ResponseBody>, StoreError> {
        self.bytes.extend_from_slice(INDEX_ENDS);
        self.bytes.shrink_to_fit();
        let length = self.bytes.len();
        let memory = if self.is_large {
            self.memory.shrink_to(length);
            self.memory
        } else {
            call.memory_of_page(self.memory, length).await?
        };
        Ok(response::json(MediaType::OCI_INDEX, self.bytes.into()).map(|body| body.with_memory(Some(memory))))
    }
}
