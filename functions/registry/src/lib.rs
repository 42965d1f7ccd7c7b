//! The protocol core of the registry: everything between an HTTP request and its answer, and nothing of how requests
//! arrive or where bytes and names are kept.
//!
//! Read in this order:
//!
//! 1. [`registry`]: what a registry is made of. `dispatch`: the line that every request follows, beginning with
//!    [`Registry::handle`]. `call`: the registry as one request sees it.
//! 2. [`route`](Endpoint) and `query`: what a request line says. [`auth`]: who asks, and what for. [`hosts`]: at which
//!    names the registry answers. [`heads`]: which fields are read.
//! 3. `operations`: what is done, a file for each kind of thing.
//! 4. [`store`]: the contracts of the stores, and their reference in memory.
//! 5. `token`: the signed authority in an upload's `Location`. `error`: every failure and its one answer. `response`:
//!    what answers are made of.
//! 6. [`collection`] and [`check`]: what an operator runs over a registry that goes on serving.
//! 7. [`delivery`]: by which way blobs leave; [`own_host`]: where they are never redirected to. [`limits`]: every bound,
//!    named. [`environment`]: time and randomness. [`memory`]: what requests may hold; [`budget`]: how clients share it.
//!    [`backoff`]: how long stores wait before they try again.
//!
//! A module imports only modules below it: `dispatch` imports `operations`, those import `call`, that imports
//! `registry`, and none of these is imported the other way.
//!
//! It has no runtime, file system, network, clock or randomness of its own and builds unchanged for
//! `wasm32-unknown-unknown`.

pub mod auth;
pub mod backoff;
pub mod body;
pub mod budget;
mod call;
pub mod check;
pub mod clock;
pub mod collection;
pub mod delivery;
mod dispatch;
pub mod environment;
mod error;
pub mod heads;
pub mod hosts;
pub mod limits;
pub mod memory;
mod operations;
mod overload;
pub mod own_host;
mod query;
mod region;
pub mod registry;
mod response;
mod route;
mod settings;
mod sparse;
pub mod store;
mod stores;
mod token;

pub use auth::{Anonymous, Authenticator, Identity, Permit, Principal};
pub use body::{RequestBody, ResponseBody};
pub use delivery::{Client, Delivery, DeliveryPolicy};
pub use dispatch::Record;
pub use environment::{Deadline, Environment};
pub use hosts::{Host, HostPolicy};
pub use limits::Limits;
pub use memory::MemoryBudget;
pub use overload::Overload;
pub use region::{RegionName, RegionNameError};
pub use registry::Registry;
pub use route::Endpoint;
pub use settings::Settings;
pub use sparse::Sparse;
pub use stores::Stores;
