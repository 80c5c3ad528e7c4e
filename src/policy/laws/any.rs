//! Any history, answer, finding and state of an object: likely ones, edges, and nonsense.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option::{of, weighted};
use proptest::sample::select;
use serde_json::{Map, Value};

use super::*;
use crate::domain::answer::{Lost, NotSent};
use crate::domain::object::{Invoice, InvoiceStatus, Object, Refund};
use crate::policy::finding::Baseline;

const CODES: &str = "duplicate_idempotency_key tariff_inactive kaspi_session_expired grant_not_granted \
    kaspi_session_unavailable qr_cancel_unsupported kaspi_session_invalid organization_required \
    tariff_limit_reached kyc_daily_limit_reached outstanding_recipient_limit request_rate_limited \
    network_unavailable unknown_error client_not_found invoice_already_paid invoice_already_cancelled";

fn words(text: &'static str) -> Vec<&'static str> {
    text.split_whitespace().collect()
}

pub(super) fn any_kind() -> impl Strategy<Value = Kind> {
    (0_usize..3).prop_map(|index| kinds().into_iter().nth(index).expect("a kind"))
}

pub(super) fn any_protection() -> impl Strategy<Value = DuplicateProtection> {
    select(vec![DuplicateProtection::Key, DuplicateProtection::Lookup])
}

pub(super) fn any_jitter() -> impl Strategy<Value = Jitter> {
    (0.0..=1.0).prop_map(Jitter::new)
}

/// A span whose length is of any order of magnitude up to months.
pub(super) fn any_span() -> impl Strategy<Value = Duration> {
    (0_u32..24, 0.5..1.0)
        .prop_map(|(order, part)| Duration::from_secs_f64(part * f64::from(1 << order)))
}

pub(super) fn any_history() -> impl Strategy<Value = History> {
    let past = || of(any_span().prop_map(|span| NOW - span));
    (
        0_u32..40,
        1_i16..5,
        past(),
        past(),
        0_u32..120,
        of(1_i64..20),
        any::<bool>(),
        past(),
        any::<bool>(),
        any::<bool>(),
        past(),
        any::<bool>(),
    )
        .prop_map(
            |(
                attempts,
                generation,
                unproven_since,
                absent_since,
                lookups,
                invoice_id,
                is_sent_no_more,
                denied_since,
                is_key_taken,
                is_target_known,
                sent_at,
                is_repeated,
            )| History {
                attempts,
                generation,
                spared: 0,
                unproven_since,
                absent_since,
                lookups,
                failing_since: unproven_since,
                is_sent_no_more,
                is_target_known,
                sent_at,
                is_repeated,
                denied_since,
                invoice_id,
                is_key_taken,
            },
        )
}

pub(super) fn any_code() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => select(words(CODES)).prop_map(str::to_owned),
        1 => select(vec!["Invoice cannot be cancelled", "Kaspi session expired"]).prop_map(str::to_owned),
        1 => ".{0,20}",
    ]
}

pub(super) fn any_status() -> impl Strategy<Value = String> {
    let all = "processing pending cancelling paid partially_refunded cancelled expired error completed failed";
    prop_oneof![9 => select(words(all)).prop_map(str::to_owned), 1 => ".{0,9}"]
}

fn any_leaf() -> impl Strategy<Value = Value> {
    let moments =
        "2026-09-06T12:01:00Z 2026-09-07T12:00:00+05:00 1970-01-01T00:00:00Z 9999-12-31T23:59:59Z";
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-10_i64..100_000).prop_map(Value::from),
        "[0-9.eE+-]{1,40}"
            .prop_map(|digits| serde_json::from_str(&digits).unwrap_or(Value::from(digits))),
        select(words(moments)).prop_map(Value::from),
        any_code().prop_map(Value::from),
        any_status().prop_map(Value::from),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let keys = "error error_code message errors id invoice_id status amount refund invoice data meta \
        reset_at retry_after retry_after_seconds connection tariff kaspi_connected needs_reauth";
    any_leaf().prop_recursive(3, 40, 6, move |inner| {
        let key = select(words(keys)).prop_map(str::to_owned);
        prop_oneof![
            1 => vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => btree_map(key, inner, 0..8).prop_map(object_of),
        ]
    })
}

fn object_of(fields: BTreeMap<String, Value>) -> Value {
    Value::Object(fields.into_iter().collect::<Map<_, _>>())
}

/// The gateway's own error, with whatever else stands beside its code.
fn any_error() -> impl Strategy<Value = Value> {
    let hints = select(words(
        "retry_after retry_after_seconds reset_at meta invoice_id id",
    ));
    let more = btree_map(hints.prop_map(str::to_owned), any_json(), 0..3);
    (any_code(), more, any::<bool>()).prop_map(|(code, mut fields, modern)| {
        let field = if modern { "error_code" } else { "error" };
        fields.insert(field.to_owned(), Value::from(code));
        object_of(fields)
    })
}

