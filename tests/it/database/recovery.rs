//! What is sent during a fault, and how soon work moves again after it.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::world::{World, is_send};

/// Loops wait 5 s and half of it by chance at most; the rest is for a busy machine.
const SOON_MS: i64 = 10_000;

/// How old a claim may be when its request leaves, and how much later a busy machine may see it.
const WINDOW_US: i64 = 5_000_000;
const LATE_US: i64 = 1_000_000;

/// From when on it could move again.
pub(crate) struct Recovery {
    pub(crate) up_us: i64,
}

impl Recovery {
    /// Ends the fault, and notes when the database takes connections again.
    pub(crate) async fn begin(world: &World, end_fault: impl FnOnce()) -> Recovery {
        let options = world.database.cluster.options("postgres");
        let probe = tokio::spawn(async move {
            loop {
                let up_us = now_us();
                if let Ok(connection) = PgConnection::connect_with(&options).await {
                    connection.close().await.unwrap();
                    return up_us;
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        block_in_place(end_fault);
        let up_us = probe.await.unwrap();
        Recovery { up_us }
    }

    /// Ends a fault that left the database reachable.
    pub(crate) fn now() -> Recovery {
        Recovery { up_us: now_us() }
    }

    /// Tells how long it took until something was written and something new was sent, which was soon.
    pub(crate) async fn end(&self, world: &World, fault: &str) {
        self.end_within(SOON_MS, world, fault).await;
    }

    /// The same for faults of which the daemon cannot know at once that they are over.
    pub(crate) async fn end_within(&self, limit_ms: i64, world: &World, fault: &str) {
        let up_us = self.up_us;
        let written = world
            .value(&format!(
                "select to_jsonb((min(extract(epoch from finished_at)) * 1e6)::bigint) from apipay.attempts
                  where extract(epoch from finished_at) * 1e6 > {up_us} and error_code is distinct from 'lease_expired'"
            ))
            .await;
        let sent = world
            .sandbox
            .requests()
            .await
            .iter()
            .filter(|request| is_send(request))
            .map(|request| request["at_unix_us"].as_i64().unwrap())
            .filter(|at| *at > up_us)
            .min();
        let after_ms = |at: Option<i64>| (at.expect("nothing moved again") - up_us) / 1000;
        let (written, sent) = (after_ms(written.as_i64()), after_ms(sent));
        println!("{fault}: first outcome written after {written} ms, next request after {sent} ms");
        assert!(
            written <= limit_ms && sent <= limit_ms,
            "{fault}: {written} ms, {sent} ms"
        );
    }
}

/// While the database is away no request leaves but those of claims that were committed before.
pub(crate) async fn expect_silence_after(world: &World, down_us: i64, up_us: i64) {
    for request in world.sandbox.requests().await {
        let at = request["at_unix_us"].as_i64().unwrap();
        if at <= down_us || at >= up_us {
            continue;
        }
        let after = at - down_us;
        assert!(
            after <= WINDOW_US + LATE_US,
            "{after} us after the database went: {request}"
        );
        if is_send(&request) {
            let claimed = world
                .count(&format!(
                    "apipay.attempts a join apipay.jobs j on j.id = a.job_id
                      where a.kind = 'send' and extract(epoch from a.started_at) * 1e6 between {} and {down_us}
                        and (position(j.token::text in {body}) > 0
                             or {path} like '%/invoices/' || (j.params ->> 'invoice_id') || '/cancel')",
                    at - WINDOW_US - LATE_US,
                    body = literal(&request["body"]),
                    path = literal(&request["path"]),
                ))
                .await;
            assert_eq!(claimed, 1, "not one fresh claim before {request}");
        }
    }
}

/// A text for a statement.
pub(crate) fn literal(text: &Value) -> String {
    format!("'{}'", text.as_str().unwrap().replace('\'', "''"))
}

/// Microseconds since 1970, as the sandbox writes them.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_micros()).unwrap()
}
