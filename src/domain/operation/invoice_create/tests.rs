use rust_decimal::Decimal;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::domain::phone::Phone;

const NAME: JobName = JobName {
    token: Uuid::from_u128(7),
    generation: 1,
};
const TOKEN: &str = "00000000-0000-0000-0000-000000000007";
const WHOLE_TENGE: &str = "whole tenge from 1 to 99999999, or cart_items instead";
const PRICE: &str = "0.01 to 99999999.99 tenge with at most two decimals, or no price";
const ID: &str = "is not an id of the gateway; allowed: a whole number from 1";
const PHONE: &str = "8 and ten digits, also written with +7 or 7 in place of the 8, with blanks, dashes and brackets";
const CART_FIELDS: &str = "catalog_item_id, count, price";
const LIST: &str = "an array of 1 to 100 objects";

/// Params that are valid but for `changes`; a null takes a field away.
fn params(changes: Value) -> Value {
    let mut params = json!({"phone_number": "+7 700 123-45-67", "amount": 5000});
    for (field, value) in changes.as_object().expect("changes are an object") {
        params[field] = value.clone();
    }
    params
}

fn planned(changes: Value) -> Planned {
    InvoiceCreate
        .prepare(&params(changes), &NAME)
        .expect("valid params")
}

fn body(changes: Value) -> Value {
    planned(changes).request.body.expect("a body")
}

#[track_caller]
fn refused(changes: Value, field: &str, sentence: &str) {
    let mut expected = FieldErrors::new();
    expected.add(field, sentence);
    let refused = InvoiceCreate
        .prepare(&params(changes.clone()), &NAME)
        .expect_err("invalid");
    assert_eq!(refused, expected, "{changes}");
}

fn decimal(digits: &str) -> Decimal {
    Decimal::from_str_exact(digits).expect("a decimal")
}

#[test]
fn the_least_that_can_be_sent() {
    let planned = planned(json!({}));
    assert_eq!(
        planned.request,
        Request::post(
            "/invoices",
            Some(json!({
                "phone_number": "87001234567",
                "amount": 5000,
                "internal_comment": format!("[apipayd {TOKEN}]"),
                "external_order_id": TOKEN,
                "external_order_id_idempotency": TOKEN,
            })),
        )
    );
    assert_eq!(
        (planned.plan.lookup, planned.plan.resend),
        (Lookup::InvoiceByName, Resend::ByProtection)
    );
    assert_eq!(
        planned.plan.expected,
        Expected {
            amount: Some(decimal("5000")),
            phone: Phone::parse("87001234567"),
            order_id: Some(TOKEN.to_owned()),
        }
    );
}

#[test]
fn every_field_is_sent() {
    let given = json!({
        "discount_percentage": "10",
        "description": "Заказ 15",
        "internal_comment": "касса 2",
        "external_order_id": "order-15",
        "kaspi_connection_id": "42",
    });
    let planned = planned(given);
    assert_eq!(
        planned.request.body,
        Some(json!({
            "phone_number": "87001234567",
            "amount": 5000,
            "discount_percentage": 10,
            "description": "Заказ 15",
            "internal_comment": format!("касса 2 [apipayd {TOKEN}]"),
            "external_order_id": "order-15",
            "external_order_id_idempotency": TOKEN,
            "kaspi_connection_id": 42,
        }))
    );
    assert_eq!(planned.plan.expected.amount, Some(decimal("4500")));
    assert_eq!(planned.plan.expected.order_id.as_deref(), Some("order-15"));
}

#[test]
fn a_later_generation_is_another_key() {
    let name = JobName {
        generation: 2,
        ..NAME
    };
    let planned = InvoiceCreate
        .prepare(&params(json!({})), &name)
        .expect("valid params");
    let body = planned.request.body.expect("a body");
    assert_eq!(body[KEY], json!(format!("{TOKEN}-2")));
    assert_eq!(body["external_order_id"], json!(format!("{TOKEN}-2")));
    assert_eq!(
        body["internal_comment"],
        json!(format!("[apipayd {TOKEN}-2]"))
    );
}

#[test]
fn a_cart_takes_the_place_of_the_amount() {
    let cart = json!([
        {"catalog_item_id": 1, "count": 2},
        {"catalog_item_id": "2", "count": "1", "price": "10.50"},
        {"catalog_item_id": 3, "count": 1, "price": 100.00},
    ]);
    for amount in [json!(null), json!(0.5), json!("anything")] {
        let planned =
            planned(json!({"amount": amount, "cart_items": cart, "discount_percentage": 7}));
        let body = planned.request.body.expect("a body");
        assert_eq!(body.get("amount"), None);
        assert_eq!(body["discount_percentage"], json!(7));
        assert_eq!(
            body["cart_items"],
            json!([
                {"catalog_item_id": 1, "count": 2},
                {"catalog_item_id": 2, "count": 1, "price": 10.5},
                {"catalog_item_id": 3, "count": 1, "price": 100},
            ])
        );
        assert_eq!(planned.plan.expected.amount, None);
    }
}

