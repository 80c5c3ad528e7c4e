//! The ledger of effects: what really happened, whatever the client was told.

use rust_decimal::Decimal;
use serde::Serialize;
use time::OffsetDateTime;

use crate::{money, stamp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Create,
    Cancel,
    Refund,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "invoice.create",
            Self::Cancel => "invoice.cancel",
            Self::Refund => "invoice.refund",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Effect {
    /// Real time.
    pub(crate) at: OffsetDateTime,
    pub(crate) kind: Kind,
    pub(crate) organization: String,
    pub(crate) invoice: u64,
    pub(crate) refund: Option<u64>,
    pub(crate) amount: Decimal,
    pub(crate) phone: Option<String>,
    pub(crate) external_order_id: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) internal_comment: Option<String>,
    pub(crate) reason: Option<String>,
    /// The request, by its number in the request log.
    pub(crate) request: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    effects: Vec<Effect>,
}

impl Ledger {
    pub(crate) fn enter(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn len(&self) -> usize {
        self.effects.len()
    }

    /// The effects after `since` that pass the filter, numbered from 1.
    pub(crate) fn show(&self, since: usize, passes: impl Fn(&Effect) -> bool) -> Vec<Row<'_>> {
        let numbered = self.effects.iter().enumerate().skip(since);
        numbered
            .filter(|(_, effect)| passes(effect))
            .map(|(index, effect)| Row::new(index + 1, effect))
            .collect()
    }
}

/// An effect as the control API shows it; a ledger can be long, so it is written without detours.
#[derive(Serialize)]
pub(crate) struct Row<'a> {
    seq: usize,
    at: String,
    kind: &'static str,
    organization: &'a str,
    invoice_id: u64,
    refund_id: Option<u64>,
    amount: String,
    phone: Option<&'a str>,
    external_order_id: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    internal_comment: Option<&'a str>,
    reason: Option<&'a str>,
    request: u64,
}

impl<'a> Row<'a> {
    fn new(seq: usize, effect: &'a Effect) -> Self {
        Self {
            seq,
            at: stamp::millis(effect.at),
            kind: effect.kind.as_str(),
            organization: &effect.organization,
            invoice_id: effect.invoice,
            refund_id: effect.refund,
            amount: money::text(effect.amount),
            phone: effect.phone.as_deref(),
            external_order_id: effect.external_order_id.as_deref(),
            idempotency_key: effect.idempotency_key.as_deref(),
            internal_comment: effect.internal_comment.as_deref(),
            reason: effect.reason.as_deref(),
            request: effect.request,
        }
    }
}
