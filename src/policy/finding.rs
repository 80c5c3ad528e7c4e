//! What is looked up, what a look-up brought, and whose it is.

use serde::{Deserialize, Serialize};

use crate::domain::account::DuplicateProtection;
use crate::domain::answer::Timed;
use crate::domain::job::{History, JobName};
use crate::domain::object::{Object, ObjectKind};
use crate::domain::operation::{Operation, Plan, Resend};

/// What a look-up brought.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// All that a complete list or search returned, in which a job's own object is known by the job's name.
    Listed(Vec<Object>),
    /// The one object that was asked for by its number: the job acts on it, or the gateway says that the job made it, or
    /// a person does.
    Read(Object),
    /// An error, or a partial page: not a "no".
    Unclear(Timed),
}

impl Finding {
    /// What a complete list or search returned.
    pub fn listed(objects: impl IntoIterator<Item: Into<Object>>) -> Finding {
        Finding::Listed(objects.into_iter().map(Into::into).collect())
    }

    /// What was read by its number.
    pub fn read(object: impl Into<Object>) -> Finding {
        Finding::Read(object.into())
    }

    /// The objects that it brought, one by one.
    pub fn objects(&self) -> &[Object] {
        match self {
            Finding::Listed(objects) => objects,
            Finding::Read(object) => std::slice::from_ref(object),
            Finding::Unclear(_) => &[],
        }
    }
}

/// The refunds of an invoice that were known before a refund of ours was first sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The gateway's ids.
    pub refund_ids: Vec<i64>,
    /// Whether a person has said since of a held refund that none of the others is this one (`apipay.resolve`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_told_apart: bool,
}

impl Baseline {
    /// What the list shows now.
    pub fn of(list: &[Object]) -> Baseline {
        Baseline {
            refund_ids: list.iter().map(|refund| refund.id()).collect(),
            is_told_apart: false,
        }
    }

    /// What was not there before and does not say whose it is: it may be ours with its mark lost, or a cashier's.
    pub(super) fn strangers_in(&self, list: &[Object]) -> Vec<Object> {
        let is_stranger = |object: &&Object| {
            let is_new = !self.is_told_apart && !self.refund_ids.contains(&object.id());
            is_new && !object.marked_text().is_some_and(JobName::is_marked)
        };
        list.iter().filter(is_stranger).cloned().collect()
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

impl Subject<'_> {
    /// Whether an object that answered to the job's request says that it is another job's, or another order's.
    pub(super) fn is_denied_by(&self, object: &Object) -> bool {
        self.name.is_denied_by(self.plan, object)
    }

    /// Whether the gateway named this object as what it has for the job's key.
    pub(super) fn is_answer_to_key(&self, object: &Object) -> bool {
        self.plan.resend == Resend::ByProtection && self.history.invoice_id == Some(object.id())
    }
}

impl JobName {
    /// Whether an object carries this name where a request of ours writes it.
    ///
    /// The order id may be one that a program chose, and it may have chosen another job's name: the mark,
    /// which is ours alone, says then whose it is.
    pub(crate) fn names(&self, object: &Object) -> bool {
        let in_order_id = object.order_id() == Some(self.to_string().as_str());
        let is_marked = object.marked_text().is_some_and(|text| self.marks(text));
        !object.is_imported() && (is_marked || (in_order_id && !self.is_another_in(object)))
    }

    /// Whether an object carries a name of this job, of whichever generation, where a request of ours writes it.
    pub(super) fn owns(&self, object: &Object) -> bool {
        let in_order_id = object
            .order_id()
            .and_then(JobName::parse)
            .is_some_and(|name| name.token == self.token);
        !object.is_imported()
            && (self.has_mark_in(object) || (in_order_id && !self.is_another_in(object)))
    }

    /// The name whose mark stands in an object of ours, if no other one does.
    pub(crate) fn only_one(object: &dyn ObjectKind) -> Option<JobName> {
        let text = object.marked_text().filter(|_| !object.is_imported());
        let mut names = JobName::named_in(text?);
        let name = names.next()?;
        names.all(|other| other == name).then_some(name)
    }

    /// Whether the mark of this job, of whichever generation, stands in an object.
    pub(super) fn has_mark_in(&self, object: &Object) -> bool {
        let mut names = JobName::named_in(object.marked_text().unwrap_or_default());
        names.any(|name| name.token == self.token)
    }

    /// Whether a mark stands in an object, and none of this job's.
    pub(super) fn is_another_in(&self, object: &Object) -> bool {
        let mut names = JobName::named_in(object.marked_text().unwrap_or_default());
        names.next().is_some() && !self.has_mark_in(object)
    }

    /// Whether an object that a job of this name is to have made says that it is another job's, or another order's than
    /// the one that was sent along (API, section 3.1: a key is not echoed).
    pub(crate) fn is_denied_by(&self, plan: &Plan, object: &Object) -> bool {
        // What acts on an object does so on another job's.
        if plan.lookup.acts_on_object() {
            return false;
        }
        let sent = plan.expected.order_id.as_deref();
        let is_of_another_order = sent
            .zip(object.order_id())
            .is_some_and(|(sent, shown)| sent != shown);
        self.is_another_in(object) || (is_of_another_order && !self.names(object))
    }
}
