//! What a daemon has claimed is its own for a time. Tests do not wait until that is over.

use super::{Job, World};

impl World {
    /// Makes the lease of a job run out now, as if its worker had been gone for long.
    pub(crate) async fn expire_lease(&self, job: Job) {
        self.sql(&format!(
            "update apipay.jobs set leased_until = now() - interval '1 second' where id = {job} and state = 'sending'"
        ))
        .await;
    }

    /// Makes all that dead daemons had promised to do come due now. Only while no daemon lives: a
    /// living one's promises are what keeps others away from its work.
    pub(crate) async fn expire_promises(&self) {
        self.sql(
            "update apipay.jobs set leased_until = now() where state = 'sending';
             update apipay.jobs j set run_at = now() where state = 'uncertain' and exists (
               select from apipay.attempts a where a.job_id = j.id and a.kind = 'lookup' and a.finished_at is null);
             update apipay.invoices set next_check_at = now() where not settled;
             update apipay.refunds set next_check_at = now() where not settled;
             update apipay.accounts set probe_at = now() where state = 'parked';
             update apipay.alert_deliveries set next_try_at = now() where delivered_at is null",
        )
        .await;
    }

    /// Makes what one dead daemon had claimed come due now: its sends and its look-ups, whose numbers
    /// are returned.
    pub(crate) async fn expire_promises_of(&self, worker: &str) -> (u64, u64) {
        let expire = async |statement| {
            let done = sqlx::query(statement)
                .bind(worker)
                .execute(self.pool())
                .await;
            done.unwrap().rows_affected()
        };
        let sends = expire(
            "update apipay.jobs set leased_until = now() where state = 'sending' and leased_by = $1::uuid",
        )
        .await;
        let lookups = expire(
            "update apipay.jobs j set run_at = now() where state = 'uncertain' and exists (
               select from apipay.attempts a where (a.job_id, a.epoch) = (j.id, j.epoch)
                  and a.kind = 'lookup' and a.finished_at is null and a.worker = $1::uuid)",
        )
        .await;
        (sends, lookups)
    }
}