#[test]
fn an_amount_is_whole_tenge_within_the_limits() {
    for amount in ["1", "5000.00", "99999999", "0005000", "1.0"] {
        let expected: i64 = amount
            .split('.')
            .next()
            .expect("a part")
            .parse()
            .expect("digits");
        assert_eq!(body(json!({"amount": amount}))["amount"], json!(expected));
    }
    let number: Value = serde_json::from_str("5000.00").expect("a number");
    assert_eq!(body(json!({"amount": number}))["amount"], json!(5000));

    let refused = |amount: Value, problem: &str| {
        let sentence = format!("{problem}; allowed: {WHOLE_TENGE}");
        refused(json!({"amount": amount}), "amount", &sentence);
    };
    for amount in ["0", "-1", "0.5", "5000.01", "100000000"] {
        refused(json!(amount), &format!("is {amount}"));
        let number: Value = serde_json::from_str(amount).expect("a number");
        refused(number, &format!("is {amount}"));
    }
    for amount in [
        "1e3", "NaN", "inf", "", " 5", "1_000", "+5", "5.", ".5", "\u{661}",
    ] {
        refused(json!(amount), "is not a number in digits");
    }
    // A number of so many digits may be a phone number.
    for amount in [
        "4999.999999999999999999999999999999999999999",
        "123456789012345678901234567890123456789",
        "87001234567",
    ] {
        let number: Value = serde_json::from_str(amount).expect("a number");
        refused(number, "is not an allowed number");
    }
    refused(json!(true), "is a JSON boolean");
    refused(json!([5000]), "is a JSON array");
    refused(json!(null), "is missing");
}

#[test]
fn zeros_that_change_nothing_may_be_very_many() {
    let zeros = "0".repeat(60_000);
    for amount in [format!("{zeros}5000"), format!("5000.{zeros}")] {
        assert_eq!(body(json!({"amount": amount}))["amount"], json!(5000));
    }
}

#[test]
fn a_discount_leaves_whole_tenge() {
    for (amount, discount, due) in [
        ("100", 1, "99"),
        ("100", 99, "1"),
        ("50", 2, "49"),
        ("99999900", 33, "66999933"),
    ] {
        let planned = planned(json!({"amount": amount, "discount_percentage": discount}));
        assert_eq!(planned.plan.expected.amount, Some(decimal(due)));
    }
    let sentence = "leaves no whole tenge of the amount; allowed: one that does";
    for (amount, discount) in [(99, 1), (1, 99), (99_999_999, 50)] {
        refused(
            json!({"amount": amount, "discount_percentage": discount}),
            "discount_percentage",
            sentence,
        );
    }
    for (discount, problem) in [
        (json!(0), "is 0"),
        (json!(100), "is 100"),
        (json!(1.5), "is 1.5"),
        (json!("10%"), "is not a number in digits"),
        (json!(-1), "is -1"),
    ] {
        let sentence =
            format!("{problem}; allowed: a whole number from 1 to 99, or null for no discount");
        refused(
            json!({"discount_percentage": discount}),
            "discount_percentage",
            &sentence,
        );
    }
}

#[test]
fn a_phone_number_is_required_and_never_repeated() {
    for (phone, problem) in [
        (json!(null), "is missing"),
        (
            json!("8700123456"),
            "is not a phone number of Kazakhstan (10 characters given)",
        ),
        (
            json!("+1 202 555 0100"),
            "is not a phone number of Kazakhstan (15 characters given)",
        ),
        (json!(87001234567_i64), "is a JSON number"),
        (json!({}), "is a JSON object"),
    ] {
        let sentence = format!("{problem}; allowed: {PHONE}");
        refused(json!({"phone_number": phone}), "phone_number", &sentence);
    }
}

