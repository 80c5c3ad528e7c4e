//! A refund and its end.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefundStatus {
    Pending,
    Processing,
    Completed,
    Failed,
}

impl RefundStatus {
    pub(crate) const ALL: [Self; 4] = [
        Self::Pending,
        Self::Processing,
        Self::Completed,
        Self::Failed,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    /// Its amount is reserved but not yet given back.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Processing)
    }
}

/// The end a refund will come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RefundOutcome {
    Completed,
    /// Stays `processing` until told otherwise.
    Stuck,
    /// Fails with this code.
    Failed(String),
}

impl RefundOutcome {
    /// `completed`, `stuck` or an error code; the list of codes is open.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "completed" => Some(Self::Completed),
            "stuck" => Some(Self::Stuck),
            code if !code.is_empty()
                && code
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') =>
            {
                Some(Self::Failed(code.to_owned()))
            }
            _ => None,
        }
    }

    /// The outcome asked for in the text of a refund, as `sandbox:refund_window_expired`.
    pub(crate) fn marked_in(reason: &str) -> Option<Self> {
        let (_, after) = reason.split_once("sandbox:")?;
        let word = after
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .next()?;
        Self::parse(word)
    }
}

/// A returned cart line: so many pieces, or so much money.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReturnedItem {
    pub(crate) catalog_item_id: u64,
    pub(crate) count: Option<u32>,
    pub(crate) amount: Decimal,
}

#[derive(Clone, Debug)]
pub(crate) struct RefundDraft {
    pub(crate) amount: Decimal,
    pub(crate) reason: Option<String>,
    pub(crate) items: Vec<ReturnedItem>,
    pub(crate) initiated_by: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) struct Refund {
    pub(crate) id: u64,
    pub(crate) invoice: u64,
    pub(crate) organization: usize,
    pub(crate) draft: RefundDraft,
    pub(crate) status: RefundStatus,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) kaspi_refund_id: Option<String>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) created_real: OffsetDateTime,
    pub(crate) outcome: RefundOutcome,
    pub(crate) turn: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_can_choose_the_outcome() {
        for (reason, expected) in [
            ("customer changed their mind", None),
            ("sandbox:completed", Some(RefundOutcome::Completed)),
            ("job 7 sandbox:stuck, please", Some(RefundOutcome::Stuck)),
            (
                "sandbox:refund_window_expired",
                Some(RefundOutcome::Failed("refund_window_expired".to_owned())),
            ),
            ("sandbox:", None),
        ] {
            assert_eq!(RefundOutcome::marked_in(reason), expected, "{reason}");
        }
    }
}
