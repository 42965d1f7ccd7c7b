//! What every shell of the registry needs and none may write twice. A shell reads its configuration, opens stores with
//! this crate, and hands HTTP to the core.
//!
//! Read in this order:
//!
//! 1. [`opened`]: the stores of a registry, opened, and what a shell asks of them beside what the core asks
//!    ([`probe`]). `stores`: how they are opened from plain values.
//! 2. [`condition`]: what the stores may be asked for now. `admission`: what is found out about them before they are
//!    used. [`health`]: `/livez` and `/readyz`.
//! 3. [`delivery`]: which pulls are redirected. [`client_address`]: whose request it is, behind proxies.
//! 4. [`access_line`]: the line for each request, and what is never written in it. [`log`]: which events are never
//!    written. [`text`] and [`timestamp`]: numbers and dates as text.
//! 5. [`collector`]: collection passes, and the report of one.
//! 6. `clock` and `memory`: time, randomness and memory of a host.
//!
//! | feature | what it adds |
//! |---|---|
//! | none | everything that needs no operating system; builds for `wasm32-unknown-unknown` |
//! | `native` | `clock`, `memory`, `admission`, and what runs by itself in the background |
//! | `embedded` | `stores` on local disk and in `SQLite` |
//! | `cloud` | `stores` in S3 and `DynamoDB` |
//!
//! No feature brings an HTTP server or a command line.

pub mod access_line;
#[cfg(feature = "native")]
pub mod admission;
pub mod client_address;
#[cfg(feature = "native")]
pub mod clock;
pub mod collector;
pub mod condition;
pub mod delivery;
pub mod health;
pub mod log;
#[cfg(feature = "native")]
pub mod memory;
pub mod opened;
pub mod probe;
#[cfg(any(feature = "cloud", feature = "embedded"))]
pub mod stores;
pub mod text;
pub mod timestamp;
