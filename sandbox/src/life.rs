//! What happens to an invoice by itself: stories told by magic phone numbers, and outcomes of a cancel.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::world::RefundStatus;
use crate::world::Status;

/// How long after the step before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum After {
    /// The organization's usual time in `processing`.
    Processing,
    Seconds(i64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) after: After,
    pub(crate) to: Status,
    pub(crate) error_code: Option<&'static str>,
}

/// The fate of an invoice whose payer has a magic phone number.
#[derive(Debug)]
pub(crate) struct Story {
    /// `8700000` and these four digits make the phone number.
    pub(crate) digits: &'static str,
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) steps: &'static [Step],
    pub(crate) cancel: CancelOutcome,
}

const MAGIC_PREFIX: &str = "8700000";
const DAY: i64 = 86_400;

const REACH: Step = Step {
    after: After::Processing,
    to: Status::Pending,
    error_code: None,
};
const EXPIRE: Step = then(DAY, Status::Expired);

const fn then(seconds: i64, to: Status) -> Step {
    Step {
        after: After::Seconds(seconds),
        to,
        error_code: None,
    }
}

const fn fail(code: &'static str) -> Step {
    Step {
        after: After::Processing,
        to: Status::Error,
        error_code: Some(code),
    }
}

const fn fail_after(seconds: i64, code: &'static str) -> Step {
    Step {
        after: After::Seconds(seconds),
        to: Status::Error,
        error_code: Some(code),
    }
}

const fn story(
    digits: &'static str,
    name: &'static str,
    summary: &'static str,
    steps: &'static [Step],
) -> Story {
    Story {
        digits,
        name,
        summary,
        steps,
        cancel: CancelOutcome::Cancelled,
    }
}

const fn cancel_story(
    digits: &'static str,
    name: &'static str,
    summary: &'static str,
    cancel: CancelOutcome,
) -> Story {
    Story {
        digits,
        name,
        summary,
        steps: &[REACH, EXPIRE],
        cancel,
    }
}

/// Every story; the first is everybody's.
pub(crate) static STORIES: &[Story] = &[
    story(
        "0000",
        "unpaid",
        "`pending`, `expired` after 24 h",
        &[REACH, EXPIRE],
    ),
    story(
        "0001",
        "paid",
        "`paid` 2 s after `pending`",
        &[REACH, then(2, Status::Paid)],
    ),
    story(
        "0002",
        "expires_soon",
        "`expired` 2 s after `pending`",
        &[REACH, then(2, Status::Expired)],
    ),
    story(
        "0003",
        "client_not_found",
        "`error` with `client_not_found`",
        &[fail("client_not_found")],
    ),
    story(
        "0004",
        "network_unavailable",
        "`error` with `network_unavailable`",
        &[fail("network_unavailable")],
    ),
    story(
        "0005",
        "kaspi_throttled",
        "`error` with `kaspi_throttled`",
        &[fail("kaspi_throttled")],
    ),
    story(
        "0006",
        "kaspi_session_invalid",
        "`error` with `kaspi_session_invalid`",
        &[fail("kaspi_session_invalid")],
    ),
    story(
        "0007",
        "invoice_already_paid",
        "`error` with `invoice_already_paid`",
        &[fail("invoice_already_paid")],
    ),
    story(
        "0008",
        "session_transient",
        "`error` with `session_transient`",
        &[fail("session_transient")],
    ),
    story(
        "0009",
        "kaspi_error",
        "`pending`, then `error` with `kaspi_error` after 2 s",
        &[REACH, fail_after(2, "kaspi_error")],
    ),
    story(
        "0010",
        "error_then_pending",
        "`error` with `network_unavailable`, silently `pending` 5 s later",
        &[
            fail("network_unavailable"),
            then(5, Status::Pending),
            EXPIRE,
        ],
    ),
    story(
        "0011",
        "error_then_paid",
        "as 0010, then `paid` 2 s later",
        &[
            fail("network_unavailable"),
            then(5, Status::Pending),
            then(2, Status::Paid),
        ],
    ),
    story(
        "0012",
        "expired_then_paid",
        "`expired` 2 s after `pending`, `paid` 5 s later",
        &[REACH, then(2, Status::Expired), then(5, Status::Paid)],
    ),
    story(
        "0013",
        "slow",
        "90 min in `processing`, then `pending`",
        &[then(5_400, Status::Pending), EXPIRE],
    ),
    story("0014", "held", "`processing` for ever", &[]),
    story(
        "0015",
        "cancelled_by_itself",
        "`cancelled` 2 s after `pending`, without a cancel request",
        &[REACH, then(2, Status::Cancelled)],
    ),
    story(
        "0016",
        "cancelled_then_paid",
        "as 0015, `paid` 5 s later",
        &[REACH, then(2, Status::Cancelled), then(5, Status::Paid)],
    ),
    story(
        "0017",
        "unknown_error",
        "`error` with `unknown_error`",
        &[fail("unknown_error")],
    ),
    story(
        "0018",
        "undocumented_error",
        "`error` with a code no list has",
        &[fail("sandbox_undocumented_code")],
    ),
    cancel_story(
        "0020",
        "cancel_paid_won",
        "a live cancel ends in `error` with `invoice_already_paid`",
        CancelOutcome::AlreadyPaid,
    ),
    cancel_story(
        "0021",
        "cancel_pending",
        "a live cancel silently returns to `pending`",
        CancelOutcome::Pending,
    ),
    cancel_story(
        "0022",
        "cancel_pending_then_paid",
        "a live cancel silently returns to `pending`, `paid` 2 s later",
        CancelOutcome::PendingThenPaid,
    ),
    cancel_story(
        "0023",
        "cancel_already_cancelled",
        "a live cancel ends in `error` with `invoice_already_cancelled`",
        CancelOutcome::AlreadyCancelled,
    ),
    cancel_story(
        "0024",
        "cancel_not_found",
        "a live cancel ends in `error` with `invoice_not_found_in_kaspi`",
        CancelOutcome::NotFound,
    ),
    cancel_story(
        "0025",
        "cancel_stuck",
        "a live cancel stays `cancelling`",
        CancelOutcome::Stuck,
    ),
    cancel_story(
        "0026",
        "cancel_then_paid",
        "a live cancel succeeds, `paid` 5 s later",
        CancelOutcome::CancelledThenPaid,
    ),
];

