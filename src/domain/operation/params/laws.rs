//! What holds for every operation, whatever the params.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::domain::operation::{OPERATIONS, Planned};

/// The largest amounts, in tenge and in tiyn (API, section 1, "Money").
const WHOLE_TENGE_MAX: i64 = 99_999_999;
const TIYN_MAX: i64 = 9_999_999_999;

const NAME: JobName = JobName {
    token: Uuid::nil(),
    generation: 1,
};

/// Numbers and texts at the edges of what a field takes, and far beyond.
fn any_leaf() -> impl Strategy<Value = Value> {
    let written = "0 1 2 50 99 100 5000 5000.00 0.01 10.5 0.001 -1 99999999 99999999.99 100000000 \
        1e3 1E400 1e-400 -0 -0.0 9223372036854775807 9223372036854775808 \
        79228162514264337593543950336 0.00000000000000000000000000000000000000000000001";
    let written = prop::sample::select(written.split_whitespace().collect::<Vec<_>>());
    let number = written
        .clone()
        .prop_map(|digits| serde_json::from_str(digits).expect("a number"));
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        number,
        written.prop_map(Value::from),
        Just(json!("NaN")),
        Just(json!("+7 700 123-45-67")),
        ".{0,20}".prop_map(Value::from),
        (180_usize..520).prop_map(|length| json!("ы".repeat(length))),
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    let known = "phone_number amount cart_items discount_percentage description internal_comment \
        external_order_id external_order_id_idempotency kaspi_connection_id invoice_id reason \
        return_items catalog_item_id count price";
    let known = prop::sample::select(known.split_whitespace().collect::<Vec<_>>());
    prop_oneof![9 => known.prop_map(str::to_owned), 1 => ".{0,80}"]
}

fn any_json() -> impl Strategy<Value = Value> {
    any_leaf().prop_recursive(3, 60, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::from),
            btree_map(any_key(), inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_amount() -> impl Strategy<Value = Value> {
    let whole = 1..=WHOLE_TENGE_MAX;
    let tiyn = 1..=TIYN_MAX;
    prop_oneof![
        whole.clone().prop_map(Value::from),
        whole.prop_map(|amount| json!(format!("{amount}.00"))),
        tiyn.clone().prop_map(|tiyn| number(Decimal::new(tiyn, 2))),
        tiyn.prop_map(|tiyn| json!(Decimal::new(tiyn, 2).to_string())),
    ]
}

fn any_item() -> impl Strategy<Value = Value> {
    let count = prop::option::weighted(0.7, 1_i64..9);
    let money = ["price", "amount"];
    (
        1_i64..999,
        count,
        prop::option::weighted(0.3, (prop::sample::select(money.to_vec()), any_amount())),
    )
        .prop_map(|(id, count, money)| {
            let mut item = json!({"catalog_item_id": id, "count": count});
            if let Some((field, amount)) = money {
                item[field] = amount;
            }
            item
        })
}

/// Params that are often valid: the fields that an operation knows, with the right kinds.
fn near_params() -> impl Strategy<Value = Value> {
    let text = || prop::option::weighted(0.3, "\\PC{0,12}|(ы ?){100,130}");
    let order = (
        prop::option::weighted(0.9, "(8|\\+7|7)[0-9]{10}"),
        prop::option::of(1_i64..=99),
        prop::option::weighted(0.8, any_amount()),
        prop::option::weighted(0.3, vec(any_item(), 0..5)),
    );
    let texts = (text(), text(), text(), text());
    let ids = (
        prop::option::weighted(0.7, 1_i64..),
        prop::option::weighted(0.3, 1_i64..),
    );
    let shape = prop::sample::select(vec!["invoice.create", "invoice.cancel", "invoice.refund"]);
    (order, texts, ids, shape).prop_map(|((phone, discount, amount, items), texts, ids, shape)| match shape {
        "invoice.create" => json!({
            "phone_number": phone, "discount_percentage": discount, "amount": amount,
            "cart_items": items, "description": texts.0, "internal_comment": texts.1,
            "external_order_id": texts.2, "kaspi_connection_id": ids.1,
        }),
        "invoice.cancel" => json!({"invoice_id": ids.0}),
        _ => json!({"invoice_id": ids.0, "amount": amount, "reason": texts.3, "return_items": items}),
    })
}

fn any_params() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => any_json(),
        5 => near_params(),
        2 => (near_params(), any_key(), any_json()).prop_map(|(mut params, key, value)| {
            params[key.as_str()] = value;
            params
        }),
    ]
}

