//! Pushes files as the layers of an image with the `oci-client` library, pulls them again, and compares.
//!
//! The library sends every blob as `PATCH` requests of 4 MiB with a `Content-Range`, and an empty `PUT` at the end. Prints
//! the manifest's digest. Any difference or failure is reported on standard error, with exit code 1. With the environment
//! variables `OCI_CLIENT_USER` and `OCI_CLIENT_PASSWORD` it logs in.

use std::error::Error;

use futures_util::TryStreamExt as _;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::{IMAGE_LAYER_MEDIA_TYPE, OciDescriptor};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: oci-client-round-trip HOST:PORT/REPOSITORY:TAG FILE...";
    let image: Reference = arguments.next().ok_or(usage)?.parse()?;
    let files = arguments.map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    if files.is_empty() {
        return Err(usage.into());
    }

    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider is installed already")?;
    let client = Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    });
    let layers: Vec<ImageLayer> = files
        .iter()
        .map(|file| ImageLayer::oci_v1(file.clone(), None))
        .collect();
    let empty = "application/vnd.oci.empty.v1+json".to_owned();
    let config = Config::new(&b"{}"[..], empty, None);
    let auth = match (std::env::var("OCI_CLIENT_USER"), std::env::var("OCI_CLIENT_PASSWORD")) {
        (Ok(user), Ok(password)) => RegistryAuth::Basic(user, password),
        _ => RegistryAuth::Anonymous,
    };
    client.push(&image, &layers, config, &auth, None).await?;

    let pulled = client.pull(&image, &auth, vec![IMAGE_LAYER_MEDIA_TYPE]).await?;
    let manifest = pulled.manifest.ok_or("pulled no manifest")?;
    // Layers are pulled side by side and come in any order; the manifest tells the pushed one.
    for (descriptor, file) in manifest.layers.iter().zip(&files) {
        let found = pulled
            .layers
            .iter()
            .find(|layer| layer.sha256_digest() == descriptor.digest);
        if found.is_none_or(|layer| layer.data != file.as_slice()) {
            return Err(format!("{} differs from what was pushed", descriptor.digest).into());
        }
        pull_part(&client, &image, descriptor, file).await?;
    }
    let tags = client.list_tags(&image, &auth, None, None).await?.tags;
    if !tags.iter().any(|tag| Some(tag.as_str()) == image.tag()) {
        return Err(format!("the pushed tag is not among {tags:?}").into());
    }
    println!("{}", pulled.digest.ok_or("pulled no digest")?);
    Ok(())
}

/// Pulls the middle of a blob by a range request and compares it.
async fn pull_part(
    client: &Client,
    image: &Reference,
    descriptor: &OciDescriptor,
    file: &[u8],
) -> Result<(), Box<dyn Error>> {
    let (first, length) = (file.len() / 3, (file.len() / 3).max(1));
    let response = client
        .pull_blob_stream_partial(image, descriptor, first as u64, Some(length as u64))
        .await?;
    let BlobResponse::Partial(part) = response else {
        return Err("a range request was answered with the whole blob".into());
    };
    let part: Vec<u8> = part
        .stream
        .try_fold(Vec::new(), |mut sum, piece| async move {
            sum.extend_from_slice(&piece);
            Ok(sum)
        })
        .await?;
    if part != file[first..first + length] {
        return Err("a range of the blob differs from what was pushed".into());
    }
    Ok(())
}
