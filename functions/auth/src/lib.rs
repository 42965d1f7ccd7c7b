//! Tokens, keys, passwords, and the administration of accounts and the policy, on top of the protocol core.
//!
//! What is here computes: it has no runtime, network, clock or randomness of its own, and builds unchanged for
//! `wasm32-unknown-unknown`. Randomness comes from the shell's [`Environment`](registry::Environment), and the present
//! time is an argument. So curves and password hashes stay out of the core's dependencies.
//!
//! Read in this order:
//!
//! 1. Credentials: [`key`] for keys of accounts, [`password`] for passwords, [`guessing`] for the delays of clients that
//!    send wrong passwords.
//! 2. Keys that sign tokens: [`signing_key`], [`key_set`] with the keys that verify, [`key_file`] for keys from a file.
//! 3. [`jws`]: the framing of tokens. [`scope`]: what a client asks for and what it is granted. [`access_token`]: what a
//!    token says.
//! 4. [`token_request`]: what the token endpoint reads.
//! 5. [`administration`]: every change of accounts, keys, the policy and signing keys. [`grant`]: grants as people write them.
//!    [`mod@toml`]: policies in TOML. [`explain`]: which rule of a policy decides.
//! 6. [`accounts`]: who a request comes from, and which tokens clients get. It reads records and the shell's clock.
//! 7. [`api`]: the operations of the HTTP API, over accounts and administration.

pub mod access_token;
pub mod accounts;
pub mod administration;
pub mod api;
pub mod explain;
pub mod grant;
pub mod guessing;
pub mod jws;
pub mod key;
pub mod key_file;
pub mod key_set;
mod keyed_hash;
pub mod password;
pub mod scope;
pub mod signing_key;
#[cfg(test)]
mod test_environment;
#[cfg(test)]
mod test_rival;
pub mod token_request;
pub mod toml;
