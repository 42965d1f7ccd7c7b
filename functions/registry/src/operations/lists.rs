//! Lists: tags (end-8), referrers (end-12) and repositories. Each costs its page, never the whole.

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response};
use oci::{Descriptor, Digest, Manifest, MediaType, RepositoryName, Tag};
use serde::Serialize;

use crate::auth::{Identity, List, Permit, Pull};
use crate::body::ResponseBody;
use crate::call::Call;
use crate::error::Error;
use crate::query::PageRequest;
use crate::response;
use crate::store::StoreError;
use crate::store::metadata::Referrer;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// What a page of referrers holds beside descriptors and commas, and some to spare, in bytes.
const ENVELOPE: usize = 128;

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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrersIndex {
    schema_version: u8,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

impl Call<'_> {
    /// end-8a, end-8b.
    pub(crate) async fn list_tags(
        &self,
        permit: Permit<Pull>,
        page: PageRequest,
    ) -> Result<Response<ResponseBody>, Error> {
        let name = permit.repository();
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
        Ok(response)
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
        Ok(response)
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
        let mut manifests = Vec::new();
        let mut bytes = ENVELOPE;
        let mut left = page.limit;
        let mut more = left > 0;
        let mut room = None;
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
            if room.is_none() && !found.items.is_empty() {
                room = Some(self.memory(self.settings.limits.referrers_page_bytes).await?);
            }
            for referrer in found.items {
                let digest = referrer.descriptor.digest;
                if artifact_type.is_none() || referrer.descriptor.artifact_type == artifact_type {
                    let descriptor = self.complete(name, referrer).await?;
                    bytes += serde_json::to_vec(&descriptor).map_err(StoreError::failed)?.len() + 1;
                    if bytes > self.settings.limits.referrers_page_bytes && !manifests.is_empty() {
                        more = true;
                        break 'page;
                    }
                    manifests.push(descriptor);
                }
                examined = Some(digest);
                left -= 1;
            }
        }
        let index = ReferrersIndex {
            schema_version: 2,
            media_type: MediaType::OCI_INDEX,
            manifests,
        };
        let mut response = to_json(&index)?;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MediaType::OCI_INDEX));
        if artifact_type.is_some() {
            headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        if let Some(examined) = examined.filter(|_| more) {
            let path = format!("/v2/{name}/referrers/{subject}");
            let filter = artifact_type.as_ref().map(MediaType::as_str);
            response::link_next(headers, &path, &page, &examined.to_string(), filter);
        }
        Ok(response.map(|body| body.holding(room)))
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