#[test]
fn a_cart_obeys_its_limits() {
    let item = json!({"catalog_item_id": 1, "count": 1});
    for (cart, sentence) in [
        (json!([]), "has 0 items; allowed: 1 to 100".to_owned()),
        (
            json!(vec![item.clone(); 101]),
            "has 101 items; allowed: 1 to 100".to_owned(),
        ),
        (json!({}), format!("is a JSON object; allowed: {LIST}")),
        (json!("1"), format!("is a JSON string; allowed: {LIST}")),
        (json!(0), format!("is a JSON number; allowed: {LIST}")),
    ] {
        refused(
            json!({"amount": null, "cart_items": cart}),
            "cart_items",
            &sentence,
        );
    }
    assert!(body(json!({"cart_items": vec![item; 100]}))["cart_items"].is_array());

    let whole = "a whole number from 1";
    for (item, field, sentence) in [
        (
            json!({"count": 1}),
            "cart_items.0.catalog_item_id",
            format!("is missing; allowed: {whole}"),
        ),
        (
            json!({"catalog_item_id": 1}),
            "cart_items.0.count",
            format!("is missing; allowed: {whole}"),
        ),
        (
            json!({"catalog_item_id": 0, "count": 1}),
            "cart_items.0.catalog_item_id",
            ID.to_owned(),
        ),
        (
            json!({"catalog_item_id": 1, "count": 0}),
            "cart_items.0.count",
            format!("is 0; allowed: {whole}"),
        ),
        (
            json!({"catalog_item_id": 1, "count": 1.5}),
            "cart_items.0.count",
            format!("is 1.5; allowed: {whole}"),
        ),
        (
            json!({"catalog_item_id": 1, "count": 1, "price": 0}),
            "cart_items.0.price",
            format!("is 0; allowed: {PRICE}"),
        ),
        (
            json!({"catalog_item_id": 1, "count": 1, "price": "0.001"}),
            "cart_items.0.price",
            format!("is 0.001; allowed: {PRICE}"),
        ),
        (
            json!({"catalog_item_id": 1, "count": 1, "price": 100000000}),
            "cart_items.0.price",
            format!("is 100000000; allowed: {PRICE}"),
        ),
        (
            json!({"catalog_item_id": 1, "count": 1, "colour": "red"}),
            "cart_items.0.colour",
            format!("is not a known field; allowed: {CART_FIELDS}"),
        ),
        (
            json!({"catalog_item_id": 1, "count": 1, "87001234567": "red"}),
            "cart_items.0",
            format!("has a field with an unreadable name; allowed: {CART_FIELDS}"),
        ),
        (
            json!(7),
            "cart_items.0",
            format!("is a JSON number; allowed: an object with {CART_FIELDS}"),
        ),
    ] {
        refused(json!({"cart_items": [item]}), field, &sentence);
    }
    let many = json!([{"catalog_item_id": 1, "count": 3_000_000_000_i64, "price": null}]);
    let sent = json!([{"catalog_item_id": 1, "count": 3_000_000_000_i64}]);
    assert_eq!(body(json!({"cart_items": many}))["cart_items"], sent);
}

#[test]
fn texts_are_counted_in_characters() {
    for (field, max) in [
        ("description", 500),
        ("internal_comment", 191),
        ("external_order_id", 255),
    ] {
        let longest = "ы".repeat(max);
        let sent = body(json!({field: longest}));
        assert!(sent[field].as_str().expect("a text").starts_with(&longest));

        let sentence = format!("has {} characters; allowed: at most {max}", max + 1);
        refused(json!({field: "ы".repeat(max + 1)}), field, &sentence);
        let sentence = format!("is a JSON number; allowed: text of at most {max} characters");
        refused(json!({field: 15}), field, &sentence);
        let allowed = match field {
            "external_order_id" => "none, not even line breaks and tabs",
            _ => "line breaks and tabs, and no others",
        };
        for text in ["a\0b", "\u{7f}", "\u{85}", "a\u{b}b"] {
            let sentence = format!("has control characters; allowed: {allowed}");
            refused(json!({field: text}), field, &sentence);
        }
    }
}

#[test]
fn lines_of_a_text_are_sent_as_one() {
    let lines = "Заказ 15\r\n2\tпиццы";
    for field in ["description", "internal_comment"] {
        let sent = body(json!({field: lines}));
        let sent = sent[field].as_str().expect("a text");
        assert!(sent.starts_with("Заказ 15  2 пиццы"), "{sent}");
        assert_eq!(body(json!({field: "\n \t"})), body(json!({})));
    }
    refused(
        json!({"external_order_id": lines}),
        "external_order_id",
        "has control characters; allowed: none, not even line breaks and tabs",
    );
}

#[test]
fn blank_texts_are_the_same_as_none() {
    let blank = json!({"description": " ", "internal_comment": "", "external_order_id": "  "});
    assert_eq!(body(blank), body(json!({})));
}

#[test]
fn a_mark_in_the_users_text_is_refused() {
    for gap in [" ", "\t", "\n"] {
        refused(
            json!({"internal_comment": format!("copied [apipayd{gap}{TOKEN}]")}),
            "internal_comment",
            "has \"[apipayd\", which marks jobs; allowed: text without it",
        );
    }
}

