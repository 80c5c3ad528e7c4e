//! The states of a job, and the moves between them.

use std::fmt;

use serde::{Serialize, Serializer};

/// The state of a job, `apipay.jobs.state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Waits to be sent: as it was inserted, or put back.
    #[default]
    Queued,
    /// Claimed: its request may be under way.
    Sending,
    /// A request may have had its effect; it is looked up.
    Uncertain,
    /// The gateway has taken it on; it is followed to its end.
    Accepted,
    /// Waits until its account is well.
    Parked,
    /// A human decides.
    Held,
    /// Final: done.
    Succeeded,
    /// Final: refused, or given up with proof that nothing was done.
    Failed,
    /// Final: called off by a person, with nothing done.
    Cancelled,
    /// Final: past its `expires_at` with nothing done.
    Expired,
}

impl State {
    /// Every state.
    pub const ALL: [State; 10] = [
        State::Queued,
        State::Sending,
        State::Uncertain,
        State::Accepted,
        State::Parked,
        State::Held,
        State::Succeeded,
        State::Failed,
        State::Cancelled,
        State::Expired,
    ];

    /// The table of legal moves: the states that a job may leave this one for. `apipay._next_states` is the same in the
    /// database, which refuses any other move.
    pub const fn moves(self) -> &'static [State] {
        match self {
            // Claimed. Past its expires_at: looked up first if a request is unproven. Called off (apipay.cancel). Its
            // account was given to another organization, and it may have been sent before.
            State::Queued => &[
                State::Sending,
                State::Uncertain,
                State::Held,
                State::Cancelled,
                State::Expired,
            ],
            // What the answer says; nothing was done, for now or because the account is unwell. No answer, an unclear
            // one, or a lease that ran out: uncertain.
            State::Sending => &[
                State::Queued,
                State::Uncertain,
                State::Accepted,
                State::Parked,
                State::Held,
                State::Succeeded,
                State::Failed,
            ],
            // What the look-up found, or a person said (apipay.resolve). It is never sent but through the queue.
            State::Uncertain => &[
                State::Queued,
                State::Accepted,
                State::Held,
                State::Succeeded,
                State::Failed,
                State::Cancelled,
            ],
            // What became of its object; queued: it is resubmitted, or was never begun.
            State::Accepted => &[State::Queued, State::Held, State::Succeeded, State::Failed],
            // The account is well again: back, see `back_to`; or tried, to see whether it is. Called off
            // (apipay.cancel), past its expires_at with nothing done, or given to another organization.
            State::Parked => &[
                State::Queued,
                State::Sending,
                State::Uncertain,
                State::Held,
                State::Cancelled,
                State::Expired,
            ],
            // A person says what the gateway did (apipay.resolve).
            State::Held => &[
                State::Queued,
                State::Uncertain,
                State::Succeeded,
                State::Cancelled,
            ],
            State::Succeeded | State::Failed | State::Cancelled | State::Expired => &[],
        }
    }

    /// Whether a job in this state may be in that one after a change of its row. It may stay where it is, with another
    /// reason or another `run_at`, unless it is final.
    pub fn may_become(self, to: State) -> bool {
        (self == to && !self.is_final()) || self.moves().contains(&to)
    }

    /// Whether nothing of the job ever changes again.
    pub const fn is_final(self) -> bool {
        self.moves().is_empty()
    }

    /// Where a job that waits is to go on: what is unproven goes to `uncertain`, everything else to `queued`.
    /// `apipay._back_to` is the same in the database.
    pub fn back_to<T>(unproven_since: Option<T>) -> State {
        match unproven_since {
            Some(_) => State::Uncertain,
            None => State::Queued,
        }
    }

    /// The word in the column.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Sending => "sending",
            State::Uncertain => "uncertain",
            State::Accepted => "accepted",
            State::Parked => "parked",
            State::Held => "held",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Expired => "expired",
        }
    }

    /// Reads the word of the column.
    pub fn parse(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_word_of_its_own() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        for word in ["", "done", "Queued", "queued "] {
            assert_eq!(State::parse(word), None, "{word}");
        }
    }

    #[test]
    fn only_final_states_are_left_for_no_other() {
        let ends: Vec<State> = State::ALL.into_iter().filter(|it| it.is_final()).collect();
        let expected = [
            State::Succeeded,
            State::Failed,
            State::Cancelled,
            State::Expired,
        ];
        assert_eq!(ends, expected);
        for state in State::ALL {
            assert_eq!(state.may_become(state), !state.is_final(), "{state}");
            // Staying is no move.
            assert!(!state.moves().contains(&state), "{state}");
        }
    }

    #[test]
    fn every_state_is_reached_and_comes_to_an_end() {
        let mut reached = vec![State::Queued];
        let mut at = 0;
        while let Some(from) = reached.get(at).copied() {
            let new = from.moves().iter().filter(|to| !reached.contains(to));
            let new: Vec<State> = new.copied().collect();
            reached.extend(new);
            at += 1;
        }
        reached.sort_unstable();
        assert_eq!(reached, State::ALL);
        for state in State::ALL {
            let ends = state.moves().iter().any(|next| next.is_final());
            assert!(state.is_final() || ends, "{state}");
        }
    }

    /// A request that may have had its effect is never sent again by a single move.
    #[test]
    fn what_is_uncertain_or_with_the_gateway_is_not_sent() {
        for state in State::ALL {
            let may_be_sent = matches!(state, State::Queued | State::Parked | State::Sending);
            assert_eq!(state.may_become(State::Sending), may_be_sent, "{state}");
        }
        assert_eq!(State::back_to(None::<()>), State::Queued);
        assert_eq!(State::back_to(Some(())), State::Uncertain);
    }
}
