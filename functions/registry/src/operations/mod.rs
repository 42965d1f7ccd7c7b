//! What the registry does, an operation for each endpoint: a permit and parsed values in, a response or an
//! [`Error`](crate::error::Error) out.

mod blobs;
mod chunks;
mod ends;
mod finish;
pub(crate) mod home;
mod lists;
mod manifests;
mod mounts;
mod objects;
mod ranges;
mod receive;
pub(crate) mod session;
mod source;
mod uploads;
