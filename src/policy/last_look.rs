//! The last look at a job before the first byte of its request leaves.

use std::time::Duration;

use crate::domain::answer::NotSent;
use crate::domain::times::SEND_WINDOW;

/// What is known at that moment.
#[derive(Clone, Copy, Debug)]
pub struct LastLook {
    /// Whether the daemon stops.
    pub is_stopping: bool,
    /// Whether the database was found to have lost what it had committed.
    pub is_history_lost: bool,
    /// How much of the send window is over.
    pub waited: Duration,
    /// Why nothing of the account is sent, if nothing is.
    pub unserved: Option<NotSent>,
    /// Whether the account was parked or blocked after the job was claimed, and the job is not what tries whether it is well.
    pub is_parked: bool,
    /// Whether the key of an earlier request of the job may protect no longer.
    pub may_key_be_free: bool,
}

/// Why the request must not leave; `None` when it may.
pub fn obstacle(look: LastLook) -> Option<NotSent> {
    let found = [
        (look.is_stopping, Some(NotSent::Stopping)),
        (look.is_history_lost, Some(NotSent::HistoryLost)),
        (look.waited > SEND_WINDOW, Some(NotSent::WindowClosed)),
        (look.unserved.is_some(), look.unserved),
        (look.is_parked, Some(NotSent::AccountParked)),
        (look.may_key_be_free, Some(NotSent::KeyTooOld)),
    ];
    found.into_iter().find(|(is_so, _)| *is_so)?.1
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAR: LastLook = LastLook {
        is_stopping: false,
        is_history_lost: false,
        waited: SEND_WINDOW,
        unserved: None,
        is_parked: false,
        may_key_be_free: false,
    };

    #[test]
    fn whatever_is_in_the_way_keeps_a_request_from_leaving() {
        assert_eq!(obstacle(CLEAR), None);
        let late = SEND_WINDOW + Duration::from_millis(1);
        let is_stopping = LastLook {
            is_stopping: true,
            ..CLEAR
        };
        let is_history_lost = LastLook {
            is_history_lost: true,
            ..CLEAR
        };
        let is_late = LastLook {
            waited: late,
            ..CLEAR
        };
        let is_unserved = LastLook {
            unserved: Some(NotSent::KeyDoubted),
            ..CLEAR
        };
        let is_parked = LastLook {
            is_parked: true,
            ..CLEAR
        };
        let is_key_old = LastLook {
            may_key_be_free: true,
            ..CLEAR
        };
        for (look, cause) in [
            (is_stopping, NotSent::Stopping),
            (is_history_lost, NotSent::HistoryLost),
            (is_late, NotSent::WindowClosed),
            (is_unserved, NotSent::KeyDoubted),
            (is_parked, NotSent::AccountParked),
            (is_key_old, NotSent::KeyTooOld),
        ] {
            assert_eq!(obstacle(look), Some(cause), "{look:?}");
        }
    }

    #[test]
    fn a_daemon_that_stops_says_so_before_anything_else() {
        let all = LastLook {
            is_stopping: true,
            is_history_lost: true,
            waited: SEND_WINDOW * 2,
            unserved: Some(NotSent::AccountClosed),
            is_parked: true,
            may_key_be_free: true,
        };
        assert_eq!(obstacle(all), Some(NotSent::Stopping));
    }
}
