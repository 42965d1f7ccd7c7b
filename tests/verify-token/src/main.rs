//! Issues an access token, verifies it, and ends with 0 if it is good: the least that an edge function does with access tokens.
//!
//! `tests/run --full --only wasm` builds it for `wasm32-unknown-unknown`, runs it in Node, and reports its size and how long the
//! first verification takes there, with compilation, and the next ones.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;

use async_trait::async_trait;
use auth::access_token::{self, Generation, NewToken};
use auth::key_set::KeySet;
use auth::scope::{GrantedScope, RequestedScope};
use auth::signing_key::TokenSigner;
use registry::Environment;
use registry::auth::Principal;
use registry::random::SplitMix64;
use registry::store::Timestamp;

/// Where the token is issued and verified. The clock stands still: the program imports nothing from its host.
struct FixedClock(Mutex<SplitMix64>);

#[async_trait]
impl Environment for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_796_000_000_000)
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut random = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        bytes.fill_with(|| random.bits().to_be_bytes()[0]);
    }

    async fn sleep(&self, _: u64) {}
}

fn main() -> ExitCode {
    let environment = FixedClock(Mutex::new(SplitMix64::new(1)));
    let signer = TokenSigner::from_seed(&[7; 32]);
    let token = NewToken {
        service: "registry.example",
        principal: &Principal::ANONYMOUS,
        generation: Generation::NONE,
        credential: None,
        key_scope: None,
        groups: &BTreeSet::new(),
        grants: &[],
        requested: &RequestedScope::default(),
        access: &GrantedScope::default(),
        lifetime_seconds: access_token::DEFAULT_LIFETIME_SECONDS,
    };
    let keys = KeySet::new(&[signer.public(Timestamp(0))]);
    let good = token
        .issue(&signer, &environment)
        .is_ok_and(|issued| access_token::verify(&issued.token, &keys, "registry.example", environment.now()).is_ok());
    ExitCode::from(u8::from(!good))
}
