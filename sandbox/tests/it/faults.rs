//! Every fault, seen from the client's side of the wire and in the ledger.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::client::{Bench, api_request, parse, read_all};

fn order(id: &str) -> Value {
    json!({"phone_number": "87011234567", "amount": 1000, "external_order_id": id})
}

#[tokio::test]
async fn an_invoice_can_be_created_behind_a_502() {
    let bench = Bench::new().await;
    bench.fault(json!({"name": "lost", "route": "POST /invoices", "effect": "apply", "answer": {"preset": "502_html"}})).await;
    assert_eq!(bench.api("POST /invoices", order("o-1")).await.status, 502);
    assert_eq!(bench.api("POST /invoices", order("o-2")).await.status, 201);
    let effects = bench.effects().await;
    assert_eq!(
        effects
            .iter()
            .map(|effect| &effect["external_order_id"])
            .collect::<Vec<_>>(),
        ["o-1", "o-2"]
    );
    let log = bench.requests().await;
    assert_eq!(
        [
            &log[0]["fault"],
            &log[0]["status"],
            &log[0]["applied"],
            &log[1]["fault"]
        ],
        [&json!("lost"), &json!(502), &json!(true), &Value::Null]
    );
    assert_eq!(effects[0]["request"], log[0]["seq"]);
}

#[tokio::test]
async fn an_answer_of_its_own_applies_nothing() {
    let bench = Bench::new().await;
    bench.fault(json!({"route": "*", "answer": {"status": 503, "headers": {"Retry-After": "7"}, "json": {"error": "x"}}})).await;
    let answer = bench.api("POST /invoices", order("o-1")).await;
    assert_eq!(
        (answer.status, answer.header("Retry-After"), &answer.body),
        (503, Some("7"), &json!({"error": "x"}))
    );
    assert_eq!(bench.effects().await.len(), 0);
}

#[tokio::test]
async fn cuts_lie_before_or_after_the_effect() {
    for (cut, effects) in [("before_effect", 0), ("after_effect", 1)] {
        let bench = Bench::new().await;
        bench
            .fault(json!({"route": "POST /invoices", "cut": cut}))
            .await;
        let bytes = bench
            .send(&api_request("POST /invoices", &order("o-1")))
            .await;
        assert_eq!(
            (bytes.len(), bench.effects().await.len()),
            (0, effects),
            "{cut}"
        );
        assert_eq!(bench.requests().await[0]["status"], Value::Null);
    }
}

#[tokio::test]
async fn answers_break_off_in_the_head_or_in_the_body() {
    let bench = Bench::new().await;
    bench
        .fault(json!({"route": "*", "cut": "mid_headers"}))
        .await;
    bench.fault(json!({"route": "*", "cut": "mid_body"})).await;
    let head = bench
        .send(&api_request("POST /invoices", &order("o-1")))
        .await;
    assert!(head.starts_with(b"HTTP/1.1 201") && !head.windows(4).any(|four| four == b"\r\n\r\n"));
    let half = bench
        .send(&api_request("POST /invoices", &order("o-2")))
        .await;
    let half = parse(&half).unwrap();
    let declared: usize = half.header("Content-Length").unwrap().parse().unwrap();
    assert_eq!(half.body.as_str().map(str::len), Some(declared / 2));
    assert_eq!(bench.effects().await.len(), 2);
}

#[tokio::test]
async fn a_late_effect_comes_after_its_client_has_gone() {
    let bench = Bench::new().await;
    bench
        .fault(json!({"route": "POST /invoices", "effect": "late", "after_ms": 200}))
        .await;
    let mut stream = bench.connect().await;
    stream
        .write_all(&api_request("POST /invoices", &order("o-1")))
        .await
        .unwrap();
    bench
        .until("arrived", async || bench.requests().await.len() == 1)
        .await;
    drop(stream);
    assert_eq!(bench.effects().await.len(), 0);
    bench
        .until("applied", async || bench.effects().await.len() == 1)
        .await;
    assert_eq!(bench.requests().await[0]["applied"], true);
}

