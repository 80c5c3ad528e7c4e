//! Invoices and refunds as the gateway shows them.

use std::fmt;

use rust_decimal::Decimal;
use serde_json::Value;
use time::OffsetDateTime;

use crate::domain::fields::{decimal, id, moment, short, text, text_or_number};
use crate::domain::phone::Phone;

/// The status of an invoice (API, section 5.1). The gateway's list is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvoiceStatus {
    /// Stored by the gateway, not yet with Kaspi.
    Processing,
    /// Delivered to the customer.
    Pending,
    /// A cancel is under way.
    Cancelling,
    /// Money received.
    Paid,
    /// Money received, a part of it given back.
    PartiallyRefunded,
    /// Cancelled; it may still turn paid when the payment won the race.
    Cancelled,
    /// Not paid in time; it may still turn paid.
    Expired,
    /// Not delivered; it may still turn pending.
    Error,
    /// A status that no document lists.
    Other(String),
}

impl InvoiceStatus {
    /// Whether the gateway takes the idempotency key of such an invoice for a new one (API, section
    /// 3.1).
    pub fn releases_key(&self) -> bool {
        matches!(
            self,
            InvoiceStatus::Cancelled | InvoiceStatus::Expired | InvoiceStatus::Error
        )
    }

    /// Whether the customer's money is in, or was.
    pub fn is_paid(&self) -> bool {
        matches!(self, InvoiceStatus::Paid | InvoiceStatus::PartiallyRefunded)
    }

    /// Reads the gateway's word.
    pub fn parse(word: &str) -> InvoiceStatus {
        match word {
            "processing" => InvoiceStatus::Processing,
            "pending" => InvoiceStatus::Pending,
            "cancelling" => InvoiceStatus::Cancelling,
            "paid" => InvoiceStatus::Paid,
            "partially_refunded" => InvoiceStatus::PartiallyRefunded,
            "cancelled" => InvoiceStatus::Cancelled,
            "expired" => InvoiceStatus::Expired,
            "error" => InvoiceStatus::Error,
            other => InvoiceStatus::Other(short(other)),
        }
    }

    /// The gateway's word.
    pub fn as_str(&self) -> &str {
        match self {
            InvoiceStatus::Processing => "processing",
            InvoiceStatus::Pending => "pending",
            InvoiceStatus::Cancelling => "cancelling",
            InvoiceStatus::Paid => "paid",
            InvoiceStatus::PartiallyRefunded => "partially_refunded",
            InvoiceStatus::Cancelled => "cancelled",
            InvoiceStatus::Expired => "expired",
            InvoiceStatus::Error => "error",
            InvoiceStatus::Other(word) => word,
        }
    }
}

impl fmt::Display for InvoiceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status of a refund (API, section 5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundStatus {
    /// Queued by the gateway.
    Pending,
    /// With Kaspi.
    Processing,
    /// Money given back.
    Completed,
    /// Not given back; the gateway does not try again.
    Failed,
    /// A status that no document lists.
    Other(String),
}

impl RefundStatus {
    /// Reads the gateway's word.
    pub fn parse(word: &str) -> RefundStatus {
        match word {
            "pending" => RefundStatus::Pending,
            "processing" => RefundStatus::Processing,
            "completed" => RefundStatus::Completed,
            "failed" => RefundStatus::Failed,
            other => RefundStatus::Other(short(other)),
        }
    }

    /// The gateway's word.
    pub fn as_str(&self) -> &str {
        match self {
            RefundStatus::Pending => "pending",
            RefundStatus::Processing => "processing",
            RefundStatus::Completed => "completed",
            RefundStatus::Failed => "failed",
            RefundStatus::Other(word) => word,
        }
    }
}

impl fmt::Display for RefundStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An invoice as one answer showed it. Only id and status are certain to be there: the documents
/// disagree about the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct InvoiceSeen {
    /// The gateway's id.
    pub id: i64,
    /// Its status.
    pub status: InvoiceStatus,
    /// Amount in tenge.
    pub amount: Option<Decimal>,
    /// The payer.
    pub phone: Option<Phone>,
    /// The merchant's order id.
    pub external_order_id: Option<String>,
    /// The merchant's note, where the job's name stands.
    pub internal_comment: Option<String>,
    /// Kaspi's own id.
    pub kaspi_invoice_id: Option<String>,
    /// Why it is in error.
    pub error_code: Option<String>,
    /// The text for that.
    pub error_message: Option<String>,
    /// Whether it exists in the sandbox only.
    pub is_sandbox: Option<bool>,
    /// Whether it was imported from the Kaspi app, so cannot be ours.
    pub is_imported: bool,
    /// Refunded so far.
    pub total_refunded: Option<Decimal>,
    /// When it was created.
    pub created_at: Option<OffsetDateTime>,
    /// When it last changed.
    pub updated_at: Option<OffsetDateTime>,
    /// When it was paid.
    pub paid_at: Option<OffsetDateTime>,
}

