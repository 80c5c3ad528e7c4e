//! The gateway: what it did (its ledger), what it shows, and how its answers read.
//!
//! Answers are built as the JSON that the gateway sends, so that the daemon's own readers judge them.

use std::time::Duration;

use apipayd::domain::answer::{Answer, Body, Limits, Reply, Timed};
use apipayd::domain::operation::Planned;
use serde_json::{Value, json};

use crate::setup::{FOR_EVER, Op, Setup};

/// The invoice that refunds and cancels act on.
pub(crate) const TARGET_ID: i64 = 15;

/// The id of the first object that the gateway makes.
const FIRST_ID: i64 = 101;

/// The gateway's id of an object.
pub(crate) fn id_of(object: u8) -> i64 {
    FIRST_ID + i64::from(object)
}

/// The object with this id, if it is one that was made here.
pub(crate) fn object_of(id: i64) -> Option<u8> {
    u8::try_from(id - FIRST_ID).ok()
}

/// Everything that the gateway knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Gateway {
    /// Invoices or refunds, in the order of their ids.
    pub(crate) objects: Vec<Object>,
    /// The invoice that a cancel acts on.
    pub(crate) target: Target,
    /// How often a cancel had its effect.
    pub(crate) cancels: u8,
}

/// An invoice or a refund: an effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Object {
    /// The job it was made for.
    pub(crate) job: u8,
    /// Whether it got to where it was to go: the invoice to the customer, the money back.
    pub(crate) done: bool,
    /// For how many ticks lists may hide it.
    pub(crate) hidden: u8,
    /// For how many ticks it holds its key.
    pub(crate) life: u8,
}

/// How the invoice of a cancel stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Target {
    /// With the customer.
    #[default]
    Pending,
    /// The cancel is under way.
    Cancelling,
    /// Cancelled.
    Cancelled,
    /// Paid.
    Paid,
}

/// What the gateway answers to a request that it worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Response {
    /// 201 with the object.
    Made(u8),
    /// 409: the key already made this object.
    Duplicate(u8),
    /// 202: the cancel is queued.
    CancelQueued,
    /// 400: the invoice's state forbids it.
    StateRefused,
    /// 422
    Refused,
    /// 503: the Kaspi session is gone.
    SessionGone,
}

/// What a read of the gateway showed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Glimpse {
    /// An error.
    Nothing,
    /// A list of these objects, and whether each is done.
    List(Vec<(u8, bool)>),
    /// This object, asked for by its id, and whether it is done.
    One(u8, bool),
    /// The invoice that a cancel acts on.
    Target(Target),
}

/// What a read may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sight {
    /// Everything there is.
    Whole,
    /// Without what the list may still hide.
    Lagging,
    /// A 502.
    Error,
}

impl Gateway {
    /// Does what the request of a job asks for, or answers why not.
    pub(crate) fn work(&mut self, setup: &Setup, job: u8) -> Response {
        match setup.operation {
            Op::Cancel if self.target == Target::Pending => {
                self.target = Target::Cancelling;
                self.cancels += 1;
                Response::CancelQueued
            }
            Op::Cancel => Response::StateRefused,
            Op::Create | Op::Refund => {
                let by_key = |object: &Object| {
                    setup.operation == Op::Create
                        && setup.honours_key
                        && object.job == job
                        && object.life > 0
                };
                match index(self.objects.iter().position(by_key)) {
                    Some(object) => Response::Duplicate(object),
                    None => {
                        self.objects.push(Object {
                            job,
                            done: false,
                            hidden: setup.lag,
                            life: setup.invoice_life.unwrap_or(1),
                        });
                        Response::Made(index(Some(self.objects.len() - 1)).unwrap_or(u8::MAX))
                    }
                }
            }
        }
    }

    /// The objects that a list shows.
    pub(crate) fn list(&self, sight: Sight) -> Glimpse {
        let shown = |object: &Object| sight == Sight::Whole || object.hidden == 0;
        match sight {
            Sight::Error => Glimpse::Nothing,
            Sight::Whole | Sight::Lagging => Glimpse::List(
                (0_u8..)
                    .zip(&self.objects)
                    .filter(|(_, object)| shown(object))
                    .map(|(number, object)| (number, object.done))
                    .collect(),
            ),
        }
    }