#[tokio::test]
async fn a_late_effect_can_follow_its_answer_or_bring_it() {
    let bench = Bench::new().await;
    let late = json!({"route": "POST /invoices", "effect": "late", "after_ms": 150, "answer": {"preset": "504_html"}});
    bench.fault(late).await;
    assert_eq!(bench.api("POST /invoices", order("o-1")).await.status, 504);
    assert_eq!(bench.effects().await.len(), 0);
    bench
        .until("applied", async || bench.effects().await.len() == 1)
        .await;
    bench
        .fault(json!({"route": "POST /invoices", "effect": "late", "after_ms": 50}))
        .await;
    let answer = bench.api("POST /invoices", order("o-2")).await;
    assert_eq!((answer.status, bench.effects().await.len()), (201, 2));
}

#[tokio::test]
async fn a_reset_calls_late_effects_off() {
    let bench = Bench::new().await;
    bench.fault(json!({"route": "*", "effect": "late", "after_ms": 50, "answer": {"preset": "504_html"}})).await;
    bench.api("POST /invoices", order("o-1")).await;
    bench.control("POST /reset", Value::Null).await;
    sleep(Duration::from_millis(150)).await;
    assert_eq!(bench.effects().await.len(), 0);
}

#[tokio::test]
async fn a_hanging_request_is_applied_and_never_answered() {
    let bench = Bench::new().await;
    bench
        .fault(json!({"route": "POST /invoices", "hang": true}))
        .await;
    let mut stream = bench.connect().await;
    stream
        .write_all(&api_request("POST /invoices", &order("o-1")))
        .await
        .unwrap();
    let silence = timeout(Duration::from_millis(200), read_all(&mut stream)).await;
    assert!(silence.is_err());
    assert_eq!(bench.effects().await.len(), 1);
    drop(stream);
    let over = async || bench.control("GET /stats", Value::Null).await["in_flight"] == 0;
    bench.until("the hung request is over", over).await;
}

#[tokio::test]
async fn a_hang_can_end_in_a_close() {
    let bench = Bench::new().await;
    bench
        .fault(json!({"route": "*", "effect": "none", "hang_ms": 50}))
        .await;
    assert_eq!(
        bench
            .send(&api_request("POST /invoices", &order("o-1")))
            .await,
        b""
    );
    assert_eq!(bench.effects().await.len(), 0);
}

#[tokio::test]
async fn answers_are_delayed_and_drip() {
    let bench = Bench::new().await;
    bench.fault(json!({"route": "*", "delay_ms": 120})).await;
    bench
        .fault(json!({"route": "*", "drip": {"bytes": 50, "every_ms": 20}}))
        .await;
    for _ in 0..2 {
        let started = std::time::Instant::now();
        assert_eq!(bench.api("POST /invoices", order("o-1")).await.status, 201);
        assert!(
            started.elapsed() >= Duration::from_millis(100),
            "{:?}",
            started.elapsed()
        );
    }
}

