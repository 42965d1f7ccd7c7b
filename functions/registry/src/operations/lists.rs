//! Lists: tags (end-8), referrers (end-12) and repositories. Each costs its page, never the whole.

use http::{HeaderName, HeaderValue, Response};
use oci::{Descriptor, Digest, Manifest, MediaType, RepositoryName, Tag};
use serde::Serialize;

use crate::auth::{Identity, List, Permit, Pull};
use crate::body::ResponseBody;
use crate::call::Call;
use crate::environment::Purpose;
use crate::error::Error;
use crate::query::PageRequest;
use crate::response;
use crate::store::StoreError;
use crate::store::metadata::Referrer;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// A page of referrers is an index without anything but this around its descriptors.
const INDEX_BEGINS: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#;
const INDEX_ENDS: &[u8] = b"]}";

/// While a page of referrers is made, it takes this many times the memory of the largest page: the page, which moves
/// while it grows, and the rows of which the next part of it is made.
const MAKING_A_PAGE: usize = 3;

/// A page grows by this many bytes at once.
const PAGE_STEP: usize = 256 << 10;

/// Memory for one row of a page of tags, and of repositories: its name, as a value and as JSON.
const TAG_ROW: usize = 320;
const REPOSITORY_ROW: usize = 640;

/// Rows of referrers read at once. Each may hold annotations of 32 KiB, and a whole page of them should not lie in
/// memory only to be cut down to its bytes.
const REFERRERS_AT_ONCE: usize = 100;

#[derive(Serialize)]
struct TagList<'a> {
    name: &'a RepositoryName,
    tags: Vec<Tag>,
}

#[derive(Serialize)]
struct RepositoryList {
    repositories: Vec<RepositoryName>,
}

