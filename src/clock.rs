//! A server's clock: the `Date` of its replies, and the time since.
//!
//! The runner's own clock is not asked for the time; it only counts what has passed.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::fence::Boottime;
use crate::net::are_apart;

#[derive(Debug, Default)]
pub struct ServerClock(Mutex<Option<(Timestamp, Boottime)>>);

impl ServerClock {
    /// `None` before the first reply that has a `Date`.
    pub fn now(&self) -> Option<Timestamp> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.map(|(date, at)| date + at.elapsed())
    }

    /// Takes in the `Date` of a reply; whether it can be believed. One that is far from the time
    /// that has passed since the last one is some proxy's or cache's.
    pub fn note(&self, date: Timestamp) -> bool {
        let known = self.now();
        if known.is_some_and(|known| are_apart(known, date)) {
            return false;
        }
        // Dates are whole seconds: the latest moment that any reply has shown is the best that is
        // known, and never goes back.
        if known.is_none_or(|known| known < date) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((date, Boottime::now()));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::net::CLOCK_TOLERANCE;

    #[test]
    fn a_date_far_from_the_time_that_has_passed_is_not_believed() {
        let clock = ServerClock::default();
        let start = Timestamp::UNIX_EPOCH;
        let second = SignedDuration::from_secs(1);
        assert!(clock.note(start));
        for off in [CLOCK_TOLERANCE + second, -CLOCK_TOLERANCE - second * 60] {
            assert!(!clock.note(start + off));
        }
        assert!(clock.now().is_some_and(|now| now < start + second * 60));
        assert!(clock.note(start + CLOCK_TOLERANCE - second));
        assert!(clock.now().is_some_and(|now| now >= start + CLOCK_TOLERANCE - second));
        assert!(clock.note(start + second), "a little late, as replies are");
        assert!(clock.now().is_some_and(|now| now >= start + CLOCK_TOLERANCE - second));
    }
}