    /// One object, asked for by its id: this never lags.
    pub(crate) fn one(&self, object: u8) -> Glimpse {
        let found = self.objects.get(usize::from(object));
        found.map_or(Glimpse::Nothing, |found| Glimpse::One(object, found.done))
    }

    /// Whether a list can hide anything.
    pub(crate) fn hides(&self) -> bool {
        self.objects.iter().any(|object| object.hidden > 0)
    }

    /// Effects of a job so far.
    pub(crate) fn effects(&self, setup: &Setup, job: u8) -> usize {
        match setup.operation {
            Op::Cancel => usize::from(self.cancels),
            Op::Create | Op::Refund => self.objects.iter().filter(|made| made.job == job).count(),
        }
    }

    /// Lets a tick pass.
    pub(crate) fn tick(&mut self, setup: &Setup) {
        for object in &mut self.objects {
            if object.hidden != FOR_EVER {
                object.hidden = object.hidden.saturating_sub(1);
            }
            if setup.invoice_life.is_some() {
                object.life = object.life.saturating_sub(1);
            }
        }
    }
}

fn index(position: Option<usize>) -> Option<u8> {
    position.and_then(|position| u8::try_from(position).ok())
}

/// Writes the gateway's answers.
pub(crate) struct Writer<'a> {
    /// The configuration.
    pub(crate) setup: &'a Setup,
    /// The plans of the jobs: what the gateway was sent.
    pub(crate) plans: &'a [Planned],
}

impl Writer<'_> {
    /// The answer to a send.
    pub(crate) fn response(&self, response: Response, job_of: &[u8], done: bool) -> (u16, Value) {
        let object = |number: u8| self.object(job_of, number, done);
        match (response, self.setup.operation) {
            (Response::Made(number), Op::Refund) => (201, json!({ "refund": object(number) })),
            (Response::Made(number), _) => (201, object(number)),
            (Response::Duplicate(number), _) => (
                409,
                json!({ "error": "duplicate_idempotency_key", "invoice_id": id_of(number) }),
            ),
            (Response::CancelQueued, _) => (202, json!({ "invoice_id": TARGET_ID })),
            (Response::StateRefused, _) => (400, json!({ "error": "Invoice cannot be cancelled" })),
            (Response::Refused, _) => (422, json!({ "message": "no", "errors": {} })),
            (Response::SessionGone, _) => (503, json!({ "error": "kaspi_session_invalid" })),
        }
    }

    /// The answer to a list or search with these objects.
    pub(crate) fn list(&self, job_of: &[u8], shown: &[(u8, bool)]) -> (u16, Value) {
        let rows: Vec<Value> = shown
            .iter()
            .map(|(number, done)| self.object(job_of, *number, *done))
            .collect();
        let total = rows.len();
        let body = match self.setup.operation {
            Op::Refund => {
                json!({ "invoice": { "id": TARGET_ID }, "refunds": rows, "total": total })
            }
            Op::Create | Op::Cancel => json!({ "data": rows, "total": total }),
        };
        (200, body)
    }

    /// An object, with what its request said of it.
    pub(crate) fn object(&self, job_of: &[u8], number: u8, done: bool) -> Value {
        let job = usize::from(job_of[usize::from(number)]);
        let asked = self.plans[job].request.body.clone().unwrap_or_default();
        let mut row = asked.as_object().cloned().unwrap_or_default();
        if !self.setup.echoes {
            row.remove("reason");
        }
        let status = match (self.setup.operation, done) {
            (Op::Refund, true) => "completed",
            (Op::Create | Op::Cancel, false) => "processing",
            (Op::Refund, false) | (Op::Create | Op::Cancel, true) => "pending",
        };
        row.insert("id".to_owned(), json!(id_of(number)));
        row.insert("status".to_owned(), json!(status));
        Value::Object(row)
    }

    /// The invoice that a cancel acts on.
    pub(crate) fn target(target: Target) -> Value {
        let status = match target {
            Target::Pending => "pending",
            Target::Cancelling => "cancelling",
            Target::Cancelled => "cancelled",
            Target::Paid => "paid",
        };
        json!({ "id": TARGET_ID, "status": status })
    }
}

/// A complete answer as the daemon's client hands it on.
pub(crate) fn timed((status, body): (u16, Value), took: Duration) -> Timed {
    Timed {
        answer: Answer::Reply(Reply::new(
            status,
            Body::Json(body),
            Limits::default(),
            true,
        )),
        took,
    }
}
