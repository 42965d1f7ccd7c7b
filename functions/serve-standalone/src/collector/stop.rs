//! How a collection is told to stop.

use std::ops::ControlFlow;

use tokio::sync::watch;

/// Whether a collection is to stop at its next step. Clones are told together.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<()>);

/// Tells the [`Stop`]s that came with it to stop, by being dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Going {
    #[expect(dead_code, reason = "held for its drop, which the other end notices")]
    alive: watch::Sender<()>,
}

impl Stop {
    pub(crate) fn new() -> (Going, Self) {
        let (alive, told) = watch::channel(());
        (Going { alive }, Self(told))
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Completes when it is to stop.
    pub(crate) async fn asked(&mut self) {
        while self.0.changed().await.is_ok() {}
    }

    /// What a collection is answered after each of its steps.
    pub(crate) fn answer(&self) -> ControlFlow<()> {
        if self.is_asked() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}
