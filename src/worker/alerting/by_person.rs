//! What only a person can end: an invoice that lives after it was given up, a refund that was made after all, and an account
//! whose mode has changed.

use serde_json::json;

use crate::db::accounts::AlertText;
use crate::db::given_back::OfEnded;
use crate::db::revived::Bill;
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::object::{InvoiceStatus, Object, RefundStatus};
use crate::policy::found::described;

/// The kind of the alert of an invoice that lives again.
pub const REVIVED: &str = "invoice_revived";

/// The kind of the alert of a refund of a job that has ended otherwise than with success, or that goes by another refund.
pub const GIVEN_BACK: &str = "refund_revived";

/// The kind of the alert of an account that has changed between sandbox and live.
pub const MODE: &str = "mode_mismatch";

/// The subject of the alert of an invoice that lives again.
pub fn of_invoice(invoice: i64) -> String {
    format!("invoice {invoice}")
}

/// The subject of the alert of a refund that was made after all.
pub fn of_refund(refund: i64) -> String {
    format!("refund {refund}")
}

/// A refund is there, or on its way, although its job has ended in the belief that nothing of it had an effect, or goes by
/// another one.
pub fn given_back(account: &AccountName, refund: &Object, ended: &OfEnded) -> AlertText {
    let OfEnded {
        refund: id,
        job,
        state,
        other,
        ..
    } = ended;
    let invoice = refund.numbers().invoice_id;
    let what = match (other, refund.status() == RefundStatus::Completed.as_str()) {
        (Some((other_job, _)), _) if other_job == job => {
            "the money may be given back twice".to_owned()
        }
        (Some((other_job, other)), _) => format!(
            "job {other_job} (of these two jobs one repeats the other) has refund {other} as well: the money may be given \
             back twice"
        ),
        (None, true) => "the money was given back after all".to_owned(),
        (None, false) => "the money is being given back after all".to_owned(),
    };
    let action = match other {
        Some((_, other)) => format!(
            "see in the ApiPay dashboard whether refunds {id} and {other} of invoice {invoice} are both completed: a refund \
             cannot be taken back, so what the customer has got twice is a matter between you and the customer."
        ),
        None => "count that money as given back, and do not have it refunded again.".to_owned(),
    };
    let stands = match other {
        Some((other_job, other)) if other_job == job => format!("counts on refund {other}"),
        _ => format!("is {state}"),
    };
    AlertText {
        summary: format!(
            "Refund {id} of invoice {invoice} of account {account} is there: {}, although job {job}, which made it, \
             {stands}; {what}.",
            described(refund)
        ),
        action: format!(
            "{action} This ends by itself if that refund fails. When you have seen to it: {}",
            acknowledge(GIVEN_BACK, account, &of_refund(*id))
        ),
        details: json!({ "refund": id, "invoice": invoice, "job": job.0 }),
    }
}

/// An invoice that had failed, expired or been cancelled is alive: the customer may pay it, and a later one too.
///
/// What helps depends on what was paid: the gateway refuses to cancel what is.
pub fn revived(
    account: &AccountName,
    invoice: i64,
    status: &InvoiceStatus,
    job: JobId,
    bill: &Bill,
) -> AlertText {
    let Bill {
        state,
        other,
        cancelled_by,
    } = bill;
    let cancel = |id: i64| format!("select apipay.cancel_invoice({id}, account => '{account}');");
    let seen_to = format!(
        "When that is done: {}",
        acknowledge(REVIVED, account, &of_invoice(invoice))
    );
    let by_itself = "This ends once it cannot be paid any more; should it be paid first, you are told what to do then.";
    let of_which = |other: &JobId| match *other == job {
        true => format!("the same job {job}"),
        false => format!("job {other} (of these two jobs one repeats the other)"),
    };
    let (what, action) = match (status.is_paid(), other) {
        (false, None) => (
            format!(
                "job {job}, for which it was made, is {state}, and the customer may pay it all the same"
            ),
            format!(
                "unless the customer is to pay it, cancel it: {} {by_itself}",
                cancel(invoice)
            ),
        ),
        (false, Some((of, other, second))) if second.is_paid() => (
            format!(
                "invoice {other} of {} is {second}: the customer may pay once more",
                of_which(of)
            ),
            format!(
                "cancel the one that is not paid: {} {by_itself}",
                cancel(invoice)
            ),
        ),
        (false, Some((of, other, second))) => (
            format!(
                "invoice {other} of {} is {second} too: the customer may pay both",
                of_which(of)
            ),
            match *of == job {
                true => format!(
                    "cancel the one that job {job} does not go by: {} {by_itself}",
                    cancel(invoice)
                ),
                false => format!(
                    "cancel the one that the customer is not to pay: {} or {} {by_itself}",
                    cancel(invoice),
                    cancel(*other)
                ),
            },
        ),
        (true, None) => (
            format!(
                "job {job}, for which it was made, is {state}: the customer has paid, and no job shows it"
            ),
            format!(
                "deliver what was ordered, or have it refunded: in the ApiPay dashboard, or by your program with \
                 apipay.refund_invoice. Do not send another bill. A full refund by apipayd ends this. {seen_to}"
            ),
        ),
        (true, Some((of, other, second))) if second.is_paid() => (
            format!(
                "invoice {other} of {} is {second} too: the customer has paid twice",
                of_which(of)
            ),
            format!(
                "have one of the two refunded: in the ApiPay dashboard, or by your program with \
                 apipay.refund_invoice. A full refund of invoice {invoice} by apipayd ends this. {seen_to}"
            ),
        ),
        (true, Some((of, other, second))) => (
            format!(
                "invoice {other} of {} is {second}: the customer may pay once more",
                of_which(of)
            ),
            format!(
                "cancel the one that is not paid: {} Then deliver what was ordered. {seen_to}",
                cancel(*other)
            ),
        ),
    };
    if let (None, Some(cancel)) = (other, cancelled_by) {
        return AlertText {
            summary: format!(
                "Invoice {invoice} of account {account} was seen cancelled, by job {cancel}, which succeeded, and after that \
                 {status}; job {job}, for which it was made, is {state}."
            ),
            action,
            details: json!({ "invoice": invoice, "job": job.0, "status": status.as_str() }),
        };
    }
    AlertText {
        summary: format!(
            "Invoice {invoice} of account {account} is {status}, although its job counts on another invoice or on none; {what}."
        ),
        action,
        details: json!({ "invoice": invoice, "job": job.0, "status": status.as_str() }),
    }
}

