//! The cause of a fault.

/// A boxed cause for the log. Its text never reaches a client.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;
