//! A blob is pulled: end-2.

use std::ops::Range;

use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use oci::{Digest, RepositoryName};

use super::objects::Named;
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

/// Blobs are served as bytes: their own media types live in manifests, and a browser must not interpret them.
const BLOB_TYPE: &str = "application/octet-stream";

impl Call<'_> {
    /// end-2. One table read. A GET of the whole blob or of one range is redirected where the store can; HEAD is
    /// always answered here, as are several ranges, which object stores do not serve.
    pub(crate) async fn get_blob(
        &self,
        permit: Permit<Pull>,
        digest: Digest,
        head: &Parts,
    ) -> Result<Response<ResponseBody>, Error> {
        let headers = &head.headers;
        let head_only = head.method == Method::HEAD;
        let repository = permit.repository();
        // A client that may push and finds the blob here does not push it again: a collection must not delete it meanwhile.
        let link = if head_only && permit.also::<Push>() {
            self.stores
                .metadata
                .link_and_unmark(self.cx(), repository, &digest)
                .await?
        } else {
            self.stores.metadata.link(self.cx(), repository, &digest).await?
        };
        let link = link.ok_or(Error::BlobUnknown)?;
        // A client that asks in order to push must push the blob again, whatever its conditions are.
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
            match self.redirect(repository, &link, &wanted, head).await? {
                Some(redirect) => return redirected(&redirect, &digest),
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
        head: &Parts,
    ) -> Result<Option<Redirect>, Error> {
        // An object store refuses every range of an empty object. Of an object that is recorded as missing only a read tells
        // whether it is back.
        let here = link.size == 0 || link.defect.is_some() || ranges::has_conditions(&head.headers);
        let here = here
            || match wanted {
                // `If-Range` names another entity tag than the object store's, which then sends the whole, too.
                Wanted::Whole => false,
                // For the same reason the object store would send the whole instead of a range.
                Wanted::One(_) => head.headers.contains_key(IF_RANGE),
                Wanted::Several(_) => true,
            };
        let client = head.extensions.get::<Client>().map(|client| client.0);
        let reached_by = match self.settings.delivery.delivery(repository, client) {
            // Object stores differ in what they answer to several ranges, also if these come to one or to the whole here.
            _ if here || ranges::are_several(&head.headers) => return Ok(None),
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
        // To its registry's own host the client would send its password along.
        Ok(redirect
            .await?
            .filter(|redirect| !own_host::leads_back(&redirect.url, head)))
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
        let named = Named {
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
            .open_ranges(named, first, &wanted)
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
                let boundary = format!("{:016x}", random_u64(&*self.environment));
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

    /// Opens the first of the ranges that are wanted. The others are opened while the answer is sent, when it is too late to
    /// say that their bytes are lost: so the last byte of all is read before, unless the first range ends there.
    async fn open_ranges(
        &self,
        named: Named<'_>,
        first: Range<u64>,
        wanted: &Wanted,
    ) -> Result<Option<(ByteStream, Location)>, StoreError> {
        let end = match wanted {
            Wanted::Several(ranges) => ranges.iter().map(|range| range.end).max().unwrap_or(first.end),
            Wanted::Whole | Wanted::One(_) => first.end,
        };
        if end == first.end {
            return self.open_object(named, first).await;
        }
        let Named { repository, digest, .. } = named;
        let Some((_, location)) = self.open_object(named, end - 1..end).await? else {
            return Ok(None);
        };
        let named = Named {
            repository,
            digest,
            location: &location,
            defect: None,
        };
        self.open_object(named, first).await
    }
}

/// 307 to where the bytes are. The URL gives access to them, so the answer is private, and no cache keeps it for longer
/// than the URL works.
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
