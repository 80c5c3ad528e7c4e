//! Refunds, in money and by the lines of a cart.

use super::*;

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
