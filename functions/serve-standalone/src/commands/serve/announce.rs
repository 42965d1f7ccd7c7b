//! Prints and logs the addresses, stores and access of a server that has started.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use registry::{Delivery, Host, own_host};
use shell::log::LogFormat;
use shell::opened::StoreStatistics;

use crate::cli::{MetricsAddress, PullArgs, ServeArgs};
use crate::commands::health::reachable;
use crate::metrics::MetricsListener;

/// Warns of pulls that are not redirected, and of clients that cannot follow redirects, because of the object store's host.
pub(super) async fn warn_of_redirects(args: &ServeArgs, address: SocketAddr, stores: &StoreStatistics) {
    let Some(bucket) = stores.object_store.as_ref().filter(|_| redirects(&args.pulls)) else {
        return;
    };
    let url = bucket.public_url().await;
    let Some(store) = url.as_deref().and_then(own_host::host_of_url) else {
        return;
    };
    let listens_at = reachable(address).ip();
    let listens_at = SocketAddr::new(listens_at, 0).to_string().parse::<Host>().ok();
    let own: Vec<_> = listens_at.iter().chain(&args.allow_host).collect();
    let (same, others): (Vec<_>, Vec<_>) = own.into_iter().partition(|own| own_host::is_within(&store, own));
    if !same.is_empty() {
        let asked: Vec<_> = same.into_iter().map(Host::name).collect();
        tracing::warn!(
            object_store = store.name(),
            asked = asked.join(","),
            "pulls for this host are not redirected and go through the registry: the object store has the same host name, or \
             one below it, so that clients would send their password to it. Another port is not another host. To redirect \
             pulls, give the object store another host name (--s3-public-endpoint)"
        );
    }
    // A server that listens on every address has hosts that are not known here.
    let redirected = !others.is_empty() || address.ip().is_unspecified();
    if redirected && store.name().parse().is_ok_and(is_private) {
        tracing::warn!(
            object_store = store.name(),
            "crane and other clients that are built on go-containerregistry (ko, kaniko, cosign) cannot pull: they follow no \
             redirect to a private address. Give the object store a host name (--s3-public-endpoint), or send pulls through \
             the registry (--pull proxy)"
        );
    }
}

/// Whether a pull may be redirected.
fn redirects(pulls: &PullArgs) -> bool {
    let mut ways = pulls.pull_rule.iter().map(|rule| rule.mode).chain([pulls.pull]);
    ways.any(|way| way != Delivery::Proxy)
}

/// Whether an address is private for clients that follow no redirect to a private address.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

/// Tells where the server is and how to push to it: as text on standard output, or as one line of a JSON log.
pub(super) fn announce(
    args: &ServeArgs,
    format: LogFormat,
    address: SocketAddr,
    metrics: Option<&MetricsListener>,
    access: &str,
) {
    let host = reachable(address);
    let scheme = if args.tls.tls_cert.is_some() { "https" } else { "http" };
    let push = format!("docker tag alpine {host}/alpine && docker push {host}/alpine");
    let (blobs, metadata) = (
        args.stores.config().describe_blobs(),
        args.stores.config().describe_metadata(),
    );
    let metrics = match (args.metrics, metrics) {
        (_, Some(listener)) => Some(format!("http://{}/metrics", listener.address)),
        (MetricsAddress::Here, None) => Some(format!("{scheme}://{host}/metrics")),
        _ => None,
    };
    match format {
        LogFormat::Json => {
            tracing::info!(%address, scheme, blobs, metadata, metrics, access, push, "listening");
        }
        LogFormat::Text => {
            let metrics = metrics.map(|url| format!("Metrics:  {url}\n")).unwrap_or_default();
            // The server also works if standard output is closed.
            let _ = writeln!(
                std::io::stdout(),
                "roadstead {} is listening on {scheme}://{address}\n\
                 Blobs:    {blobs}\n\
                 Metadata: {metadata}\n\
                 {metrics}\
                 Access:   {access}\n\
                 Push an image to it:\n  {push}",
                env!("CARGO_PKG_VERSION"),
            );
        }
    }
}
