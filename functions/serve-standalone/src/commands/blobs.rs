//! `roadstead blobs`: moving bytes.

mod copy;
mod place;
mod source;

pub(super) use copy::run as copy;
