//! What each operation is asked.

use serde_json::Value;

use super::applied::{Applied, Progress};
use super::fields::Fields;
use super::plan::{Plan, Planned};
use super::sight::Sight;
use crate::domain::errors::FieldErrors;
use crate::domain::job::JobName;
use crate::domain::object::Object;

/// What the daemon needs to know about one kind of job.
pub trait Operation: Sync {
    /// The name in `apipay.jobs.operation`.
    fn name(&self) -> &'static str;

    /// What `params` may hold.
    fn fields(&self) -> &'static Fields;

    /// Checks `params` against [`Operation::fields`] and builds what will be sent.
    ///
    /// Deterministic: the same params and name give the same request, byte for byte.
    fn prepare(&self, params: &Value, name: &JobName) -> Result<Planned, FieldErrors>;

    /// How a job is looked up whose params this version does not take, by its name and the invoice that it acts on: a version
    /// that took them may have sent it. `None` where no request can have been made of it.
    fn without_params(&self, invoice_id: Option<i64>) -> Option<Plan>;

    /// Reads the body of a 200, 201 or 202; `None` when it has not the expected shape, which makes
    /// the outcome unknown.
    fn read_success(&self, plan: &Plan, status: u16, body: &Value) -> Option<Applied>;

    /// Whether what is seen of the object ends the job.
    fn progress(&self, seen: &Object) -> Progress;

    /// Whether one job of this kind may test if an unwell account is well again: nothing worse than
    /// a refusal can come of it that a look-up could not settle.
    fn is_safe_to_try(&self) -> bool {
        true
    }

    /// Whether it makes an invoice: what the gateway's caps are about (API, section 4.3).
    fn makes_invoice(&self) -> bool {
        false
    }

    /// Whether of the jobs of this kind that act on the same invoice one at a time may be open: of two under way it could
    /// not be told which one did what the gateway shows.
    ///
    /// The database holds to it, by a unique index and by the order of its claims; a test compares the two.
    fn is_one_at_a_time(&self) -> bool {
        false
    }

    /// How a person sees what became of a job of this kind.
    fn sight(&self) -> Sight;

    /// What jobs of this kind are called in a sentence.
    fn in_plural(&self) -> &'static str;
}
