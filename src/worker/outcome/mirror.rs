//! Objects as the rows of their mirrors. Pure.

use time::OffsetDateTime;

use crate::db::entry::{Entry, InvoiceRow, RefundRow};
use crate::db::seconds;
use crate::domain::account::AccountName;
use crate::domain::job::JobName;
use crate::domain::object::{Invoice, Object, Refund};
use crate::policy::checks::{NextCheck, Sighting, next_check};
use crate::policy::rules::{FollowRules, Jitter};
use crate::worker::guard::Maker;

/// When a mirror is looked at again.
#[derive(Clone, Copy, Debug)]
pub struct Following<'a> {
    /// The settings.
    pub rules: &'a FollowRules,
    /// Randomness.
    pub jitter: Jitter,
    /// The fingerprint of the account's key, to which the gateway shows what is seen.
    pub key: &'a str,
    /// When the gateway showed it, by the database's clock.
    pub seen_at: OffsetDateTime,
}

/// Records the mirror of an object that was seen by itself, and nothing else.
pub fn first_mirror(
    account: &AccountName,
    made_by: Option<Maker>,
    seen: &Object,
    following: Following<'_>,
) -> Entry {
    let check = next_check(
        seen.outlook(),
        Sighting::FIRST,
        following.rules,
        following.jitter,
    );
    let mut entry = Entry::default();
    match seen {
        Object::Invoice(invoice) => {
            entry.invoices = vec![invoice_row(account, made_by, invoice, check, following)];
        }
        Object::Refund(refund) => {
            entry.refund = Some(refund_row(account, made_by, refund, None, check, following));
        }
    }
    entry
}

/// An invoice's mirror. Which job made it, a mirror that is there already knows.
pub fn invoice_row(
    account: &AccountName,
    made_by: Option<Maker>,
    invoice: &Invoice,
    check: NextCheck,
    following: Following<'_>,
) -> InvoiceRow {
    let (check_after_s, settled) = when(check, following.rules);
    let status = invoice.standing();
    let mark = made_by
        .is_none()
        .then(|| JobName::only_one(invoice))
        .flatten();
    InvoiceRow {
        account: account.to_string(),
        id: invoice.id,
        job_id: made_by.map(|job| job.id.0),
        token: made_by.map(|job| job.token),
        marked_token: mark.map(|name| name.token),
        marked_generation: mark.map(|name| name.generation),
        shown_to: following.key.to_owned(),
        seen_at: following.seen_at,
        status: status.as_str().to_owned(),
        amount: invoice.amount,
        total_refunded: invoice.total_refunded,
        external_order_id: invoice.external_order_id.clone(),
        kaspi_invoice_id: invoice.kaspi_invoice_id.clone(),
        error_code: invoice.error_code.clone(),
        error_message: invoice.error_message.clone(),
        is_sandbox: invoice.is_sandbox,
        created_at: invoice.created_at,
        updated_at: invoice.updated_at,
        paid_at: invoice.paid_at,
        paid: status.is_paid(),
        check_after_s,
        settled,
        others_unsought: false,
    }
}

/// A refund's mirror. Which job made it, a mirror that is there already knows; whose order its invoice is,
/// whoever has read that.
pub fn refund_row(
    account: &AccountName,
    made_by: Option<Maker>,
    refund: &Refund,
    invoice: Option<&Invoice>,
    check: NextCheck,
    following: Following<'_>,
) -> RefundRow {
    let (check_after_s, settled) = when(check, following.rules);
    RefundRow {
        account: account.to_string(),
        id: refund.id,
        job_id: made_by.map(|job| job.id.0),
        token: made_by.map(|job| job.token),
        invoice_id: refund.invoice_id,
        seen_at: following.seen_at,
        status: refund.status.as_str().to_owned(),
        amount: refund.amount,
        external_order_id: invoice.and_then(|invoice| invoice.external_order_id.clone()),
        reason: refund.reason.clone(),
        error_code: refund.error_code.clone(),
        error_message: refund.error_message.clone(),
        created_at: refund.created_at,
        check_after_s,
        settled,
    }
}

/// What is settled is looked at again all the same while an accepted job waits for it, see `record.sql`.
fn when(check: NextCheck, rules: &FollowRules) -> (f64, bool) {
    match check {
        NextCheck::After(delay) => (seconds(delay), false),
        NextCheck::Settled => (seconds(rules.first), true),
    }
}
