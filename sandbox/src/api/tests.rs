//! The gateway without a network: requests and moments in, replies out.

use serde_json::{Value, json};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::{Request, answer};
use crate::clock::Moment;
use crate::world::{CatalogItem, Mode, Status, Switches, World};

const ORDINARY: &str = "87011234567";

type Close = fn(&mut Switches);

struct Bench {
    world: World,
    now: OffsetDateTime,
    seq: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut Switches)) -> Self {
        let mut switches = Switches::new(Mode::Live, 0);
        change(&mut switches);
        Self {
            world: World::new(switches, false),
            now: datetime!(2026-09-06 10:00 UTC),
            seq: 0,
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            life: self.now,
            real: self.now,
        }
    }

    fn call(&mut self, call: &str, body: Value) -> (u16, Value) {
        self.call_as("key-of-the-shop", call, body)
    }

    fn call_as(&mut self, key: &str, call: &str, body: Value) -> (u16, Value) {
        let (method, target) = call.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        self.seq += 1;
        let request = Request {
            method: method.to_owned(),
            path: format!("/api/v1{path}"),
            query: query.to_owned(),
            key: Some(key.to_owned()),
            body: if body.is_null() {
                Vec::new()
            } else {
                body.to_string().into_bytes()
            },
        };
        let moment = self.moment();
        let reply = answer(&mut self.world, &request, moment, self.seq);
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    fn get(&mut self, target: &str) -> Value {
        let (status, body) = self.call(&format!("GET {target}"), Value::Null);
        assert_eq!(status, 200, "{target}: {body}");
        body
    }

    fn wait(&mut self, span: Duration) {
        self.now += span;
    }

    fn create(&mut self, phone: &str) -> u64 {
        let (status, body) = self.call(
            "POST /invoices",
            json!({"phone_number": phone, "amount": 1000}),
        );
        assert_eq!(status, 201, "{body}");
        body["id"].as_u64().unwrap()
    }

    fn paid(&mut self) -> u64 {
        let id = self.create(ORDINARY);
        self.force(id, Status::Paid);
        id
    }

    fn force(&mut self, id: u64, status: Status) {
        self.world.force_invoice(id, status, None, self.now);
    }

    fn status_of(&mut self, id: u64) -> String {
        self.get(&format!("/invoices/{id}"))["status"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

fn valid(change: &[(&str, Value)]) -> Value {
    let mut body = json!({"phone_number": ORDINARY, "amount": 1000});
    for (name, value) in change {
        body[*name] = value.clone();
    }
    body
}

#[test]
fn creations_are_validated() {
    let long = |count| json!("д".repeat(count));
    for (change, status, field, code) in [
        (vec![], 201, "", None),
        (
            vec![("phone_number", json!("+77011234567"))],
            422,
            "phone_number",
            None,
        ),
        (
            vec![("phone_number", json!("8701123456"))],
            422,
            "phone_number",
            None,
        ),
        (
            vec![("phone_number", Value::Null)],
            422,
            "phone_number",
            None,
        ),
        (vec![("amount", Value::Null)], 422, "amount", None),
        (vec![("amount", json!("1000"))], 422, "amount", None),
        (vec![("amount", json!(0))], 422, "amount", None),
        (vec![("amount", json!(-5))], 422, "amount", None),
        (vec![("amount", json!(100_000_000))], 422, "amount", None),
        (vec![("amount", json!(99_999_999))], 201, "", None),
        (
            vec![("amount", json!(10.5))],
            422,
            "amount",
            Some("amount_must_be_whole_tenge"),
        ),
        (vec![("discount_percentage", json!(10))], 201, "", None),
        (
            vec![("discount_percentage", json!(100))],
            422,
            "discount_percentage",
            None,
        ),
        (
            vec![("amount", json!(333)), ("discount_percentage", json!(50))],
            422,
            "amount",
            Some("amount_must_be_whole_tenge"),
        ),
        (vec![("description", long(60))], 201, "", None),
        (
            vec![("description", long(61))],
            422,
            "description",
            Some("description_too_long"),
        ),
        (
            vec![("internal_comment", long(256))],
            422,
            "internal_comment",
            Some("field_too_long"),
        ),
        (
            vec![("external_order_id", long(256))],
            422,
            "external_order_id",
            Some("field_too_long"),
        ),
        (
            vec![("external_order_id", json!(7))],
            422,
            "external_order_id",
            None,
        ),
        (
            vec![("external_order_id_idempotency", long(192))],
            422,
            "external_order_id_idempotency",
            Some("field_too_long"),
        ),
        (vec![("cart_items", json!([]))], 422, "cart_items", None),
        (
            vec![("cart_items", json!([{"count": 1}]))],
            422,
            "cart_items.0.catalog_item_id",
            None,
        ),
        (
            vec![("kaspi_connection_id", json!("x"))],
            422,
            "kaspi_connection_id",
            None,
        ),
    ] {
        let (got, body) = Bench::new().call("POST /invoices", valid(&change));
        assert_eq!(got, status, "{change:?}: {body}");
        assert!(
            field.is_empty() || body["errors"][field].is_array(),
            "{change:?}: {body}"
        );
        assert_eq!(body["error_code"].as_str(), code, "{change:?}");
    }
}

#[test]
fn a_refused_creation_leaves_no_trace() {
    let mut bench = Bench::new();
    bench.call("POST /invoices", valid(&[("amount", json!(0))]));
    assert_eq!(bench.world.ledger.len(), 0);
    assert_eq!(bench.get("/invoices")["total"], 0);
}

#[test]
fn a_discounted_bill_shows_its_sums() {
    let mut bench = Bench::new();
    let (_, body) = bench.call(
        "POST /invoices",
        valid(&[("discount_percentage", json!(10))]),
    );
    assert_eq!(
        [
            &body["amount"],
            &body["subtotal"],
            &body["discount_sum"],
            &body["discount_percentage"]
        ],
        [
            &json!("900.00"),
            &json!("1000.00"),
            &json!("100.00"),
            &json!(10)
        ]
    );
}

#[test]
fn a_key_blocks_while_its_invoice_lives_and_is_released_after() {
    let keyed = valid(&[("external_order_id_idempotency", json!("k"))]);
    for status in Status::ALL {
        let mut bench = Bench::new();
        let (_, first) = bench.call("POST /invoices", keyed.clone());
        bench.force(first["id"].as_u64().unwrap(), status);
        let (got, body) = bench.call("POST /invoices", keyed.clone());
        if status.releases_key() {
            assert_eq!(got, 201, "{status:?}");
            assert_ne!(body["id"], first["id"]);
        } else {
            assert_eq!(
                (got, &body["invoice_id"], &body["status"]),
                (409, &first["id"], &json!(status.as_str()))
            );
            assert_eq!(body["error"], "duplicate_idempotency_key");
        }
    }
}

#[test]
fn a_key_ignores_the_payload_and_other_organisations() {
    let mut bench = Bench::new();
    let keyed = |amount| {
        valid(&[
            ("external_order_id_idempotency", json!("k")),
            ("amount", json!(amount)),
        ])
    };
    assert_eq!(bench.call("POST /invoices", keyed(1)).0, 201);
    assert_eq!(bench.call("POST /invoices", keyed(2)).0, 409);
    assert_eq!(
        bench.call_as("another key", "POST /invoices", keyed(1)).0,
        201
    );
    for no_key in [json!(""), Value::Null] {
        let body = valid(&[("external_order_id_idempotency", no_key)]);
        assert_eq!(bench.call("POST /invoices", body.clone()).0, 201);
        assert_eq!(bench.call("POST /invoices", body).0, 201);
    }
}

#[test]
fn switches_change_what_a_key_does() {
    let keyed = valid(&[("external_order_id_idempotency", json!("k"))]);
    let mut ignoring = Bench::with(|switches| switches.honour_idempotency_key = false);
    assert_eq!(
        [(); 2].map(|()| ignoring.call("POST /invoices", keyed.clone()).0),
        [201, 201]
    );
    let mut keeping = Bench::with(|switches| switches.idempotency_key_released = false);
    keeping.call("POST /invoices", keyed.clone());
    keeping.force(100_001, Status::Expired);
    assert_eq!(keeping.call("POST /invoices", keyed).0, 409);
}

#[test]
fn stories_are_told_on_the_clock() {
    for (phone, moments) in [
        (
            ORDINARY,
            &[
                (0, "processing"),
                (1, "pending"),
                (86_400, "pending"),
                (86_401, "expired"),
            ][..],
        ),
        ("87000000001", &[(1, "pending"), (3, "paid")]),
        ("87000000002", &[(3, "expired"), (1_000_000, "expired")]),
        ("87000000003", &[(1, "error")]),
        (
            "87000000010",
            &[(1, "error"), (6, "pending"), (86_406, "expired")],
        ),
        ("87000000011", &[(6, "pending"), (8, "paid")]),
        ("87000000012", &[(3, "expired"), (8, "paid")]),
        ("87000000013", &[(5_399, "processing"), (5_400, "pending")]),
        ("87000000014", &[(1_000_000, "processing")]),
        ("87000000016", &[(3, "cancelled"), (8, "paid")]),
    ] {
        let mut bench = Bench::new();
        let id = bench.create(phone);
        let start = bench.now;
        for (second, expected) in moments {
            bench.now = start + Duration::seconds(*second);
            assert_eq!(bench.status_of(id), *expected, "{phone} after {second} s");
        }
    }
}

#[test]
fn late_steps_happen_at_their_own_time() {
    let mut bench = Bench::new();
    let id = bench.create("87000000001");
    bench.wait(Duration::days(3));
    let shown = bench.get(&format!("/invoices/{id}"));
    assert_eq!(shown["paid_at"], "2026-09-06T10:00:03+00:00");
    assert_eq!(
        (&shown["phone_number"], &shown["phone"]),
        (&json!("87000000001"), &Value::Null)
    );
}

#[test]
fn an_error_tells_its_code() {
    let mut bench = Bench::new();
    let id = bench.create("87000000003");
    bench.wait(Duration::SECOND);
    assert_eq!(
        bench.get(&format!("/invoices/{id}"))["error_code"],
        "client_not_found"
    );
}

#[test]
fn an_accumulating_gateway_accepts_and_holds() {
    let mut bench = Bench::with(|switches| switches.accumulating = true);
    let id = bench.create(ORDINARY);
    bench.wait(Duration::HOUR);
    assert_eq!(bench.status_of(id), "processing");
    let moment = bench.moment();
    bench.world.set_accumulating(0, false, moment);
    bench.wait(Duration::SECOND);
    assert_eq!(bench.status_of(id), "pending");
}

#[test]
fn live_cancels_come_to_many_ends() {
    for (phone, after_1_s, after_3_s, code) in [
        (ORDINARY, "cancelled", "cancelled", None),
        (
            "87000000020",
            "error",
            "error",
            Some("invoice_already_paid"),
        ),
        ("87000000021", "pending", "pending", None),
        ("87000000022", "pending", "paid", None),
        (
            "87000000023",
            "error",
            "error",
            Some("invoice_already_cancelled"),
        ),
        (
            "87000000024",
            "error",
            "error",
            Some("invoice_not_found_in_kaspi"),
        ),
        ("87000000025", "cancelling", "cancelling", None),
    ] {
        let mut bench = Bench::new();
        let id = bench.create(phone);
        bench.wait(Duration::SECOND);
        let (status, body) = bench.call(&format!("POST /invoices/{id}/cancel"), Value::Null);
        assert_eq!((status, &body["invoice_id"]), (202, &json!(id)));
        assert_eq!(bench.status_of(id), "cancelling");
        bench.wait(Duration::SECOND);
        assert_eq!(bench.status_of(id), after_1_s, "{phone}");
        bench.wait(Duration::seconds(2));
        assert_eq!(bench.status_of(id), after_3_s, "{phone}");
        assert_eq!(
            bench.get(&format!("/invoices/{id}"))["error_code"].as_str(),
            code
        );
    }
}

#[test]
fn only_open_invoices_are_cancelled() {
    for status in Status::ALL {
        let mut bench = Bench::with(|switches| switches.mode = Mode::Sandbox);
        let id = bench.create(ORDINARY);
        bench.force(id, status);
        let (got, body) = bench.call(&format!("POST /invoices/{id}/cancel"), Value::Null);
        if matches!(status, Status::Pending | Status::Processing) {
            assert_eq!(
                (got, &body["invoice"]["status"]),
                (200, &json!("cancelled"))
            );
            assert_eq!(bench.world.ledger.len(), 2);
        } else {
            assert_eq!(
                (got, &body["error"]),
                (400, &json!("Invoice cannot be cancelled")),
                "{status:?}"
            );
            assert_eq!(bench.world.ledger.len(), 1);
        }
    }
}

#[test]
fn an_invoice_that_never_reached_kaspi_is_cancelled_at_once() {
    let mut bench = Bench::new();
    let id = bench.create(ORDINARY);
    assert_eq!(
        bench
            .call(&format!("POST /invoices/{id}/cancel"), Value::Null)
            .0,
        200
    );
    bench.wait(Duration::days(2));
    assert_eq!(bench.status_of(id), "cancelled");
}

#[test]
fn a_full_refund_leaves_the_status_paid() {
    let mut bench = Bench::new();
    let id = bench.paid();
    let (status, body) = bench.call(
        &format!("POST /invoices/{id}/refund"),
        json!({"reason": "r"}),
    );
    assert_eq!(
        (status, &body["refund"]["amount"]),
        (201, &json!("1000.00"))
    );
    assert_eq!(body["invoice"]["available_for_refund"], json!(0));
    bench.wait(Duration::seconds(2));
    let shown = bench.get(&format!("/invoices/{id}"));
    assert_eq!(
        (&shown["status"], &shown["is_fully_refunded"]),
        (&json!("paid"), &json!(true))
    );
    let (status, body) = bench.call(&format!("POST /invoices/{id}/refund"), Value::Null);
    assert_eq!(
        (status, &body["error"]),
        (400, &json!("Invoice is not refundable"))
    );
}

#[test]
fn partial_refunds_repeat_while_funds_remain() {
    let mut bench = Bench::new();
    let id = bench.paid();
    let refund = format!("POST /invoices/{id}/refund");
    assert_eq!(bench.call(&refund, json!({"amount": 400})).0, 201);
    assert_eq!(bench.call(&refund, json!({"amount": 400})).0, 201);
    let (status, body) = bench.call(&refund, json!({"amount": 400}));
    assert_eq!(
        (status, &body["error"]),
        (400, &json!("Refund amount exceeds available amount"))
    );
    bench.wait(Duration::seconds(2));
    let shown = bench.get(&format!("/invoices/{id}"));
    assert_eq!(
        (&shown["status"], &shown["total_refunded"]),
        (&json!("partially_refunded"), &json!("800.00"))
    );
    let listed = bench.get(&format!("/invoices/{id}/refunds"));
    assert_eq!(
        (&listed["total"], &listed["refunds"][1]["status"]),
        (&json!(2), &json!("completed"))
    );
    assert_eq!(
        bench.get("/refunds?status[]=completed&per_page=1")["total"],
        2
    );
    assert_eq!(bench.get("/refunds?invoice_id=1")["total"], 0);
}

#[test]
fn a_failed_refund_releases_its_amount() {
    let mut bench = Bench::new();
    let id = bench.paid();
    let body = json!({"reason": "job 1 sandbox:refund_insufficient_funds"});
    bench.call(&format!("POST /invoices/{id}/refund"), body);
    assert_eq!(
        bench.get(&format!("/invoices/{id}/refunds"))["invoice"]["available_for_refund"],
        0
    );
    bench.wait(Duration::seconds(2));
    let listed = bench.get(&format!("/invoices/{id}/refunds"));
    assert_eq!(
        listed["refunds"][0]["error_code"],
        "refund_insufficient_funds"
    );
    assert_eq!(listed["invoice"]["available_for_refund"], 1000);
    assert_eq!(bench.status_of(id), "paid");
}

#[test]
fn refunds_are_validated() {
    for (body, status) in [
        (json!({"amount": 0}), 422),
        (json!({"amount": "100"}), 422),
        (json!({"amount": 0.001}), 422),
        (json!({"amount": 10.555}), 422),
        (json!({"amount": 0.01}), 201),
        (json!({"reason": "x".repeat(501)}), 422),
        (
            json!({"return_items": [{"catalog_item_id": 1, "count": 1, "amount": 1}]}),
            422,
        ),
        (
            json!({"return_items": [{"catalog_item_id": 1, "count": 1}]}),
            422,
        ),
        (json!([]), 422),
    ] {
        let mut bench = Bench::new();
        let id = bench.paid();
        assert_eq!(
            bench
                .call(&format!("POST /invoices/{id}/refund"), body.clone())
                .0,
            status,
            "{body}"
        );
    }
}

fn with_catalog() -> Bench {
    Bench::with(|switches| {
        let item = |id, price: &str| CatalogItem {
            id,
            name: format!("item {id}"),
            price: price.parse().unwrap(),
        };
        switches.catalog = vec![item(1, "500"), item(2, "333")];
    })
}

#[test]
fn carts_are_priced_line_by_line() {
    for (cart, discount, expected) in [
        (
            json!([{"catalog_item_id": 1, "count": 2}]),
            Value::Null,
            Ok("1000.00"),
        ),
        (
            json!([{"catalog_item_id": 1, "count": 1, "price": 20.5}, {"catalog_item_id": 2, "count": 1}]),
            Value::Null,
            Err("amount_must_be_whole_tenge"),
        ),
        (
            json!([{"catalog_item_id": 2, "count": 2}]),
            json!(50),
            Ok("333.00"),
        ),
        (
            json!([{"catalog_item_id": 2, "count": 1}]),
            json!(50),
            Err("amount_must_be_whole_tenge"),
        ),
        (
            json!([{"catalog_item_id": 3, "count": 1}]),
            Value::Null,
            Err("catalog_item_not_found"),
        ),
    ] {
        let body = valid(&[
            ("cart_items", cart.clone()),
            ("discount_percentage", discount),
        ]);
        let (status, body) = with_catalog().call("POST /invoices", body);
        match expected {
            Ok(amount) => assert_eq!((status, &body["amount"]), (201, &json!(amount)), "{cart}"),
            Err(code) => assert_eq!((status, &body["error_code"]), (422, &json!(code)), "{cart}"),
        }
    }
    let cart = valid(&[("cart_items", json!([{"catalog_item_id": 1, "count": 1}]))]);
    let (status, body) = Bench::new().call("POST /invoices", cart);
    assert_eq!(
        (status, &body["error_code"], &body["errors"]),
        (422, &json!("catalog_not_supported"), &Value::Null)
    );
}

#[test]
fn a_cart_is_returned_by_its_lines() {
    let mut bench = with_catalog();
    let cart = json!([{"catalog_item_id": 1, "count": 2}, {"catalog_item_id": 2, "count": 1}]);
    let (_, created) = bench.call("POST /invoices", valid(&[("cart_items", cart)]));
    let id = created["id"].as_u64().unwrap();
    bench.force(id, Status::Paid);
    let one = json!([{"catalog_item_id": 1, "count": 1}]);
    for (body, status, told) in [
        (
            json!({"amount": 500}),
            422,
            "partial_refund_requires_return_items",
        ),
        (
            json!({"amount": 499, "return_items": one}),
            422,
            "cart_items_mismatch",
        ),
        (
            json!({"return_items": [{"catalog_item_id": 9, "count": 1}]}),
            422,
            "cart_items_mismatch",
        ),
        (json!({"return_items": one}), 201, ""),
        (json!({"amount": 500, "return_items": one}), 201, ""),
        (json!({"return_items": one}), 422, "cart_items_mismatch"),
        (
            json!({"return_items": [{"catalog_item_id": 2, "amount": 33.5}]}),
            201,
            "",
        ),
        (json!({}), 201, ""),
    ] {
        let (got, answer) = bench.call(&format!("POST /invoices/{id}/refund"), body.clone());
        assert_eq!(
            (got, answer["error_code"].as_str().unwrap_or_default()),
            (status, told),
            "{body}"
        );
    }
}

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
fn gates_stand_before_the_idempotency_key() {
    let keyed = valid(&[("external_order_id_idempotency", json!("k"))]);
    let mut bench = Bench::new();
    bench.call("POST /invoices", keyed.clone());
    let closed: [(Close, u16, &str); 7] = [
        (
            |switches| switches.tariff = crate::world::Tariff::Expired,
            403,
            "tariff_inactive",
        ),
        (
            |switches| switches.archived = true,
            403,
            "organization_archived",
        ),
        (
            |switches| switches.kyc = crate::world::Kyc::Missing,
            429,
            "kyc_daily_limit_reached",
        ),
        (
            |switches| switches.kyc = crate::world::Kyc::Rejected,
            403,
            "kyc_rejected",
        ),
        (
            |switches| switches.invoices_disabled = true,
            503,
            "invoices_disabled",
        ),
        (
            |switches| switches.session = crate::world::Session::Expired,
            503,
            "kaspi_session_invalid",
        ),
        (|switches| switches.revoked = true, 401, "Invalid API key"),
    ];
    for (close, status, error) in closed {
        let before = bench.world.organisations[0].switches.clone();
        close(&mut bench.world.organisations[0].switches);
        let (got, body) = bench.call("POST /invoices", keyed.clone());
        assert_eq!((got, &body["error"]), (status, &json!(error)));
        bench.world.organisations[0].switches = before;
    }
    assert_eq!(bench.call("POST /invoices", keyed).0, 409);
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
        let route = &super::ROUTES[round % super::ROUTES.len()];
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
