use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use time::macros::datetime;

use super::*;
use crate::domain::fields::id;
use crate::domain::phone::Phone;

fn invoice(body: Value) -> Invoice {
    Invoice::read(&body).expect("an invoice")
}

fn refund(body: Value) -> Refund {
    Refund::read(&body, 15).expect("a refund")
}

#[test]
fn every_documented_status_has_a_name_of_its_own() {
    let documented =
        "processing pending cancelling paid partially_refunded cancelled expired error";
    for word in documented.split(' ') {
        let status = InvoiceStatus::parse(word);
        assert_eq!(status.to_string(), word);
        assert!(!matches!(status, InvoiceStatus::Other(_)), "{word}");
    }
    for word in "pending processing completed failed".split(' ') {
        let status = RefundStatus::parse(word);
        assert_eq!(status.to_string(), word);
        assert!(!matches!(status, RefundStatus::Other(_)), "{word}");
    }
    assert_eq!(InvoiceStatus::parse("Paid").to_string(), "Paid");
    assert_eq!(RefundStatus::parse("refunded").to_string(), "refunded");
}

#[test]
fn an_error_that_says_how_it_ended_before_stands_for_that() {
    for (status, code, expected) in [
        ("error", Some("invoice_already_paid"), "paid"),
        ("error", Some("invoice_already_cancelled"), "cancelled"),
        ("error", Some("invoice_not_found_in_kaspi"), "error"),
        ("error", None, "error"),
        ("pending", Some("invoice_already_paid"), "pending"),
        ("partially_refunded", None, "partially_refunded"),
    ] {
        let seen = Invoice {
            error_code: code.map(str::to_owned),
            ..Invoice::bare(15, InvoiceStatus::parse(status))
        };
        assert_eq!(seen.standing().as_str(), expected, "{status} {code:?}");
        let is_paid = ["paid", "partially_refunded"].contains(&expected);
        assert_eq!(seen.standing().is_paid(), is_paid, "{status} {code:?}");
    }
}

#[test]
fn a_whole_invoice_is_read() {
    let seen = invoice(json!({
        "id": 15, "status": "paid", "amount": "5000.00", "phone": "87001234567",
        "external_order_id": "order-15", "internal_comment": "x", "kaspi_invoice_id": 77,
        "error_code": null, "error_message": null, "is_sandbox": true, "is_imported": true,
        "total_refunded": 10.5, "created_at": "2026-09-06T10:00:00+00:00",
        "updated_at": "2026-09-06 15:00:00+05:00", "paid_at": "2026-09-06T10:00:00.000000Z",
    }));
    let moment = Some(datetime!(2026-09-06 10:00 UTC));
    assert_eq!(
        seen,
        Invoice {
            amount: Some(Decimal::from(5000)),
            phone: Phone::parse("87001234567"),
            external_order_id: Some("order-15".to_owned()),
            internal_comment: Some("x".to_owned()),
            kaspi_invoice_id: Some("77".to_owned()),
            is_sandbox: Some(true),
            is_imported: true,
            total_refunded: Some(Decimal::new(105, 1)),
            created_at: moment,
            updated_at: moment,
            paid_at: moment,
            ..Invoice::bare(15, InvoiceStatus::Paid)
        }
    );
}

#[test]
fn an_id_and_a_status_are_enough() {
    let bare = Invoice::bare(15, InvoiceStatus::Pending);
    assert_eq!(invoice(json!({"id": "15", "status": "pending"})), bare);
    // What cannot be read is as good as not shown.
    let odd = json!({
        "id": 15, "status": "pending", "amount": "much", "phone": "8700***4567", "is_sandbox": "yes",
        "total_refunded": [], "created_at": "today", "paid_at": 5, "external_order_id": 5,
    });
    assert_eq!(invoice(odd), bare);
    for body in [
        json!({"status": "pending"}),
        json!({"id": 15}),
        json!({"id": 15, "status": null}),
        json!({"id": 15, "status": 1}),
        json!([]),
        json!("pending"),
    ] {
        assert_eq!(Invoice::read(&body), None, "{body}");
    }
}

#[test]
fn ids_are_positive_whole_numbers() {
    for (written, expected) in [
        (json!(15), Some(15)),
        (json!("15"), Some(15)),
        (json!(i64::MAX), Some(i64::MAX)),
        (json!(0), None),
        (json!(-15), None),
        (json!("-15"), None),
        (json!("+15"), None),
        (json!(""), None),
        (json!(" 15"), None),
        (json!(15.0), None),
        (json!(u64::MAX), None),
        (json!(null), None),
        (json!([15]), None),
    ] {
        assert_eq!(id(&json!({"id": written}), "id"), expected, "{written}");
    }
}

