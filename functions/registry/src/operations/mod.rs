//! The operations, one for each endpoint. An operation takes a permit and parsed values, and returns a response or an
//! [`Error`](crate::error::Error). "end-N" is the number of an endpoint in the specification's table of endpoints.
//!
//! * Pulls: `get_blob`, `get_manifest`, `lists`. They use `ranges`, `manifest_bytes`, and `objects` (what happens when
//!   an object is missing).
//! * Pushes of blobs: `open_upload` (which may `mount`), `chunks`, `finish`. Every body of an upload takes the same
//!   steps: the session is claimed (`session_states`), the body is stored (`store_body`, which reads it through a
//!   `source`), and then saved (a chunk) or committed and published (the last one). `body_head` reads what a request
//!   says about its body, and `session` is the upload that a request names.
//! * Pushes of manifests: `put_manifest`, after `receive`; `large_manifest` for those that become objects, and `tag_guard` for which
//!   tags may change.
//! * `repository_settings`: what the policy sets for pushes to some repositories.
//! * Releases: `rollback`, and `promote`, which puts manifests (`promoted_manifests`) and what refers to them
//!   (`promoted_referrers`) in another repository, by `promotion_rights`. Both end with `tag_changes`.
//! * `catalog`: the list of repositories. `deletions`. `tokens`: the form of requests for tokens. `home`: a page for people.
//! * `api`: the form of requests to the API. `api_repositories`: what the caller of the API does in repositories.

mod api;
mod api_repositories;
mod body_head;
mod catalog;
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
mod promote;
mod promoted_manifests;
mod promoted_referrers;
mod promotion_rights;
mod put_manifest;
mod ranges;
mod receive;
mod repository_settings;
mod rollback;
pub(crate) mod session;
mod session_states;
mod source;
mod store_body;
mod tag_changes;
mod tag_guard;
mod tokens;
