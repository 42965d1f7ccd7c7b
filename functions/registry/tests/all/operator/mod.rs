//! What an operator runs over a registry: collection and checks.

mod check;
mod collect;
mod losses;
mod objects;
