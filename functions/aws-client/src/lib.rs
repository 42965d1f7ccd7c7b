//! The parts of the AWS SDK that both stores on AWS share: the configuration with region, credentials and connections
//! ([`config`]), and the time in every response ([`clock::ClockWatch`]). The feature `workstation` adds credentials of programs
//! (`process`) and of single sign-on, which only a person's machine has.

pub mod clock;
pub mod config;
mod connections;
#[cfg(feature = "workstation")]
mod process;

pub use config::{AwsConfig, AwsSettings};
