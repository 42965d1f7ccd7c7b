//! The protocol core of the registry. It turns an HTTP request into a response.
//!
//! A *shell* is a program around the core: it receives the requests. A *store* keeps the data. The core does neither
//! itself.
//!
//! Read in this order:
//!
//! 1. [`registry`]: the parts of a registry. `dispatch`: the steps that every request takes, beginning with
//!    [`Registry::handle`]. `call`: the registry as one request sees it. `remembered`: the repositories that are known to
//!    exist.
//! 2. [`route`](Endpoint) and `query`: parse the request line. [`auth`]: finds the principal and its permissions.
//!    [`policy`]: the document that says who may do what. `access`: the permits of one request. [`token_endpoint`]: the
//!    contract of the endpoint that grants tokens. [`api_endpoint`]: the contract of the API. [`hosts`]: the host names at which the registry answers. [`heads`]: the
//!    header fields that are read. `forwarded`: the fields that proxies add.
//! 3. `operations`: what requests do, one file for each kind of operation. An upload begins in `open_upload`, continues
//!    in `chunks` and ends in `finish`.
//! 4. [`store`]: the contracts of the stores, and their reference implementation in memory.
//! 5. `token`: the signed token in the `Location` of an upload. `error`: every error, and the response to it.
//!    `denial`: why requests are denied, for logs and metrics. `response`: helpers that build responses.
//! 6. [`collection`] and [`check`]: the work that an operator runs on a registry while it serves requests. [`releases`]:
//!    rollback and promotion of tags, for requests and for an operator.
//! 7. [`delivery`]: whether a blob is redirected or proxied. [`own_host`]: hosts to which the registry never redirects.
//!    [`limits`]: every limit. [`environment`]: time and randomness. [`memory`]: the memory that requests may use.
//!    [`budget`]: how clients share a resource. [`backoff`]: the times between retries. [`random`]: numbers that a seed
//!    repeats. [`recent_map`]: a map that forgets what was not used of late.
//!
//! Imports go one way: `dispatch` → `operations` → `call` → `registry`.
//!
//! The crate has no runtime, file system, network, clock or randomness of its own, and builds unchanged for
//! `wasm32-unknown-unknown`.

mod access;
pub mod api_endpoint;
pub mod auth;
pub mod backoff;
pub mod body;
pub mod budget;
mod call;
mod cause;
pub mod check;
pub mod clock;
pub mod collection;
mod deadline;
pub mod delivery;
mod denial;
mod dispatch;
mod door;
pub mod environment;
mod error;
mod forwarded;
mod glob;
pub mod heads;
mod host;
pub mod hosts;
pub mod limits;
pub mod memory;
mod operations;
mod overload;
pub mod own_host;
pub mod policy;
mod query;
pub mod random;
pub mod recent_map;
mod region;
pub mod registry;
pub mod releases;
mod remembered;
mod request_id;
mod response;
mod route;
mod settings;
mod sparse;
pub mod store;
mod stores;
mod text;
mod timestamp;
mod token;
pub mod token_endpoint;

pub use api_endpoint::ApiEndpoint;
pub use auth::{Anonymous, Authenticator, Identity, Permit, Principal};
pub use body::{RequestBody, ResponseBody};
pub use deadline::Deadline;
pub use delivery::{Client, Delivery, DeliveryPolicy};
pub use denial::DenialReason;
pub use dispatch::RequestRecord;
pub use door::DoorRefusal;
pub use environment::Environment;
pub use hosts::{Host, HostPolicy};
pub use limits::Limits;
pub use memory::MemoryBudget;
pub use overload::Overload;
pub use region::{RegionName, RegionNameError};
pub use registry::Registry;
pub use request_id::RequestId;
pub use route::Endpoint;
pub use settings::Settings;
pub use sparse::Sparse;
pub use stores::Stores;
pub use token_endpoint::TokenEndpoint;
