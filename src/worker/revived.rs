//! Invoices that live although their job goes by another one or by none: told one by one, by what was paid of each as it
//! stands now.

use std::sync::Arc;

use crate::db::accounts::AlertText;
use crate::db::alerts::{self, About};
use crate::db::{DbError, Pool, revived};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::object::InvoiceStatus;
use crate::worker::alerting;
use crate::worker::context::Context;
use crate::worker::open;
use crate::worker::room::Room;

/// Opens the alert of an invoice of a job that was just shown alive.
pub async fn tell(
    room: &Room,
    job: JobId,
    invoice: i64,
    status: &InvoiceStatus,
) -> Result<(), DbError> {
    let account = &room.name;
    let about = About {
        account: Some(account),
        kind: alerting::REVIVED,
        subject: &alerting::of_invoice(invoice),
        severity: "critical",
    };
    if let Some(text) = text(&room.handles.pool, account, invoice, status, job).await? {
        open::say(&room.handles.pool, &about, &text).await?;
        room.handles.wake.deliver.notify_one();
    }
    Ok(())
}

/// Brings the open ones up to date: what helped before it was paid is refused afterwards.
pub async fn tell_on(ctx: &Arc<Context>) -> Result<(), DbError> {
    for told in revived::told(&ctx.pool).await? {
        let (account, invoice) = (&told.account, told.invoice);
        let text = text(&ctx.pool, account, invoice, &told.status, told.job).await?;
        if let Some(text) = text {
            let subject = alerting::of_invoice(invoice);
            alerts::change(&ctx.pool, account, alerting::REVIVED, &subject, &text).await?;
        }
    }
    Ok(())
}

/// What there is to say of it; none when its job is gone, or has it as its own.
async fn text(
    pool: &Pool,
    account: &AccountName,
    invoice: i64,
    status: &InvoiceStatus,
    job: JobId,
) -> Result<Option<AlertText>, DbError> {
    let bill = revived::bill(pool, job, invoice).await?;
    Ok(bill.map(|bill| alerting::revived(account, invoice, status, job, &bill)))
}
