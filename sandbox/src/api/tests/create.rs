//! Bills: what is refused, what a key does, and what becomes of them.

use super::*;

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
fn a_key_ignores_the_payload_and_other_organizations() {
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
        let before = bench.world.organizations[0].switches.clone();
        close(&mut bench.world.organizations[0].switches);
        let (got, body) = bench.call("POST /invoices", keyed.clone());
        assert_eq!((got, &body["error"]), (status, &json!(error)));
        bench.world.organizations[0].switches = before;
    }
    assert_eq!(bench.call("POST /invoices", keyed).0, 409);
}