impl InvoiceSeen {
    /// Reads an invoice out of any of the gateway's shapes; `None` without a positive id and a
    /// status.
    pub fn read(object: &Value) -> Option<InvoiceSeen> {
        Some(InvoiceSeen {
            id: id(object, "id")?,
            status: InvoiceStatus::parse(object.get("status")?.as_str()?),
            amount: decimal(object, "amount"),
            phone: text(object, "phone")
                .or_else(|| text(object, "phone_number"))
                .and_then(|phone| Phone::parse(&phone)),
            external_order_id: text(object, "external_order_id"),
            internal_comment: text(object, "internal_comment"),
            kaspi_invoice_id: text_or_number(object, "kaspi_invoice_id"),
            error_code: text(object, "error_code"),
            error_message: text(object, "error_message"),
            is_sandbox: object.get("is_sandbox").and_then(Value::as_bool),
            is_imported: object
                .get("is_imported")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            total_refunded: decimal(object, "total_refunded"),
            created_at: moment(object, "created_at"),
            updated_at: moment(object, "updated_at"),
            paid_at: moment(object, "paid_at"),
        })
    }

    /// An invoice of which an answer says no more than what it is and how it stands.
    pub fn bare(id: i64, status: InvoiceStatus) -> InvoiceSeen {
        InvoiceSeen {
            id,
            status,
            amount: None,
            phone: None,
            external_order_id: None,
            internal_comment: None,
            kaspi_invoice_id: None,
            error_code: None,
            error_message: None,
            is_sandbox: None,
            is_imported: false,
            total_refunded: None,
            created_at: None,
            updated_at: None,
            paid_at: None,
        }
    }

    /// How it stands: its status, but for an error whose code says that the money came first, or that it was
    /// cancelled before (API, section 4.4).
    pub fn standing(&self) -> InvoiceStatus {
        match (&self.status, self.error_code.as_deref()) {
            (InvoiceStatus::Error, Some("invoice_already_paid")) => InvoiceStatus::Paid,
            (InvoiceStatus::Error, Some("invoice_already_cancelled")) => InvoiceStatus::Cancelled,
            (status, _) => status.clone(),
        }
    }

    /// Whether nothing that it shows contradicts what was asked. What is not shown, or was not
    /// asked for, contradicts nothing.
    pub fn agrees(&self, amount: Option<Decimal>, phone: Option<&Phone>) -> bool {
        agree(self.amount, amount) && agree(self.phone.as_ref(), phone)
    }
}

/// A refund as one answer showed it.
#[derive(Clone, Debug, PartialEq)]
pub struct RefundSeen {
    /// The gateway's id.
    pub id: i64,
    /// The refunded invoice.
    pub invoice_id: i64,
    /// Its status.
    pub status: RefundStatus,
    /// Amount in tenge.
    pub amount: Option<Decimal>,
    /// The reason, where the job's name stands.
    pub reason: Option<String>,
    /// Why it failed.
    pub error_code: Option<String>,
    /// The text for that.
    pub error_message: Option<String>,
    /// When it was created.
    pub created_at: Option<OffsetDateTime>,
}

impl RefundSeen {
    /// Reads a refund; `None` without a positive id and a status. `invoice_id` is the invoice that
    /// was asked about, for answers that do not repeat it.
    pub fn read(object: &Value, invoice_id: i64) -> Option<RefundSeen> {
        Some(RefundSeen {
            id: id(object, "id")?,
            invoice_id: id(object, "invoice_id").unwrap_or(invoice_id),
            status: RefundStatus::parse(object.get("status")?.as_str()?),
            amount: decimal(object, "amount"),
            reason: text(object, "reason"),
            error_code: text(object, "error_code"),
            error_message: text(object, "error_message"),
            created_at: moment(object, "created_at"),
        })
    }

