//! `roadstead blobs`: copies blobs between stores.

mod copy;
mod place;
mod source;

pub(super) use copy::run as copy;