#[test]
fn amounts_fit_the_mirrors_columns() {
    let amount =
        |written: Value| invoice(json!({"id": 1, "status": "x", "amount": written})).amount;
    assert_eq!(
        amount(json!("9999999999.99")),
        Some(Decimal::new(999_999_999_999, 2))
    );
    assert_eq!(amount(json!(0)), Some(Decimal::ZERO));
    for written in [
        json!("9999999999.995"),
        json!("10000000000"),
        json!("-1e3"),
        json!("NaN"),
        json!(""),
    ] {
        assert_eq!(amount(written.clone()), None, "{written}");
    }
}

#[test]
fn no_text_holds_what_postgres_cannot_store() {
    let seen = invoice(json!({
        "id": 1, "status": "pa\0id", "external_order_id": "a\0", "kaspi_invoice_id": "\0", "error_message": "\0",
    }));
    assert_eq!(seen.status, InvoiceStatus::Other("pa\u{fffd}id".to_owned()));
    assert_eq!(seen.external_order_id.as_deref(), Some("a\u{fffd}"));
    assert!(!format!("{seen:?}").contains("\\0"));
    assert!(
        !format!(
            "{:?}",
            refund(json!({"id": 1, "status": "\0", "reason": "\0"}))
        )
        .contains("\\0")
    );
}

#[test]
fn only_what_is_shown_and_asked_can_disagree() {
    let shown =
        invoice(json!({"id": 1, "status": "paid", "amount": "5000.00", "phone": "87001234567"}));
    let silent = Invoice::bare(1, InvoiceStatus::Paid);
    let asked = |amount: Option<i64>, phone: Option<&str>| Expected {
        amount: amount.map(Decimal::from),
        phone: phone.map(|phone| Phone::parse(phone).expect("a number")),
        order_id: None,
    };
    let all = asked(Some(5000), Some("87001234567"));
    assert!(shown.agrees(&all));
    assert!(shown.agrees(&asked(None, None)));
    assert!(silent.agrees(&all));
    assert!(!shown.agrees(&asked(Some(5000), Some("87001234568"))));
    assert!(!shown.agrees(&asked(Some(4999), Some("87001234567"))));

    let shown = refund(json!({"id": 1, "status": "pending", "amount": 100.0}));
    assert!(shown.agrees(&asked(Some(100), None)) && shown.agrees(&asked(None, None)));
    assert!(!shown.agrees(&asked(Some(99), None)));
}

#[test]
fn only_a_complete_list_of_refunds_is_read() {
    let row =
        json!({"id": 3, "invoice_id": 15, "status": "completed", "amount": "10.00", "reason": "x"});
    let list = |body: Value| RefundList::read(&body, 15);
    let whole = list(
        json!({"invoice": {"id": 15, "total_refunded": "10.00"}, "refunds": [row], "total": 1}),
    );
    let whole = whole.expect("a list");
    assert_eq!(whole.refunds, [refund(row.clone())]);
    assert_eq!(whole.total_refunded, Some(Decimal::from(10)));
    assert_eq!(
        list(json!({"refunds": []})).map(|list| list.refunds.len()),
        Some(0)
    );

    for body in [
        json!({}),
        json!({"refunds": {}}),
        json!({"refunds": [row], "total": 2}),
        json!({"refunds": [row], "total": null}),
        json!({"refunds": [row, row], "total": 2}),
        json!({"refunds": [row, {"id": 4}]}),
        json!({"refunds": [{"id": 3, "invoice_id": 16, "status": "pending"}]}),
        json!({"invoice": {"id": 16}, "refunds": []}),
    ] {
        assert_eq!(list(body.clone()), None, "{body}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let keys = [
        "id",
        "invoice_id",
        "status",
        "amount",
        "phone",
        "phone_number",
        "kaspi_invoice_id",
        "refunds",
        "total",
        "invoice",
        "total_refunded",
        "created_at",
        "is_imported",
        "reason",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[0-9.eE+-]{1,60}"
            .prop_map(|digits| serde_json::from_str(&digits).unwrap_or(Value::from(digits))),
        ".{0,30}".prop_map(Value::from),
        prop::sample::select(vec![
            "pending",
            "paid",
            "2026-09-06 10:00:00Z",
            "0000-01-01T00:00:00Z"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 60, 8, move |inner| {
        let key = prop::sample::select(keys.to_vec()).prop_map(str::to_owned);
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => prop::collection::btree_map(key, inner, 0..10)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused(body in any_json()) {
        if let Some(seen) = Invoice::read(&body) {
            prop_assert!(seen.id > 0);
        }
        if let Some(seen) = Refund::read(&body, 15) {
            prop_assert!(seen.id > 0 && seen.invoice_id > 0);
        }
        if let Some(list) = RefundList::read(&body, 15) {
            prop_assert!(list.refunds.iter().all(|refund| refund.invoice_id == 15));
        }
    }
}
