//! What is looked up, what a look-up brought, and whose it is.

use serde::{Deserialize, Serialize};

use crate::domain::account::DuplicateProtection;
use crate::domain::answer::Timed;
use crate::domain::job::{History, JobName};
use crate::domain::mirror::{InvoiceSeen, RefundList, RefundSeen};
use crate::domain::operation::{Expected, Operation, Plan, Seen};

/// What a look-up brought.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// The invoices that a complete search by the job's name returned.
    Invoices(Vec<InvoiceSeen>),
    /// The invoice that the job acts on, or that the gateway says it made.
    Invoice(InvoiceSeen),
    /// All refunds of the invoice that the job acts on.
    Refunds(RefundList),
    /// An error, or a partial page: not a "no".
    Unclear(Timed),
}

/// The refunds of an invoice that were known before a refund of ours was first sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The gateway's ids.
    pub refund_ids: Vec<i64>,
}

impl Baseline {
    /// What the list shows now.
    pub fn of(list: &RefundList) -> Baseline {
        Baseline {
            refund_ids: list.refunds.iter().map(|refund| refund.id).collect(),
        }
    }
}

/// The job that is looked up.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Its operation.
    pub operation: &'a dyn Operation,
    /// What follows from its params.
    pub plan: &'a Plan,
    /// Its name at the gateway.
    pub name: JobName,
    /// What already happened to it.
    pub history: &'a History,
    /// What the account may rely on.
    pub protection: DuplicateProtection,
    /// For a refund: what was known before. None: it was never sent.
    pub baseline: Option<&'a Baseline>,
}

/// Whether an invoice that answered to our key says that it is another job's or order's.
pub(super) fn is_of_another_order(subject: &Subject<'_>, invoice: &InvoiceSeen) -> bool {
    let seen = Seen::Invoice(invoice.clone());
    subject.name.is_denied_by(&subject.plan.expected, &seen)
}

impl JobName {
    /// Whether an invoice carries this name where a create of ours writes it.
    ///
    /// The order id may be one that a program chose, and it may have chosen another job's name: the mark in the comment,
    /// which is ours alone, says then whose it is.
    pub(crate) fn names_invoice(&self, invoice: &InvoiceSeen) -> bool {
        let in_order_id = invoice.external_order_id.as_deref() == Some(self.to_string().as_str());
        let in_comment = invoice
            .internal_comment
            .as_deref()
            .is_some_and(|comment| self.marks(comment));
        !invoice.is_imported
            && (in_comment || (in_order_id && !self.is_another_in(&invoice.internal_comment)))
    }

    /// Whether a text that the gateway echoed carries a mark, and none of this job's.
    fn is_another_in(&self, text: &Option<String>) -> bool {
        let mut names = JobName::named_in(text.as_deref().unwrap_or_default()).peekable();
        names.peek().is_some() && !names.any(|name| name.token == self.token)
    }

    /// Whether an object that a job of this name is to have made says that it is another job's, or another order's than
    /// the one that was sent along (API, section 3.1: a key is not echoed).
    pub(crate) fn is_denied_by(&self, expected: &Expected, seen: &Seen) -> bool {
        match seen {
            // What makes no invoice sends no order id, and acts on another job's.
            Seen::Invoice(invoice) => expected.order_id.as_ref().is_some_and(|sent| {
                let shown = invoice.external_order_id.as_ref();
                let is_of_another_order = shown.is_some_and(|shown| shown != sent);
                self.is_another_in(&invoice.internal_comment)
                    || (is_of_another_order && !self.names_invoice(invoice))
            }),
            Seen::Refund(refund) => self.is_another_in(&refund.reason),
        }
    }

    /// Whether a refund carries this name.
    pub(crate) fn names_refund(&self, refund: &RefundSeen) -> bool {
        refund
            .reason
            .as_deref()
            .is_some_and(|reason| self.marks(reason))
    }

    /// Whether an object carries a name of this job, of whichever generation, where a request of ours writes it.
    pub(super) fn owns(&self, seen: &Seen) -> bool {
        let marked = |text: &Option<String>| {
            let mut names = JobName::named_in(text.as_deref().unwrap_or_default());
            names.any(|name| name.token == self.token)
        };
        match seen {
            Seen::Invoice(invoice) => {
                let order = invoice.external_order_id.as_deref();
                let in_order_id = order
                    .and_then(JobName::parse)
                    .is_some_and(|name| name.token == self.token);
                let is_marked = marked(&invoice.internal_comment);
                let is_anothers = self.is_another_in(&invoice.internal_comment);
                !invoice.is_imported && (is_marked || (in_order_id && !is_anothers))
            }
            Seen::Refund(refund) => marked(&refund.reason),
        }
    }
}
