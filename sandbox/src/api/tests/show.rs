//! What is listed, shown and simulated.

use super::*;

#[test]
fn lists_filter_sort_and_page() {
    let mut bench = Bench::new();
    for (order, amount) in [("job-1", 30), ("job-2", 10), ("job-10", 20)] {
        let body = valid(&[
            ("external_order_id", json!(order)),
            ("amount", json!(amount)),
        ]);
        bench.call("POST /invoices", body);
        bench.wait(Duration::HOUR);
    }
    bench.force(100_001, Status::Paid);
    for (query, expected) in [
        ("", &[100_003, 100_002, 100_001][..]),
        ("search=job-1", &[100_003, 100_001]),
        ("search=JOB-2", &[100_002]),
        ("search=100002", &[100_002]),
        ("search=%2B7011234", &[100_003, 100_002, 100_001]),
        ("search=%25", &[]),
        ("status[]=paid", &[100_001]),
        (
            "status[]=paid&status[]=pending&sort_by=id&sort_order=asc",
            &[100_001, 100_002, 100_003],
        ),
        ("origin=kaspi", &[]),
        ("origin=apipay&sort_by=amount", &[100_001, 100_003, 100_002]),
        ("date_from=2026-09-06", &[100_003, 100_002, 100_001]),
        ("date_to=2026-09-05", &[]),
        ("date_from=2026-09-06T16:00", &[100_003, 100_002]),
        (
            "date_from=2026-09-06T11:00:00%2B00:00&date_to=2026-09-06T11:00:00Z",
            &[100_002],
        ),
        ("date_field=paid_at&date_from=2026-09-06", &[100_001]),
        ("per_page=2&page=2", &[100_001]),
        ("per_page=2&page=9", &[]),
    ] {
        let listed = bench.get(&format!("/invoices?{query}"));
        let ids: Vec<_> = listed["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, expected, "{query}");
    }
}

#[test]
fn bad_filters_are_refused() {
    for query in [
        "status[]=error",
        "status[]=refunded",
        "origin=elsewhere",
        "date_from=2026-09-06T10:00:00+05:00",
        "sort_by=phone",
        "sort_order=up",
        "page=0",
        "per_page=101",
        "date_field=updated_at",
    ] {
        let (status, body) = Bench::new().call(&format!("GET /invoices?{query}"), Value::Null);
        assert_eq!(
            (status, &body["message"]),
            (422, &json!("Validation failed")),
            "{query}"
        );
    }
    let long = "x".repeat(101);
    assert_eq!(
        Bench::new()
            .call(&format!("GET /invoices?search={long}"), Value::Null)
            .0,
        422
    );
}

#[test]
fn foreign_and_missing_invoices_are_the_same() {
    let mut bench = Bench::new();
    let id = bench.create(ORDINARY);
    for (key, call) in [
        ("another key", format!("GET /invoices/{id}")),
        ("another key", format!("POST /invoices/{id}/cancel")),
        ("another key", format!("POST /invoices/{id}/refund")),
        ("another key", format!("GET /invoices/{id}/refunds")),
        ("key-of-the-shop", "GET /invoices/1".to_owned()),
        ("key-of-the-shop", "GET /invoices/abc".to_owned()),
    ] {
        let answer = bench.call_as(key, &call, Value::Null);
        assert_eq!(
            answer,
            (404, json!({"error": "Invoice not found"})),
            "{call}"
        );
    }
    let (_, checked) = bench.call(
        "POST /invoices/status/check",
        json!({"invoice_ids": [id, 1, 2]}),
    );
    assert_eq!(checked["invoices"].as_array().unwrap().len(), 1);
    let (_, checked) = bench.call_as(
        "another key",
        "POST /invoices/status/check",
        json!({"invoice_ids": [id]}),
    );
    assert_eq!(checked, json!({"invoices": []}));
}

#[test]
fn simulation_is_for_sandbox_mode_and_pending_invoices() {
    let simulate = |bench: &mut Bench, word: &str| {
        let id = bench.create(ORDINARY);
        bench.wait(Duration::SECOND);
        bench.call(
            &format!("POST /invoices/{id}/simulate-status"),
            json!({"status": word}),
        )
    };
    assert_eq!(
        simulate(&mut Bench::new(), "paid").1["error_code"],
        "not_sandbox"
    );
    let mut bench = Bench::with(|switches| switches.mode = Mode::Sandbox);
    for (word, status, code) in [
        ("paid", "paid", Value::Null),
        ("expired", "expired", Value::Null),
        ("error", "error", json!("sandbox_simulated_error")),
    ] {
        let (got, body) = simulate(&mut bench, word);
        assert_eq!(
            (
                got,
                &body["invoice"]["status"],
                &body["invoice"]["error_code"]
            ),
            (200, &json!(status), &code)
        );
        assert_eq!(body["invoice"]["is_sandbox"], true);
    }
    assert_eq!(simulate(&mut bench, "refunded").0, 422);
    assert_eq!(
        simulate(&mut bench, "qr_scanned").1["error"],
        "not_qr_invoice"
    );
    let (status, body) = bench.call(
        "POST /invoices/100001/simulate-status",
        json!({"status": "paid"}),
    );
    assert_eq!(
        (status, &body["error"], &body["current_status"]),
        (400, &json!("invalid_status_transition"), &json!("paid"))
    );
}

#[test]
fn a_comment_can_be_changed_and_found() {
    let mut bench = Bench::new();
    let id = bench.create(ORDINARY);
    assert_eq!(
        bench.call(&format!("PATCH /invoices/{id}"), json!({})).0,
        422
    );
    let (status, body) = bench.call(
        &format!("PATCH /invoices/{id}"),
        json!({"internal_comment": "note"}),
    );
    assert_eq!((status, &body["internal_comment"]), (200, &json!("note")));
    assert_eq!(bench.get("/invoices?search=note")["total"], 1);
    let (_, body) = bench.call(
        &format!("PATCH /invoices/{id}"),
        json!({"internal_comment": null}),
    );
    assert_eq!(body["internal_comment"], Value::Null);
}

#[test]
fn a_cached_terminal_status_goes_stale() {
    let mut bench = Bench::with(|switches| switches.cached_terminal_ms = 10_000);
    let id = bench.create("87000000012");
    bench.wait(Duration::seconds(3));
    assert_eq!(bench.status_of(id), "expired");
    bench.wait(Duration::seconds(6));
    assert_eq!(bench.status_of(id), "expired");
    bench.wait(Duration::seconds(6));
    assert_eq!(bench.status_of(id), "paid");
}

#[test]
fn no_body_or_query_makes_it_panic() {
    let bodies = [
        r#"{"phone_number":"87011234567","amount":1000,"discount_percentage":10,"description":"d"}"#,
        r#"{"amount":400,"reason":"r","return_items":[{"catalog_item_id":1,"count":4294967295}]}"#,
        r#"{"phone_number":"87011234567","cart_items":[{"catalog_item_id":1,"count":4294967295,"price":0.01}]}"#,
        r#"{"invoice_ids":[100001,2]}"#,
        r#"{"status":"paid"}"#,
    ];
    let query = "search=7&status[]=paid&date_from=2026-09-06T10:00&page=2&per_page=5&sort_by=id";
    let mut dice = 7_u64;
    let mut bench = with_catalog();
    bench.paid();
    for round in 0..20_000 {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (at, byte) = ((dice >> 40) as usize, (dice >> 32) as u8);
        let route = &crate::api::ROUTES[round % crate::api::ROUTES.len()];
        let (method, pattern) = route.template.split_once(' ').unwrap();
        let mut body = bodies[at % bodies.len()].as_bytes().to_vec();
        let place = at % body.len();
        body[place] = byte;
        let mut query = query.as_bytes().to_vec();
        let place = at % query.len();
        query[place] = byte;
        let request = Request {
            method: method.to_owned(),
            path: format!("/api/v1{}", pattern.replace("{id}", "100001")),
            query: String::from_utf8_lossy(&query).into_owned(),
            key: Some("key-of-the-shop".to_owned()),
            body,
        };
        let moment = bench.moment();
        let reply = answer(&mut bench.world, &request, moment, 1);
        assert!((200..500).contains(&reply.status));
    }
}
