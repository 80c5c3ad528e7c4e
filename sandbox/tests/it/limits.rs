//! Rate limits and their headers.

use apipay_sandbox::Settings;
use serde_json::{Value, json};

use crate::client::Bench;

#[tokio::test]
async fn every_answer_tells_what_is_left_and_then_it_is_429() {
    let bench = Bench::with(Settings {
        requests_per_minute: 3,
        ..Settings::default()
    })
    .await;
    for (call, remaining) in [
        ("GET /invoices", "2"),
        ("GET /nothing", "1"),
        ("POST /invoices", "0"),
    ] {
        let answer = bench.api(call, Value::Null).await;
        assert_eq!(
            (
                answer.header("X-RateLimit-Limit"),
                answer.header("X-RateLimit-Remaining")
            ),
            (Some("3"), Some(remaining))
        );
    }
    let refused = bench
        .api(
            "POST /invoices",
            json!({"phone_number": "87011234567", "amount": 1}),
        )
        .await;
    assert_eq!(
        (refused.status, &refused.body["error_code"]),
        (429, &json!("request_rate_limited"))
    );
    let wait: u64 = refused.header("Retry-After").unwrap().parse().unwrap();
    assert!((50..=60).contains(&wait), "{wait}");
    assert_eq!(refused.body["retry_after_seconds"], wait);
    let reset: u64 = refused
        .header("X-RateLimit-Reset")
        .unwrap()
        .parse()
        .unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!((now + 50..=now + 61).contains(&reset), "{reset} at {now}");
    assert_eq!(refused.header("X-RateLimit-Remaining"), Some("0"));
    assert_eq!(bench.effects().await.len(), 0);
    let log = bench.requests().await;
    assert_eq!(
        log.iter()
            .map(|entry| entry["limited"] == true)
            .collect::<Vec<_>>(),
        [false, false, false, true]
    );
}

#[tokio::test]
async fn reads_of_one_invoice_have_their_own_limit() {
    let bench = Bench::with(Settings {
        requests_per_minute: 1,
        ..Settings::default()
    })
    .await;
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 200);
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 429);
    let read = bench.api("GET /invoices/1", Value::Null).await;
    assert_eq!(
        (read.status, read.header("X-RateLimit-Limit")),
        (404, Some("1000"))
    );
    assert_eq!(
        bench
            .api_as("another", "GET /invoices", Value::Null)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_limited_request_spends_no_fault() {
    let bench = Bench::with(Settings {
        requests_per_minute: 1,
        ..Settings::default()
    })
    .await;
    bench
        .fault(json!({"route": "GET /invoices", "skip": 1, "answer": {"preset": "500_json"}}))
        .await;
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 200);
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 429);
    bench
        .control("POST /organization", json!({"requests_per_minute": 0}))
        .await;
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 500);
}
