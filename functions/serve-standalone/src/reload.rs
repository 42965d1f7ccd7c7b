//! Files that a server reads again while it runs.

use async_trait::async_trait;

/// A value that was read from a file.
#[async_trait]
pub(crate) trait Reload: Send + Sync + 'static {
    /// Reads the file again, and logs the result. A file that cannot be used changes nothing.
    async fn reload(&self);
}
