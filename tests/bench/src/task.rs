//! The operations themselves: what a prepared row sends, and how its result is checked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::address::RequestTarget;
use crate::client::{BenchClient, Failure, Take};
use crate::content::{Blob, MANIFEST_TYPE, Payload, Series, digest_of, manifest, mix};
use crate::rows::How;

/// A read with what must come of it.
#[derive(Clone)]
pub(crate) struct Read {
    /// Path and query.
    pub(crate) path: String,
    /// HEAD rather than GET.
    pub(crate) head: bool,
    /// What must come.
    pub(crate) wanted: Wanted,
}

/// What must come of a read.
#[derive(Clone)]
pub(crate) enum Wanted {
    /// Content of this length and digest.
    Content(u64, String),
    /// A JSON object with at least so many names in the list under this key. Registries that ignore `n` send more.
    Names(&'static str, u64),
    /// A JSON object with a text under this key.
    Text(&'static str),
}

/// An image in a registry.
#[derive(Clone)]
pub(crate) struct Image {
    /// Its repository.
    pub(crate) repository: String,
    /// Its only tag.
    pub(crate) tag: String,
    /// The bytes of its manifest.
    pub(crate) manifest: Bytes,
    /// Its config.
    pub(crate) config: Blob,
    /// Its layer, if any.
    pub(crate) layer: Option<Blob>,
}

/// A row made ready. Operations are numbered; one number always does the same.
pub(crate) enum Task {
    /// Push the blob `label`-number of `series`.
    PushBlob {
        /// Where to.
        repository: String,
        /// What.
        series: Arc<Series>,
        /// How.
        how: How,
        /// Tells this pass from any other.
        label: String,
    },
    /// These reads in turn.
    Reads(Vec<Read>),
    /// Put a manifest under the tag `prefix`-number.
    PutTags {
        /// Where to.
        repository: String,
        /// What.
        manifest: Bytes,
        /// The beginning of the tags.
        prefix: String,
    },
    /// Push images into new repositories.
    PushImages(Gallery),
    /// Pull images.
    PullImages(Vec<(u64, Image)>),
    /// Three pulls for each push.
    PullAndPush(Box<Image>, Gallery),
}

/// Images yet to be pushed.
pub(crate) struct Gallery {
    /// The beginning of their repositories' names.
    pub(crate) prefix: String,
    /// The layers to choose from and the weight of each; without any, images have no layer.
    pub(crate) layers: Vec<(u64, Blob)>,
    /// Their configs.
    pub(crate) configs: Arc<Series>,
    /// How blobs are sent.
    pub(crate) how: How,
}

impl Gallery {
    /// The image of this number.
    pub(crate) fn image(&self, number: u64) -> Image {
        let layer = choose(&self.layers, number).cloned();
        let repository = format!("{}-{number:05}", self.prefix);
        let config = self.configs.blob(&repository);
        let manifest = manifest(&config, layer.as_ref());
        Image {
            repository,
            tag: "latest".to_owned(),
            manifest,
            config,
            layer,
        }
    }
}

/// One of `among` by weight: the same for the same number, spread evenly over the numbers.
fn choose<T>(among: &[(u64, T)], number: u64) -> Option<&T> {
    let total: u64 = among.iter().map(|(weight, _)| weight).sum();
    let mut left = mix(number.wrapping_add(1)).checked_rem(total)?;
    for (weight, item) in among {
        if left < *weight {
            return Some(item);
        }
        left -= weight;
    }
    None
}

/// What an operation did.
pub(crate) struct Moved {
    /// Bytes of content sent or received.
    pub(crate) bytes: u64,
    /// Of the push of one blob: the time from its last byte to the answer that it is there, or the whole of the last
    /// request where that carries no bytes.
    pub(crate) commit: Option<Duration>,
}

impl From<u64> for Moved {
    fn from(bytes: u64) -> Self {
        Self { bytes, commit: None }
    }
}

impl Task {
    /// Does the operation of this number.
    pub(crate) async fn operate(&self, client: &mut BenchClient, number: u64) -> Result<Moved, Failure> {
        match self {
            Self::PushBlob {
                repository,
                series,
                how,
                label,
            } => {
                let blob = series.blob(&format!("{label}-{number}"));
                push_blob(client, repository, blob, *how).await
            }
            Self::Reads(reads) => match pick(reads, number) {
                Some(read) => read.perform(client).await.map(Moved::from),
                None => Ok(0.into()),
            },
            Self::PutTags {
                repository,
                manifest,
                prefix,
            } => {
                put_manifest(client, repository, &format!("{prefix}-{number:05}"), manifest).await?;
                Ok(0.into())
            }
            Self::PullImages(images) => match choose(images, number) {
                Some(image) => pull_image(client, image).await.map(Moved::from),
                None => Ok(0.into()),
            },
            Self::PullAndPush(image, _) if number % 4 != 3 => pull_image(client, image).await.map(Moved::from),
            Self::PushImages(gallery) | Self::PullAndPush(_, gallery) => {
                let image = gallery.image(number);
                push_image(client, &image, gallery.how).await.map(Moved::from)
            }
        }
    }

    /// Checks every byte that operations up to `count` have written or would read, by samples of the first and the
    /// last. Not to be timed.
    pub(crate) async fn verify(&self, client: &mut BenchClient, count: u64) -> Result<(), Failure> {
        if count == 0 {
            return Ok(());
        }
        match self {
            Self::PushBlob {
                repository,
                series,
                label,
                ..
            } => {
                for number in [0, count - 1] {
                    let blob = series.blob(&format!("{label}-{number}"));
                    verify_blob(client, repository, &blob).await?;
                }
            }
            Self::Reads(reads) => {
                for read in reads.iter().take(2).chain(reads.last()) {
                    read.verify(client).await?;
                }
            }
            Self::PutTags {
                repository,
                manifest,
                prefix,
            } => {
                for number in [0, count - 1] {
                    verify_manifest(client, repository, &format!("{prefix}-{number:05}"), manifest).await?;
                }
            }
            Self::PushImages(gallery) => {
                verify_image(client, &gallery.image(0)).await?;
                verify_image(client, &gallery.image(count - 1)).await?;
            }
            Self::PullImages(images) => {
                for (_, image) in images {
                    verify_image(client, image).await?;
                }
            }
            Self::PullAndPush(image, gallery) => {
                verify_image(client, image).await?;
                if let Some(last) = (0..count).rev().find(|number| number % 4 == 3) {
                    verify_image(client, &gallery.image(last)).await?;
                }
            }
        }
        Ok(())
    }
}

fn pick(reads: &[Read], number: u64) -> Option<&Read> {
    let index = number.checked_rem(reads.len() as u64)?;
    reads.get(usize::try_from(index).ok()?)
}

impl Read {
    async fn perform(&self, client: &mut BenchClient) -> Result<u64, Failure> {
        if self.head {
            client.head(&self.path).await?;
            return Ok(0);
        }
        let length = client.get(&self.path, Take::Count).await?.length;
        match &self.wanted {
            Wanted::Content(wanted, _) if length != *wanted => Err(self.wrong(format!("{length} bytes, not {wanted}"))),
            Wanted::Content(..) => Ok(length),
            Wanted::Names(..) | Wanted::Text(_) => Ok(0),
        }
    }

    async fn verify(&self, client: &mut BenchClient) -> Result<(), Failure> {
        match &self.wanted {
            Wanted::Content(length, _) if self.head => {
                let announced = client.head(&self.path).await?.announced;
                if announced == Some(*length) {
                    Ok(())
                } else {
                    Err(self.wrong(format!("announces {announced:?} bytes")))
                }
            }
            Wanted::Content(_, digest) => {
                let got = client.get(&self.path, Take::Hash).await?.digest;
                if got.as_deref() == Some(digest) {
                    Ok(())
                } else {
                    Err(self.wrong(format!("hashes to {got:?}")))
                }
            }
            Wanted::Text(key) => {
                let body = client.get(&self.path, Take::Keep).await?.body;
                if text_of(&body, key).is_some() {
                    Ok(())
                } else {
                    Err(self.wrong(format!("has no {key}")))
                }
            }
            Wanted::Names(key, least) => {
                let body = client.get(&self.path, Take::Keep).await?.body;
                let names = serde_json::from_slice::<serde_json::Value>(&body)
                    .ok()
                    .and_then(|value| value.get(key)?.as_array().map(|names| names.len() as u64));
                if names >= Some(*least) {
                    Ok(())
                } else {
                    Err(self.wrong(format!("{names:?} {key}, not {least}")))
                }
            }
        }
    }

    fn wrong(&self, what: String) -> Failure {
        let method = if self.head { "HEAD" } else { "GET" };
        Failure::Content {
            request: format!("{method} {}", self.path),
            what,
        }
    }
}

/// The text under a key of a JSON object.
pub(crate) fn text_of(body: &[u8], key: &str) -> Option<String> {
    let value = serde_json::from_slice::<serde_json::Value>(body).ok()?;
    Some(value.get(key)?.as_str()?.to_owned())
}

/// Pushes a blob.
async fn push_blob(client: &mut BenchClient, repository: &str, blob: Blob, how: How) -> Result<Moved, Failure> {
    const TYPE: Option<&str> = Some("application/octet-stream");
    let size = blob.size;
    let digest = format!("digest={}", blob.digest);
    let uploads = client.request_target(&format!("/v2/{repository}/blobs/uploads/"));
    let mut session = next_place(client, Method::POST, &uploads, None, Payload::Empty).await?;
    let last = match how {
        How::Put => Payload::whole(blob),
        How::Patch => {
            session = next_place(client, Method::PATCH, &session, TYPE, Payload::chunked(blob)).await?;
            Payload::Empty
        }
    };
    let request_target = session.with_query(&digest);
    let begin = Instant::now();
    let answer = client
        .expect(Method::PUT, &request_target, TYPE, last, StatusCode::CREATED)
        .await?;
    Ok(Moved {
        bytes: size,
        commit: Some(answer.after_body.unwrap_or_else(|| begin.elapsed())),
    })
}

/// Sends a step of an upload; returns where the next goes.
async fn next_place(
    client: &mut BenchClient,
    method: Method,
    request_target: &RequestTarget,
    content_type: Option<&'static str>,
    payload: Payload,
) -> Result<RequestTarget, Failure> {
    let request = method.to_string();
    let answer = client
        .expect(method, request_target, content_type, payload, StatusCode::ACCEPTED)
        .await?;
    answer.location.ok_or_else(|| Failure::Content {
        request,
        what: "202 without Location".to_owned(),
    })
}

async fn put_manifest(client: &mut BenchClient, repository: &str, tag: &str, manifest: &Bytes) -> Result<(), Failure> {
    let request_target = client.request_target(&format!("/v2/{repository}/manifests/{tag}"));
    let payload = Payload::Held(manifest.clone());
    client
        .expect(
            Method::PUT,
            &request_target,
            Some(MANIFEST_TYPE),
            payload,
            StatusCode::CREATED,
        )
        .await?;
    Ok(())
}

async fn push_image(client: &mut BenchClient, image: &Image, how: How) -> Result<u64, Failure> {
    let mut bytes = 0;
    for blob in image.layer.iter().chain([&image.config]) {
        bytes += push_blob(client, &image.repository, blob.clone(), how).await?.bytes;
    }
    put_manifest(client, &image.repository, &image.tag, &image.manifest).await?;
    Ok(bytes)
}

async fn pull_image(client: &mut BenchClient, image: &Image) -> Result<u64, Failure> {
    let mut bytes = 0;
    for (path, length) in image.parts() {
        client.head(&path).await?;
        let got = client.get(&path, Take::Count).await?.length;
        if got != length {
            return Err(Failure::Content {
                request: format!("GET {path}"),
                what: format!("{got} bytes, not {length}"),
            });
        }
        bytes += got;
    }
    Ok(bytes)
}

impl Image {
    /// Path and length of everything that a pull reads, the manifest first.
    fn parts(&self) -> impl Iterator<Item = (String, u64)> {
        let manifest = format!("/v2/{}/manifests/{}", self.repository, self.tag);
        let blobs = [&self.config].into_iter().chain(&self.layer);
        let blobs = blobs.map(|blob| (blob_path(&self.repository, &blob.digest), blob.size));
        [(manifest, self.manifest.len() as u64)].into_iter().chain(blobs)
    }
}

/// The path of a blob.
pub(crate) fn blob_path(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

async fn verify_blob(client: &mut BenchClient, repository: &str, blob: &Blob) -> Result<(), Failure> {
    let wanted = Wanted::Content(blob.size, blob.digest.clone());
    Read {
        path: blob_path(repository, &blob.digest),
        head: false,
        wanted,
    }
    .verify(client)
    .await
}

async fn verify_manifest(
    client: &mut BenchClient,
    repository: &str,
    tag: &str,
    manifest: &Bytes,
) -> Result<(), Failure> {
    let wanted = Wanted::Content(manifest.len() as u64, digest_of(manifest));
    Read {
        path: format!("/v2/{repository}/manifests/{tag}"),
        head: false,
        wanted,
    }
    .verify(client)
    .await
}

async fn verify_image(client: &mut BenchClient, image: &Image) -> Result<(), Failure> {
    verify_manifest(client, &image.repository, &image.tag, &image.manifest).await?;
    for blob in [&image.config].into_iter().chain(&image.layer) {
        verify_blob(client, &image.repository, blob).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Pool;

    #[test]
    fn a_choice_is_repeatable_and_follows_the_weights() {
        let among = [(20, "a"), (70, "b"), (10, "c")];
        let count = |name| {
            (0..10_000)
                .filter(|number| choose(&among, *number) == Some(&name))
                .count()
        };
        assert!((1_800..2_200).contains(&count("a")));
        assert!((6_700..7_300).contains(&count("b")));
        assert!((800..1_200).contains(&count("c")));
        assert_eq!(choose(&among, 17), choose(&among, 17));
        assert_eq!(choose::<u8>(&[], 1), None);
    }

    #[test]
    fn images_of_a_gallery_share_layers_but_nothing_else() {
        let pool = Pool::new(1);
        let configs = Arc::new(Series::new(&pool, 512));
        let layer = Series::new(&pool, 1024).blob("layer");
        let gallery = Gallery {
            prefix: "bench/x".to_owned(),
            layers: vec![(1, layer)],
            configs,
            how: How::Put,
        };
        let (one, other) = (gallery.image(1), gallery.image(2));
        assert_ne!(one.repository, other.repository);
        assert_ne!(one.config.digest, other.config.digest);
        assert_eq!(
            one.layer.map(|layer| layer.digest),
            other.layer.map(|layer| layer.digest)
        );
        assert_eq!(gallery.image(1).parts().count(), 3);
    }
}
