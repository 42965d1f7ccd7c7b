//! The deadline of a request: when its work ends at the latest.
//!
//! Calls of stores are made by operations, by the authenticator, by the token endpoint and by the API. The deadline is
//! therefore not an argument that one of them could forget to pass on. It is in force while the future of the request is
//! polled, and [`context`](crate::environment::context), which makes every context of a call, reads it there.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;

use crate::store::Timestamp;

/// The deadline of a request: an extension of the request, for shells whose host ends requests at a certain time. Every
/// call of a store that the request makes ends at this time, unless its own timeout comes first (see
/// [`Context::deadline`](crate::store::Context)). A shell sets it early enough to send the response. A call that streams a body
/// lasts as long as its body, so that a host with a hard end must end such a request by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    at: Timestamp,
    ends_seals: bool,
}

impl Deadline {
    /// For a host that ends the request itself, whatever it does then.
    #[must_use]
    pub fn hard(at: Timestamp) -> Self {
        Self { at, ends_seals: true }
    }

    /// For a host that can wait. If the body of an upload has arrived in time, the registry may take as long as
    /// [`Limits::seal_ms`](crate::Limits) to make an object of it, and then publishes it: the client has sent everything, and
    /// would have to send it again.
    #[must_use]
    pub fn until_seal(at: Timestamp) -> Self {
        Self { at, ends_seals: false }
    }

    /// When the request ends.
    pub(crate) fn at(self) -> Timestamp {
        self.at
    }
}

thread_local! {
    static IN_FORCE: Cell<Option<Deadline>> = const { Cell::new(None) };
}

/// Runs `work` with a deadline in force. It is pinned by the caller, because a copy of it would double the size of a request.
pub(crate) fn with_deadline<T>(
    deadline: Option<Deadline>,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> impl Future<Output = T> {
    let mut own = deadline;
    poll_fn(move |task| {
        let _turn = Turn::begin(&mut own);
        work.as_mut().poll(task)
    })
}

/// One poll of a request. Other requests are polled by the same thread before and after it.
struct Turn<'a> {
    own: &'a mut Option<Deadline>,
    outer: Option<Deadline>,
}

impl<'a> Turn<'a> {
    fn begin(own: &'a mut Option<Deadline>) -> Self {
        let outer = IN_FORCE.replace(*own);
        Self { own, outer }
    }
}

/// Also if the poll panics.
impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.own = IN_FORCE.replace(self.outer);
    }
}

/// The deadline that is in force.
pub(crate) fn in_force() -> Option<Deadline> {
    IN_FORCE.get()
}

/// Ends the deadline of the request for the rest of its work, if its host can wait.
pub(crate) fn begin_seal() {
    IN_FORCE.set(in_force().filter(|deadline| deadline.ends_seals));
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const HARD: Deadline = Deadline {
        at: Timestamp(1),
        ends_seals: true,
    };
    const SOFT: Deadline = Deadline {
        at: Timestamp(2),
        ends_seals: false,
    };

    /// Ends at its second poll.
    async fn pause() {
        let mut is_second = false;
        poll_fn(|_| {
            if std::mem::replace(&mut is_second, true) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    #[test]
    fn requests_that_take_turns_keep_their_own_deadlines() {
        let seen = async |deadline| {
            let work = pin!(async {
                let before = in_force();
                pause().await;
                begin_seal();
                let sealing = in_force();
                pause().await;
                (before, sealing, in_force())
            });
            with_deadline(deadline, work).await
        };
        let mut task = Context::from_waker(Waker::noop());
        let (mut hard, mut soft, mut none) = (pin!(seen(Some(HARD))), pin!(seen(Some(SOFT))), pin!(seen(None)));
        for _ in 0..2 {
            assert!(hard.as_mut().poll(&mut task).is_pending());
            assert_eq!(in_force(), None);
            assert!(soft.as_mut().poll(&mut task).is_pending());
            assert!(none.as_mut().poll(&mut task).is_pending());
        }
        let ended = |polled| matches!(polled, Poll::Ready(seen) if seen == (None, None, None));
        assert!(ended(none.as_mut().poll(&mut task)));
        assert_eq!(soft.as_mut().poll(&mut task), Poll::Ready((Some(SOFT), None, None)));
        assert_eq!(
            hard.as_mut().poll(&mut task),
            Poll::Ready((Some(HARD), Some(HARD), Some(HARD)))
        );
        assert_eq!(in_force(), None);
    }

    #[test]
    fn the_deadline_of_the_outer_work_is_in_force_again() {
        let mut task = Context::from_waker(Waker::noop());
        let outer = pin!(async {
            with_deadline(Some(SOFT), pin!(ready(()))).await;
            in_force()
        });
        let mut outer = pin!(with_deadline(Some(HARD), outer));
        assert_eq!(outer.as_mut().poll(&mut task), Poll::Ready(Some(HARD)));
        let panics = pin!(async { panic!("planned") });
        let mut panics = pin!(with_deadline(Some(SOFT), panics));
        let caught = catch_unwind(AssertUnwindSafe(|| panics.as_mut().poll(&mut task)));
        assert!(caught.is_err());
        assert_eq!(in_force(), None);
    }
}
