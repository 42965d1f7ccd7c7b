//! Classes of security faults that registries have had, each with a named test. The numbers are those of the project's
//! list.
//!
//! `access` and `permissions`: permissions (S1, S3, S14, S15, S23, S29). `authorities`: sessions, tokens, redirects, the log (S9, S10,
//! S18, S20, S28). `collection`: garbage collection during pushes (S26, S27). `content`: malicious bodies and
//! parameters (S6, S7, S8, S21, S22, S25, S26). `s02_unlinked`: content that was deleted, and permissions that were
//! revoked, a moment ago (S2). `denials`: what is counted and logged of denied requests (S18). `s03_immutable` and
//! `s03_endpoints`: immutable tags (S3). `s04_create_only`: principals that may create tags and not move them (S4).
//! `s13_foreign_layers`: a policy that forbids layers that are stored elsewhere (S13). `s19_content_types`: pushed content in a
//! browser (S19). `example_document`: a whole policy as requests (S3, S4).

mod access;
mod authorities;
mod collection;
mod content;
mod denials;
mod example_document;
pub(crate) mod examples;
mod permissions;
mod s02_unlinked;
mod s03_endpoints;
mod s03_immutable;
mod s04_create_only;
mod s13_foreign_layers;
mod s19_content_types;