/// The key's organization has moved between sandbox and live, as this invoice shows.
pub fn mode_changed(account: &AccountName, before: &str, now: &str, invoice: i64) -> AlertText {
    let meaning = if now == "sandbox" {
        "no customer gets its bills, and no money moves"
    } else {
        "customers are billed in earnest"
    };
    AlertText {
        summary: format!(
            "Account {account} was {before}, and its newest invoices are {now} (invoice {invoice}): {meaning}."
        ),
        action: format!(
            "see in the ApiPay dashboard which organization the API key of account {account} belongs to, and put the \
             key or the organization right; this ends with the first new invoice that is {before} again \
             (apipay.park holds the account's payments until then). If {now} is right from now on: {}",
            acknowledge(MODE, account, "")
        ),
        details: json!({ "before": before, "now": now, "invoice": invoice }),
    }
}

/// The statement with which a person ends an alert.
pub(super) fn acknowledge(kind: &str, account: &AccountName, subject: &str) -> String {
    format!(
        "select apipay.acknowledge(id, 'why') from apipay.alerts where kind = '{kind}' and account = '{account}' \
         and subject = '{subject}' and resolved_at is null;"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::state::State;

    fn told(status: &str, other: Option<(i64, &str)>) -> AlertText {
        let bill = Bill {
            state: State::Failed,
            other: other.map(|(id, status)| (JobId(3), id, InvoiceStatus::parse(status))),
            cancelled_by: None,
        };
        let shop = AccountName::parse("shop").unwrap();
        revived(&shop, 7, &InvoiceStatus::parse(status), JobId(3), &bill)
    }

    /// The gateway refuses to cancel what is paid, and what is not paid cannot be refunded.
    #[test]
    fn only_what_is_not_paid_is_cancelled_and_only_what_is_paid_is_refunded() {
        let statuses = [
            "processing",
            "pending",
            "cancelling",
            "paid",
            "partially_refunded",
        ];
        for status in statuses {
            for other in statuses
                .map(|status| Some((8, status)))
                .into_iter()
                .chain([None])
            {
                let action = told(status, other).action;
                let is_paid = |status: &str| InvoiceStatus::parse(status).is_paid();
                let may_cancel = |id: i64| action.contains(&format!("cancel_invoice({id},"));
                assert!(
                    !may_cancel(7) || !is_paid(status),
                    "{status} {other:?}: {action}"
                );
                let other_paid = other.is_none_or(|(_, status)| is_paid(status));
                assert!(
                    !may_cancel(8) || !other_paid,
                    "{status} {other:?}: {action}"
                );
                let refunds = action.contains("refund_invoice");
                assert!(!refunds || is_paid(status), "{status} {other:?}: {action}");
                assert!(
                    may_cancel(7) || may_cancel(8) || refunds,
                    "{status} {other:?}: {action}"
                );
            }
        }
    }

    #[test]
    fn what_was_paid_ends_with_the_word_of_a_person() {
        let acknowledged =
            |text: AlertText| text.action.contains("select apipay.acknowledge(id, 'why')");
        assert!(acknowledged(told("paid", None)));
        assert!(acknowledged(told("paid", Some((8, "pending")))));
        assert!(!acknowledged(told("pending", None)));
    }
}
