//! The control API: reports, bad input, objects planted and forced.

use serde_json::{Value, json};

use crate::client::{Bench, KEY};

#[tokio::test]
async fn bad_control_input_names_the_field() {
    let bench = Bench::new().await;
    for (call, body, field) in [
        ("POST /organization", json!({"mode": "real"}), "mode"),
        ("POST /organization", json!({"list_lag": 5}), "list_lag"),
        (
            "POST /organization",
            json!({"catalog": [{"id": 1, "name": "tea", "price": "x"}]}),
            "catalog[0].price",
        ),
        ("POST /organization", json!({"name": "shop"}), "name"),
        (
            "POST /organization",
            json!({"refund_outcome": "No!"}),
            "refund_outcome",
        ),
        ("POST /session", json!({"state": "gone"}), "state"),
        (
            "POST /session",
            json!({"state": "expired", "answer": "418"}),
            "answer",
        ),
        ("POST /faults", json!({"route": "POST /nothing"}), "route"),
        (
            "POST /faults",
            json!({"route": "*", "cut": "in_half"}),
            "cut",
        ),
        (
            "POST /faults",
            json!({"route": "*", "answer": {"preset": "599"}}),
            "answer.preset",
        ),
        ("POST /clock", json!({"advance": "soon"}), "advance"),
        ("POST /clock", json!({"speed": -1}), "speed"),
        (
            "POST /invoices",
            json!({"organization": "k", "phone": "1", "amount": 1}),
            "phone",
        ),
        (
            "POST /invoices",
            json!({"organization": "k", "phone": "87011234567", "amount": 1, "story": "x"}),
            "story",
        ),
        (
            "POST /refunds",
            json!({"invoice_id": 1, "amount": 1}),
            "invoice_id",
        ),
        ("GET /ledger?kinds=x", Value::Null, "kinds"),
        ("GET /ledger?kind=x", Value::Null, "kind"),
        ("GET /requests?since=x", Value::Null, "since"),
    ] {
        let answer = bench.control_answer(call, body.clone()).await;
        assert_eq!(
            (answer.status, &answer.body["field"]),
            (400, &json!(field)),
            "{call} {body}: {}",
            answer.body
        );
        assert!(answer.body["message"].as_str().unwrap().len() > field.len() + 2);
    }
}

#[tokio::test]
async fn unknown_objects_are_not_found() {
    let bench = Bench::new().await;
    for (call, body) in [
        ("POST /invoices/1", json!({"status": "paid"})),
        ("POST /refunds/1", json!({"status": "failed"})),
        ("DELETE /faults/1", Value::Null),
        ("GET /nothing", Value::Null),
    ] {
        assert_eq!(bench.control_answer(call, body).await.status, 404, "{call}");
    }
}

#[tokio::test]
async fn any_transition_can_be_forced() {
    let bench = Bench::new().await;
    let new = json!({"organization": KEY, "phone": "87011234567", "amount": 700, "status": "expired", "external_order_id": "o"});
    let id = bench.control("POST /invoices", new).await["id"].clone();
    let path = format!("/invoices/{id}");
    for (change, status, code) in [
        (json!({"status": "paid"}), "paid", Value::Null),
        (
            json!({"status": "error", "error_code": "kaspi_error"}),
            "error",
            json!("kaspi_error"),
        ),
        (json!({"status": "pending"}), "pending", Value::Null),
        (
            json!({"shown_status": "on_the_moon"}),
            "on_the_moon",
            Value::Null,
        ),
        (json!({"shown_status": ""}), "pending", Value::Null),
    ] {
        bench.control(&format!("POST {path}"), change.clone()).await;
        let shown = bench.api(&format!("GET {path}"), Value::Null).await.body;
        assert_eq!(
            (&shown["status"], &shown["error_code"]),
            (&json!(status), &code),
            "{change}"
        );
    }
    bench
        .control(&format!("POST {path}"), json!({"story": "paid"}))
        .await;
    bench.control("POST /clock", json!({"advance": "3s"})).await;
    assert_eq!(
        bench.api(&format!("GET {path}"), Value::Null).await.body["status"],
        "paid"
    );
    assert_eq!(bench.effects().await.len(), 0);
}

#[tokio::test]
async fn refunds_of_others_appear_and_can_be_undone() {
    let bench = Bench::new().await;
    let new = json!({"organization": KEY, "phone": "87011234567", "amount": 700});
    let id = bench.control("POST /invoices", new).await["id"].clone();
    let refund = bench
        .control(
            "POST /refunds",
            json!({"invoice_id": id, "amount": "200.00"}),
        )
        .await["id"]
        .clone();
    let shown = bench
        .api(&format!("GET /invoices/{id}"), Value::Null)
        .await
        .body;
    assert_eq!(
        (&shown["status"], &shown["total_refunded"]),
        (&json!("partially_refunded"), &json!("200.00"))
    );
    let row = bench.api("GET /refunds", Value::Null).await.body["data"][0].clone();
    assert_eq!(
        (&row["initiated_by"], &row["invoice"]["id"]),
        (&json!("dashboard"), &id)
    );
    bench
        .control(
            &format!("POST /refunds/{refund}"),
            json!({"status": "failed", "error_code": "refund_rejected_by_kaspi"}),
        )
        .await;
    let shown = bench
        .api(&format!("GET /invoices/{id}"), Value::Null)
        .await
        .body;
    assert_eq!(
        (&shown["status"], &shown["total_refunded"]),
        (&json!("paid"), &json!("0.00"))
    );
}

