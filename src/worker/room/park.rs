//! Whether an account is parked as far as is known here, and how fast it begins again after that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::job::JobId;
use crate::policy::breaker::belief::Beliefs;
use crate::policy::breaker::slow_start_limit;
use crate::policy::rules::BreakerRules;
use crate::policy::verdict::AccountSignal;
use crate::worker::clock::Moment;

/// What the gateway and the database said of an account's parks.
#[derive(Default)]
pub struct Park(Mutex<State>);

#[derive(Default)]
struct State {
    /// Claims from before this moment must not be sent any more.
    parked_at: Option<Moment>,
    /// The gateway said that the account is unwell, and the database has not been told yet.
    is_unstored: bool,
    /// What the database said last.
    seen: Seen,
    /// Whether it is parked until something that the gateway accepted is delivered.
    waits_for_delivery: bool,
    /// Whether its health alone has ended its last park, and nothing was sent with success since.
    is_doubted: bool,
    /// How far answers are believed that say that it is unwell.
    beliefs: Beliefs,
    /// When something was last sent with success.
    got_through_at: Option<Moment>,
}

#[derive(Clone, Copy, Default)]
enum Seen {
    /// Active for so long that no slow start is due.
    #[default]
    Active,
    /// Parked: one request at a time until the resumption is seen.
    Parked,
    /// Resumed at this moment.
    ResumedAt(Moment),
}

impl State {
    fn park(&mut self) {
        self.parked_at = Some(Moment::now());
        self.is_unstored = true;
    }
}

impl Park {
    /// Obeys what health says of the account, or what was asked for its key, at once: of one that is unwell nothing that was claimed before is sent,
    /// and nothing more is claimed until the park is [stored](Park::is_stored). Its wait, if it is to wait, begins with
    /// the record of the answer, for the claim of every daemon respects that.
    ///
    /// A park is known at once, before the database knows it, which may take as long as somebody locks the
    /// account's row.
    pub fn heed(&self, signal: Option<&AccountSignal>) {
        if matches!(signal, Some(AccountSignal::Park { .. })) {
            let mut state = self.state();
            state.beliefs.confirm();
            state.park();
        }
    }

    /// Obeys what the answer to a read means for the account, as [`heed`](Park::heed) does, unless that is not believed.
    /// Returns whether it is obeyed. `now` is the age of the room.
    pub fn heed_read(&self, signal: Option<&AccountSignal>, now: Duration) -> bool {
        self.heed_if(signal, |beliefs, signal| beliefs.heed_read(signal, now))
    }

    /// The same for the answer to the send of a job of this operation.
    pub fn heed_send(
        &self,
        operation: &str,
        job: JobId,
        signal: Option<&AccountSignal>,
        now: Duration,
    ) -> bool {
        self.heed_if(signal, |beliefs, signal| {
            beliefs.heed_send(operation, job, signal, now)
        })
    }

    fn heed_if(
        &self,
        signal: Option<&AccountSignal>,
        is_believed: impl FnOnce(&mut Beliefs, &AccountSignal) -> bool,
    ) -> bool {
        let mut state = self.state();
        let is_heeded = signal.is_none_or(|signal| is_believed(&mut state.beliefs, signal));
        if is_heeded && matches!(signal, Some(AccountSignal::Park { .. })) {
            state.park();
        }
        is_heeded
    }

    /// A job of this operation was sent with success, by a request that left at this moment of the room's age.
    pub fn got_through(&self, operation: &str, job: JobId, left_at: Duration, now: Duration) {
        let mut state = self.state();
        state.beliefs.got_through(operation, job, left_at, now);
    }

    /// A probe says that the account is unwell, whatever has parked it.
    pub fn confirm(&self) {
        self.state().beliefs.confirm();
    }

    /// The database has been told of the park: claims from before this moment are not sent, and its word of
    /// the account counts again, even should it have refused the park.
    pub fn is_stored(&self) {
        let mut state = self.state();
        state.parked_at = Some(Moment::now());
        state.is_unstored = false;
        state.seen = Seen::Parked;
    }

    /// What the database says of the account: whether it is parked, and if not, whether its health alone has ended its last
    /// park (see [`is_doubted`](Park::is_doubted)) and for how long it has been resumed.
    /// `now` is the age of the room.
    pub fn observe(
        &self,
        is_parked: bool,
        is_doubted: bool,
        resumed_for: Option<Duration>,
        slow_start: Duration,
        now: Duration,
    ) {
        let mut state = self.state();
        state.is_doubted = is_doubted;
        state.beliefs.observe(is_parked, now);
        state.seen = match resumed_for.filter(|time| *time < slow_start) {
            _ if is_parked => Seen::Parked,
            Some(time) => Seen::ResumedAt(Moment::now().before(time)),
            None => Seen::Active,
        };
    }

