//! Prints and logs the addresses, stores and access of a server that has started.

use std::io::Write as _;
use std::net::SocketAddr;

use registry::Host;
use registry::auth::PublicUrl;
use shell::access::Exposure;
use shell::challenge::{AskedClients, ChallengeContext, ChallengeProblem};
use shell::delivery::{OwnHosts, RedirectProblem};
use shell::log::LogFormat;
use shell::opened::StoreStatistics;

use crate::cli::{MetricsAddress, ServeArgs};
use crate::commands::health::reachable;
use crate::metrics::MetricsListener;

/// Warns of passwords that can be read on the network or are sent with every request, of clients that are asked for credentials
/// which they do not need, and of tokens that another registry accepts.
pub(super) fn warn_of_challenges(args: &ServeArgs, asked: AskedClients, has_edge: bool) {
    let context = ChallengeContext {
        exposure: Exposure::of(args.listen.ip()),
        grants_tokens: true,
        // An edge says the URL that its clients use.
        trusts_a_proxy: has_edge || !args.pulls.trusted_proxy.is_empty(),
        has_certificate: args.tls.tls_cert.is_some(),
        asked,
    };
    warn_of_shared_keys(args);
    for problem in args.challenges().problems(context) {
        match problem {
            ChallengeProblem::ReadablePasswords => tracing::warn!(
                public_url = args.public_url.as_ref().map(tracing::field::display),
                "the public URL is plain http: passwords and tokens of clients can be read on the network. Serve https \
                 (--tls-cert and --tls-key, or a proxy) and give that URL (--public-url)"
            ),
            ChallengeProblem::UnknownUrl => tracing::warn!(
                "clients on other hosts send their passwords with every request: they are asked for Basic, because the URL of the \
                 registry is not known. Where the policy lets anyone pull, docker still needs a login. Give the URL (--public-url), \
                 or let a proxy set X-Forwarded-Proto (--trusted-proxy)"
            ),
            ChallengeProblem::NoAnonymousDocker => tracing::warn!(
                "docker cannot pull without a login: it is asked for a password before it tries, because the URL of the \
                 registry is not known (--public-url, or --trusted-proxy for a proxy that sets X-Forwarded-Proto), or \
                 because of --challenge basic"
            ),
        }
    }
}

/// Without a public URL, every registry is the service `roadstead`, which is issuer and audience of its tokens.
fn warn_of_shared_keys(args: &ServeArgs) {
    if args.token_key_file.is_some() && args.public_url.is_none() {
        tracing::warn!(
            "a registry with the same token keys (--token-key-file) accepts the tokens of this one, with their groups: tell \
             registries apart by their URLs (--public-url), or give each one keys of its own"
        );
    }
}

/// Warns of pulls that are not redirected, and of clients that cannot follow redirects, because of the object store's host.
pub(super) async fn warn_of_redirects(args: &ServeArgs, address: SocketAddr, stores: &StoreStatistics) {
    let listens_at = SocketAddr::new(reachable(address).ip(), 0);
    let listens_at = listens_at.to_string().parse::<Host>().ok();
    let own = OwnHosts {
        known: listens_at
            .into_iter()
            .chain(args.public_url.iter().map(PublicUrl::host).cloned())
            .chain(args.allow_host.iter().cloned())
            .collect(),
        // A server that listens on every address has hosts that are not known here.
        has_others: address.ip().is_unspecified(),
    };
    for problem in args.pulls.rules().redirect_problems(stores, &own).await {
        match problem {
            RedirectProblem::OwnHost { object_store, asked } => {
                let asked: Vec<_> = asked.iter().map(Host::name).collect();
                tracing::warn!(
                    object_store = object_store.name(),
                    asked = asked.join(","),
                    "pulls for this host are not redirected and go through the registry: the object store has the same host \
                     name, or one below it, so that clients would send their password to it. Another port is not another \
                     host. To redirect pulls, give the object store another host name (--s3-public-endpoint)"
                );
            }
            RedirectProblem::PrivateAddress { object_store } => tracing::warn!(
                object_store = object_store.name(),
                "crane and other clients that are built on go-containerregistry (ko, kaniko, cosign) cannot pull: they \
                 follow no redirect to a private address. Give the object store a host name (--s3-public-endpoint), or send \
                 pulls through the registry (--pull proxy)"
            ),
        }
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
    let name = args.public_url.as_ref().map(PublicUrl::authority);
    let name = name.unwrap_or_else(|| host.to_string());
    let push = format!("docker tag alpine {name}/alpine && docker push {name}/alpine");
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