#[test]
fn the_key_is_the_daemons_own() {
    let sentence = "must not be given: the job's token is the key";
    refused(json!({KEY: "mine"}), KEY, sentence);
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let errors = InvoiceCreate
        .prepare(
            &json!({"amount": 0, "phone": "87001234567", "kaspi_connection_id": -1}),
            &NAME,
        )
        .expect_err("invalid params");
    assert_eq!(
        errors.of("phone_number"),
        [format!("is missing; allowed: {PHONE}")]
    );
    assert_eq!(
        errors.of("amount"),
        [format!("is 0; allowed: {WHOLE_TENGE}")]
    );
    assert_eq!(errors.of("kaspi_connection_id"), [ID]);
    assert_eq!(
        errors.of("phone"),
        [
            "is not a known field; allowed: phone_number, amount, cart_items, discount_percentage, \
          description, internal_comment, external_order_id, kaspi_connection_id"
        ]
    );
    assert!(!errors.to_string().contains("87001234567"));
}

#[test]
fn params_that_are_no_object_are_refused() {
    for (params, kind) in [
        (json!(null), "null"),
        (json!([]), "array"),
        (json!("87001234567"), "string"),
        (json!(5), "number"),
    ] {
        let errors = InvoiceCreate
            .prepare(&params, &NAME)
            .expect_err("invalid params");
        let start = format!("is a JSON {kind}; allowed: an object with phone_number, amount,");
        let said = errors.of("params").concat();
        assert!(said.starts_with(&start), "{said}");
    }
}

#[test]
fn a_created_invoice_is_read_in_every_shape() {
    let planned = planned(json!({}));
    let invoice =
        json!({"id": 15, "status": "processing", "amount": "5000.00", "phone": "87001234567"});
    for body in [
        invoice.clone(),
        json!({"message": "ok", "invoice": invoice}),
        json!({"status": "ok", "data": invoice}),
    ] {
        for status in [200, 201, 202] {
            let applied = InvoiceCreate
                .read_success(&planned.plan, status, &body)
                .expect("the shape");
            let Object::Invoice(seen) = applied.seen else {
                panic!("not an invoice")
            };
            assert_eq!((seen.id, seen.status), (15, InvoiceStatus::Processing));
            assert_eq!(applied.progress, Progress::UnderWay);
        }
    }
    let least = json!({"id": 15, "status": "pending"});
    let applied = InvoiceCreate
        .read_success(&planned.plan, 201, &least)
        .expect("the shape");
    assert_eq!(applied.progress, Progress::Done);
}

/// Its job is looked up by its name.
#[test]
fn an_answer_with_the_number_of_nothing_proves_nothing() {
    let planned = planned(json!({}));
    for id in [
        json!(0),
        json!(-15),
        json!("0"),
        json!("-15"),
        json!(""),
        json!(1.5),
        json!(null),
        json!([15]),
    ] {
        let body = json!({"id": id, "status": "processing", "amount": "5000.00"});
        let read = InvoiceCreate.read_success(&planned.plan, 201, &body);
        assert!(read.is_none(), "{body}");
    }
}

#[test]
fn an_answer_that_shows_another_bill_proves_nothing() {
    let planned = planned(json!({"discount_percentage": 10}));
    let shown = |amount: &str, phone: &str| {
        let body = json!({"id": 15, "status": "pending", "amount": amount, "phone_number": phone});
        InvoiceCreate
            .read_success(&planned.plan, 201, &body)
            .is_some()
    };
    assert!(shown("4500.00", "87001234567"));
    assert!(shown("4500.00", "8700***4567"));
    assert!(!shown("5000.00", "87001234567"));
    assert!(!shown("4500.00", "87001234568"));
    for body in [
        json!({}),
        json!({"id": 15}),
        json!({"invoice_id": 15, "status": "pending"}),
        json!([]),
    ] {
        assert_eq!(InvoiceCreate.read_success(&planned.plan, 202, &body), None);
    }
}

#[test]
fn progress_by_status() {
    for (status, code, expected) in [
        ("processing", None, Progress::UnderWay),
        ("pending", None, Progress::Done),
        ("cancelling", None, Progress::Done),
        ("paid", None, Progress::Done),
        ("partially_refunded", None, Progress::Done),
        ("cancelled", None, Progress::Done),
        ("expired", None, Progress::Done),
        ("error", None, Progress::Failed),
        ("error", Some("client_not_found"), Progress::Failed),
        ("error", Some("invoice_already_paid"), Progress::Done),
        ("accumulating", None, Progress::UnderWay),
    ] {
        let mut invoice = Invoice::bare(15, InvoiceStatus::parse(status));
        invoice.error_code = code.map(str::to_owned);
        assert_eq!(
            InvoiceCreate.progress(&Object::Invoice(invoice)),
            expected,
            "{status} {code:?}"
        );
    }
}