impl Call<'_> {
    /// end-8a, end-8b.
    pub(crate) async fn list_tags(
        &self,
        permit: Permit<Pull>,
        page: PageRequest,
    ) -> Result<Response<ResponseBody>, Error> {
        let name = permit.repository();
        let memory = self.memory(page.limit.max(1) * TAG_ROW).await?;
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
        if tags.is_empty() && !self.stores.metadata.repository(self.cx(), name).await? {
            return Err(Error::NameUnknown);
        }
        let last = tags.last().filter(|_| more).cloned();
        let mut response = to_json(&TagList { name, tags })?;
        if let Some(last) = last {
            let path = format!("/v2/{name}/tags/list");
            response::link_next(response.headers_mut(), &path, &page, last.as_str(), None);
        }
        Ok(response.map(|body| body.holding(Some(memory))))
    }

    /// The catalog, reduced to what the caller may see. Reads on where it may see nothing.
    pub(crate) async fn list_repositories(
        &self,
        identity: &Identity,
        page: PageRequest,
    ) -> Result<Response<ResponseBody>, Error> {
        if page.limit == 0 {
            return to_json(&RepositoryList {
                repositories: Vec::new(),
            });
        }
        let memory = self.memory(page.limit * REPOSITORY_ROW).await?;
        let mut after = page.last.clone();
        let (repositories, more) = loop {
            let found = self
                .stores
                .metadata
                .repositories(self.cx(), after.as_deref(), page.limit)
                .await?;
            let last = found.items.last().map(ToString::to_string);
            let mut visible = found.items;
            visible.retain(|repository| identity.permit::<List>(repository).is_ok());
            // A page ends with a name that the caller may see: the Link to the next one names it.
            if !visible.is_empty() || !found.more || last.is_none() {
                break (visible, found.more);
            }
            after = last;
        };
        let last = repositories.last().filter(|_| more).cloned();
        let mut response = to_json(&RepositoryList { repositories })?;
        if let Some(last) = last {
            response::link_next(response.headers_mut(), "/v2/_catalog", &page, last.as_str(), None);
        }
        Ok(response.map(|body| body.holding(Some(memory))))
    }

    /// end-12a, end-12b. An unknown subject has no referrers, and neither has an unknown repository. A filtered page
    /// may be short, and still have a next one.
    pub(crate) async fn list_referrers(
        &self,
        permit: Permit<Pull>,
        subject: Digest,
        artifact_type: Option<MediaType>,
        page: PageRequest,
    ) -> Result<Response<ResponseBody>, Error> {
        let name = permit.repository();
        let mut examined = page.last.as_deref().map(str::parse::<Digest>).transpose()?;
        let most = self.settings.limits.referrers_page_bytes;
        // Before anything is read; and the finished page is held under another permit, for as long as it is sent.
        let making = self
            .memory_for(Purpose::Work, most.saturating_mul(MAKING_A_PAGE))
            .await?;
        let mut index = INDEX_BEGINS.to_vec();
        let mut left = page.limit;
        let mut more = left > 0;
        'page: while left > 0 && more {
            let found = self
                .stores
                .metadata
                .referrers(
                    self.cx(),
                    name,
                    &subject,
                    examined.as_ref(),
                    left.min(REFERRERS_AT_ONCE),
                )
                .await?;
            more = found.more && !found.items.is_empty();
            for referrer in found.items {
                let digest = referrer.descriptor.digest;
                if artifact_type.is_none() || referrer.descriptor.artifact_type == artifact_type {
                    let descriptor = self.complete(name, referrer).await?;
                    let descriptor = serde_json::to_vec(&descriptor).map_err(StoreError::failed)?;
                    let is_first = index.len() == INDEX_BEGINS.len();
                    if index.len() + 1 + descriptor.len() + INDEX_ENDS.len() > most && !is_first {
                        more = true;
                        break 'page;
                    }
                    if index.capacity() - index.len() <= descriptor.len() {
                        index.reserve_exact(PAGE_STEP.max(descriptor.len() + 1));
                    }
                    if !is_first {
                        index.push(b',');
                    }
                    index.extend_from_slice(&descriptor);
                }
                examined = Some(digest);
                left -= 1;
            }
        }
        index.extend_from_slice(INDEX_ENDS);
        index.shrink_to_fit();
        let memory = self.memory(index.len()).await?;
        drop(making);
        let mut response = response::json(MediaType::OCI_INDEX, index.into());
        let headers = response.headers_mut();
        if artifact_type.is_some() {
            headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        if let Some(examined) = examined.filter(|_| more) {
            let path = format!("/v2/{name}/referrers/{subject}");
            let filter = artifact_type.as_ref().map(MediaType::as_str);
            response::link_next(headers, &path, &page, &examined.to_string(), filter);
        }
        Ok(response.map(|body| body.holding(Some(memory))))
    }

    /// Annotations that were too large for the referrer's row are read from its manifest. A manifest that was deleted
    /// since the page was read has none, and neither has one whose object is lost.
    async fn complete(&self, repository: &RepositoryName, referrer: Referrer) -> Result<Descriptor, Error> {
        let mut descriptor = referrer.descriptor;
        if referrer.annotations_omitted
            && let Some(record) = self
                .stores
                .metadata
                .manifest(self.cx(), repository, &descriptor.digest)
                .await?
        {
            let media_type = record.media_type.clone();
            let Some(bytes) = self.manifest_bytes(repository, &descriptor.digest, record).await? else {
                return Ok(descriptor);
            };
            // It was valid under the limits of its day, which may have been wider than today's.
            let unlimited = oci::Limits {
                max_depth: usize::MAX,
                max_references: usize::MAX,
                max_values: usize::MAX,
            };
            let manifest = Manifest::parse(&bytes, Some(&media_type), &unlimited).map_err(StoreError::failed)?;
            descriptor.annotations = Some(manifest.annotations);
        }
        Ok(descriptor)
    }
}

fn to_json(value: &impl Serialize) -> Result<Response<ResponseBody>, Error> {
    let body = serde_json::to_vec(value).map_err(StoreError::failed)?;
    Ok(response::json("application/json", body.into()))
}
