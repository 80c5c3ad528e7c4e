//! What follows from a job's params, wherever a loop needs it.

use crate::db::claim::{self, Claim};
use crate::db::{DbError, Pool};
use crate::domain::errors::FieldErrors;
use crate::domain::job::{JobId, JobName};
use crate::domain::operation::{Operation, Plan, Planned, Written, operation};

/// Why a job has no plan.
#[derive(Debug)]
pub enum NoPlan {
    /// This version does not know the operation.
    UnknownOperation,
    /// Its params cannot be read, or are not what the operation takes.
    Invalid(FieldErrors),
    /// The database did not give them.
    Unread(DbError),
}

/// Reads the params of a claimed job and plans its requests (see [`plan`]).
pub async fn of_claim(
    pool: &Pool,
    claim: &Claim,
) -> Result<(&'static dyn Operation, Planned), NoPlan> {
    plan(pool, claim.id, &claim.name, &claim.operation, &claim.params).await
}

/// Reads a job's params and plans its requests. Long params are fetched now, one job's at a time.
pub async fn plan(
    pool: &Pool,
    job: JobId,
    name: &JobName,
    operation_name: &str,
    params: &Written,
) -> Result<(&'static dyn Operation, Planned), NoPlan> {
    let operation = operation(operation_name).ok_or(NoPlan::UnknownOperation)?;
    let fetched;
    let written = match params {
        Written::Apart => {
            fetched = claim::read_params(pool, job)
                .await
                .map_err(NoPlan::Unread)?;
            &fetched
        }
        here => here,
    };
    let planned = written
        .read()
        .and_then(|params| operation.prepare(&params, name))
        .map_err(NoPlan::Invalid)?;
    Ok((operation, planned))
}

/// How a job is found whose params are wrong (see [`Operation::without_params`]). `None` where no request can have been made
/// of it.
pub fn without_params(
    operation_name: &str,
    invoice_id: Option<i64>,
) -> Option<(&'static dyn Operation, Plan)> {
    let operation = operation(operation_name)?;
    Some((operation, operation.without_params(invoice_id)?))
}
