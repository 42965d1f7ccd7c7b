//! The parts of the AWS SDK that both stores on AWS set up in the same way: connections ([`http_client`]), credentials
//! ([`process::of_profile`]), and the time in every response ([`clock::ClockWatch`]).

pub mod clock;
pub mod process;

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

/// An HTTP client whose TLS uses `ring`, which builds without cmake.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https()
}
