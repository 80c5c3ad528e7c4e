//! Work for the daemon: jobs of every kind.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Postgres, Transaction};

use super::{Job, World, phone};

impl World {
    /// Enqueues a job of the account `default`.
    pub(crate) async fn enqueue(&self, operation: &str, params: Value) -> Job {
        self.enqueue_with(operation, params, json!({})).await
    }

    /// Enqueues a job with further columns.
    pub(crate) async fn enqueue_with(&self, operation: &str, params: Value, columns: Value) -> Job {
        let mut row = json!({"operation": operation, "params": params});
        for (column, value) in columns.as_object().unwrap() {
            row[column] = value.clone();
        }
        let names: Vec<&str> = row
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let names = names.join(", ");
        sqlx::query_scalar(AssertSqlSafe(format!(
            "insert into apipay.jobs ({names})
             select {names} from jsonb_populate_record(null::apipay.jobs, $1) returning id"
        )))
        .bind(row)
        .fetch_one(self.pool())
        .await
        .unwrap()
    }

    /// Enqueues a bill.
    pub(crate) async fn bill(&self, phone: &str, amount: i64) -> Job {
        self.enqueue(
            "invoice.create",
            json!({"phone_number": phone, "amount": amount}),
        )
        .await
    }

    /// Enqueues a bill of this account that nobody pays.
    pub(crate) async fn bill_of(&self, account: &str) -> Job {
        let bill = json!({"phone_number": phone::UNPAID, "amount": 100});
        let columns = json!({"account": account});
        self.enqueue_with("invoice.create", bill, columns).await
    }

    /// Runs a statement in a transaction that stays open as long as what is returned.
    pub(crate) async fn hold(&self, statement: &str) -> Transaction<'static, Postgres> {
        let mut held = self.pool().begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&mut *held)
            .await
            .unwrap();
        held
    }

    /// Enqueues the cancel of an invoice that no job made.
    pub(crate) async fn cancel_of_an_invoice(&self) -> Job {
        let invoice = self.invoice("pending").await;
        self.enqueue("invoice.cancel", json!({"invoice_id": invoice}))
            .await
    }

    /// Holds an uncertain job whose request may have been made, as one that nobody can tell of.
    pub(crate) async fn hold_unknown(&self, job: Job) {
        self.until(job, "uncertain").await;
        self.sql(&format!(
            "update apipay.jobs set state = 'held', reason = 'unknown_outcome', epoch = epoch + 1
              where id = {job} and state = 'uncertain'"
        ))
        .await;
        self.until(job, "held").await;
    }

    /// Enqueues two equal partial refunds of an invoice that no job made.
    pub(crate) async fn two_equal_refunds(&self) {
        let invoice = self.invoice("paid").await;
        for _ in 0..2 {
            self.enqueue(
                "invoice.refund",
                json!({"invoice_id": invoice, "amount": 100}),
            )
            .await;
        }
    }

    async fn invoice(&self, status: &str) -> i64 {
        let key = self.key("default");
        self.sandbox.invoice(&key, json!({"status": status})).await
    }

    /// Enqueues so many jobs or a few more: bills, cancels, and refunds in pairs of one invoice.
    pub(crate) async fn enqueue_everything(&self, jobs: usize) {
        for n in 0..jobs {
            match n % 5 {
                0 => drop(self.cancel_of_an_invoice().await),
                1 => self.two_equal_refunds().await,
                _ => drop(self.bill([phone::PAID, phone::UNPAID][n % 2], 100).await),
            }
        }
    }

    /// Makes the gateway slow, so that there is always something in flight.
    pub(crate) async fn slow_gateway(&self, delay_ms: u64) {
        self.sandbox
            .fault(json!({"route": "*", "share": 1.0, "delay_ms": delay_ms}))
            .await;
    }

    /// Waits until at least so many jobs are claimed and not recorded.
    pub(crate) async fn until_in_flight(&self, jobs: usize) {
        self.until_true(&format!(
            "select count(*) >= {jobs} from apipay.jobs where state = 'sending'"
        ))
        .await;
    }
}