/// The story told by a phone number.
pub(crate) fn story_of_phone(phone: &str) -> &'static Story {
    let digits = phone.strip_prefix(MAGIC_PREFIX);
    let magic = digits.and_then(|digits| STORIES.iter().find(|story| story.digits == digits));
    magic.unwrap_or(&STORIES[0])
}

pub(crate) fn story_named(name: &str) -> Option<&'static Story> {
    STORIES.iter().find(|story| story.name == name)
}

/// What a cancel in live mode comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CancelOutcome {
    Cancelled,
    CancelledThenPaid,
    AlreadyPaid,
    AlreadyCancelled,
    NotFound,
    Pending,
    PendingThenPaid,
    Stuck,
}

impl CancelOutcome {
    pub(crate) fn steps(self) -> &'static [Step] {
        match self {
            Self::Cancelled => &const { [then(1, Status::Cancelled)] },
            Self::CancelledThenPaid => {
                &const { [then(1, Status::Cancelled), then(5, Status::Paid)] }
            }
            Self::AlreadyPaid => &const { [fail_after(1, "invoice_already_paid")] },
            Self::AlreadyCancelled => &const { [fail_after(1, "invoice_already_cancelled")] },
            Self::NotFound => &const { [fail_after(1, "invoice_not_found_in_kaspi")] },
            Self::Pending => &const { [then(1, Status::Pending), EXPIRE] },
            Self::PendingThenPaid => &const { [then(1, Status::Pending), then(2, Status::Paid)] },
            Self::Stuck => &[],
        }
    }
}

/// Something that will happen to an invoice or a refund.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Invoice {
        id: u64,
        turn: u32,
        steps: &'static [Step],
    },
    Refund {
        id: u64,
        turn: u32,
        to: RefundStatus,
    },
}

/// An event in the queue, soonest first, then in the order they were set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    pub(crate) at: OffsetDateTime,
    pub(crate) order: u64,
    pub(crate) event: Event,
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> Ordering {
        // Reversed: the queue is a max-heap.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Timer {}

impl After {
    pub(crate) fn span(self, processing_ms: u64) -> Duration {
        match self {
            Self::Processing => {
                Duration::milliseconds(i64::try_from(processing_ms).unwrap_or(i64::MAX))
            }
            Self::Seconds(seconds) => Duration::seconds(seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stories_have_their_own_numbers_and_names() {
        for story in STORIES {
            assert_eq!(
                story_of_phone(&format!("{MAGIC_PREFIX}{}", story.digits)).name,
                story.name
            );
            assert_eq!(story_named(story.name).unwrap().digits, story.digits);
        }
        assert_eq!(story_of_phone("87011230001").name, "unpaid");
    }
}
