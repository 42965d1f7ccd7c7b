//! Signs a request with the hash of its body if no checksum protects the body.
//!
//! The SDK would hash a body that is contiguous in memory, and signs every other body as "unsigned". Bodies here are
//! not contiguous.

use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sigv4::http_request::SignableBody;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;

use crate::chunk_queue::ByteChunks;

/// The hash of a body as hexadecimal digits.
#[derive(Clone, Debug)]
pub(crate) struct SignedBody(String);

impl SignedBody {
    pub(crate) async fn of(content: &ByteChunks) -> Self {
        let hash = content.sha256().await;
        Self(hash.map(|byte| format!("{byte:02x}")).concat())
    }
}

#[dyn_dispatch_hint]
impl Intercept for SignedBody {
    fn name(&self) -> &'static str {
        "SignedBody"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let signing = cfg.load::<SigV4OperationSigningConfig>().cloned();
        let mut signing = signing.ok_or("a request is not signed with version 4")?;
        signing.signing_options.payload_override = Some(SignableBody::Precomputed(self.0.clone()));
        cfg.interceptor_state().store_put(signing);
        Ok(())
    }
}
