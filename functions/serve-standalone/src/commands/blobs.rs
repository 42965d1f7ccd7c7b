//! `roadstead blobs`: copies blobs between stores.

mod copy;
mod source;
mod store_object;

pub(super) use copy::run as copy;
