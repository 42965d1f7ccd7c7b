//! Pulls of blobs: end-2 (`GET` and `HEAD /v2/<name>/blobs/<digest>`).

use std::ops::Range;

use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use oci::{Digest, RepositoryName};

use super::objects::RecordedLocation;
use super::ranges::{self, Wanted};
use crate::auth::{Permit, Pull, Push};
use crate::body::ResponseBody;
use crate::call::Call;
use crate::delivery::{Client, Delivery};
use crate::environment::random_u64;
use crate::error::Error;
use crate::own_host;
use crate::response::{self, IMMUTABLE};
use crate::store::blobs::{ByteStream, Reached, Redirect, RedirectRequest};
use crate::store::metadata::Link;
use crate::store::{Location, StoreError};

/// Blobs are served as bytes: their media types are in manifests, and a browser must not interpret them.
const BLOB_TYPE: &str = "application/octet-stream";

impl Call<'_> {
    /// end-2. One table read. A GET of the whole blob, or of one range, is redirected if the store supports redirects.
    /// HEAD is always answered here, and so are several ranges, which object stores do not serve, unless the answer is too
    /// large for the door ([`Limits::blob_answer_bytes`](crate::Limits)).
    pub(crate) async fn get_blob(
        &self,
        permit: Permit<Pull>,
        digest: Digest,
        head: &Parts,
    ) -> Result<Response<ResponseBody>, Error> {
        let headers = &head.headers;
        let head_only = head.method == Method::HEAD;
        let repository = permit.repository();
        // A client that may push uses HEAD to find out whether it must upload the blob. It relies on the answer, so the
        // link is unmarked.
        let link = if head_only && permit.also::<Push>() {
            self.stores
                .metadata
                .link_and_unmark(self.cx(), repository, &digest)
                .await?
        } else {
            self.stores.metadata.link(self.cx(), repository, &digest).await?
        };
        let link = link.ok_or(Error::BlobUnknown)?;
        // The HEAD of a client that is about to push: it must upload the lost blob again, whatever the
        // conditions of the request.
        if head_only && link.defect.is_some() {
            return Err(Error::BlobUnknown);
        }
        ranges::check_match(headers, &digest)?;
        let mut response = if ranges::not_modified(headers, &digest) {
            response::empty(StatusCode::NOT_MODIFIED)
        } else if head_only {
            let mut response = response::empty(StatusCode::OK);
            response.headers_mut().insert(CONTENT_LENGTH, link.size.into());
            response
        } else {
            let wanted = ranges::wanted(headers, &digest, link.size, self.settings.limits.ranges)?;
            let is_too_large = self.is_too_large(link.size, &wanted);
            // Only a read can tell whether an object with a defect exists again.
            let link = if is_too_large {
                self.found_again(repository, &digest, link).await?
            } else {
                link
            };
            match self.redirect(repository, &link, &wanted, is_too_large, head).await? {
                Some(redirect) => return redirected(&redirect, &digest),
                None if is_too_large => return Err(cannot_leave(repository, &digest).into()),
                None => self.send(repository, &digest, &link, wanted).await?,
            }
        };
        let headers = response.headers_mut();
        response::identify_content(headers, &digest);
        headers.insert(CACHE_CONTROL, IMMUTABLE);
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(BLOB_TYPE));
        }
        Ok(response)
    }

    async fn redirect(
        &self,
        repository: &RepositoryName,
        link: &Link,
        wanted: &Wanted,
        is_too_large: bool,
        head: &Parts,
    ) -> Result<Option<Redirect>, Error> {
        let client = head.extensions.get::<Client>().map(|client| client.0);
        let reached_by = match self.settings.delivery.delivery(repository, client) {
            _ if !is_too_large && is_better_sent(link, wanted, head) => return Ok(None),
            // The operator says that clients do not reach the object store.
            Delivery::Proxy => return Ok(None),
            Delivery::Redirect => Reached::ByAll,
            Delivery::Auto => client.map_or(Reached::ByAnyone, Reached::By),
        };
        let request = RedirectRequest {
            content_type: BLOB_TYPE,
            reached_by,
        };
        let redirect = self
            .stores
            .blobs
            .redirect(self.environment.now(), &link.location, request);
        // The client would send its password to the object store.
        Ok(redirect
            .await?
            .filter(|redirect| !own_host::leads_back(&redirect.url, head)))
    }

    /// Whether the answer is too large for the door of the registry.
    fn is_too_large(&self, size: u64, wanted: &Wanted) -> bool {
        let Some(limit) = self.settings.limits.blob_answer_bytes else {
            return false;
        };
        let length = match wanted {
            Wanted::Whole => size,
            Wanted::One(range) => range.end - range.start,
            // Every boundary has the same length.
            Wanted::Several(ranges) => ranges::Multipart::new(ranges.clone(), size, BLOB_TYPE, &boundary(0)).length(),
        };
        length > limit
    }

    /// The link with the present location of its object. If the object has a recorded defect, one byte of it is read: it may
    /// exist again, or be elsewhere.
    async fn found_again(&self, repository: &RepositoryName, digest: &Digest, link: Link) -> Result<Link, Error> {
        if link.defect.is_none() {
            return Ok(link);
        }
        let recorded = RecordedLocation {
            repository,
            digest,
            location: &link.location,
            defect: link.defect,
        };
        let found = self.open_object(recorded, 0..1).await?;
        let (_, location) = found.ok_or(Error::BlobUnknown)?;
        Ok(Link {
            location,
            defect: None,
            ..link
        })
    }

    async fn send(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        link: &Link,
        wanted: Wanted,
    ) -> Result<Response<ResponseBody>, Error> {
        let first = match &wanted {
            Wanted::Whole if link.size == 0 => return Ok(Response::new(ResponseBody::empty())),
            Wanted::Whole => 0..link.size,
            Wanted::One(range) => range.clone(),
            Wanted::Several(ranges) => ranges.first().cloned().unwrap_or_default(),
        };
        let recorded = RecordedLocation {
            repository,
            digest,
            location: &link.location,
            defect: link.defect,
        };
        let length = match &wanted {
            Wanted::One(range) => range.end - range.start,
            Wanted::Whole | Wanted::Several(_) => link.size,
        };
        let memory = self.memory_to_stream(length).await?;
        let (stream, location) = self
            .open_ranges(recorded, first, &wanted)
            .await?
            .ok_or(Error::BlobUnknown)?;
        match wanted {
            Wanted::Whole => Ok(Response::new(
                ResponseBody::stream(stream, link.size).with_memory(Some(memory)),
            )),
            Wanted::One(range) => {
                let content_range = ranges::content_range(&range, link.size);
                let body = ResponseBody::stream(stream, range.end - range.start);
                let mut response = Response::new(body.with_memory(Some(memory)));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                response::insert(response.headers_mut(), CONTENT_RANGE, &content_range);
                Ok(response)
            }
            Wanted::Several(wanted) => {
                let boundary = boundary(random_u64(&*self.environment));
                let multipart = ranges::Multipart::new(wanted, link.size, BLOB_TYPE, &boundary);
                let length = multipart.length();
                let content_type = multipart.content_type();
                let stream = multipart.stream(self.later_contexts(), self.stores.blobs.clone(), location, stream);
                let mut response = Response::new(ResponseBody::stream(stream, length).with_memory(Some(memory)));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                response::insert(response.headers_mut(), CONTENT_TYPE, &content_type);
                Ok(response)
            }
        }
    }

    /// Opens the first of the ranges. The others are opened while the response is sent, when it is too late to report
    /// lost bytes. So the last byte of all ranges is read before, unless the first range ends there.
    async fn open_ranges(
        &self,
        recorded: RecordedLocation<'_>,
        first: Range<u64>,
        wanted: &Wanted,
    ) -> Result<Option<(ByteStream, Location)>, StoreError> {
        let end = match wanted {
            Wanted::Several(ranges) => ranges.iter().map(|range| range.end).max().unwrap_or(first.end),
            Wanted::Whole | Wanted::One(_) => first.end,
        };
        if end == first.end {
            return self.open_object(recorded, first).await;
        }
        let RecordedLocation { repository, digest, .. } = recorded;
        let Some((_, location)) = self.open_object(recorded, end - 1..end).await? else {
            return Ok(None);
        };
        let recorded = RecordedLocation {
            repository,
            digest,
            location: &location,
            defect: None,
        };
        self.open_object(recorded, first).await
    }
}

