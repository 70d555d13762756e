//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// Bounds of the delay between attempts. Each delay is chosen evenly between zero and a ceiling that starts at
/// `initial`, doubles with every failure and ends at `max`. It starts over once a stream has been answered and then
/// lasted for `stable`: a control plane that answers and hangs up is not asked again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffBounds {
    /// Ceiling of the first delay.
    pub initial: Duration,
    /// Ceiling of every late delay.
    pub max: Duration,
    /// How long a stream must last to count as good.
    pub stable: Duration,
}

impl Default for BackoffBounds {
    /// Envoy's bounds for its xDS streams (`RetryInitialDelayMs` and `RetryMaxDelayMs`, 500 ms and 30 s).
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(30),
            stable: Duration::from_secs(10),
        }
    }
}

#[derive(Debug)]
pub(super) struct Backoff {
    bounds: BackoffBounds,
    ceiling: Duration,
}

impl Backoff {
    pub(super) fn new(bounds: BackoffBounds) -> Self {
        Self { bounds, ceiling: bounds.initial }
    }

    /// A stream has ended that was first answered so long ago, if it ever was.
    pub(super) fn ended(&mut self, answered: Option<Duration>) {
        if answered.is_some_and(|lasted| lasted >= self.bounds.stable) {
            self.ceiling = self.bounds.initial;
        }
    }

    pub(super) fn next_delay(&mut self) -> Duration {
        let delay = self.ceiling.mul_f64(fastrand::f64());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.bounds.max);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: BackoffBounds = BackoffBounds {
        initial: Duration::from_millis(100),
        max: Duration::from_millis(400),
        stable: Duration::from_secs(10),
    };

    #[test]
    fn delays_stay_below_a_ceiling_that_doubles_up_to_its_bound() {
        let mut backoff = Backoff::new(BOUNDS);

        for ceiling in [100, 200, 400, 400] {
            assert!(backoff.next_delay() <= Duration::from_millis(ceiling));
        }
    }

    #[test]
    fn only_a_stream_that_lasted_starts_over() {
        let mut backoff = Backoff::new(BOUNDS);
        backoff.next_delay();
        backoff.next_delay();

        backoff.ended(None);
        backoff.ended(Some(Duration::from_secs(9)));
        assert_eq!(backoff.ceiling, BOUNDS.max);

        backoff.ended(Some(Duration::from_secs(10)));
        assert_eq!(backoff.ceiling, BOUNDS.initial);
    }
}
