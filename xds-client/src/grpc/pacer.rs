//! Spaces out the opening of streams, over all workloads of a client.
//!
//! istiod admits `15 + 5·cores` new streams a second with a burst of one, makes the others wait for a second,
//! and then refuses them with `ResourceExhausted` (`pilot/pkg/bootstrap/server.go`, `maxRequestsPerSecond`). How many
//! cores it has is not known here, so a refusal slows down everybody for a while.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// However often it refuses, a stream is tried so often.
const SLOWEST: Duration = Duration::from_secs(1);
/// Refusals that come so soon after another are of the same crowd.
const SAME_CROWD: Duration = Duration::from_secs(1);
/// After so long without a refusal, the pace doubles again.
const RECOVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Pacer {
    /// Without refusals.
    shortest: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    interval: Duration,
    next: Instant,
    /// When the pace was changed last.
    changed: Option<Instant>,
}

impl Pacer {
    pub(super) fn new(interval: Duration) -> Self {
        let state = State { interval, next: Instant::now(), changed: None };
        Self { shortest: interval, state: Mutex::new(state) }
    }

    /// Waits for the caller's turn. Turns are given in the order of calling; one that is not waited for is lost.
    pub(super) async fn turn(&self) {
        let turn = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if state.changed.is_some_and(|changed| changed + RECOVERY <= now) {
                state.interval = (state.interval / 2).max(self.shortest);
                state.changed = (state.interval > self.shortest).then_some(now);
            }
            let turn = state.next.max(now);
            state.next = turn + state.interval;
            turn
        };
        sleep_until(turn).await;
    }

    /// The server said that streams come too fast.
    pub(super) fn refused(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.changed.is_none_or(|changed| changed + SAME_CROWD <= now) {
            state.interval = (state.interval * 2).min(SLOWEST.max(self.shortest));
            state.changed = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn time_for(pacer: &Pacer, turns: u32) -> Duration {
        let start = Instant::now();
        for _ in 0..turns {
            pacer.turn().await;
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_an_interval_apart_and_the_first_is_at_once() {
        let pacer = Pacer::new(Duration::from_millis(100));

        assert_eq!(time_for(&pacer, 1).await, Duration::ZERO);
        assert_eq!(time_for(&pacer, 2).await, Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_is_not_saved_up_for_a_burst() {
        let pacer = Pacer::new(Duration::from_millis(100));
        tokio::time::sleep(Duration::from_secs(5)).await;

        assert_eq!(time_for(&pacer, 2).await, Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_refusals_halves_the_pace_once_and_for_a_while() {
        let pacer = Pacer::new(Duration::from_millis(100));
        pacer.turn().await;

        pacer.refused();
        pacer.refused();

        pacer.turn().await;
        assert_eq!(time_for(&pacer, 5).await, Duration::from_secs(1));
        tokio::time::sleep(RECOVERY).await;
        pacer.turn().await;
        assert_eq!(time_for(&pacer, 5).await, Duration::from_millis(500));
    }
}