fn any_name() -> impl Strategy<Value = JobName> {
    (any::<u128>(), 1..=i16::MAX).prop_map(|(token, generation)| JobName {
        token: Uuid::from_u128(token),
        generation,
    })
}

/// The gateway's limits (API, sections 2.1, 2.5 and 2.8), written without the reader's help.
fn assert_within_limits(planned: &Planned, name: &JobName) {
    let Some(body) = &planned.request.body else {
        return assert!(planned.request.path.ends_with("/cancel"));
    };
    for (field, value) in body.as_object().expect("an object") {
        match field.as_str() {
            "phone_number" => assert_phone(value),
            "amount" if planned.request.path == "/invoices" => {
                assert_money(value, 0, "1", "99999999")
            }
            "amount" => assert_money(value, 2, "0.01", "99999999.99"),
            "discount_percentage" => {
                assert!((1..=99).contains(&value.as_i64().expect("a number")))
            }
            "description" => assert_text(value, 500),
            "internal_comment" => assert_marked(value, 255, name),
            "reason" => assert_marked(value, 500, name),
            "external_order_id" => assert_text(value, 255),
            "external_order_id_idempotency" => assert_eq!(*value, json!(name.to_string())),
            "kaspi_connection_id" => assert!(value.as_i64().expect("an id") > 0),
            "cart_items" | "return_items" => assert_items(value, field == "cart_items"),
            other => panic!("{other} is not a field of the gateway's"),
        }
    }
    assert_due(body, planned);
}

fn assert_due(body: &Value, planned: &Planned) {
    if planned.request.path != "/invoices" {
        return;
    }
    assert!(body["phone_number"].is_string());
    assert_ne!(
        body.get("amount").is_some(),
        body.get("cart_items").is_some()
    );
    if let Some(amount) = body.get("amount").and_then(Value::as_i64) {
        let discount = body
            .get("discount_percentage")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        let hundredfold = amount * (100 - discount);
        assert_eq!(hundredfold % 100, 0);
        assert_eq!(
            planned.plan.expected.amount,
            Some(Decimal::from(hundredfold / 100))
        );
    }
}

fn assert_phone(value: &Value) {
    let phone = value.as_str().expect("a text");
    assert!(
        phone.len() == 11 && phone.starts_with('8') && phone.bytes().all(|b| b.is_ascii_digit())
    );
}

fn assert_money(value: &Value, decimals: u32, min: &str, max: &str) {
    let Value::Number(number) = value else {
        panic!("not a number")
    };
    let of = |digits: &str| Decimal::from_str_exact(digits).expect("a decimal");
    let amount = of(number.as_str());
    assert!(
        amount.scale() <= decimals && of(min) <= amount && amount <= of(max),
        "{number}"
    );
}

fn assert_text(value: &Value, max: usize) {
    let text = value.as_str().expect("a text");
    assert!(text.chars().count() <= max && !text.contains('\0') && !text.trim().is_empty());
}

fn assert_marked(value: &Value, max: usize, name: &JobName) {
    assert_text(value, max);
    let text = value.as_str().expect("a text");
    assert!(name.marks(text) && text.ends_with(']'));
    assert_eq!(text.matches(JobName::MARK_START).count(), 1);
}

fn assert_items(value: &Value, cart: bool) {
    let items = value.as_array().expect("a list");
    assert!((1..=100).contains(&items.len()));
    for item in items {
        let count = item
            .get("count")
            .map(|count| count.as_i64().expect("a count"));
        assert!(item["catalog_item_id"].as_i64().expect("an id") > 0);
        assert!(count.is_none_or(|count| count >= 1));
        assert!(
            cart && count.is_some() || !cart && count.is_some() != item.get("amount").is_some()
        );
        for money in ["price", "amount"]
            .iter()
            .filter_map(|field| item.get(field))
        {
            assert_money(money, 2, "0.01", "99999999.99");
        }
    }
}

