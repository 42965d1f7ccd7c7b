//! A timer for deadlines that move often and are seldom reached.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// To move the deadline to a later time costs nothing: the timer fires at the old time, sees that the deadline is later, and
/// waits again.
#[derive(Default)]
pub(super) struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    /// Whether `deadline` has passed. If not, the task is woken when it has, or before.
    pub(super) fn poll_passed(&mut self, context: &mut Context<'_>, deadline: Instant) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            match sleep.as_mut().poll(context) {
                Poll::Pending => return false,
                Poll::Ready(()) if sleep.deadline() >= deadline => return true,
                Poll::Ready(()) => sleep.as_mut().reset(deadline),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    async fn passed(timer: &mut LazyTimer, mut deadline: impl FnMut() -> Instant) {
        let met = poll_fn(|context| {
            if timer.poll_passed(context, deadline()) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        tokio::time::timeout(Duration::from_secs(10), met)
            .await
            .expect("the timer wakes its task");
    }

    #[tokio::test(start_paused = true)]
    async fn a_moving_deadline_is_met_once_it_stands_still() {
        let mut timer = LazyTimer::default();
        let start = Instant::now();
        let mut looks = 0;
        // Each time that the timer looks, the deadline has moved; then it stays.
        passed(&mut timer, || {
            looks = 4.min(looks + 1);
            start + Duration::from_millis(5 * looks)
        })
        .await;
        assert!(Instant::now() >= start + Duration::from_millis(20));
        // An earlier deadline takes effect at once.
        let far = Instant::now() + Duration::from_mins(10);
        assert!(!poll_fn(|context| Poll::Ready(timer.poll_passed(context, far))).await);
        let near = Instant::now() + Duration::from_millis(5);
        passed(&mut timer, || near).await;
    }
}
