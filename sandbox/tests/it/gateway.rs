//! The gateway's own behaviour through the network.

use std::time::Duration;

use apipay_sandbox::{Mode, Settings};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::client::{Bench, KEY, parse, read_all};

fn keyed(phone: &str, key: &str) -> Value {
    json!({"phone_number": phone, "amount": 1000, "external_order_id": key, "external_order_id_idempotency": key})
}

#[tokio::test]
async fn a_repeated_key_is_a_conflict_until_it_is_ignored() {
    let bench = Bench::new().await;
    let body = keyed("87011234567", "k-1");
    let first = bench.api("POST /invoices", body.clone()).await;
    let second = bench.api("POST /invoices", body.clone()).await;
    assert_eq!((first.status, second.status), (201, 409));
    assert_eq!(second.body["invoice_id"], first.body["id"]);
    assert_eq!(bench.effects().await.len(), 1);
    bench
        .control(
            "POST /organization",
            json!({"honour_idempotency_key": false}),
        )
        .await;
    assert_eq!(bench.api("POST /invoices", body).await.status, 201);
    assert_eq!(bench.effects().await.len(), 2);
}

#[tokio::test]
async fn two_equal_requests_at_once_make_one_invoice() {
    let bench = Bench::new().await;
    let body = keyed("87011234567", "k-1");
    let (a, b) = tokio::join!(
        bench.api("POST /invoices", body.clone()),
        bench.api("POST /invoices", body.clone())
    );
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}

#[tokio::test]
async fn magic_phones_live_faster_on_a_fast_clock() {
    let bench = Bench::with(Settings {
        speed: 100_000.0,
        ..Settings::default()
    })
    .await;
    bench.api("POST /invoices", keyed("87000000001", "a")).await;
    bench.api("POST /invoices", keyed("87000000003", "b")).await;
    let invoice = bench
        .api("POST /invoices", keyed("87011234567", "c"))
        .await
        .body["id"]
        .clone();
    bench
        .until("paid, error and expired", async || {
            let listed = bench
                .api("GET /invoices?sort_by=id&sort_order=asc", Value::Null)
                .await
                .body;
            let statuses: Vec<_> = (0..3)
                .map(|row| listed["data"][row]["status"].clone())
                .collect();
            statuses == ["paid", "error", "expired"]
        })
        .await;
    let again = bench.api("POST /invoices", keyed("87011234567", "c")).await;
    assert_eq!(again.status, 201);
    assert_ne!(again.body["id"], invoice);
}

#[tokio::test]
async fn refunds_come_to_their_ends() {
    let bench = Bench::new().await;
    let planted = json!({"organization": KEY, "phone": "87011234567", "amount": "1000.00"});
    let id = bench.control("POST /invoices", planted).await["id"].clone();
    for body in [
        json!({"amount": 100}),
        json!({"amount": 200, "reason": "sandbox:refund_window_expired"}),
        json!({}),
    ] {
        assert_eq!(
            bench
                .api(&format!("POST /invoices/{id}/refund"), body)
                .await
                .status,
            201
        );
        bench.control("POST /clock", json!({"advance": "2s"})).await;
    }
    let listed = bench
        .api(&format!("GET /invoices/{id}/refunds"), Value::Null)
        .await
        .body;
    let ends: Vec<_> = (0..3)
        .map(|row| {
            (
                &listed["refunds"][row]["amount"],
                &listed["refunds"][row]["status"],
            )
        })
        .collect();
    let expected = [
        ("100.00", "completed"),
        ("200.00", "failed"),
        ("900.00", "completed"),
    ];
    assert_eq!(
        ends,
        expected
            .map(|(amount, status)| (json!(amount), json!(status)))
            .each_ref()
            .map(|(a, s)| (a, s))
    );
    assert_eq!(listed["invoice"]["is_fully_refunded"], true);
    let kinds: Vec<_> = bench
        .effects()
        .await
        .iter()
        .map(|effect| effect["kind"].clone())
        .collect();
    assert_eq!(kinds, ["invoice.refund"; 3]);
}

