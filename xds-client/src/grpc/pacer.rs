//! Spaces out the opening of streams, over all workloads of a client.
//!
//! istiod admits `15 + 5·cores` new streams a second with a burst of one, makes the others wait for a second,
//! and then refuses them with `ResourceExhausted` (`pilot/pkg/bootstrap/server.go`, `maxRequestsPerSecond`).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

#[derive(Debug)]
pub(super) struct Pacer {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Pacer {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, next: Mutex::new(Instant::now()) }
    }

    /// Waits for the caller's turn. Turns are given in the order of calling; one that is not waited for is lost.
    pub(super) async fn turn(&self) {
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*next).max(Instant::now());
            *next = turn + self.interval;
            turn
        };
        sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_an_interval_apart_and_the_first_is_at_once() {
        let pacer = Pacer::new(Duration::from_millis(100));
        let start = Instant::now();

        pacer.turn().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        pacer.turn().await;
        pacer.turn().await;

        assert_eq!(start.elapsed(), Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_is_not_saved_up_for_a_burst() {
        let pacer = Pacer::new(Duration::from_millis(100));
        tokio::time::sleep(Duration::from_secs(5)).await;
        let start = Instant::now();

        pacer.turn().await;
        pacer.turn().await;

        assert_eq!(start.elapsed(), Duration::from_millis(100));
    }
}
