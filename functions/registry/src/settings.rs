//! The settings of a registry.

use std::sync::Arc;

use crate::auth::Challenge;
use crate::delivery::{Delivery, DeliveryPolicy};
use crate::hosts::HostPolicy;
use crate::limits::Limits;
use crate::region::RegionName;
use crate::sparse::Sparse;

/// The settings that an operator may choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The limits.
    pub limits: Limits,
    /// Whether manifests may refer to absent content.
    pub sparse: Sparse,
    /// How clients receive blobs: by redirect or through the registry.
    pub delivery: Arc<dyn DeliveryPolicy>,
    /// The host names at which the registry answers.
    pub hosts: HostPolicy,
    /// The challenges to clients without the right credentials. Without a token endpoint they are Basic, whatever this says.
    pub challenge: Challenge,
    /// The region of this instance. Upload tokens of other regions are not accepted.
    pub region: RegionName,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            sparse: Sparse::default(),
            delivery: Arc::new(Delivery::default()),
            hosts: HostPolicy::default(),
            challenge: Challenge::default(),
            region: RegionName::default(),
        }
    }
}
