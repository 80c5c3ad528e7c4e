//! Jobs for a world.

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::{Job, World};

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

    /// Enqueues the cancel of an invoice that no job made.
    pub(crate) async fn cancel_of_an_invoice(&self) -> Job {
        let invoice = self.invoice("pending").await;
        self.enqueue("invoice.cancel", json!({"invoice_id": invoice}))
            .await
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
}