#[tokio::test]
async fn cancels_are_queued_live_and_immediate_in_sandbox_mode() {
    for (mode, status, word) in [
        (Mode::Live, 202, "cancelling"),
        (Mode::Sandbox, 200, "cancelled"),
    ] {
        let bench = Bench::with(Settings {
            mode,
            ..Settings::default()
        })
        .await;
        let id = bench
            .api("POST /invoices", keyed("87011234567", "a"))
            .await
            .body["id"]
            .clone();
        bench
            .control("POST /clock", json!({"freeze": true, "advance": "1m"}))
            .await;
        assert_eq!(
            bench
                .api(&format!("POST /invoices/{id}/cancel"), Value::Null)
                .await
                .status,
            status
        );
        let shown = bench
            .api(&format!("GET /invoices/{id}"), Value::Null)
            .await
            .body;
        assert_eq!(
            (&shown["status"], &shown["is_sandbox"]),
            (&json!(word), &json!(mode == Mode::Sandbox))
        );
        bench.control("POST /clock", json!({"advance": "1s"})).await;
        let shown = bench
            .api(&format!("GET /invoices/{id}"), Value::Null)
            .await
            .body;
        assert_eq!(shown["status"], "cancelled");
        assert_eq!(bench.effects().await[1]["kind"], "invoice.cancel");
    }
}

