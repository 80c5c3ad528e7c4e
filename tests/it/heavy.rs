//! Answers of any size, many at a time: the daemon keeps none of them whole, and stays small.

use serde_json::{Value, json};

use crate::world::{Wish, World};

/// What a debug build may take. It starts with about a third of that.
const MEMORY: u64 = 80 << 20;

/// Each job's first request is answered so, after its effect.
fn answers() -> Vec<(&'static str, Value)> {
    // Two bytes each, and as values in memory many times as much.
    let many_values = format!(r#"{{"padding":[{}0]}}"#, "0,".repeat(500_000));
    vec![
        ("endless", json!({"endless_body": true})),
        ("padded", json!({"body_bytes": 16 << 20})),
        ("bomb", json!({"gzip_bomb": true})),
        ("headers", json!({"endless_headers": true})),
        ("interim", json!({"interim": {"status": 102}})),
        (
            "values",
            json!({"effect": "apply", "answer": {"status": 201, "text": many_values}}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_end_and_without_measure_do_not_fill_the_memory() {
    let answers = answers();
    let accounts: Vec<&str> = answers.iter().map(|(account, _)| *account).collect();
    let wish = Wish::default()
        .accounts(&accounts)
        .tune("http.max_body_bytes", "1048576")
        .tune("http.timeout", "5s")
        .tune("worker.lease", "20s")
        .tune("worker.grace", "10s");
    let world = World::made(wish).await;
    for (account, answer) in &answers {
        let mut rule = answer.clone();
        rule["organization"] = (*account).into();
        rule["times"] = 3.into();
        for route in [
            "POST /invoices",
            "POST /invoices/{id}/cancel",
            "POST /invoices/{id}/refund",
        ] {
            rule["route"] = route.into();
            world.sandbox.fault(rule.clone()).await;
        }
        let key = world.key(account);
        for _ in 0..3 {
            let columns = json!({"account": account});
            let bill = json!({"phone_number": "87015550044", "amount": 700});
            world
                .enqueue_with("invoice.create", bill, columns.clone())
                .await;
            let id = world
                .sandbox
                .invoice(&key, json!({"status": "pending"}))
                .await;
            let cancel = json!({"invoice_id": id});
            world
                .enqueue_with("invoice.cancel", cancel, columns.clone())
                .await;
            let id = world.sandbox.invoice(&key, json!({"status": "paid"})).await;
            let refund = json!({"invoice_id": id, "amount": 100});
            world.enqueue_with("invoice.refund", refund, columns).await;
        }
    }
    let daemon = world.daemon().await;
    world.until_all_final().await;
    let failed = world
        .rows("select id from apipay.jobs where state <> 'succeeded'")
        .await;
    assert_eq!(failed, [] as [Value; 0]);
    assert_eq!(world.sandbox.effects().await.len(), 9 * answers.len());
    let peak = daemon.peak_memory();
    assert!(peak < MEMORY, "{} MiB at the most", peak >> 20);
    let stored = world
        .count("apipay.attempts where octet_length(answer::text) > 20000")
        .await;
    assert_eq!(stored, 0, "the evidence is bounded too");
    world.end([daemon]).await;
}