/// The beginning of an answer that does not end.
async fn first_bytes(fault: Value, count: usize) -> Vec<u8> {
    let bench = Bench::new().await;
    bench.fault(fault).await;
    let mut stream = bench.connect().await;
    stream
        .write_all(&api_request("GET /invoices", &Value::Null))
        .await
        .unwrap();
    let mut bytes = vec![0; count];
    timeout(Duration::from_secs(5), stream.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    bytes
}

#[tokio::test]
async fn heads_bodies_and_interim_answers_can_be_endless() {
    let head = first_bytes(json!({"route": "*", "endless_headers": true}), 100_000).await;
    assert!(!head.windows(4).any(|four| four == b"\r\n\r\n"));
    let body = first_bytes(json!({"route": "*", "endless_body": true}), 100_000).await;
    assert!(body.starts_with(b"HTTP/1.1 200"));
    assert!(!body.windows(5).any(|five| five == b"\r\n0\r\n"));
    let interim = json!({"route": "*", "interim": {"status": 103}});
    let interim = first_bytes(interim, 2_000).await;
    let answers = interim.windows(12).filter(|part| part == b"HTTP/1.1 103");
    assert!(answers.count() > 50);
}

#[tokio::test]
async fn interim_answers_come_before_the_real_one() {
    let bench = Bench::new().await;
    bench
        .fault(json!({"route": "*", "interim": {"status": 100, "times": 3}}))
        .await;
    let bytes = bench
        .send(&api_request("POST /invoices", &order("o-1")))
        .await;
    let interim = "HTTP/1.1 100 Interim\r\n\r\n".repeat(3);
    let rest = bytes.strip_prefix(interim.as_bytes()).unwrap();
    assert_eq!(parse(rest).unwrap().status, 201);
    assert_eq!(bench.effects().await.len(), 1);
}

#[tokio::test]
async fn anything_can_be_said_instead_of_an_answer() {
    let bench = Bench::new().await;
    let rule = |effect| json!({"route": "*", "raw": "SSH-2.0-gate\r\n", "effect": effect});
    for (effect, effects) in [("none", 0), ("apply", 1)] {
        bench.fault(rule(effect)).await;
        let bytes = bench
            .send(&api_request("POST /invoices", &order("o-1")))
            .await;
        assert_eq!(bytes, b"SSH-2.0-gate\r\n");
        assert_eq!(bench.effects().await.len(), effects);
    }
    assert_eq!(bench.requests().await[0]["status"], Value::Null);
}

#[tokio::test]
async fn bodies_are_padded_broken_or_bombs() {
    let bench = Bench::new().await;
    for rule in [
        json!({"body_bytes": 500_000}),
        json!({"broken_json": true}),
        json!({"gzip_bomb": true}),
    ] {
        let mut rule = rule;
        rule["route"] = json!("GET /invoices");
        bench.fault(rule).await;
    }
    let padded = bench.api("GET /invoices", Value::Null).await;
    assert_eq!((padded.status, &padded.body["total"]), (200, &json!(0)));
    assert!(
        padded
            .header("Content-Length")
            .unwrap()
            .parse::<usize>()
            .unwrap()
            >= 500_000
    );
    let broken = bench.api("GET /invoices", Value::Null).await;
    assert!(broken.body.is_string(), "{}", broken.body);
    let bomb = bench
        .send(&api_request("GET /invoices", &Value::Null))
        .await;
    let head_len = bomb
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    let mut zeros = Vec::new();
    std::io::Read::read_to_end(
        &mut flate2::read::GzDecoder::new(&bomb[head_len..]),
        &mut zeros,
    )
    .unwrap();
    assert_eq!(zeros.len(), 10 * 1024 * 1024);
    assert!(bomb.len() < 20_000);
}

#[tokio::test]
async fn redirects_lead_elsewhere() {
    let bench = Bench::new().await;
    bench
        .fault(json!({"route": "*", "redirect_to": "http://127.0.0.1:1/else"}))
        .await;
    let answer = bench.api("POST /invoices", order("o-1")).await;
    assert_eq!(
        (answer.status, answer.header("Location")),
        (307, Some("http://127.0.0.1:1/else"))
    );
    assert_eq!(bench.effects().await.len(), 0);
}

#[tokio::test]
async fn one_job_can_be_singled_out() {
    let bench = Bench::new().await;
    bench
        .fault(json!({"route": "*", "match": "o-2", "answer": {"preset": "500_json"}}))
        .await;
    let mut statuses = Vec::new();
    for id in ["o-1", "o-2", "o-2"] {
        statuses.push(bench.api("POST /invoices", order(id)).await.status);
    }
    assert_eq!(statuses, [201, 500, 201]);
}
