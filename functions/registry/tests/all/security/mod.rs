//! Classes of security faults that registries have had, each with a named test. The numbers are those of the project's
//! list.
//!
//! `access`: permissions (S1, S3, S14, S15, S23, S29). `authorities`: sessions, tokens, redirects, the log (S9, S10,
//! S18, S20, S28). `collection`: garbage collection during pushes (S26, S27). `content`: malicious bodies and
//! parameters (S6, S7, S8, S21, S22, S25, S26). `s02_unlinked`: content that was deleted, and permissions that were
//! revoked, a moment ago (S2).

mod access;
mod authorities;
mod collection;
mod content;
mod examples;
mod s02_unlinked;
