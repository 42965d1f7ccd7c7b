//! What an operator runs over a registry: collection and checks.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each test binary uses its own part")]
mod support;

mod check;
mod collect;
mod losses;
mod objects;
