//! The content of each item: conversion between items and the values of the contract.

mod account;
mod event;
mod failures;
mod policy;
mod seed;
mod state;

pub(super) use account::AccountRow;
pub(super) use event::{EventRow, FirstEventRow};
pub(super) use failures::FailuresRow;
pub(super) use policy::{PolicyRow, PolicyVersionRow};
pub(super) use seed::SeedRow;
pub(super) use state::StateRow;
