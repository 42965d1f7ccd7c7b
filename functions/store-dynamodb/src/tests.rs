//! The whole store over tables in memory: the contracts, also on a bad day; and the real code under a scheduler that
//! goes through interleavings, crashes and faults, with what must be true throughout.
//!
//! Read in this order: [`cast`] (who plays), [`acts`] (what they do), [`world`] (where), [`scenarios`] (what happens),
//! [`search`] (how often), [`invariants`] and [`linearizable`] (what is true), [`mutations`] (that it would be noticed).

mod acts;
mod cast;
mod checks;
mod contract;
mod dated;
mod invariants;
mod linearizable;
mod mutant;
mod mutations;
mod scenarios;
mod search;
mod world;
