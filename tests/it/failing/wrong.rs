//! Jobs with wrong params, of which nothing is sent, end no outage and do not lengthen it either.

use std::time::Duration;

use serde_json::json;

use super::{fail, until_slow};
use crate::world::{World, phone};

#[tokio::test]
async fn jobs_with_wrong_params_do_not_keep_an_account_slow() {
    let (world, daemon) = World::running().await;
    fail(
        &world,
        json!({"route": "POST /invoices", "share": 1.0, "answer": {"preset": "502_html"}}),
    )
    .await;
    let bills = [100, 200, 300].map(|amount| world.bill(phone::PAID, amount));
    let bills = futures_util::future::join_all(bills).await;
    until_slow(&world).await;
    // Whoever tries one at each look needs half a minute for them.
    world
        .sql(&format!(
            "insert into apipay.jobs (account, operation, params, priority)
             select 'default', 'invoice.create', '{{\"phone_number\": \"{}\", \"amount\": \"a lot\"}}', 9 from generate_series(1, 60)",
            phone::PAID
        ))
        .await;
    world.sandbox.mend().await;
    let ends = async {
        for job in bills {
            world.until(job, "succeeded").await;
        }
    };
    let soon = tokio::time::timeout(Duration::from_secs(20), ends).await;
    assert!(soon.is_ok(), "{}", world.report(None).await);
    world.until_all_final().await;
    world.end([daemon]).await;
}
