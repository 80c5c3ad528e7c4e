//! What programs ask for: phones, amounts, params of every operation.

use apipayd::domain::job::JobName;
use apipayd::domain::operation::{Method, OPERATIONS, Request};
use apipayd::domain::phone::Phone;
use rust_decimal::Decimal;
use serde_json::Value;

use crate::jobs::NAME;
use crate::seeds::{Seeds, Tape, tapes};

#[test]
fn a_phone_is_refused_or_eleven_digits_of_which_people_see_some() {
    let seeds = Seeds::of("phones");
    seeds.each(|_, written| phone(written));
    bolero::check!()
        .with_generator(tapes())
        .for_each(|input: &Vec<u8>| phone(&seeds.mutated(&mut Tape(input))));
}

fn phone(written: &[u8]) {
    let written = String::from_utf8_lossy(written);
    let Some(phone) = Phone::parse(&written) else {
        return;
    };
    let digits = phone.as_str();
    assert!(is_phone(digits), "{digits}");
    let read: String = written.chars().filter(char::is_ascii_digit).collect();
    assert_eq!(read[1..], digits[1..], "digits are neither made nor lost");
    assert_eq!(Phone::parse(digits), Some(phone.clone()));
    for shown in [phone.to_string(), format!("{phone:?}")] {
        let digits = shown.chars().filter(char::is_ascii_digit).count();
        assert_eq!(digits, 8, "three are hidden: {shown}");
    }
}

fn is_phone(digits: &str) -> bool {
    digits.len() == 11 && digits.starts_with('8') && digits.bytes().all(|b| b.is_ascii_digit())
}

#[test]
fn params_are_refused_or_make_a_request_that_the_gateway_allows() {
    let seeds = Seeds::of("params");
    seeds.each(|_, written| params(written));
    bolero::check!()
        .with_generator(tapes())
        .for_each(|input: &Vec<u8>| params(&seeds.mutated(&mut Tape(input))));
}

fn params(written: &[u8]) {
    let Ok(params) = serde_json::from_slice::<Value>(written) else {
        return;
    };
    for operation in OPERATIONS {
        match operation.prepare(&params, &NAME) {
            Ok(planned) => {
                assert_allowed(&planned.request);
                let again = operation.prepare(&params, &NAME).unwrap();
                assert_eq!(planned.request, again.request, "the same bytes each time");
            }
            Err(errors) => {
                assert!(!errors.is_empty());
                let told = errors.to_string();
                assert!(
                    !told.contains("7001234567") && told.len() < 100_000,
                    "{told}"
                );
            }
        }
    }
}

fn assert_allowed(request: &Request) {
    assert_eq!(request.method, Method::Post);
    let parts: Vec<&str> = request.path.split('/').collect();
    let is_known = match parts[..] {
        ["", "invoices"] => true,
        ["", "invoices", id, "cancel" | "refund"] => id.parse::<i64>().is_ok_and(|id| id > 0),
        _ => false,
    };
    assert!(is_known && request.query.is_empty(), "{request:?}");
    let Some(body) = &request.body else {
        return;
    };
    if let Some(phone) = body.get("phone_number") {
        assert!(is_phone(phone.as_str().unwrap()));
    }
    if let Some(amount) = body.get("amount") {
        let amount = Decimal::from_str_exact(&amount.to_string()).unwrap();
        let least = Decimal::new(1, 2);
        assert!(least <= amount && amount <= Decimal::new(9_999_999_999, 2) && amount.scale() <= 2);
        assert!(
            amount.is_integer() || request.path != "/invoices",
            "{amount}"
        );
    }
    for (field, most) in [
        ("description", 500),
        ("internal_comment", 255),
        ("external_order_id", 255),
        ("external_order_id_idempotency", 255),
        ("reason", 500),
    ] {
        if let Some(text) = body.get(field) {
            let text = text.as_str().unwrap();
            assert!(text.chars().count() <= most && !text.chars().any(char::is_control));
            assert!(text.matches(JobName::MARK_START).count() <= 1, "{text}");
        }
    }
    assert!(
        body.to_string().contains(&NAME.to_string()),
        "it carries its name"
    );
}