/// Whether the registry sends an answer itself although pulls are redirected: the object store would send another one.
fn is_better_sent(link: &Link, wanted: &Wanted, head: &Parts) -> bool {
    // An empty blob needs no redirect, and an object store refuses every range of it. For an object with a defect,
    // only a read can tell whether it exists again.
    link.size == 0
        || link.defect.is_some()
        || ranges::has_conditions(&head.headers)
        // Object stores handle several ranges differently, even if they are one range or the whole blob here.
        || ranges::are_several(&head.headers)
        || match wanted {
            // The object store also sends the whole blob: it does not know the entity tags in `If-Range`.
            Wanted::Whole => false,
            // For the same reason, a range with a condition would become the whole blob.
            Wanted::One(_) => head.headers.contains_key(IF_RANGE),
            Wanted::Several(_) => true,
        }
}

/// A fault of the operator: nothing can bring the bytes to the client.
fn cannot_leave(repository: &RepositoryName, digest: &Digest) -> StoreError {
    StoreError::failed(format!(
        "the answer with {digest} of {repository} is too large to be sent through this door of the registry, and the client \
         cannot be redirected: the object store has the host name of the registry, or pulls go through the registry"
    ))
}

/// The boundary of the parts of an answer with several ranges.
fn boundary(random: u64) -> String {
    format!("{random:016x}")
}

/// 307 to the object store. The URL grants access to the blob, so the response is private, and no cache keeps it for
/// longer than the URL is valid.
fn redirected(redirect: &Redirect, digest: &Digest) -> Result<Response<ResponseBody>, Error> {
    let mut response = response::empty(StatusCode::TEMPORARY_REDIRECT);
    let headers = response.headers_mut();
    let location = HeaderValue::from_str(&redirect.url)
        .map_err(|_| StoreError::failed("the blob store made a URL that cannot stand in a header"))?;
    headers.insert(LOCATION, location);
    response::insert(
        headers,
        CACHE_CONTROL,
        &format!("private, max-age={}", redirect.lifetime.as_secs()),
    );
    response::insert(headers, response::CONTENT_DIGEST, &digest.to_string());
    Ok(response)
}