/// A success of any of the three operations, nearly.
fn any_success() -> impl Strategy<Value = Value> {
    let amount = select(vec!["5000.00", "1000.50", "1.00"]);
    (any_status(), 14_i64..17, amount, any_code()).prop_map(|(status, id, amount, code)| {
        let object = json!({"id": id, "status": status, "amount": amount, "error_code": code});
        let mut body = object.clone();
        body["invoice_id"] = json!(id);
        body["invoice"] = json!({"id": id, "status": status, "error_code": code});
        body["refund"] = object;
        body
    })
}

fn any_body() -> impl Strategy<Value = Body> {
    prop_oneof![
        6 => any_error().prop_map(Body::Json),
        3 => any_success().prop_map(Body::Json),
        2 => any_json().prop_map(Body::Json),
        1 => ".{0,40}".prop_map(Body::Text),
        1 => Just(Body::TooLarge),
        1 => Just(Body::Broken),
    ]
}

pub(super) fn any_limits() -> impl Strategy<Value = Limits> {
    let dates =
        "Sun, 06 Sep 2026 12:02:00 GMT|Sun, 06 Sep 2026 11:00:00 GMT|Fri, 31 Dec 9999 23:59:59 GMT";
    let written = prop_oneof![
        (0_u32..200_000).prop_map(|seconds| seconds.to_string()),
        select(dates.split('|').collect::<Vec<_>>()).prop_map(str::to_owned),
        "[0-9.eE+-]{1,40}|.{0,20}",
    ];
    let around = NOW.unix_timestamp();
    let reset = prop_oneof![(around - 100..around + 100_000), any::<i64>()];
    let date = select(dates.split('|').collect::<Vec<_>>()).prop_map(str::to_owned);
    let any = (
        weighted(0.3, written),
        weighted(0.2, reset),
        weighted(0.3, date),
    );
    any.prop_map(|(retry_after, reset, date)| Limits {
        retry_after: retry_after.into_iter().collect(),
        reset,
        date,
        ..Limits::default()
    })
    .boxed()
}

pub(super) fn any_reply() -> impl Strategy<Value = Reply> {
    let statuses = vec![
        200, 201, 202, 302, 400, 401, 403, 404, 409, 410, 422, 429, 500, 502, 503, 504,
    ];
    let status = prop_oneof![9 => select(statuses), 1 => 100_u16..1000];
    let any = (status, any_body(), any_limits(), proptest::bool::ANY);
    let any = any.prop_map(|(status, body, limits, names_object)| {
        Reply::new(status, body, limits, names_object)
    });
    prop_oneof![3 => any, 1 => any_documented()]
}

/// What most tables know, with its own status.
fn any_documented() -> impl Strategy<Value = Reply> {
    let pairs = vec![
        (409, "duplicate_idempotency_key"),
        (409, "kaspi_session_unavailable"),
        (400, "Invoice cannot be cancelled"),
        (429, "outstanding_recipient_limit"),
        (429, "tariff_limit_reached"),
    ];
    (select(pairs), any_limits(), of(14_i64..17)).prop_map(|((status, code), limits, id)| {
        Reply::new(
            status,
            Body::Json(json!({"error": code, "invoice_id": id})),
            limits,
            false,
        )
    })
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let causes = vec![
        NotSent::Dns,
        NotSent::LookUpsHang,
        NotSent::Connect,
        NotSent::Tls,
        NotSent::CertificateExpired,
        NotSent::CertificateName,
        NotSent::CertificateIssuer,
        NotSent::ForbiddenAddress,
        NotSent::WindowClosed,
        NotSent::AccountParked,
        NotSent::KeyTooOld,
        NotSent::QuotaSpent,
        NotSent::DatabaseFailed,
        NotSent::UnknownOperation,
        NotSent::HistoryLost,
        NotSent::KeyDoubted,
        NotSent::AccountClosed,
    ];
    prop_oneof![
        1 => select(causes).prop_map(Answer::NotSent),
        1 => select(vec![Lost::Timeout, Lost::Cut]).prop_map(Answer::Lost),
        6 => any_reply().prop_map(Answer::Reply),
    ]
}

pub(super) fn any_timed() -> impl Strategy<Value = Timed> {
    (any_answer(), 0_u64..40).prop_map(|(answer, took)| Timed {
        answer,
        took: seconds(took),
    })
}

pub(super) fn any_baseline() -> impl Strategy<Value = Baseline> {
    vec(1_i64..6, 0..4).prop_map(|refund_ids| Baseline {
        refund_ids,
        is_told_apart: false,
    })
}

fn any_mark() -> impl Strategy<Value = String> {
    let other = JobName {
        generation: 2,
        ..NAME
    };
    let texts = vec![
        NAME.mark(),
        NAME.marked(Some("брак")),
        NAME.to_string(),
        other.mark(),
        "возврат".to_owned(),
    ];
    select(texts)
}

