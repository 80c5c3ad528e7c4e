//! `invoice.create`: bills a phone number (API, section 2.1).

use rust_decimal::Decimal;
use serde_json::Value;

use super::params::{Body, Params, number};
use super::{Applied, Expected, Lookup, Operation, Plan, Progress, Request, Resend, Seen};
use crate::domain::errors::FieldErrors;
use crate::domain::job::JobName;
use crate::domain::mirror::{InvoiceSeen, InvoiceStatus};

const FIELDS: &[&str] = &[
    "phone_number",
    "amount",
    "cart_items",
    "discount_percentage",
    "description",
    "internal_comment",
    "external_order_id",
    "kaspi_connection_id",
];

const CART_FIELDS: &[&str] = &["catalog_item_id", "count", "price"];

/// What older organisations may write; for newer ones the gateway itself refuses more than 60.
const DESCRIPTION_MAX: usize = 500;

const COMMENT_MAX: usize = 255;

const ORDER_ID_MAX: usize = 255;

/// The field in which the gateway takes the key of a request.
const KEY: &str = "external_order_id_idempotency";

/// Creates an invoice and delivers it to the customer's phone.
pub(super) struct InvoiceCreate;

impl Operation for InvoiceCreate {
    fn name(&self) -> &'static str {
        "invoice.create"
    }

    fn makes_invoice(&self) -> bool {
        true
    }

    fn in_plural(&self) -> &'static str {
        "new bills"
    }

    fn prepare(&self, params: &Value, name: &JobName) -> Result<Plan, FieldErrors> {
        let reserved = [(KEY, "must not be given: the job's token is the key")];
        let mut params = Params::open(params, FIELDS, &reserved)?;
        params.require("phone_number");
        let phone = params.phone("phone_number");
        let discount = params.whole("discount_percentage", 1..=99);
        let amount = read_amount(&mut params);
        let due = amount.and_then(|amount| after_discount(&mut params, amount, discount));

        let mut body = Body::default();
        body.set("phone_number", phone.as_ref().map(|phone| phone.as_str()));
        body.set("amount", amount.map(number));
        body.set(
            "cart_items",
            params.items("cart_items", CART_FIELDS, read_cart_item),
        );
        body.set("discount_percentage", discount);
        body.set("description", params.text("description", DESCRIPTION_MAX));
        let comment = params.text_to_mark("internal_comment", COMMENT_MAX);
        body.set("internal_comment", Some(name.marked(comment)));
        let order_id = params
            .text("external_order_id", ORDER_ID_MAX)
            .map_or_else(|| name.to_string(), str::to_owned);
        body.set("external_order_id", Some(order_id.as_str()));
        body.set(KEY, Some(name.to_string()));
        body.set("kaspi_connection_id", params.id("kaspi_connection_id"));

        params.finish(Some(Plan {
            request: Request::post("/invoices", Some(body.into())),
            lookup: Lookup::InvoiceByName,
            resend: Resend::ByProtection,
            expected: Expected {
                amount: due,
                phone,
                order_id: Some(order_id),
            },
        }))
    }

    fn read_success(&self, plan: &Plan, _status: u16, body: &Value) -> Option<Applied> {
        let invoice = [Some(body), body.get("invoice"), body.get("data")]
            .into_iter()
            .flatten()
            .find_map(InvoiceSeen::read)?;
        let agrees = invoice.agrees(plan.expected.amount, plan.expected.phone.as_ref());
        let progress = progress(&invoice);
        agrees.then_some(Applied {
            seen: Seen::Invoice(invoice),
            progress,
        })
    }

    fn progress(&self, seen: &Seen) -> Progress {
        match seen {
            Seen::Invoice(invoice) => progress(invoice),
            // Not this job's object, so it can neither end the job nor allow another request.
            Seen::Refund(_) => Progress::UnderWay,
        }
    }
}

