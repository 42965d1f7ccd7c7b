//! Manifests: end-3, end-7 and end-9.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use oci::{Algorithm, Descriptor, Digest, Manifest, MediaType, Reference, RepositoryName, Tag};

use super::blobs::IMMUTABLE;
use super::ends::leave_to_expiry;
use super::objects::Named;
use super::ranges;
use super::receive::Received;
use crate::auth::{Delete, Identity, Permit, Pull, Push};
use crate::body::{RequestBody, ResponseBody};
use crate::call::{Call, SMALL_ANSWER};
use crate::environment::{Memory, Purpose};
use crate::error::Error;
use crate::response;
use crate::store::blobs::{BodyError, ByteStream, Source, Upload};
use crate::store::metadata::{
    Content, Defect, ManifestPut, ManifestRecord, NewContent, PutManifest, Referrer, Removal, TagRecord,
};
use crate::store::sessions::{Claim, Claimed, End, Expected, Publishing};
use crate::store::{Location, StoreError};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");
const WARNING: HeaderName = HeaderName::from_static("warning");

/// What a tag names may change with the next request.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

impl Call<'_> {
    /// end-3. By digest one table read, by tag two where the store cannot join them, and one for a HEAD by tag of a small
    /// manifest that is whole. `reference` is `None` where the text cannot be a tag.
    pub(crate) async fn get_manifest(
        &self,
        permit: Permit<Pull>,
        reference: Option<Reference>,
        headers: &HeaderMap,
        head_only: bool,
    ) -> Result<Response<ResponseBody>, Error> {
        let cache = match &reference {
            Some(Reference::Digest(_)) => IMMUTABLE,
            _ => REVALIDATE,
        };
        // Before the row is read: most manifests lie in it.
        let memory = if head_only {
            None
        } else {
            Some(self.memory(self.usual_manifest()).await?)
        };
        let (digest, media_type, size, record) = match reference.ok_or(Error::ManifestUnknown)? {
            Reference::Digest(digest) => {
                let record = self
                    .stores
                    .metadata
                    .manifest(self.cx(), permit.repository(), &digest)
                    .await?;
                let record = record.ok_or(Error::ManifestUnknown)?;
                (digest, record.media_type.clone(), record.size, Some(record))
            }
            Reference::Tag(tag) if head_only => {
                let tag = self.stores.metadata.tag(self.cx(), permit.repository(), &tag).await?;
                let tag = tag.ok_or(Error::ManifestUnknown)?;
                let record = self.record_of_suspect(permit.repository(), &tag).await?;
                (tag.digest, tag.media_type, tag.size, record)
            }
            Reference::Tag(tag) => {
                let (digest, record) = self.tagged_manifest(&permit, &tag).await?;
                (digest, record.media_type.clone(), record.size, Some(record))
            }
        };
        if !accepts(headers, &media_type) {
            return Err(Error::NotAcceptable(media_type));
        }
        if let Some(record) = &record {
            let is_lost = self.is_cut(permit.repository(), &digest, record).await?;
            if is_lost || (head_only && record.content.is_defective()) {
                return Err(Error::ManifestUnknown);
            }
        }
        ranges::check_match(headers, &digest)?;
        let mut response = if ranges::not_modified(headers, &digest) {
            response::empty(StatusCode::NOT_MODIFIED)
        } else {
            let mut response = match (record, memory) {
                (Some(record), Some(memory)) => {
                    self.manifest_body(permit.repository(), &digest, record, memory).await?
                }
                _ => response::empty(StatusCode::OK),
            };
            response.headers_mut().insert(CONTENT_LENGTH, size.into());
            response
        };
        let headers = response.headers_mut();
        response::identify_content(headers, &digest);
        response::insert(headers, CONTENT_TYPE, media_type.as_str());
        headers.insert(CACHE_CONTROL, cache);
        Ok(response)
    }

    /// The manifest of a tag, if that is not enough to answer HEAD: its bytes may be in an object that is recorded as
    /// lost, or the record was recorded as damaged. A client that is told that it is there does not push it.
    async fn record_of_suspect(
        &self,
        repository: &RepositoryName,
        tag: &TagRecord,
    ) -> Result<Option<ManifestRecord>, StoreError> {
        if !tag.is_suspect && tag.size <= self.settings.limits.inline_manifest_bytes as u64 {
            return Ok(None);
        }
        self.stores.metadata.manifest(self.cx(), repository, &tag.digest).await
    }

    /// Whether the record holds fewer or more bytes than it says: it is damaged, which is recorded.
    async fn is_cut(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<bool, StoreError> {
        match &record.content {
            Content::Inline(bytes) if bytes.len() as u64 != record.size => {
                let metadata = &self.stores.metadata;
                metadata.record_damaged_manifest(self.cx(), repository, digest).await?;
                tracing::error!(
                    %repository,
                    %digest,
                    "a manifest is damaged in its record; it is answered with 404 until it is pushed again"
                );
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A tag that moved between the two reads leaves a digest whose manifest may be gone: it is read again.
    async fn tagged_manifest(&self, permit: &Permit<Pull>, tag: &Tag) -> Result<(Digest, ManifestRecord), Error> {
        let mut seen = None;
        loop {
            let metadata = &self.stores.metadata;
            let found = metadata.tagged_manifest(self.cx(), permit.repository(), tag).await?;
            let (found, record) = found.ok_or(Error::ManifestUnknown)?;
            if let Some(record) = record {
                return Ok((found.digest, record));
            }
            if seen == Some(found.version) {
                return Err(StoreError::damaged("a tag names a manifest that is missing").into());
            }
            seen = Some(found.version);
        }
    }

    /// For so many bytes of a manifest memory is asked for before anything is known of it.
    fn usual_manifest(&self) -> usize {
        self.settings.limits.inline_manifest_bytes.min(SMALL_ANSWER)
    }

    async fn manifest_body(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        record: ManifestRecord,
        mut memory: Memory,
    ) -> Result<Response<ResponseBody>, Error> {
        let body = match record.content {
            Content::Inline(bytes) if bytes.len() <= self.usual_manifest() => {
                memory.shrink_to(bytes.len());
                ResponseBody::full(bytes).with_memory(Some(memory))
            }
            Content::Inline(bytes) => {
                drop(memory);
                let memory = self.memory(bytes.len()).await?;
                ResponseBody::full(bytes).with_memory(Some(memory))
            }
            content => {
                drop(memory);
                let memory = self.memory_to_stream(record.size).await?;
                let stream = Box::pin(self.open_manifest(repository, digest, &content, record.size)).await?;
                ResponseBody::stream(stream.ok_or(Error::ManifestUnknown)?, record.size).with_memory(Some(memory))
            }
        };
        Ok(Response::new(body))
    }

    /// The bytes of a manifest that lie in an object; `None`: they are lost.
    async fn open_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        content: &Content,
        size: u64,
    ) -> Result<Option<ByteStream>, StoreError> {
        let Some(location) = content.object() else {
            return Ok(None);
        };
        let named = Named {
            repository,
            digest,
            location,
            defect: match content {
                Content::Defective(_, defect) => Some(*defect),
                Content::Inline(_) | Content::Stored(_) | Content::Damaged(_) => None,
            },
        };
        let opened = self.open_object(named, 0..size).await?;
        Ok(opened.map(|(stream, _)| stream))
    }

    /// All bytes of a manifest: bounded, because manifests are. `None`: they are lost.
    pub(super) async fn manifest_bytes(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        record: ManifestRecord,
    ) -> Result<Option<Bytes>, StoreError> {
        if let Content::Inline(bytes) = record.content {
            return Ok(Some(bytes));
        }
        let stream = self
            .open_manifest(repository, digest, &record.content, record.size)
            .await?;
        let Some(mut stream) = stream else {
            return Ok(None);
        };
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes.freeze()))
    }

    /// end-7a, end-7b. The bytes are stored exactly as received; the manifest and its tags appear together.
    pub(crate) async fn put_manifest(
        &self,
        permit: Permit<Push>,
        identity: &Identity,
        reference: Reference,
        mut tags: Vec<Tag>,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        let limits = &self.settings.limits;
        let content_type = content_type(headers)?;
        let Received { bytes, memory: _held } = self.receive_manifest(headers, body).await?;
        let bounds = oci::Limits {
            max_depth: limits.json_depth,
            max_references: limits.manifest_references,
            ..oci::Limits::default()
        };
        let parsing = Manifest::memory_to_parse(&bytes, &bounds);
        let _parsing = self.memory_for(Purpose::Work, parsing).await?;
        let manifest = Manifest::parse(&bytes, content_type.as_ref(), &bounds)?;
        let answered_tags = tags.clone();
        let digest = match reference {
            Reference::Digest(digest) => {
                let computed = Digest::of(digest.algorithm(), &bytes);
                if computed != digest {
                    return Err(Error::ManifestDigestMismatch { computed });
                }
                digest
            }
            Reference::Tag(tag) => {
                if !tags.contains(&tag) {
                    tags.push(tag);
                }
                Digest::of(Algorithm::Sha256, &bytes)
            }
        };
        if tags.len() > limits.tags_per_push {
            return Err(Error::TooManyTags {
                limit: limits.tags_per_push,
            });
        }
        self.publish_manifest(&permit, identity, &digest, &manifest, bytes, tags)
            .await?;

        let mut response = response::created(permit.repository(), "manifests", &digest);
        let headers = response.headers_mut();
        if let Some(subject) = &manifest.subject {
            response::insert(headers, SUBJECT, &subject.digest.to_string());
        }
        for tag in answered_tags {
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
        permit: &Permit<Push>,
        identity: &Identity,
        digest: &Digest,
        manifest: &Manifest,
        bytes: Bytes,
        tags: Vec<Tag>,
    ) -> Result<(), Error> {
        let size = bytes.len() as u64;
        let (required, excepted) = self.settings.sparse.references(manifest);
        let referrer = referrer(manifest, digest, size, self.settings.limits.referrer_annotations_bytes);
        let mut put = PutManifest {
            repository: permit.repository().clone(),
            digest: *digest,
            media_type: manifest.media_type.clone(),
            size,
            content: NewContent::Inline(bytes.clone()),
            artifact_type: manifest.artifact_type.clone(),
            subject: manifest.subject.as_ref().map(|subject| (subject.digest, referrer)),
            required,
            excepted,
            tags,
            who: identity.principal().to_string(),
        };
        let outcome = if bytes.len() > self.settings.limits.inline_manifest_bytes {
            self.put_large(&mut put, bytes).await?
        } else {
            match self.stores.metadata.put_manifest(self.cx(), &put).await? {
                // It lies in an object, which is missing: manifests of this size did so under other limits.
                ManifestPut::Gone => self.put_large(&mut put, bytes).await?,
                outcome => outcome,
            }
        };
        match outcome {
            ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_) => Ok(()),
            ManifestPut::Missing(digests) => Err(Error::ManifestReferencesUnknown(digests)),
            ManifestPut::OtherType(stored) => Err(Error::ManifestOfOtherType(stored)),
            ManifestPut::Gone => {
                Err(StoreError::failed("a manifest that was put with its bytes is said to have none").into())
            }
        }
    }

    /// Puts a manifest that is too large for the table: its bytes become an object, unless they are one already. Like
    /// an upload's, the object is named by a session's row before it exists, so that a crash leaves nothing that
    /// cannot be found.
    async fn put_large(&self, put: &mut PutManifest, bytes: Bytes) -> Result<ManifestPut, Error> {
        let metadata = &self.stores.metadata;
        let known = match self.found(put).await? {
            StoredBytes::Whole => Some(NewContent::Unchanged),
            StoredBytes::DamagedRecord => Some(NewContent::Inline(bytes.clone())),
            StoredBytes::None => None,
        };
        if let Some(content) = known {
            put.content = content;
            let outcome = metadata.put_manifest(self.cx(), put).await?;
            // Deleted between the two: then its bytes are no longer anybody's, and are stored again.
            if outcome != ManifestPut::Gone {
                return Ok(outcome);
            }
        }
        let Claimed::Granted(claim) = self.claim(self.new_session_key(), Expected::New, 1).await? else {
            return Err(StoreError::failed("a new session is not new").into());
        };
        let (location, leaves_something) = self.store_bytes(&claim, bytes).await?;
        let publishing = Publishing {
            digest: put.digest,
            location,
            size: put.size,
        };
        if !self.stores.sessions.commit(self.cx(), &claim, &publishing).await? {
            return Err(StoreError::unavailable("storing a manifest took longer than its claim").into());
        }
        put.content = NewContent::Sealed(publishing.location);
        let outcome = metadata.put_manifest(self.cx(), put).await?;
        if let (ManifestPut::StoredElsewhere(other), NewContent::Sealed(offered)) = (&outcome, &put.content) {
            self.make_sure(&put.digest, put.size, offered, other.clone()).await?;
        }
        let end = match outcome {
            ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_) => End::Done,
            ManifestPut::Missing(_) | ManifestPut::OtherType(_) | ManifestPut::Gone => End::Cancelled,
        };
        // A row that is done tells collection nothing.
        if !(end == End::Done && leaves_something) {
            leave_to_expiry(self.stores.sessions.finish(self.cx(), &claim, end).await);
        }
        Ok(outcome)
    }

    /// What there is of the manifest's bytes: one request to the blob store, if they lie in an object. What
    /// is not there is recorded, so that it can be replaced.
    async fn found(&self, put: &PutManifest) -> Result<StoredBytes, StoreError> {
        let metadata = &self.stores.metadata;
        let record = metadata.manifest(self.cx(), &put.repository, &put.digest).await?;
        match record.map(|record| record.content) {
            None | Some(Content::Defective(..)) => Ok(StoredBytes::None),
            Some(Content::Inline(_)) => Ok(StoredBytes::Whole),
            Some(Content::Damaged(_)) => Ok(StoredBytes::DamagedRecord),
            Some(Content::Stored(location)) => {
                if self.is_whole(&location, put.size).await? {
                    return Ok(StoredBytes::Whole);
                }
                let (repository, defect) = (Some(&put.repository), Defect::Missing);
                metadata
                    .record_defect(self.cx(), repository, &put.digest, &location, defect)
                    .await?;
                Ok(StoredBytes::None)
            }
        }
    }

    /// Where the bytes lie now, and whether anything else was left behind.
    async fn store_bytes(&self, claim: &Claim, bytes: Bytes) -> Result<(Location, bool), Error> {
        let size = bytes.len() as u64;
        let appended = self
            .stores
            .blobs
            .append(self.cx(), claim.attempt, &[], &mut OneChunk(Some(bytes)))
            .await?;
        let leaves_something = self.stores.blobs.leaves_something(&appended.state);
        let parts = appended.part.into_iter().collect();
        let upload = Upload {
            session: claim.key.id,
            state: appended.state,
            parts,
            size,
        };
        let location = self.stores.blobs.seal(self.sealing(), &upload).await?;
        Ok((location, leaves_something))
    }

    /// end-9: a tag alone, or a manifest with all its tags.
    pub(crate) async fn delete_manifest(
        &self,
        permit: Permit<Delete>,
        identity: &Identity,
        reference: Option<Reference>,
    ) -> Result<Response<ResponseBody>, Error> {
        let who = identity.principal().to_string();
        let metadata = &self.stores.metadata;
        let removal = match reference {
            None => Removal::Absent,
            Some(Reference::Tag(tag)) => {
                let removed = metadata.delete_tag(self.cx(), permit.repository(), &tag, &who).await?;
                if removed { Removal::Removed } else { Removal::Absent }
            }
            Some(Reference::Digest(digest)) => {
                metadata
                    .delete_manifest(self.cx(), permit.repository(), &digest, &who)
                    .await?
            }
        };
        match removal {
            Removal::Removed => Ok(response::empty(StatusCode::ACCEPTED)),
            Removal::Absent => Err(Error::ManifestUnknown),
            Removal::Referenced(referrer) => Err(Error::Referenced(referrer)),
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

/// The row under which a manifest is shown by the referrers API of its subject.
fn referrer(manifest: &Manifest, digest: &Digest, size: u64, max_annotations: usize) -> Referrer {
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

/// Whether a client that lists what it accepts, on one header line or several, accepts this type (RFC 9110, 12.5.1).
/// No list accepts everything; `application/json` accepts every type that is JSON.
fn accepts(headers: &HeaderMap, media_type: &MediaType) -> bool {
    let mut listed = false;
    for value in headers.get_all(ACCEPT) {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            listed = true;
            let mut parameters = range.split(';').map(str::trim);
            let name = parameters.next().unwrap_or_default();
            let refused = parameters.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            let matches = name == "*/*"
                || name == media_type.as_str()
                || (name == "application/*" && media_type.as_str().starts_with("application/"))
                || (name == "application/json" && media_type.is_json());
            if matches && !refused {
                return true;
            }
        }
    }
    !listed
}

/// What there is of the bytes of a manifest that is put.
enum StoredBytes {
    /// All of them, as far as is known.
    Whole,
    /// Others, in the record, which has to hold the right ones.
    DamagedRecord,
    /// None.
    None,
}

/// Bytes at hand as a body.
struct OneChunk(Option<Bytes>);

#[async_trait]
impl Source for OneChunk {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(self.0.take())
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}
