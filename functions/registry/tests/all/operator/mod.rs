//! Collection and checks, which an operator runs on a registry.

mod check;
mod collect;
mod losses;
mod objects;
mod releases;
mod releases_settings;
