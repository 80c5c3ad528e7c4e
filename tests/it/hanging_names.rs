//! Nameservers that do not answer: the system's look-ups go on for long after whoever wanted them has given up.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::world::{Wish, World, phone};

#[tokio::test]
async fn names_that_hang_cost_a_thread_an_account_and_hold_up_neither_another_account_nor_the_end()
{
    let lost = ["lost1", "lost2", "lost3"];
    let accounts = [lost.as_slice(), &["well"]].concat();
    let mut wish = Wish {
        own_hosts: true,
        ..Wish::default().accounts(&accounts)
    }
    // Alerts go to a name as well, and a delivery that is under way is waited for.
    .tune("alerts.webhook.url", "http://alerts.example/hook")
    .tune("worker.grace", "10s");
    for name in lost {
        let url = format!("http://{name}.example/api/v1");
        wish = wish.tune(&format!("accounts.{name}.base_url"), &url);
    }
    let world = World::made(wish).await;
    world.hang_names();
    let mut daemon = world.daemon().await;
    let before = daemon.threads();
    for name in lost {
        for amount in 100..110 {
            let bill = json!({"phone_number": phone::PAID, "amount": amount});
            world
                .enqueue_with("invoice.create", bill, json!({"account": name}))
                .await;
        }
    }
    let tried = "select count(*) >= 30 from apipay.attempts where error_code = 'connect_failed'";
    world.until_true(tried).await;
    let bill = json!({"phone_number": phone::PAID, "amount": 100});
    let job = world
        .enqueue_with("invoice.create", bill, json!({"account": "well"}))
        .await;
    world.until(job, "succeeded").await;
    assert_eq!(world.attempts(job).await.len(), 1);
    let more = daemon.threads() - before;
    // Those of the alerts' name are some too.
    assert!(more < 20, "{more} threads");
    daemon.signal(Signal::TERM);
    daemon.until_logged("everything is recorded").await;
    let recorded = Instant::now();
    // Without waiting for look-ups.
    let status = daemon.ended(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(0));
    assert!(
        recorded.elapsed() < Duration::from_secs(1),
        "{:?}",
        recorded.elapsed()
    );
    world.end([]).await;
}
