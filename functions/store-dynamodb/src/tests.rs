//! The whole store over tables in memory: the contracts, without faults and with them; and the production code under a
//! scheduler that searches interleavings, crashes and faults for one that breaks an invariant.
//!
//! Read in this order: [`fixtures`] (what exists), [`operations`] (what the tasks do), [`world`] (the tables, objects and
//! time), [`scenarios`] (which operations race), [`search`] (how many schedules, with which faults), [`invariants`] and
//! [`linearizable`] (what must hold), [`mutations`] (that the search finds mistakes), [`mutant`] (how a mistake is made).
//! [`administrators`] has a search of its own, for new accounts and policies, and [`account_losses`] one for accounts that lose
//! something.

mod account_losses;
mod administrators;
mod checks;
mod contract;
mod dated;
mod fixtures;
mod frozen;
mod invariants;
mod linearizable;
mod mutant;
mod mutations;
mod operations;
mod scenarios;
mod search;
mod world;