    /// A probe has ended its park. `now` is the age of the room.
    pub fn resume(&self, now: Duration) {
        self.state().beliefs.resume(now);
    }

    /// From now on its requests start slowly, as after a park.
    pub fn resume_slowly(&self) {
        self.state().seen = Seen::ResumedAt(Moment::now());
    }

    /// Whether what was claimed at this moment may still be sent.
    pub fn allows(&self, claimed_at: Moment) -> bool {
        let parked_at = self.state().parked_at;
        parked_at.is_none_or(|parked_at| claimed_at > parked_at)
    }

    /// How many jobs may be claimed and not yet finished: as many as there are slots, and `ahead` more.
    pub fn limit(&self, concurrency: usize, ahead: usize, rules: &BreakerRules) -> usize {
        let state = self.state();
        match state.seen {
            // The database still lets its jobs be claimed.
            _ if state.is_unstored => 0,
            Seen::Active => concurrency + ahead,
            Seen::Parked => 1,
            Seen::ResumedAt(moment) => slow_start_limit(concurrency, Some(moment.elapsed()), rules),
        }
    }

    /// Whether it is parked until something that the gateway accepted is delivered, as the database last said.
    pub fn waits_for_delivery(&self) -> bool {
        self.state().waits_for_delivery
    }

    /// Notes whether it is parked until something is delivered.
    pub fn wait_for_delivery(&self, waits: bool) {
        self.state().waits_for_delivery = waits;
    }

    /// Whether its health alone has ended its last park, and nothing was sent with success since.
    pub fn is_doubted(&self) -> bool {
        self.state().is_doubted
    }

    /// Notes whether its health alone has ended its last park.
    pub fn doubt(&self, is_doubted: bool) {
        self.state().is_doubted = is_doubted;
    }

    /// Something was sent with success.
    pub fn note_success(&self) {
        self.state().got_through_at = Some(Moment::now());
    }

    /// Whether something was sent with success in this time, to this moment.
    pub fn got_through_within(&self, time: Duration) -> bool {
        let at = self.state().got_through_at;
        at.is_some_and(|at| at.elapsed() < time)
    }

    /// Nothing in it can be half-changed, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::verdict::Reason;

    fn rules() -> BreakerRules {
        BreakerRules {
            probe_initial: Duration::from_secs(60),
            probe_max: Duration::from_secs(900),
            slow_start: Duration::from_secs(60),
        }
    }

    fn unwell() -> AccountSignal {
        AccountSignal::Park {
            reason: Reason::ServiceUnavailable,
            hint: None,
            said: None,
            undelivered: None,
        }
    }

    #[test]
    fn nothing_is_claimed_until_the_database_was_told_of_the_park() {
        let (park, rules) = (Park::default(), rules());
        assert_eq!(park.limit(8, 2, &rules), 10);
        park.heed(Some(&unwell()));
        assert_eq!(park.limit(8, 2, &rules), 0);
        // Its row is locked, and shows what it was before.
        park.observe(false, false, None, rules.slow_start, Duration::ZERO);
        assert_eq!(park.limit(8, 2, &rules), 0);
        park.is_stored();
        assert_eq!(park.limit(8, 2, &rules), 1);
        // It was refused, or somebody has resumed the account.
        park.observe(false, false, None, rules.slow_start, Duration::ZERO);
        assert_eq!(park.limit(8, 2, &rules), 10);
    }

    #[test]
    fn what_was_claimed_before_a_park_is_not_sent_after_it() {
        let park = Park::default();
        let before = Moment::now();
        assert!(park.allows(before));
        park.heed(None);
        assert!(park.allows(before));
        park.heed(Some(&unwell()));
        assert!(!park.allows(before));
        assert!(park.allows(Moment::now().after(Duration::from_secs(1))));
    }

    #[test]
    fn after_a_park_it_begins_with_less_than_it_has_slots() {
        let (park, rules) = (Park::default(), rules());
        park.observe(
            false,
            false,
            Some(Duration::ZERO),
            rules.slow_start,
            Duration::ZERO,
        );
        assert!(park.limit(8, 2, &rules) < 8);
        park.observe(
            false,
            false,
            Some(rules.slow_start),
            rules.slow_start,
            Duration::ZERO,
        );
        assert_eq!(park.limit(8, 2, &rules), 10);
        park.resume_slowly();
        assert!(park.limit(8, 2, &rules) < 8);
    }
}
