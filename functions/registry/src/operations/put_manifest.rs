//! Pushes of manifests: end-7 (`PUT /v2/<name>/manifests/<reference>`).

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use oci::{Algorithm, Descriptor, Digest, Manifest, MediaType, Reference, Tag};

use super::receive::ReceivedBody;
use super::{repository_settings, tag_guard};
use crate::access::Access;
use crate::auth::TagPermit;
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::error::Error;
use crate::memory::Purpose;
use crate::response;
use crate::store::StoreError;
use crate::store::metadata::{ManifestPut, NewContent, PutManifest, Referrer, TagGuard};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");
const WARNING: HeaderName = HeaderName::from_static("warning");

impl Call<'_> {
    /// end-7a, end-7b. The bytes are stored exactly as received. The manifest and the tags of the permit become visible
    /// together. `queried` are those of them that the query names, and that the response lists.
    pub(crate) async fn put_manifest(
        &self,
        permit: TagPermit,
        reference: Reference,
        queried: Vec<Tag>,
        access: &Access<'_>,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        self.check_created(permit.push()).await?;
        let limits = &self.settings.limits;
        let content_type = content_type(headers)?;
        let ReceivedBody { bytes, memory: _held } = self.receive_manifest(headers, body).await?;
        let bounds = oci::ManifestLimits {
            max_depth: limits.json_depth,
            max_references: limits.manifest_references,
            ..oci::ManifestLimits::default()
        };
        let parsing = Manifest::memory_to_parse(&bytes, &bounds);
        let _parsing = self.memory_for(Purpose::Work, parsing).await?;
        // The body may have arrived slowly, and may have waited for memory.
        let renewed = access.renewed(permit.push(), permit.push().credential()).await?;
        let permit = match renewed {
            Some(push) => permit.with_push(push),
            None => permit,
        };
        let manifest = Manifest::parse(&bytes, content_type.as_ref(), &bounds)?;
        repository_settings::check_foreign_layers(permit.push(), &manifest)?;
        let digest = match reference {
            Reference::Digest(digest) => {
                let computed = Digest::of(digest.algorithm(), &bytes);
                if computed != digest {
                    return Err(Error::ManifestDigestMismatch { computed });
                }
                digest
            }
            Reference::Tag(_) => Digest::of(Algorithm::Sha256, &bytes),
        };
        if permit.tags().len() > limits.tags_per_push {
            return Err(Error::TooManyTags {
                limit: limits.tags_per_push,
            });
        }
        self.publish_manifest(&permit, &digest, &manifest, bytes).await?;

        let mut response = response::created(permit.push().repository(), "manifests", &digest);
        let headers = response.headers_mut();
        if let Some(subject) = &manifest.subject {
            response::insert(headers, SUBJECT, &subject.digest.to_string());
        }
        for tag in queried {
            if let Ok(value) = HeaderValue::from_str(tag.as_str()) {
                headers.append(TAG, value);
            }
        }
        if content_type.is_none() {
            headers.insert(
                WARNING,
                HeaderValue::from_static(
                    "299 - \"the push had no Content-Type: the type was taken from the manifest\"",
                ),
            );
        }
        Ok(response)
    }

    async fn publish_manifest(
        &self,
        permit: &TagPermit,
        digest: &Digest,
        manifest: &Manifest,
        bytes: Bytes,
    ) -> Result<(), Error> {
        let size = bytes.len() as u64;
        let (required, excepted) = self.settings.sparse.references(manifest);
        let referrer = referrer(manifest, digest, size, self.settings.limits.referrer_annotations_bytes);
        let mut put = PutManifest {
            repository: permit.push().repository().clone(),
            digest: *digest,
            media_type: manifest.media_type.clone(),
            size,
            content: NewContent::Inline(bytes.clone()),
            artifact_type: manifest.artifact_type.clone(),
            subject: manifest.subject.as_ref().map(|subject| (subject.digest, referrer)),
            required,
            excepted,
            tags: permit.tags().to_vec(),
            author: self.author(permit.push()),
        };
        let guard = tag_guard::of_push(permit);
        match self.put_bytes(&mut put, bytes, &guard).await? {
            ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_) => Ok(()),
            ManifestPut::Missing(digests) => Err(Error::ManifestReferencesUnknown(digests)),
            ManifestPut::OtherType(stored) => Err(Error::ManifestOfOtherType(stored)),
            ManifestPut::Protected(protected) => Err(Error::protected(permit.push(), protected)),
            ManifestPut::Gone => {
                Err(StoreError::failed("a manifest that was put with its bytes is said to have none").into())
            }
        }
    }

    /// Puts a manifest with its bytes, in its record or as an object.
    pub(super) async fn put_bytes(
        &self,
        put: &mut PutManifest,
        bytes: Bytes,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<ManifestPut, Error> {
        if bytes.len() > self.settings.limits.inline_manifest_bytes {
            return self.put_large(put, bytes, guard).await;
        }
        match self.stores.metadata.put_manifest(self.cx(), put, guard).await? {
            // The manifest's object is missing: under other limits, manifests of this size became objects.
            ManifestPut::Gone => self.put_large(put, bytes, guard).await,
            outcome => Ok(outcome),
        }
    }
}

/// The `Content-Type` of a push; parameters are ignored, as the specification says.
fn content_type(headers: &HeaderMap) -> Result<Option<MediaType>, Error> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| Error::ContentTypeInvalid)?;
    MediaType::parse(text).map(Some).map_err(|_| Error::ContentTypeInvalid)
}

/// The row of a manifest under its subject, as the referrers API lists it.
pub(super) fn referrer(manifest: &Manifest, digest: &Digest, size: u64, max_annotations: usize) -> Referrer {
    let mut descriptor = Descriptor::new(manifest.media_type.clone(), *digest, size);
    descriptor.artifact_type.clone_from(&manifest.artifact_type);
    let length = serde_json::to_vec(&manifest.annotations).map_or(usize::MAX, |json| json.len());
    let annotations_omitted = length > max_annotations;
    if !annotations_omitted && !manifest.annotations.is_empty() {
        descriptor.annotations = Some(manifest.annotations.clone());
    }
    Referrer {
        descriptor,
        annotations_omitted,
    }
}
