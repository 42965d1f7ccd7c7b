//! What the registry does, an operation for each endpoint: a permit and parsed values in, a response or an
//! [`Error`](crate::error::Error) out.
//!
//! * Pulls: `get_blob`, `get_manifest`, `lists`; beneath them `ranges`, `manifest_bytes`, and `objects` (what happens
//!   when an object is missing).
//! * Pushes of blobs: `open_upload` (which may `mount`), `chunks`, `finish`. Every body of an upload follows the same
//!   path: claimed (`session_states`), stored (`store_body`, which reads it through a `source`), then saved (a chunk) or
//!   committed and published (the last one). `body_head` reads what a request says about its body, and `session` is the
//!   upload as a request names it.
//! * Pushes of manifests: `put_manifest`, after `receive`; `large_manifest` for those that become objects.
//! * `deletions`; `home`, a page for people.

mod body_head;
mod chunks;
mod deletions;
mod finish;
mod get_blob;
mod get_manifest;
pub(crate) mod home;
mod large_manifest;
mod lists;
mod manifest_bytes;
mod mounts;
mod objects;
mod open_upload;
mod put_manifest;
mod ranges;
mod receive;
pub(crate) mod session;
mod session_states;
mod source;
mod store_body;
