//! What comes from files and can be read again while the server runs.

use async_trait::async_trait;

/// Something that was made from a file.
#[async_trait]
pub(crate) trait Reload: Send + Sync + 'static {
    /// Reads the file again, and says in the log what came of it. A file that cannot be used changes nothing.
    async fn reload(&self);
}