    /// Whether it is a refund of this invoice, and its amount, where it shows one, is the one that
    /// was asked for, if one was.
    pub fn agrees(&self, invoice_id: i64, amount: Option<Decimal>) -> bool {
        self.invoice_id == invoice_id && agree(self.amount, amount)
    }
}

/// All refunds of an invoice, from one complete answer.
#[derive(Clone, Debug, PartialEq)]
pub struct RefundList {
    /// The refunds.
    pub refunds: Vec<RefundSeen>,
    /// Refunded so far, as the answer's invoice says.
    pub total_refunded: Option<Decimal>,
}

impl RefundList {
    /// Reads the answer of `GET /invoices/{id}/refunds`; `None` when a row cannot be read, when
    /// anything in it belongs to another invoice, or when `total` is not the number of rows: such
    /// a list proves nothing (API, section 2.9).
    pub fn read(object: &Value, invoice_id: i64) -> Option<RefundList> {
        let invoice = object.get("invoice");
        let rows = object.get("refunds")?.as_array()?;
        let refunds: Vec<RefundSeen> = rows
            .iter()
            .map(|row| RefundSeen::read(row, invoice_id))
            .collect::<Option<_>>()?;
        let complete = object
            .get("total")
            .is_none_or(|total| total.as_u64() == Some(rows.len() as u64));
        let of_invoice = invoice
            .and_then(|invoice| id(invoice, "id"))
            .is_none_or(|id| id == invoice_id)
            && refunds.iter().all(|refund| refund.invoice_id == invoice_id);
        (complete && of_invoice).then(|| RefundList {
            refunds,
            total_refunded: invoice.and_then(|invoice| decimal(invoice, "total_refunded")),
        })
    }
}

fn agree<T: PartialEq>(shown: Option<T>, asked: Option<T>) -> bool {
    shown.is_none() || asked.is_none() || shown == asked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    fn invoice(body: Value) -> InvoiceSeen {
        InvoiceSeen::read(&body).expect("an invoice")
    }

    fn refund(body: Value) -> RefundSeen {
        RefundSeen::read(&body, 15).expect("a refund")
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
            let seen = InvoiceSeen {
                error_code: code.map(str::to_owned),
                ..InvoiceSeen::bare(15, InvoiceStatus::parse(status))
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
            InvoiceSeen {
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
                ..InvoiceSeen::bare(15, InvoiceStatus::Paid)
            }
        );
    }

    #[test]
    fn an_id_and_a_status_are_enough() {
        let bare = InvoiceSeen::bare(15, InvoiceStatus::Pending);
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
            assert_eq!(InvoiceSeen::read(&body), None, "{body}");
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
        let shown = invoice(
            json!({"id": 1, "status": "paid", "amount": "5000.00", "phone": "87001234567"}),
        );
        let silent = InvoiceSeen::bare(1, InvoiceStatus::Paid);
        let (amount, phone) = (
            Decimal::from(5000),
            Phone::parse("87001234567").expect("a number"),
        );
        let other = Phone::parse("87001234568").expect("a number");
        assert!(shown.agrees(Some(amount), Some(&phone)));
        assert!(shown.agrees(None, None));
        assert!(silent.agrees(Some(amount), Some(&phone)));
        assert!(!shown.agrees(Some(amount), Some(&other)));
        assert!(!shown.agrees(Some(Decimal::from(4999)), Some(&phone)));

        let shown = refund(json!({"id": 1, "status": "pending", "amount": 100.0}));
        assert!(shown.agrees(15, Some(Decimal::from(100))) && shown.agrees(15, None));
        assert!(!shown.agrees(16, None) && !shown.agrees(15, Some(Decimal::from(99))));
    }

    #[test]
    fn only_a_complete_list_of_refunds_is_read() {
        let row = json!({"id": 3, "invoice_id": 15, "status": "completed", "amount": "10.00", "reason": "x"});
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
            if let Some(seen) = InvoiceSeen::read(&body) {
                prop_assert!(seen.id > 0);
            }
            if let Some(seen) = RefundSeen::read(&body, 15) {
                prop_assert!(seen.id > 0 && seen.invoice_id > 0);
            }
            if let Some(list) = RefundList::read(&body, 15) {
                prop_assert!(list.refunds.iter().all(|refund| refund.invoice_id == 15));
            }
        }
    }
}
