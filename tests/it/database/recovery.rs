//! How soon work moves again after a fault.

use std::time::{Duration, SystemTime};

use sqlx::{Connection, PgConnection};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::world::World;

/// Loops wait 5 s and half of it by chance at most; the rest is for a busy machine.
const SOON_MS: i64 = 10_000;

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
            .filter(|request| request["method"] == "POST")
            .map(|request| request["at_unix_us"].as_i64().unwrap())
            .filter(|at| *at > up_us)
            .min();
        let after_ms = |at: Option<i64>| (at.expect("nothing moved again") - up_us) / 1000;
        let (written, sent) = (after_ms(written.as_i64()), after_ms(sent));
        println!("{fault}: first outcome written after {written} ms, next request after {sent} ms");
        assert!(
            written <= SOON_MS && sent <= SOON_MS,
            "{fault}: {written} ms, {sent} ms"
        );
    }
}

/// Microseconds since 1970, as the sandbox writes them.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_micros()).unwrap()
}
