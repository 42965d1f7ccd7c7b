//! Classes of bugs that registries have had, a named test for each. The numbers are those of the project's list.
//!
//! `access`: who may do what (S1, S3, S14, S15, S23, S29). `authorities`: sessions, tokens, redirects, the log (S9, S10,
//! S18, S20, S28). `collection`: what is reclaimed while others push (S26, S27). `content`: hostile bodies and parameters
//! (S6, S7, S8, S21, S22, S25, S26). `s02_unlinked`: what was deleted or revoked a moment ago (S2).

mod access;
mod authorities;
mod collection;
mod content;
mod examples;
mod s02_unlinked;
