//! The code that all shells of the registry share. A shell reads its configuration, opens the stores with this crate, and
//! passes HTTP requests to the core.
//!
//! Read in this order:
//!
//! 1. [`opened`]: the opened stores of a registry. [`probe`]: the requests of a shell itself to the stores. `stores`: opens
//!    stores from plain values.
//! 2. [`condition`]: which calls to the stores are allowed now. [`admission`]: checks the stores before a server uses them.
//!    [`health`]: `/livez` and `/readyz`.
//! 3. [`access`]: which clients may do what. [`challenge`]: how they are asked for credentials. [`delivery`]: which pulls
//!    are redirected. [`client_address`]: the client of a request and the URL that it has used, behind proxies. [`edge`]: the
//!    same behind an edge, which proves by a secret that it is one.
//! 4. [`access_line`]: the log line for each request, and what it never contains. [`log`]: the log of the process, and
//!    which events are never logged. [`text`] and [`timestamp`]: numbers and dates as text. [`settings`]: names and
//!    defaults of settings. [`values`]: durations and sizes that an operator writes.
//! 5. [`collector`]: collection passes, and the report of one.
//! 6. `clock` and `memory`: time, randomness and memory of a host. `run_to_end`: finishes requests whose clients have
//!    gone.
//!
//! | feature | what it adds |
//! |---|---|
//! | none | everything that needs no operating system; builds for `wasm32-unknown-unknown` |
//! | `native` | `clock`, `memory`, `run_to_end`, the lines of the log, and what runs by itself in the background |
//! | `embedded` | `stores` on local disk and in `SQLite` |
//! | `cloud` | `stores` in S3 and `DynamoDB` |
//! | `workstation` | to `cloud`, credentials that programs print, and single sign-on |
//!
//! No feature brings an HTTP server or a command line.

pub mod access;
pub mod access_line;
pub mod admission;
pub mod challenge;
pub mod client_address;
#[cfg(feature = "native")]
pub mod clock;
pub mod collector;
pub mod condition;
pub mod delivery;
pub mod edge;
pub mod health;
pub mod log;
#[cfg(feature = "native")]
pub mod memory;
pub mod opened;
pub mod probe;
#[cfg(feature = "native")]
pub mod run_to_end;
pub mod settings;
#[cfg(any(feature = "cloud", feature = "embedded"))]
pub mod stores;
pub mod text;
pub mod timestamp;
pub mod values;
