//! What a decision makes true, as the rows that record it.

use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::job::{Epoch, JobId};
use crate::domain::state::State;

/// A transition among others: numbers and epochs come again after commits that were lost, tokens do not.
pub type Key = (JobId, Epoch, Uuid);

/// A job's move from one state to the next, with the evidence of the attempt that caused it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Transition {
    /// The job's number.
    pub job_id: i64,
    /// The job's token: numbers come again after commits that were lost.
    pub token: Uuid,
    /// The job's account.
    pub account: String,
    /// Who claimed it; none for an accepted job, which nobody claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<Uuid>,
    /// The epoch that the decision was made for.
    pub epoch: i64,
    /// The state that the decision was made for.
    pub from_state: State,
    /// `send` or `lookup`, when an attempt is to be closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// What the request did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<&'static str>,
    /// HTTP status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<i16>,
    /// The gateway's code, or the fault's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// The gateway's text, or what happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Errors by field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Value>,
    /// The wait that the gateway asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<f64>,
    /// The bounded body of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// Method, path and body of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// SHA-256 of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_sha256: Option<String>,
    /// How long the request took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i32>,
    /// The state to move to.
    pub state: State,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Not before this many seconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_s: Option<f64>,
    /// Counts against the limit of attempts.
    #[serde(skip_serializing_if = "is_false")]
    pub counts: bool,
    /// The request only asked for what is to be known before the job is sent.
    #[serde(skip_serializing_if = "is_false")]
    pub looked: bool,
    /// The request may have had its effect.
    #[serde(skip_serializing_if = "is_false")]
    pub unproven: bool,
    /// Every request so far is proven to have had none.
    #[serde(skip_serializing_if = "is_false")]
    pub proven: bool,
    /// A complete look-up found nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub absent: bool,
    /// The request got no clear answer.
    #[serde(skip_serializing_if = "is_false")]
    pub failing: bool,
    /// The send got a clear answer.
    #[serde(skip_serializing_if = "is_false")]
    pub answered: bool,
    /// The attempt's answer says nothing of why the job is where it is: its last answer stays.
    #[serde(skip_serializing_if = "is_false")]
    pub keeps_cause: bool,
    /// Begins a new generation.
    #[serde(skip_serializing_if = "is_false")]
    pub resubmitted: bool,
    /// The generation that died does not count against the limit.
    #[serde(skip_serializing_if = "is_false")]
    pub spared: bool,
    /// The gateway's id of the invoice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoice_id: Option<i64>,
    /// The gateway's id of the refund.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund_id: Option<i64>,
    /// The gateway's object, when succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What becomes of the job if the object that it takes is another job's: it is not taken then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<Instead>,
    /// The other job whose object it is, where that is known before the database was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<i64>,
}

/// What becomes of a job whose answer showed another job's object.
#[derive(Clone, Debug, Serialize)]
pub struct Instead {
    /// The state to move to.
    pub state: State,
    /// Why.
    pub reason: &'static str,
    /// Not before this many seconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_s: Option<f64>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Transition {
    /// Which one it is.
    pub fn key(&self) -> Key {
        (JobId(self.job_id), Epoch(self.epoch), self.token)
    }

    /// Whether it makes an object the job's own.
    pub(super) fn takes_object(&self) -> bool {
        self.instead.is_some() && self.state != State::Uncertain
    }

    /// Whether that object bears the job's name: then a human decides whose it is.
    pub(super) fn is_named(&self) -> bool {
        (self.instead.as_ref()).is_some_and(|instead| instead.state == State::Held)
    }

    /// Without what the gateway wrote, for a database that cannot store it.
    pub(super) fn without_answer(&self) -> Transition {
        Transition {
            answer: None,
            result: None,
            errors: None,
            retry_after_s: None,
            message: Some("the database cannot store what the gateway wrote".to_owned()),
            ..self.clone()
        }
    }
}

/// An invoice as last seen, for its mirror.
#[derive(Clone, Debug, Serialize)]
pub struct InvoiceRow {
    /// The account.
    pub account: String,
    /// The fingerprint of the key to which the gateway showed it.
    pub shown_to: String,
    /// The gateway's id.
    pub id: i64,
    /// When the gateway showed it so, by the database's clock; what it showed later stays.
    #[serde(with = "time::serde::rfc3339")]
    pub seen_at: OffsetDateTime,
    /// The job that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<i64>,
    /// That job's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Uuid>,
    /// The token in the mark that it bears, where it was not read as a job's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked_token: Option<Uuid>,
    /// The generation in that mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked_generation: Option<i16>,
    /// Its status.
    pub status: String,
    /// Amount in tenge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Decimal>,
    /// Refunded so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_refunded: Option<Decimal>,
    /// The merchant's order id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_order_id: Option<String>,
    /// Kaspi's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kaspi_invoice_id: Option<String>,
    /// Why it is in error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// The text for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Whether it exists in the sandbox only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_sandbox: Option<bool>,
    /// When the gateway created it.
    #[serde(
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<OffsetDateTime>,
    /// When the gateway last changed it.
    #[serde(
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub updated_at: Option<OffsetDateTime>,
    /// When it was paid, if the gateway says.
    #[serde(
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub paid_at: Option<OffsetDateTime>,
    /// Whether it is paid.
    pub paid: bool,
    /// When to look again, in seconds.
    pub check_after_s: f64,
    /// No longer followed.
    pub settled: bool,
    /// Its job may have other invoices, which are to be searched for.
    #[serde(skip_serializing_if = "is_false")]
    pub others_unsought: bool,
}

/// A refund as last seen, for its mirror.
#[derive(Clone, Debug, Serialize)]
pub struct RefundRow {
    /// The account.
    pub account: String,
    /// The gateway's id.
    pub id: i64,
    /// When the gateway showed it so, by the database's clock; what it showed later stays.
    #[serde(with = "time::serde::rfc3339")]
    pub seen_at: OffsetDateTime,
    /// The job that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<i64>,
    /// That job's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Uuid>,
    /// The refunded invoice.
    pub invoice_id: i64,
    /// Its status.
    pub status: String,
    /// Amount in tenge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Decimal>,
    /// The order id of its invoice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_order_id: Option<String>,
    /// The reason as the gateway has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// The text for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// When the gateway created it.
    #[serde(
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<OffsetDateTime>,
    /// When to look again, in seconds.
    pub check_after_s: f64,
    /// No longer followed.
    pub settled: bool,
}

/// Everything that one decision makes true; recorded whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The job's move.
    pub transition: Option<Transition>,
    /// The invoices that were seen.
    pub invoices: Vec<InvoiceRow>,
    /// The refund that was seen.
    pub refund: Option<RefundRow>,
}