fn any_invoice() -> impl Strategy<Value = Invoice> {
    let amount = of(select(vec!["5000.00", "5001.00"]));
    (
        14_i64..17,
        any_status(),
        any_code(),
        amount,
        of(any_mark()),
        of(any_mark()),
    )
        .prop_map(|(id, status, code, amount, order, comment)| {
            Invoice::read(&json!({
                "id": id, "status": status, "error_code": code, "amount": amount,
                "external_order_id": order, "internal_comment": comment,
            }))
            .expect("an invoice")
        })
}

fn any_refund() -> impl Strategy<Value = Refund> {
    (1_i64..9, any_status(), weighted(0.8, any_mark()))
        .prop_map(|(id, status, reason)| refund_row(id, &status, reason.as_deref()))
}

/// What a look-up of this kind of job can bring.
pub(super) fn suited(kind: &Kind, finding: Finding) -> Finding {
    let suits = match finding {
        Finding::Listed(ref all) => match all.first() {
            Some(Object::Invoice(_)) => kind.plan.resend == Resend::ByProtection,
            Some(Object::Refund(_)) => kind.plan.resend == Resend::ByBaseline,
            None => kind.plan.resend != Resend::Harmless,
        },
        Finding::Read(_) => kind.plan.resend != Resend::ByBaseline,
        Finding::Unclear(_) => true,
    };
    if suits {
        finding
    } else {
        Finding::Unclear(timed(Answer::Lost(Lost::Cut)))
    }
}

pub(super) fn any_finding() -> impl Strategy<Value = Finding> {
    prop_oneof![
        vec(any_invoice(), 0..3).prop_map(Finding::listed),
        any_invoice().prop_map(Finding::read),
        vec(any_refund(), 0..3).prop_map(Finding::listed),
        any_timed().prop_map(Finding::Unclear),
    ]
}

/// Whether the job's own object is in it, by rules written without the help of the code under test.
pub(super) fn shows_ours(finding: &Finding) -> bool {
    shows(finding, |_| true)
}

/// The same, of what is not dead.
pub(super) fn shows_ours_alive(finding: &Finding) -> bool {
    shows(finding, |status| {
        !["error", "cancelled", "expired", "failed"].contains(&status)
    })
}

fn shows(finding: &Finding, counts: impl Fn(&str) -> bool) -> bool {
    let ours = |text: &Option<String>| {
        text.as_ref()
            .is_some_and(|text| text.contains(&NAME.mark()))
    };
    match finding {
        Finding::Listed(found) => found.iter().any(|object| match object {
            Object::Invoice(invoice) => {
                let is_ours = ours(&invoice.internal_comment)
                    || invoice.external_order_id == Some(NAME.to_string());
                is_ours && counts(invoice.standing().as_str())
            }
            Object::Refund(refund) => ours(&refund.reason) && counts(refund.status.as_str()),
        }),
        Finding::Read(_) => true,
        Finding::Unclear(_) => false,
    }
}

/// An invoice whose key the gateway takes for a new one.
pub(super) fn shows_free_key(finding: &Finding) -> bool {
    let Finding::Listed(found) = finding else {
        return false;
    };
    let is_free = |status: &str| matches!(status, "error" | "cancelled" | "expired");
    let is_free = |object: &Object| match object {
        Object::Invoice(invoice) => is_free(invoice.status.as_str()),
        Object::Refund(_) => false,
    };
    shows_ours(finding) && found.iter().any(is_free)
}

pub(super) fn shows_stranger(finding: &Finding, known: &Baseline) -> bool {
    let Finding::Listed(list) = finding else {
        return false;
    };
    list.iter().any(|object| {
        let Object::Refund(refund) = object else {
            return false;
        };
        let marked = refund
            .reason
            .as_ref()
            .is_some_and(|reason| reason.contains("[apipayd "));
        !marked && !known.refund_ids.contains(&refund.id)
    })
}

/// The object that a job of this kind follows.
pub(super) fn object(kind: &Kind, status: &str, code: &str) -> Object {
    if kind.plan.resend == Resend::ByBaseline {
        let mut refund = refund_row(3, status, None);
        refund.error_code = Some(code.to_owned());
        return Object::Refund(refund);
    }
    Object::Invoice(Invoice {
        error_code: Some(code.to_owned()),
        ..Invoice::bare(15, InvoiceStatus::parse(status))
    })
}

/// What may come to light about a job next, whatever its state is.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub timed: Timed,
    pub finding: Finding,
    pub status: String,
    pub code: String,
    pub later: Duration,
}

pub(super) fn any_facts() -> impl Strategy<Value = Facts> {
    let later = (0_u64..1200).prop_map(seconds);
    (any_timed(), any_finding(), any_status(), any_code(), later).prop_map(
        |(timed, finding, status, code, later)| Facts {
            timed,
            finding,
            status,
            code,
            later,
        },
    )
}