/// The amount of an invoice without a cart. With a cart the gateway ignores it, so it is neither
/// checked nor sent.
fn read_amount(params: &mut Params<'_>) -> Option<Decimal> {
    if params.has("cart_items") {
        return None;
    }
    if !params.has("amount") {
        params.refuse("amount", "is required unless cart_items is given");
    }
    params.whole_tenge("amount")
}

/// What the customer pays. The gateway wants whole tenge after the discount, too.
fn after_discount(
    params: &mut Params<'_>,
    amount: Decimal,
    discount: Option<i64>,
) -> Option<Decimal> {
    let hundred = Decimal::ONE_HUNDRED;
    let due = (amount * (hundred - Decimal::from(discount.unwrap_or(0))) / hundred).normalize();
    if !due.is_integer() {
        params.refuse(
            "discount_percentage",
            "must leave a whole number of tenge of the amount",
        );
        return None;
    }
    Some(due)
}

fn read_cart_item(item: &mut Params<'_>) -> Value {
    item.require("catalog_item_id");
    item.require("count");
    let mut body = Body::default();
    body.set("catalog_item_id", item.id("catalog_item_id"));
    body.set("count", item.id("count"));
    body.set("price", item.tenge("price").map(number));
    body.into()
}

/// The job is done once the invoice reached the customer; what becomes of it then is the mirror's
/// story.
fn progress(invoice: &InvoiceSeen) -> Progress {
    match invoice.status {
        InvoiceStatus::Processing | InvoiceStatus::Other(_) => Progress::UnderWay,
        InvoiceStatus::Error if invoice.error_code.as_deref() == Some("invoice_already_paid") => {
            Progress::Done
        }
        InvoiceStatus::Error => Progress::Failed,
        InvoiceStatus::Pending
        | InvoiceStatus::Cancelling
        | InvoiceStatus::Paid
        | InvoiceStatus::PartiallyRefunded
        | InvoiceStatus::Cancelled
        | InvoiceStatus::Expired => Progress::Done,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::domain::phone::Phone;

    const NAME: JobName = JobName {
        token: Uuid::from_u128(7),
        generation: 1,
    };
    const TOKEN: &str = "00000000-0000-0000-0000-000000000007";
    const WHOLE_TENGE: &str = "must be a whole number of tenge from 1 to 99999999";
    const TIYN: &str =
        "must be an amount in tenge from 0.01 to 99999999.99 with at most two decimals";
    const POSITIVE: &str = "must be a positive whole number";
    const PHONE: &str = "must be a phone number as text: eleven digits that start with 8, 7 or +7";

    /// Params that are valid but for `changes`; a null takes a field away.
    fn params(changes: Value) -> Value {
        let mut params = json!({"phone_number": "+7 700 123-45-67", "amount": 5000});
        for (field, value) in changes.as_object().expect("changes are an object") {
            params[field] = value.clone();
        }
        params
    }

    fn plan(changes: Value) -> Plan {
        InvoiceCreate
            .prepare(&params(changes), &NAME)
            .expect("valid params")
    }

    fn body(changes: Value) -> Value {
        plan(changes).request.body.expect("a body")
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
        let plan = plan(json!({}));
        assert_eq!(
            plan.request,
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
            (plan.lookup, plan.resend),
            (Lookup::InvoiceByName, Resend::ByProtection)
        );
        assert_eq!(
            plan.expected,
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
        let plan = plan(given);
        assert_eq!(
            plan.request.body,
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
        assert_eq!(plan.expected.amount, Some(decimal("4500")));
        assert_eq!(plan.expected.order_id.as_deref(), Some("order-15"));
    }

    #[test]
    fn a_later_generation_is_another_key() {
        let name = JobName {
            generation: 2,
            ..NAME
        };
        let plan = InvoiceCreate
            .prepare(&params(json!({})), &name)
            .expect("valid params");
        let body = plan.request.body.expect("a body");
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
            let plan =
                plan(json!({"amount": amount, "cart_items": cart, "discount_percentage": 7}));
            let body = plan.request.body.expect("a body");
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
            assert_eq!(plan.expected.amount, None);
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

        for amount in [
            "0",
            "-1",
            "0.5",
            "5000.01",
            "100000000",
            "1e3",
            "NaN",
            "inf",
            "",
            " 5",
            "1_000",
            "+5",
            "5.",
            ".5",
            "١",
        ] {
            refused(json!({"amount": amount}), "amount", WHOLE_TENGE);
        }
        for amount in [
            "0",
            "-5",
            "1e3",
            "1e400",
            "4999.999999999999999999999999999999999999999",
            "123456789012345678901234567890123456789",
        ] {
            let amount: Value = serde_json::from_str(amount).expect("a number");
            refused(json!({"amount": amount}), "amount", WHOLE_TENGE);
        }
        refused(json!({"amount": true}), "amount", WHOLE_TENGE);
        refused(json!({"amount": [5000]}), "amount", WHOLE_TENGE);
        refused(
            json!({"amount": null}),
            "amount",
            "is required unless cart_items is given",
        );
    }

    #[test]
    fn a_discount_leaves_whole_tenge() {
        for (amount, discount, due) in [
            ("100", 1, "99"),
            ("100", 99, "1"),
            ("50", 2, "49"),
            ("99999900", 33, "66999933"),
        ] {
            let plan = plan(json!({"amount": amount, "discount_percentage": discount}));
            assert_eq!(plan.expected.amount, Some(decimal(due)));
        }
        let sentence = "must leave a whole number of tenge of the amount";
        for (amount, discount) in [(99, 1), (1, 99), (99_999_999, 50)] {
            refused(
                json!({"amount": amount, "discount_percentage": discount}),
                "discount_percentage",
                sentence,
            );
        }
        for discount in [json!(0), json!(100), json!(1.5), json!("10%"), json!(-1)] {
            refused(
                json!({"discount_percentage": discount}),
                "discount_percentage",
                "must be a whole number from 1 to 99",
            );
        }
    }

    #[test]
    fn a_phone_number_is_required_and_never_repeated() {
        refused(json!({"phone_number": null}), "phone_number", "is required");
        for phone in [
            json!("8700123456"),
            json!("+1 202 555 0100"),
            json!(87001234567_i64),
            json!({}),
        ] {
            refused(json!({"phone_number": phone}), "phone_number", PHONE);
        }
    }

    #[test]
    fn a_cart_obeys_its_limits() {
        let item = json!({"catalog_item_id": 1, "count": 1});
        let list = "must be a list of 1 to 100 objects";
        for cart in [
            json!([]),
            json!(vec![item.clone(); 101]),
            json!({}),
            json!("1"),
            json!(0),
        ] {
            refused(
                json!({"amount": null, "cart_items": cart}),
                "cart_items",
                list,
            );
        }
        assert!(body(json!({"cart_items": vec![item; 100]}))["cart_items"].is_array());

        for (item, field, sentence) in [
            (
                json!({"count": 1}),
                "cart_items.0.catalog_item_id",
                "is required",
            ),
            (
                json!({"catalog_item_id": 1}),
                "cart_items.0.count",
                "is required",
            ),
            (
                json!({"catalog_item_id": 0, "count": 1}),
                "cart_items.0.catalog_item_id",
                POSITIVE,
            ),
            (
                json!({"catalog_item_id": 1, "count": 0}),
                "cart_items.0.count",
                POSITIVE,
            ),
            (
                json!({"catalog_item_id": 1, "count": 1.5}),
                "cart_items.0.count",
                POSITIVE,
            ),
            (
                json!({"catalog_item_id": 1, "count": 1, "price": 0}),
                "cart_items.0.price",
                TIYN,
            ),
            (
                json!({"catalog_item_id": 1, "count": 1, "price": "0.001"}),
                "cart_items.0.price",
                TIYN,
            ),
            (
                json!({"catalog_item_id": 1, "count": 1, "price": 100000000}),
                "cart_items.0.price",
                TIYN,
            ),
            (
                json!({"catalog_item_id": 1, "count": 1, "colour": "red"}),
                "cart_items.0.colour",
                "is not a known field; allowed: catalog_item_id, count, price",
            ),
            (
                json!({"catalog_item_id": 1, "count": 1, "87001234567": "red"}),
                "cart_items.0",
                "has a field with an unreadable name; allowed: catalog_item_id, count, price",
            ),
            (json!(7), "cart_items.0", "must be an object"),
        ] {
            refused(json!({"cart_items": [item]}), field, sentence);
        }
    }

    #[test]
    fn texts_are_counted_in_characters() {
        for (field, max) in [
            ("description", 500),
            ("internal_comment", 190),
            ("external_order_id", 255),
        ] {
            let longest = "ы".repeat(max);
            let sent = body(json!({field: longest}));
            assert!(sent[field].as_str().expect("a text").starts_with(&longest));

            let sentence = format!("must be at most {max} characters long");
            refused(json!({field: "ы".repeat(max + 1)}), field, &sentence);
            refused(json!({field: 15}), field, "must be text");
            for text in ["a\nb", "a\0b", "\u{7f}", "\u{85}"] {
                refused(
                    json!({field: text}),
                    field,
                    "must not hold control characters such as line breaks",
                );
            }
        }
    }

    #[test]
    fn blank_texts_are_the_same_as_none() {
        let blank = json!({"description": " ", "internal_comment": "", "external_order_id": "  "});
        assert_eq!(body(blank), body(json!({})));
    }

    #[test]
    fn a_mark_in_the_users_text_is_refused() {
        refused(
            json!({"internal_comment": format!("copied [apipayd {TOKEN}]")}),
            "internal_comment",
            "must not hold \"[apipayd\", which marks jobs",
        );
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
        assert_eq!(errors.of("phone_number"), ["is required"]);
        assert_eq!(errors.of("amount"), [WHOLE_TENGE]);
        assert_eq!(errors.of("kaspi_connection_id"), [POSITIVE]);
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
        for params in [json!(null), json!([]), json!("87001234567"), json!(5)] {
            let errors = InvoiceCreate
                .prepare(&params, &NAME)
                .expect_err("invalid params");
            assert_eq!(errors.of("params"), ["must be an object"]);
        }
    }

    #[test]
    fn a_created_invoice_is_read_in_every_shape() {
        let plan = plan(json!({}));
        let invoice =
            json!({"id": 15, "status": "processing", "amount": "5000.00", "phone": "87001234567"});
        for body in [
            invoice.clone(),
            json!({"message": "ok", "invoice": invoice}),
            json!({"status": "ok", "data": invoice}),
        ] {
            for status in [200, 201, 202] {
                let applied = InvoiceCreate
                    .read_success(&plan, status, &body)
                    .expect("the shape");
                let Seen::Invoice(seen) = applied.seen else {
                    panic!("not an invoice")
                };
                assert_eq!((seen.id, seen.status), (15, InvoiceStatus::Processing));
                assert_eq!(applied.progress, Progress::UnderWay);
            }
        }
        let least = json!({"id": 15, "status": "pending"});
        let applied = InvoiceCreate
            .read_success(&plan, 201, &least)
            .expect("the shape");
        assert_eq!(applied.progress, Progress::Done);
    }

    #[test]
    fn an_answer_that_shows_another_bill_proves_nothing() {
        let plan = plan(json!({"discount_percentage": 10}));
        let shown = |amount: &str, phone: &str| {
            let body =
                json!({"id": 15, "status": "pending", "amount": amount, "phone_number": phone});
            InvoiceCreate.read_success(&plan, 201, &body).is_some()
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
            assert_eq!(InvoiceCreate.read_success(&plan, 202, &body), None);
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
            let mut invoice = InvoiceSeen::bare(15, InvoiceStatus::parse(status));
            invoice.error_code = code.map(str::to_owned);
            assert_eq!(
                InvoiceCreate.progress(&Seen::Invoice(invoice)),
                expected,
                "{status} {code:?}"
            );
        }
    }
}