#[tokio::test]
async fn a_lost_session_refuses_and_comes_back() {
    let bench = Bench::new().await;
    let id = bench
        .api("POST /invoices", keyed("87011234567", "a"))
        .await
        .body["id"]
        .clone();
    for (answer, status) in [("503", 503), ("409", 409)] {
        let lost = json!({"organization": KEY, "state": "expired", "answer": answer});
        bench.control("POST /session", lost).await;
        assert_eq!(
            bench
                .api("POST /invoices", keyed("87011234567", "b"))
                .await
                .status,
            status
        );
        assert_eq!(
            bench
                .api(&format!("POST /invoices/{id}/cancel"), Value::Null)
                .await
                .status,
            503
        );
        let health = bench.api("GET /account/health", Value::Null).await.body;
        assert_eq!(health["connection"]["needs_reauth"], true);
        assert!(
            health["connection"]["session_error_at"]
                .as_str()
                .unwrap()
                .ends_with("+05:00")
        );
        assert_eq!(
            bench
                .api_as("another", "POST /invoices", keyed("87011234567", "b"))
                .await
                .status,
            201
        );
        bench.control("POST /reset", Value::Null).await;
        bench.api("POST /invoices", keyed("87011234567", "a")).await;
    }
    bench
        .control("POST /session", json!({"state": "error"}))
        .await;
    assert_eq!(
        bench
            .api("POST /invoices", keyed("87011234567", "b"))
            .await
            .status,
        503
    );
    bench
        .control("POST /session", json!({"state": "active"}))
        .await;
    assert_eq!(
        bench
            .api("POST /invoices", keyed("87011234567", "b"))
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn lists_can_lag_and_lose() {
    let bench = Bench::new().await;
    bench
        .control("POST /organization", json!({"list_lag_ms": 150}))
        .await;
    let id = bench
        .api("POST /invoices", keyed("87011234567", "o-1"))
        .await
        .body["id"]
        .clone();
    let found = async || {
        bench
            .api("GET /invoices?search=o-1", Value::Null)
            .await
            .body["total"]
            .clone()
    };
    assert_eq!(found().await, 0);
    assert_eq!(
        bench
            .api(&format!("GET /invoices/{id}"), Value::Null)
            .await
            .status,
        200
    );
    sleep(Duration::from_millis(200)).await;
    assert_eq!(found().await, 1);
    bench
        .control("POST /organization", json!({"search": "lost"}))
        .await;
    assert_eq!(found().await, 0);
    assert_eq!(
        bench.api("GET /invoices", Value::Null).await.body["total"],
        1
    );
}

#[tokio::test]
async fn pages_can_shift() {
    let bench = Bench::new().await;
    for order in ["a", "b", "c"] {
        bench
            .api("POST /invoices", keyed("87011234567", order))
            .await;
    }
    bench
        .control("POST /organization", json!({"list_shift": true}))
        .await;
    let mut seen = Vec::new();
    for page in 1..=3 {
        let listed = bench
            .api(
                &format!("GET /invoices?per_page=1&page={page}"),
                Value::Null,
            )
            .await
            .body;
        seen.extend(
            listed["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["external_order_id"].clone()),
        );
    }
    assert_eq!(seen, ["c", "a"]);
}

#[tokio::test]
async fn keys_are_needed_and_can_be_revoked() {
    let bench = Bench::new().await;
    let missing = bench
        .send(b"GET /api/v1/invoices HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await;
    let missing = parse(&missing).unwrap();
    assert_eq!(
        (missing.status, &missing.body["error"]),
        (401, &Value::Null)
    );
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 200);
    let change = json!({"organization": KEY, "add_key": "second", "revoke_key": KEY});
    bench.control("POST /organization", change).await;
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 401);
    assert_eq!(
        bench
            .api_as("second", "GET /invoices", Value::Null)
            .await
            .status,
        200
    );
    let open = parse(
        &bench
            .send(b"GET /api/v1/status HTTP/1.1\r\nConnection: close\r\n\r\n")
            .await,
    )
    .unwrap();
    assert_eq!(open.body["status"], "ok");
}

#[tokio::test]
async fn strict_keys_must_be_named_first() {
    let bench = Bench::with(Settings {
        strict_keys: true,
        ..Settings::default()
    })
    .await;
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 401);
    bench
        .control(
            "POST /organization",
            json!({"organization": KEY, "name": "shop"}),
        )
        .await;
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 200);
}

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let bench = Bench::new().await;
    let mut stream = bench.connect().await;
    let one = b"GET /api/v1/status HTTP/1.1\r\n\r\n";
    stream
        .write_all(&[&one[..], &one[..]].concat())
        .await
        .unwrap();
    let mut answers = Vec::new();
    while answers.windows(4).filter(|four| four == b"\"ok\"").count() < 2 {
        assert_ne!(stream.read_buf(&mut answers).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn nonsense_is_refused_politely() {
    let bench = Bench::new().await;
    let post = |body: &str| {
        format!(
            "POST /api/v1/invoices HTTP/1.1\r\nX-API-Key: k\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (bytes, status) in [
        (post("{"), 400),
        (post("[]"), 422),
        (post(""), 422),
        (post("\u{0}\u{1}"), 400),
        (
            "POST /api/v1/invoices HTTP/1.1\r\nX-API-Key: k\r\nConnection: close\r\n\r\n"
                .to_owned(),
            422,
        ),
        (
            "GET /api/v1/nothing HTTP/1.1\r\nX-API-Key: k\r\nConnection: close\r\n\r\n".to_owned(),
            404,
        ),
        (
            "DELETE /api/v1/invoices HTTP/1.1\r\nX-API-Key: k\r\nConnection: close\r\n\r\n"
                .to_owned(),
            405,
        ),
        ("\u{16}\u{3}\u{1}nonsense\r\n\r\n".to_owned(), 400),
    ] {
        let answer = parse(&bench.send(bytes.as_bytes()).await).unwrap();
        assert_eq!(answer.status, status, "{bytes:?}");
        assert!(answer.body["message"].is_string(), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_stop_drops_open_connections() {
    let bench = Bench::new().await;
    let mut stream = bench.connect().await;
    stream.write_all(b"GET /api/v1/sta").await.unwrap();
    sleep(Duration::from_millis(20)).await;
    bench.running.stop().await;
    assert_eq!(read_all(&mut stream).await, b"");
}
