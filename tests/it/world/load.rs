//! Work for the daemon: jobs of every kind.

use serde_json::json;

use super::{World, phone};

impl World {
    /// Enqueues so many jobs or a few more: bills, cancels, and refunds in pairs of one invoice.
    pub(crate) async fn enqueue_everything(&self, jobs: usize) {
        let key = self.key("default");
        for n in 0..jobs {
            match n % 5 {
                0 => {
                    let id = self
                        .sandbox
                        .invoice(&key, json!({"status": "pending"}))
                        .await;
                    self.enqueue("invoice.cancel", json!({"invoice_id": id}))
                        .await;
                }
                1 => {
                    let id = self.sandbox.invoice(&key, json!({"status": "paid"})).await;
                    for _ in 0..2 {
                        self.enqueue("invoice.refund", json!({"invoice_id": id, "amount": 100}))
                            .await;
                    }
                }
                _ => {
                    self.bill([phone::PAID, phone::UNPAID][n % 2], 100).await;
                }
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
