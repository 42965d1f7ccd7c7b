//! What both stores on AWS take of its SDK, set up alike: connections ([`http_client`]), credentials
//! ([`process::of_profile`]), and the time that every answer tells ([`clock::ClockWatch`]).

pub mod clock;
pub mod process;

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

/// Connections with TLS by `ring`, which builds without cmake.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https()
}