#[tokio::test]
async fn the_ledger_tells_everything_of_an_effect() {
    let bench = Bench::new().await;
    bench
        .control(
            "POST /organization",
            json!({"organization": KEY, "name": "shop"}),
        )
        .await;
    let body = json!({
        "phone_number": "87011234567",
        "amount": 5000,
        "external_order_id": "o-1",
        "external_order_id_idempotency": "k-1",
        "internal_comment": "note",
    });
    let id = bench.api("POST /invoices", body).await.body["id"].clone();
    bench
        .control(&format!("POST /invoices/{id}"), json!({"status": "paid"}))
        .await;
    bench
        .api(
            &format!("POST /invoices/{id}/refund"),
            json!({"amount": 0.5, "reason": "token-7"}),
        )
        .await;
    let mut effects = bench.effects().await;
    for effect in &mut effects {
        assert!(effect["at"].as_str().unwrap().ends_with('Z'));
        effect.as_object_mut().unwrap().remove("at");
    }
    let expected = |seq, kind: &str, amount: &str, refund: Value, reason: Value, request| {
        json!({
            "seq": seq, "kind": kind, "organization": "shop", "invoice_id": id, "refund_id": refund,
            "amount": amount, "phone": "87011234567", "external_order_id": "o-1", "idempotency_key": "k-1",
            "internal_comment": "note", "reason": reason, "request": request,
        })
    };
    assert_eq!(
        effects[0],
        expected(1, "invoice.create", "5000.00", Value::Null, Value::Null, 1)
    );
    assert_eq!(
        effects[1],
        expected(
            2,
            "invoice.refund",
            "0.50",
            json!(500_001),
            json!("token-7"),
            2
        )
    );
    let ledger = bench.control("GET /ledger", Value::Null).await;
    assert_eq!(
        (
            &ledger["invoices"][0]["status"],
            &ledger["refunds"][0]["status"]
        ),
        (&json!("paid"), &json!("pending"))
    );
}

#[tokio::test]
async fn reports_filter_and_hide_keys() {
    let bench = Bench::new().await;
    for order in ["a", "b"] {
        let body = json!({"phone_number": "87011234567", "amount": 1, "external_order_id": order});
        bench.api("POST /invoices", body).await;
    }
    bench.api("POST /invoices/100001/cancel", Value::Null).await;
    let count = async |query: &str| {
        let ledger = bench
            .control(&format!("GET /ledger?{query}"), Value::Null)
            .await;
        ["effects", "invoices"].map(|list| ledger[list].as_array().map(Vec::len))
    };
    assert_eq!(count("").await, [Some(3), Some(2)]);
    assert_eq!(count("kind=invoice.cancel").await, [Some(1), Some(2)]);
    assert_eq!(count("external_order_id=b").await, [Some(1), Some(1)]);
    assert_eq!(count("since=1&only=effects").await, [Some(2), None]);
    let since = bench
        .control("GET /requests?since=1&route=POST%20/invoices", Value::Null)
        .await;
    assert_eq!(since["requests"].as_array().unwrap().len(), 1);
    let stats = bench.control("GET /stats", Value::Null).await;
    assert_eq!(
        (
            &stats["routes"]["POST /invoices"]["201"],
            &stats["max_requests_per_key_60s"]
        ),
        (&json!(2), &json!(3))
    );
    for report in [
        "GET /ledger",
        "GET /requests",
        "GET /stats",
        "GET /organizations",
    ] {
        let text = bench.control(report, Value::Null).await.to_string();
        assert!(
            text.contains("key-…") && !text.contains(KEY),
            "{report}: {text}"
        );
    }
}

#[tokio::test]
async fn faults_are_listed_and_removed() {
    let bench = Bench::new().await;
    bench
        .fault(json!({"route": "*", "times": 2, "answer": {"preset": "500_json"}}))
        .await;
    bench
        .fault(json!({"route": "*", "answer": {"preset": "422"}}))
        .await;
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 500);
    let listed = bench.control("GET /faults", Value::Null).await;
    assert_eq!(
        (&listed["faults"][0]["hits"], &listed["faults"][0]["left"]),
        (&json!(1), &json!(1))
    );
    bench.control("DELETE /faults/1", Value::Null).await;
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 422);
    bench
        .fault(json!({"route": "*", "answer": {"preset": "422"}}))
        .await;
    bench.control("DELETE /faults", Value::Null).await;
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 200);
}

#[tokio::test]
async fn wrong_amounts_and_modes_are_shown() {
    let bench = Bench::new().await;
    bench
        .control(
            "POST /organization",
            json!({"wrong_amount": true, "flip_is_sandbox": true}),
        )
        .await;
    let created = bench
        .api(
            "POST /invoices",
            json!({"phone_number": "87011234567", "amount": 5}),
        )
        .await
        .body;
    assert_eq!(created["amount"], "6.00");
    let shown = bench
        .api(&format!("GET /invoices/{}", created["id"]), Value::Null)
        .await
        .body;
    assert_eq!(shown["is_sandbox"], true);
}

#[tokio::test]
async fn a_reset_forgets_everything() {
    let bench = Bench::new().await;
    bench
        .control("POST /organization", json!({"archived": true}))
        .await;
    bench
        .fault(json!({"route": "*", "answer": {"preset": "500_json"}}))
        .await;
    bench.api("GET /invoices", Value::Null).await;
    bench.control("POST /reset", Value::Null).await;
    assert_eq!(bench.requests().await.len(), 0);
    assert_eq!(bench.api("GET /invoices", Value::Null).await.status, 200);
}

#[tokio::test]
async fn presets_are_listed() {
    let bench = Bench::new().await;
    let presets = bench.control("GET /presets", Value::Null).await;
    let names: Vec<_> = presets["presets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|preset| preset["name"].as_str().unwrap())
        .collect();
    for name in ["502_html", "503_maintenance", "429_minute", "410"] {
        assert!(names.contains(&name), "{name}");
    }
    assert_eq!(presets["stories"][1]["phone"], "87000000001");
}
