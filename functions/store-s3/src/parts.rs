//! Parts on their way, and the upload that they are for.

use std::sync::Arc;

use tokio::task::JoinSet;

use registry::store::StoreError;

use crate::fault::Fault;
use crate::multipart::{Sent, Target};
use crate::requests::Bucket;
use crate::room::{Held, Lent};
use crate::rope::Content;
use crate::time::Span;

/// The parts of one body that are being sent, each by a task of its own. Dropping it ends them.
pub(crate) struct Sending {
    bucket: Arc<Bucket>,
    span: Span,
    tasks: JoinSet<(Result<Sent, Fault>, Held)>,
}

impl Sending {
    pub(crate) fn new(bucket: &Arc<Bucket>, span: Span) -> Self {
        Self {
            bucket: Arc::clone(bucket),
            span,
            tasks: JoinSet::new(),
        }
    }

    pub(crate) fn start(&mut self, target: &Target, number: u16, content: Content, lent: Lent) {
        let (bucket, span, target) = (Arc::clone(&self.bucket), self.span, target.clone());
        let Lent { base, more } = lent;
        self.tasks.spawn(async move {
            let deadline = span.begin();
            let part = bucket.upload_part(&target, number, &content, deadline).await;
            drop((content, more));
            (part, base)
        });
    }

    /// A part that is stored already, if there is one, and the room that it had of its upload's own.
    pub(crate) fn stored_already(&mut self) -> Option<Result<(Sent, Held), StoreError>> {
        self.tasks.try_join_next().map(outcome)
    }

    /// Waits for one. `None`: nothing is being sent.
    pub(crate) async fn stored(&mut self) -> Option<Result<(Sent, Held), StoreError>> {
        self.tasks.join_next().await.map(outcome)
    }

    /// Waits for all. Whether each is stored, and was sent but once.
    pub(crate) async fn all_stored_once(&mut self) -> bool {
        let mut all = true;
        while let Some(stored) = self.stored().await {
            all &= stored.is_ok_and(|(sent, _)| sent.once);
        }
        all
    }

    /// Ends what is being sent, and waits until it has ended.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

fn outcome(joined: Result<(Result<Sent, Fault>, Held), tokio::task::JoinError>) -> Result<(Sent, Held), StoreError> {
    let (part, base) = joined.map_err(StoreError::failed)?;
    Ok((part?, base))
}

/// An upload that this attempt has begun, and that is to be aborted when it comes to nothing: also when the request is
/// dropped in the middle, because its client has gone. If that fails, the session's row names the key.
pub(crate) struct Begun {
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) target: Option<Target>,
    pub(crate) span: Span,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(target) = self.target.take() else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (bucket, span) = (Arc::clone(&self.bucket), self.span);
        runtime.spawn(async move {
            if let Err(fault) = bucket.abort(&target, span.begin()).await {
                tracing::warn!(key = target.key, error = %fault, "an upload that came to nothing could not be aborted");
            }
        });
    }
}
