//! An invoice and the statuses it can be in.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::life::{CancelOutcome, Story};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Processing,
    Pending,
    Cancelling,
    Paid,
    Cancelled,
    Expired,
    PartiallyRefunded,
    Error,
}

impl Status {
    pub(crate) const ALL: [Self; 8] = [
        Self::Processing,
        Self::Pending,
        Self::Cancelling,
        Self::Paid,
        Self::Cancelled,
        Self::Expired,
        Self::PartiallyRefunded,
        Self::Error,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Pending => "pending",
            Self::Cancelling => "cancelling",
            Self::Paid => "paid",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::PartiallyRefunded => "partially_refunded",
            Self::Error => "error",
        }
    }

    /// An invoice that ended this way gives its idempotency key back.
    pub(crate) fn releases_key(self) -> bool {
        matches!(self, Self::Cancelled | Self::Expired | Self::Error)
    }

    /// Answers about these may come from the gateway's cache.
    pub(crate) fn is_cached(self) -> bool {
        !matches!(self, Self::Processing | Self::Pending | Self::Cancelling)
    }

    pub(crate) fn is_paid(self) -> bool {
        matches!(self, Self::Paid | Self::PartiallyRefunded)
    }
}

/// One cart line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) catalog_item_id: u64,
    pub(crate) name: String,
    pub(crate) count: u32,
    pub(crate) price: Decimal,
    /// For the whole line, after the discount.
    pub(crate) total: Decimal,
}

#[derive(Clone, Debug)]
pub(crate) struct Discount {
    pub(crate) percentage: Decimal,
    pub(crate) subtotal: Decimal,
}

/// What a client asked for, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) phone: String,
    pub(crate) amount: Decimal,
    pub(crate) discount: Option<Discount>,
    pub(crate) lines: Vec<Line>,
    pub(crate) description: Option<String>,
    pub(crate) internal_comment: Option<String>,
    pub(crate) external_order_id: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Invoice {
    pub(crate) id: u64,
    pub(crate) organization: usize,
    pub(crate) draft: Draft,
    pub(crate) status: Status,
    /// Shown instead of the status, to test clients against words the documentation does not know.
    pub(crate) shown_status: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) client_name: Option<String>,
    pub(crate) kaspi_invoice_id: Option<String>,
    pub(crate) is_sandbox: bool,
    pub(crate) is_imported: bool,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) created_real: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
    pub(crate) paid_at: Option<OffsetDateTime>,
    pub(crate) total_refunded: Decimal,
    pub(crate) refunds: Vec<u64>,
    pub(crate) story: &'static Story,
    pub(crate) cancel_outcome: Option<CancelOutcome>,
    /// Counts the turns of fate; a timer set before the last turn is stale.
    pub(crate) turn: u32,
    /// The first answer given after the invoice reached a cached status, and when.
    pub(crate) cached: Option<(OffsetDateTime, serde_json::Value)>,
}

impl Invoice {
    pub(crate) fn is_fully_refunded(&self) -> bool {
        self.total_refunded >= self.draft.amount && self.status.is_paid()
    }

    pub(crate) fn status_text(&self) -> &str {
        self.shown_status.as_deref().unwrap_or(self.status.as_str())
    }
}
