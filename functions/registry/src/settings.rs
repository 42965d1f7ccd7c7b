//! The settings of a registry.

use std::sync::Arc;

use crate::delivery::{Delivery, DeliveryPolicy};
use crate::hosts::HostPolicy;
use crate::limits::Limits;
use crate::region::RegionName;
use crate::sparse::Sparse;

/// The settings of a registry, which an operator may choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Every bound.
    pub limits: Limits,
    /// Whether manifests may refer to content that their repository does not have.
    pub sparse: Sparse,
    /// Whether a pull of a blob is redirected to the object store.
    pub delivery: Arc<dyn DeliveryPolicy>,
    /// At which host names the registry answers.
    pub hosts: HostPolicy,
    /// The region that this instance belongs to; upload tokens of another one are not accepted.
    pub region: RegionName,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            sparse: Sparse::default(),
            delivery: Arc::new(Delivery::default()),
            hosts: HostPolicy::default(),
            region: RegionName::default(),
        }
    }
}
