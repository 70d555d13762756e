//! When a certificate is asked for. No clock and no I/O: whoever owns it says what time it is and what happened.
//!
//! Renewal goes by both clocks, whichever comes first: the wall clock, because certificates are valid by it and it may
//! jump, and the monotonic one, because peers have clocks of their own when this node's was set back. The delay after a
//! failure goes by the monotonic clock, so that no jump stretches it.

use std::time::{Duration, Instant, SystemTime};

/// A certificate is renewed when this much of its life is left, at the latest, and never before the other part of it.
const LATEST: f64 = 0.5;
const SPREAD: f64 = 0.1;
/// However short its life is, the authority is left alone for so long.
const SHORTEST: Duration = Duration::from_secs(1);
/// No wake-up is further ahead: what a jump of the clock makes due is seen within this time.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// Bounds of the delay after failures: chosen evenly between zero and a ceiling that doubles with each.
const FIRST_CEILING: Duration = Duration::from_millis(500);
const LAST_CEILING: Duration = Duration::from_secs(30);
/// Beyond what any clock can count.
const LIFE_BOUND: Duration = Duration::from_hours(10 * 365 * 24);

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) wall: SystemTime,
    pub(crate) monotonic: Instant,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self { wall: SystemTime::now(), monotonic: tokio::time::Instant::now().into_std() }
    }
}

/// When one account's certificate is asked for.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// When the one that is held is due.
    renewal: Option<Renewal>,
    /// Not before this, after a failure.
    retry_at: Option<Instant>,
    ceiling: Duration,
    asking: bool,
}

#[derive(Debug, Clone, Copy)]
struct Renewal {
    at: SystemTime,
    by: Instant,
}

impl Schedule {
    /// Nothing is held: due at once.
    pub(crate) fn new() -> Self {
        Self { renewal: None, retry_at: None, ceiling: FIRST_CEILING, asking: false }
    }

    /// How long until it is due, if neither clock jumps; zero is now, `None` is while the authority is being asked.
    pub(crate) fn due_in(&self, now: Now) -> Option<Duration> {
        if self.asking {
            return None;
        }
        let retry = self.retry_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now.monotonic));
        let renewal = self.renewal.map_or(Duration::ZERO, |Renewal { at, by }| {
            let by_wall = at.duration_since(now.wall).unwrap_or_default();
            by_wall.min(by.saturating_duration_since(now.monotonic))
        });
        Some(retry.max(renewal))
    }

    /// The authority is being asked.
    pub(crate) fn asked(&mut self) {
        self.asking = true;
    }

    /// A certificate came. `jitter` is from 0 to 1.
    pub(crate) fn issued(&mut self, now: Now, not_after: SystemTime, jitter: f64) {
        let life = not_after.duration_since(now.wall).unwrap_or_default().min(LIFE_BOUND);
        let wait = life.mul_f64(LATEST - SPREAD * jitter).max(SHORTEST);
        *self =
            Self { renewal: Some(Renewal { at: now.wall + wait, by: now.monotonic + wait }), ..Self::new() };
    }

    /// None came. `jitter` is from 0 to 1.
    pub(crate) fn failed(&mut self, now: Now, jitter: f64) {
        self.asking = false;
        self.retry_at = Some(now.monotonic + self.ceiling.mul_f64(jitter));
        self.ceiling = self.ceiling.saturating_mul(2).min(LAST_CEILING);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn start() -> Now {
        Now { wall: SystemTime::UNIX_EPOCH + 20_000 * DAY, monotonic: Instant::now() + DAY }
    }

    fn later(now: Now, by: Duration) -> Now {
        Now { wall: now.wall + by, monotonic: now.monotonic + by }
    }

    fn is_due(schedule: &Schedule, now: Now) -> bool {
        schedule.due_in(now) == Some(Duration::ZERO)
    }

    /// What may happen to a schedule.
    #[derive(Debug, Clone)]
    enum Event {
        Passes(Duration),
        WallJumps { forth: bool, by: Duration },
        Issued { life: Duration, jitter: f64 },
        Failed { jitter: f64 },
    }

    fn event() -> impl Strategy<Value = Event> {
        let seconds = |most: u64| (0..most).prop_map(Duration::from_secs);
        let jitter = || 0.0..1.0;
        prop_oneof![
            seconds(100_000).prop_map(Event::Passes),
            (any::<bool>(), seconds(1_000_000)).prop_map(|(forth, by)| Event::WallJumps { forth, by }),
            (seconds(200_000), jitter()).prop_map(|(life, jitter)| Event::Issued { life, jitter }),
            jitter().prop_map(|jitter| Event::Failed { jitter }),
        ]
    }

    #[test]
    fn the_first_certificate_is_due_at_once_and_asked_for_once() {
        let mut schedule = Schedule::new();
        assert!(is_due(&schedule, start()));

        schedule.asked();
        assert_eq!(schedule.due_in(start()), None);
    }

    #[test]
    fn a_clock_that_is_set_forth_makes_a_renewal_due_and_one_that_is_set_back_puts_none_off() {
        let (now, mut schedule) = (start(), Schedule::new());
        schedule.issued(now, now.wall + DAY, 0.0);

        let forth = Now { wall: now.wall + DAY, ..now };
        assert!(is_due(&schedule, forth));
        let back = Now { wall: now.wall - DAY, monotonic: now.monotonic + DAY / 2 };
        assert!(is_due(&schedule, back));
    }

    #[test]
    fn failures_are_further_and_further_apart_up_to_a_bound() {
        let (now, mut schedule) = (start(), Schedule::new());
        let mut delays = Vec::new();
        for _ in 0..8 {
            schedule.failed(now, 1.0);
            delays.push(schedule.due_in(now).unwrap());
        }
        let expected = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0].map(Duration::from_secs_f64);
        assert_eq!(delays, expected);
    }

    proptest! {
        #[test]
        fn a_certificate_is_renewed_between_four_and_five_tenths_of_its_life(
            life in 10_u64..1_000_000, jitter in 0.0..1.0,
        ) {
            let life = Duration::from_secs(life);
            let (now, mut schedule) = (start(), Schedule::new());
            schedule.issued(now, now.wall + life, jitter);

            prop_assert!(!is_due(&schedule, later(now, life.mul_f64(0.399))));
            prop_assert!(is_due(&schedule, later(now, life.mul_f64(0.501))));
        }

        /// Whatever the clocks do: once half of the life has passed by either clock, it is due, save for a delay after
        /// failures that has a bound.
        #[test]
        fn nothing_puts_a_renewal_off(events in prop::collection::vec(event(), 0..40)) {
            let (mut now, mut schedule, mut held) = (start(), Schedule::new(), None);
            for event in events {
                match event {
                    Event::Passes(by) => now = later(now, by),
                    Event::WallJumps { forth: true, by } => now.wall += by,
                    Event::WallJumps { forth: false, by } => now.wall -= by,
                    Event::Issued { life, jitter } => {
                        schedule.asked();
                        let until = now.wall + life;
                        schedule.issued(now, until, jitter);
                        let wait = (life / 2).max(SHORTEST);
                        held = Some((now.wall + wait, now.monotonic + wait));
                    }
                    Event::Failed { jitter } => {
                        schedule.asked();
                        schedule.failed(now, jitter);
                    }
                }
                let half_over = held.is_none_or(|(wall, monotonic)| wall <= now.wall || monotonic <= now.monotonic);
                let due_in = schedule.due_in(now).unwrap();
                prop_assert!(!half_over || due_in <= LAST_CEILING, "{due_in:?}");
            }
        }
    }
}