proptest! {
    #[test]
    fn any_params_give_a_lawful_request_or_errors(params in any_params(), name in any_name()) {
        for operation in OPERATIONS {
            match operation.prepare(&params, &name) {
                Ok(planned) => assert_within_limits(&planned, &name),
                Err(errors) => prop_assert!(!errors.is_empty()),
            }
        }
    }

    #[test]
    fn the_same_job_gives_the_same_bytes(params in any_params(), name in any_name()) {
        let copy: Value = serde_json::from_str(&params.to_string()).expect("JSON");
        for operation in OPERATIONS {
            let bytes = |params| operation.prepare(params, &name).map(|planned| format!("{planned:?}"));
            prop_assert_eq!(bytes(&params), bytes(&copy));
        }
    }

    #[test]
    fn errors_never_repeat_a_phone_number(digits in "[0-9]{10}", key in any_key()) {
        let phone = format!("8{digits}");
        let params = [
            json!({"phone_number": format!("{phone}0"), "amount": phone, key: phone}),
            json!({phone.as_str(): phone, "invoice_id": format!("{phone} "), "return_items": [phone]}),
            json!({"cart_items": [{phone.as_str(): phone, "count": phone, "price": phone}]}),
        ];
        for operation in OPERATIONS {
            for errors in params.iter().filter_map(|params| operation.prepare(params, &NAME).err()) {
                prop_assert!(!errors.to_string().contains(&digits));
            }
        }
    }

    #[test]
    fn any_answer_is_read_or_refused(body in any_json(), status in 200_u16..=202) {
        let params = [
            json!({"phone_number": "87001234567", "amount": 5000}),
            json!({"invoice_id": 15}),
        ];
        for operation in OPERATIONS {
            for planned in params.iter().filter_map(|params| operation.prepare(params, &NAME).ok()) {
                if let Some(applied) = operation.read_success(&planned.plan, status, &body) {
                    prop_assert_eq!(operation.progress(&applied.seen), applied.progress);
                }
            }
        }
    }

    #[test]
    fn a_number_keeps_its_digits(tiyn in 1..=TIYN_MAX) {
        let amount = Decimal::new(tiyn, 2);
        let sent = number(amount).to_string();
        prop_assert_eq!(Decimal::from_str_exact(&sent).expect("digits"), amount);
        prop_assert_eq!(sent.contains('.'), tiyn % 100 != 0);
    }
}

/// The laws about valid requests would be empty if the generator made none.
#[test]
fn the_generator_makes_valid_params_for_every_operation() {
    let mut runner = TestRunner::deterministic();
    let made: Vec<Value> = (0..600)
        .filter_map(|_| any_params().new_tree(&mut runner).ok())
        .map(|params| params.current())
        .collect();
    for operation in OPERATIONS {
        let valid = made
            .iter()
            .filter(|params| operation.prepare(params, &NAME).is_ok());
        assert!(valid.count() > 20, "{}", operation.name());
    }
}

#[test]
fn unknown_fields_are_bounded() {
    let fields: Map<String, Value> = (0..1000)
        .map(|n| (format!("field-{n}"), json!(1)))
        .collect();
    for operation in OPERATIONS {
        let errors = operation
            .prepare(&Value::Object(fields.clone()), &NAME)
            .expect_err("unknown fields");
        let reported = fields
            .keys()
            .filter(|field| !errors.of(field).is_empty())
            .count();
        assert_eq!(reported, UNKNOWN_MAX);
    }
}

/// `tests/sql/strange_params.sql` has the same table for `apipay._id`: two refunds of one invoice are kept apart
/// by what the database reads, and sent by what is read here. Numbers stand as jsonb writes them.
#[test]
fn an_id_is_what_the_database_takes_for_one() {
    for (written, id) in [
        ("100001", Some(100_001)),
        ("100001.0", Some(100_001)),
        ("100001.000", Some(100_001)),
        (r#""100001""#, Some(100_001)),
        (r#""0100001""#, Some(100_001)),
        (r#""100001.0""#, Some(100_001)),
        (r#""00000000000000000000000000000000000000007""#, Some(7)),
        ("9223372036854775807", Some(i64::MAX)),
        (r#""9223372036854775807""#, Some(i64::MAX)),
        ("9223372036854775808", None),
        (r#""9223372036854775808""#, None),
        ("0", None),
        (r#""0""#, None),
        ("-1", None),
        (r#""-1""#, None),
        ("1.5", None),
        (r#""1.5""#, None),
        (r#""1.""#, None),
        (r#"".0""#, None),
        (r#""""#, None),
        (r#"" 1""#, None),
        (r#""1\n""#, None),
        (r#""+1""#, None),
        (r#""1e2""#, None),
        (r#""٣""#, None),
        ("true", None),
        ("[1]", None),
        (r#"{"a": 1}"#, None),
    ] {
        let value: Value = serde_json::from_str(written).expect("JSON");
        assert_eq!(super::id(&value), id, "{written}");
    }
}
