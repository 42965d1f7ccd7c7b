//! Parts on their way.

use std::sync::Arc;

use tokio::task::JoinSet;

use registry::store::StoreError;

use crate::fault::Fault;
use crate::multipart::Target;
use crate::record::Part;
use crate::requests::Bucket;
use crate::room::{Held, Lent};
use crate::rope::Content;
use crate::time::Span;

/// The parts of one body that are being sent, each by a task of its own. Dropping it ends them.
pub(crate) struct Sending {
    bucket: Arc<Bucket>,
    span: Span,
    tasks: JoinSet<(Result<Part, Fault>, Held)>,
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
    pub(crate) fn stored_already(&mut self) -> Option<Result<(Part, Held), StoreError>> {
        self.tasks.try_join_next().map(outcome)
    }

    /// Waits for one. `None`: nothing is being sent.
    pub(crate) async fn stored(&mut self) -> Option<Result<(Part, Held), StoreError>> {
        self.tasks.join_next().await.map(outcome)
    }

    /// Ends what is being sent, and waits until it has ended.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

fn outcome(joined: Result<(Result<Part, Fault>, Held), tokio::task::JoinError>) -> Result<(Part, Held), StoreError> {
    let (part, base) = joined.map_err(StoreError::failed)?;
    Ok((part?, base))
}
