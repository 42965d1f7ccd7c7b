//! Parses a path into a [`Resource`].
//!
//! A path is read from its end, because a repository's name may itself contain `blobs`, `manifests`, `tags`, `uploads`
//! and `referrers` as components.
//!
//! `%2F` is decoded as `/` first, because some clients encode the whole repository name (Portainer). Then the path is
//! split, and each segment is percent-decoded once. All checks come after that. So a decoded dot or backslash never
//! changes the meaning of a path, and text that was encoded twice is still encoded when it is checked.

use std::borrow::Cow;

use http::Method;
use http::request::Parts;
use oci::RepositoryName;
use percent_encoding::percent_decode_str;

use super::Endpoint;
use super::api::ApiPath;
use crate::error::Error;

/// The resource of a path. The method decides what is done with it.
pub(super) enum Resource<'a> {
    Home,
    Base,
    Repositories,
    Blob(RepositoryName, &'a str),
    Manifest(RepositoryName, &'a str),
    Uploads(RepositoryName),
    Upload(RepositoryName, &'a str),
    Tags(RepositoryName),
    Referrers(RepositoryName, &'a str),
    Token,
    KeySet,
    Api(ApiPath),
}

const READ: &[Method] = &[Method::GET, Method::HEAD];
const BLOB: &[Method] = &[Method::GET, Method::HEAD, Method::DELETE];
const MANIFEST: &[Method] = &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE];
const UPLOADS: &[Method] = &[Method::POST];
const TOKEN: &[Method] = &[Method::GET, Method::POST];
const UPLOAD: &[Method] = &[Method::GET, Method::HEAD, Method::PATCH, Method::PUT, Method::DELETE];

impl<'a> Resource<'a> {
    pub(super) fn parse(segments: &'a [Cow<'a, str>]) -> Result<Self, Error> {
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let rest = match segments.as_slice() {
            ["", "v2", rest @ ..] => rest,
            ["", ""] => return Ok(Self::Home),
            ["", "token"] => return Ok(Self::Token),
            ["", ".well-known", "jwks.json"] => return Ok(Self::KeySet),
            ["", "api", "v1", rest @ ..] => return ApiPath::parse(rest).map(Self::Api),
            _ => return Err(Error::NoSuchEndpoint),
        };
        match rest {
            [] | [""] => Ok(Self::Base),
            // A slash at the end of a list is ignored; distribution v3 redirects such a path to the list.
            ["_catalog"] | ["_catalog", ""] => Ok(Self::Repositories),
            [name @ .., "blobs", "uploads", ""] | [name @ .., "blobs", "uploads"] => {
                Ok(Self::Uploads(repository(name)?))
            }
            [name @ .., "blobs", "uploads", token] => Ok(Self::Upload(repository(name)?, token)),
            [name @ .., "blobs", digest] => Ok(Self::Blob(repository(name)?, digest)),
            [name @ .., "manifests", reference] => Ok(Self::Manifest(repository(name)?, reference)),
            [name @ .., "referrers", digest] => Ok(Self::Referrers(repository(name)?, digest)),
            [name @ .., "tags", "list"] | [name @ .., "tags", "list", ""] => Ok(Self::Tags(repository(name)?)),
            _ => Err(Error::NoSuchEndpoint),
        }
    }

    /// The endpoint for a method on this resource.
    pub(super) fn endpoint(&self, method: &Method) -> Result<Endpoint, Error> {
        let read = *method == Method::GET || *method == Method::HEAD;
        match self {
            Self::Home if read => Ok(Endpoint::Home),
            Self::Base if read => Ok(Endpoint::Base),
            Self::Repositories if read => Ok(Endpoint::ListRepositories),
            Self::Tags(_) if read => Ok(Endpoint::ListTags),
            Self::Referrers(..) if read => Ok(Endpoint::ListReferrers),
            Self::KeySet if read => Ok(Endpoint::GetKeySet),
            Self::Home | Self::Base | Self::Repositories | Self::Tags(_) | Self::Referrers(..) | Self::KeySet => {
                Err(Error::MethodNotAllowed(READ.into()))
            }
            Self::Api(path) => path.operation(method).map(Endpoint::Api),
            Self::Token => match *method {
                Method::GET | Method::POST => Ok(Endpoint::IssueToken),
                _ => Err(Error::MethodNotAllowed(TOKEN.into())),
            },
            Self::Blob(..) => match *method {
                Method::GET | Method::HEAD => Ok(Endpoint::GetBlob),
                Method::DELETE => Ok(Endpoint::DeleteBlob),
                _ => Err(Error::MethodNotAllowed(BLOB.into())),
            },
            Self::Manifest(..) => match *method {
                Method::GET | Method::HEAD => Ok(Endpoint::GetManifest),
                Method::PUT => Ok(Endpoint::PutManifest),
                Method::DELETE => Ok(Endpoint::DeleteManifest),
                _ => Err(Error::MethodNotAllowed(MANIFEST.into())),
            },
            Self::Uploads(_) if *method == Method::POST => Ok(Endpoint::OpenUpload),
            Self::Uploads(_) => Err(Error::MethodNotAllowed(UPLOADS.into())),
            Self::Upload(..) => match *method {
                Method::GET | Method::HEAD => Ok(Endpoint::GetUpload),
                Method::PATCH => Ok(Endpoint::PatchUpload),
                Method::PUT => Ok(Endpoint::FinishUpload),
                Method::DELETE => Ok(Endpoint::CancelUpload),
                _ => Err(Error::MethodNotAllowed(UPLOAD.into())),
            },
        }
    }
}

/// What `read` makes of the resource and the endpoint of a request. `None`: there is no such endpoint, or it does not have
/// this method.
pub(super) fn find<T>(head: &Parts, read: impl FnOnce(Resource, Endpoint) -> T) -> Option<T> {
    let path = decode_slashes(head.uri.path());
    let segments = segments(&path)?;
    let resource = Resource::parse(&segments).ok()?;
    let endpoint = resource.endpoint(&head.method).ok()?;
    Some(read(resource, endpoint))
}

fn repository(segments: &[&str]) -> Result<RepositoryName, Error> {
    Ok(segments.join("/").parse()?)
}

/// The decoded segments of a path. `None`: they are not UTF-8.
pub(super) fn segments(path: &str) -> Option<Vec<Cow<'_, str>>> {
    path.split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8().ok())
        .collect()
}

/// The path with every `%2F` replaced by `/`.
pub(super) fn decode_slashes(path: &str) -> Cow<'_, str> {
    if path.contains('%') {
        Cow::Owned(path.replace("%2F", "/").replace("%2f", "/"))
    } else {
        Cow::Borrowed(path)
    }
}
