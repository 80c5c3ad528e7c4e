//! Decisions as rows: a verdict with its evidence becomes an entry of the record. Pure.

mod mirror;

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::db::entry::{Entry, Instead, Transition};
use crate::db::seconds;
use crate::domain::answer::{Answer, Body, NotSent, Reply, Timed, beginning};
use crate::domain::errors::FieldErrors;
use crate::domain::object::Object;
use crate::domain::operation::{Plan, Request};
use crate::policy::hints;
use crate::policy::outage::Sign;
use crate::policy::verdict::{Effect, Next, Proof, Reason, Verdict};
use crate::worker::alerting::{ANOTHERS, DIFFERS, Known};
use crate::worker::guard::Guard;
use crate::worker::recorder::Signed;

pub use mirror::{Following, first_mirror, invoice_row, refund_row};

/// What a decision rests on: a request about a job and its answer.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// The job.
    pub guard: &'a Guard,
    /// What the request was for.
    pub kind: AttemptKind,
    /// What the job asks for.
    pub plan: &'a Plan,
    /// What was sent.
    pub request: &'a Request,
    /// What came back.
    pub timed: &'a Timed,
    /// The database's clock when it came back: the moment that the verdict was given for.
    pub now: OffsetDateTime,
    /// What the end of the request says of the gateway.
    pub signed: Signed,
    /// Since when requests of the job got no clear answer, before this one.
    pub failing_since: Option<OffsetDateTime>,
    /// The object that the job acts on, if that was read: whatever becomes of the job, its mirror shows it.
    pub read: Option<&'a Object>,
    /// What becomes of the job instead, should the object that it takes be another job's.
    pub instead: Option<Next>,
    /// Whether the job may have other invoices beside the one that it takes, see [`others`](crate::policy::others).
    pub may_have_others: bool,
    /// What is known of the job, should a human have to decide; what was found is said of it in any case.
    pub known: Known<'a>,
}

/// What an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKind {
    /// The operation itself.
    Send,
    /// Asking for what is to be known before the operation itself: nothing of that was sent.
    First,
    /// Asking whether an earlier send had its effect.
    Lookup,
}

impl AttemptKind {
    /// The word in `apipay.attempts.kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            AttemptKind::Send | AttemptKind::First => "send",
            AttemptKind::Lookup => "lookup",
        }
    }
}

/// The entry for a send or a look-up that got this verdict.
pub fn entry(evidence: &Evidence<'_>, verdict: &Verdict, following: Following<'_>) -> Entry {
    let Evidence {
        guard,
        kind,
        plan,
        request,
        timed,
        now,
        ref signed,
        failing_since: _,
        read,
        ref instead,
        may_have_others,
        known,
    } = *evidence;
    let mut transition = Transition {
        kind: Some(kind.as_str()),
        effect: Some(verdict.effect.as_str()),
        counts: verdict.counts,
        looked: kind == AttemptKind::First,
        // A look-up is a read: what may be unproven is an earlier send, which is noted already.
        unproven: kind != AttemptKind::Lookup && is_unproven(verdict),
        failing: matches!(signed.sign, Sign::Failing(_) | Sign::GivenUp(_)),
        answered: kind == AttemptKind::Send && signed.sign == Sign::Clear,
        request: Some(written(request)),
        request_sha256: request.body.as_ref().map(|body| sha256(&body.to_string())),
        instead: instead.as_ref().and_then(as_instead),
        ..moved(guard, &verdict.next)
    };
    attach_answer(&mut transition, timed, now);
    if !matches!(verdict.next, Next::Succeeded(_) | Next::Accepted { .. }) {
        let own = transition.message.take();
        transition.message = (known.found)
            .map(str::to_owned)
            .or(own)
            .or_else(|| explain(&timed.answer));
    }
    if known.is_taken_anyway {
        transition.error_code = Some(DIFFERS.to_owned());
    }
    // A look-up that finds nothing says nothing of why the job is looked up.
    transition.keeps_cause = kind == AttemptKind::Lookup
        && known.found.is_some()
        && matches!(
            verdict.next,
            Next::Uncertain { .. } | Next::Queued { .. } | Next::Failed(Reason::GaveUp)
        );
    let mirror = match &verdict.next {
        Next::Succeeded(seen)
        | Next::Accepted { seen, .. }
        | Next::CalledOff {
            dead: Some(seen), ..
        } => {
            let made_by = (!plan.lookup.acts_on_object()).then_some(guard.maker());
            let mut mirror = first_mirror(&guard.account, made_by, seen, following);
            for invoice in &mut mirror.invoices {
                invoice.others_unsought = may_have_others;
            }
            mirror
        }
        _ => read.map_or_else(Entry::default, |seen| {
            first_mirror(&guard.account, None, seen, following)
        }),
    };
    Entry {
        transition: Some(transition),
        ..mirror
    }
}

/// The entry for a job whose params the operation refuses: nothing was sent, and it ends.
pub fn invalid_params(guard: &Guard, kind: AttemptKind, errors: &FieldErrors) -> Entry {
    refused(guard, kind, errors, &Next::Failed(Reason::InvalidParams))
}

/// The entry for a job whose params the operation refuses, and of which an earlier request may have had its effect: nothing
/// was sent, and it is looked up before it ends.
pub fn invalid_params_unproven(guard: &Guard, errors: &FieldErrors) -> Entry {
    let looked_up = Next::Uncertain {
        after: Duration::ZERO,
        reason: Reason::InvalidParams,
        invoice_id: None,
        absent: false,
    };
    refused(guard, AttemptKind::Send, errors, &looked_up)
}

fn refused(guard: &Guard, kind: AttemptKind, errors: &FieldErrors, next: &Next) -> Entry {
    let transition = Transition {
        kind: Some(kind.as_str()),
        effect: Some(Effect::NotApplied.as_str()),
        error_code: Some("invalid_params".to_owned()),
        message: Some(errors.to_string()),
        errors: serde_json::to_value(errors).ok(),
        ..moved(guard, next)
    };
    Entry {
        transition: Some(transition),
        ..Entry::default()
    }
}

/// The entry for a job that was claimed and not sent, for a cause of ours.
pub fn not_sent(guard: &Guard, cause: NotSent, verdict: &Verdict) -> Entry {
    let transition = Transition {
        kind: Some(AttemptKind::Send.as_str()),
        effect: Some(verdict.effect.as_str()),
        error_code: Some(cause.code().to_owned()),
        message: explain(&Answer::NotSent(cause)),
        counts: verdict.counts,
        ..moved(guard, &verdict.next)
    };
    Entry {
        transition: Some(transition),
        ..Entry::default()
    }
}

fn as_instead(next: &Next) -> Option<Instead> {
    Some(Instead {
        state: next.state(),
        reason: next.reason()?.code(),
        after_s: match next {
            Next::Uncertain { after, .. } => Some(seconds(*after)),
            _ => None,
        },
    })
}

/// The move of an accepted job whose object looks like this, with the mirrors of what was seen: without it nothing may say
/// how the object stands, for who reads that goes by it. That of another invoice is added, if the job turns out to have
/// that one. `known` is what a human decides on.
pub fn followed(
    guard: &Guard,
    next: &Next,
    seen: &Object,
    mirrors: Entry,
    known: Known<'_>,
    following: Following<'_>,
) -> Entry {
    let mut transition = moved(guard, next);
    if matches!(next, Next::Failed(_) | Next::Resubmit(_)) {
        transition.message = seen.error_message().map(str::to_owned);
        transition.error_code = seen.error_code().map(str::to_owned);
    }
    let mut entry = mirrors;
    match next {
        Next::Accepted { seen: now, .. } | Next::Succeeded(now) => {
            if now.id() != seen.id() {
                let other = first_mirror(&guard.account, Some(guard.maker()), now, following);
                entry.invoices.extend(other.invoices);
            }
            if matches!(next, Next::Accepted { .. }) {
                transition.message = now.error_message().map(str::to_owned);
            }
        }
        Next::Held(_) => {
            transition.message = known.found.map(str::to_owned);
            transition.error_code = known.is_anothers.then(|| ANOTHERS.to_owned());
        }
        Next::Failed(_)
        | Next::Queued { .. }
        | Next::Resubmit(_)
        | Next::Parked(_)
        | Next::Uncertain { .. }
        | Next::CalledOff { .. } => {}
    }
    entry.transition = Some(transition);
    entry
}

/// Closes a look-up that could not be made because the job's row cannot be read, and holds the job.
pub fn held(guard: &Guard, message: &str) -> Entry {
    let transition = Transition {
        kind: Some(AttemptKind::Lookup.as_str()),
        effect: Some(Effect::Unknown.as_str()),
        message: Some(message.to_owned()),
        ..moved(guard, &Next::Held(Reason::UnknownOutcome))
    };
    Entry {
        transition: Some(transition),
        ..Entry::default()
    }
}

/// Ends a job of which a person said that nothing was done and that it is to end, and whose row cannot be read, so that
/// nothing can be looked up: their word is all there is.
pub fn called_off(guard: &Guard, message: &str) -> Entry {
    let next = Next::CalledOff {
        dead: None,
        is_seen: false,
    };
    let transition = Transition {
        kind: Some(AttemptKind::Lookup.as_str()),
        effect: Some(Effect::Unknown.as_str()),
        message: Some(message.to_owned()),
        ..moved(guard, &next)
    };
    Entry {
        transition: Some(transition),
        ..Entry::default()
    }
}

/// Whether the request of this verdict may have had an effect that stands nowhere yet.
fn is_unproven(verdict: &Verdict) -> bool {
    let undecided = matches!(verdict.next, Next::Uncertain { .. } | Next::Held(_));
    undecided && matches!(verdict.effect, Effect::Unknown | Effect::Applied)
}

/// The job's move, without evidence.
fn moved(guard: &Guard, next: &Next) -> Transition {
    // The database refuses any other.
    debug_assert!(
        guard.state.may_become(next.state()),
        "{}: {next:?}",
        guard.state
    );
    let mut transition = Transition {
        job_id: guard.id.0,
        token: guard.token,
        account: guard.account.to_string(),
        worker: guard.worker,
        epoch: guard.epoch.0,
        from_state: guard.state,
        state: next.state(),
        reason: next.reason().map(Reason::code),
        ..Transition::default()
    };
    match next {
        Next::Succeeded(seen) => {
            attach_ids(&mut transition, seen);
            transition.proven = true;
            transition.result = Some(seen.result());
        }
        Next::Accepted { seen, .. } => {
            attach_ids(&mut transition, seen);
            transition.proven = true;
            transition.error_code = seen.error_code().map(str::to_owned);
        }
        Next::Queued { after, proof, .. } => {
            transition.after_s = Some(seconds(*after));
            transition.proven = *proof == Proof::NothingApplied;
        }
        Next::Resubmit(_) => {
            transition.after_s = Some(0.0);
            transition.resubmitted = true;
            transition.spared = next.is_spared();
        }
        Next::Uncertain {
            after,
            invoice_id,
            absent,
            ..
        } => {
            transition.after_s = Some(seconds(*after));
            transition.invoice_id = *invoice_id;
            transition.absent = *absent;
        }
        Next::CalledOff { dead, .. } => {
            if let Some(seen) = dead {
                attach_ids(&mut transition, seen);
            }
            transition.proven = true;
        }
        Next::Failed(_) => transition.proven = true,
        Next::Parked(_) | Next::Held(_) => {}
    }
    transition
}

fn attach_ids(transition: &mut Transition, seen: &Object) {
    let numbers = seen.numbers();
    transition.invoice_id = Some(numbers.invoice_id);
    transition.refund_id = numbers.refund_id;
}

fn attach_answer(transition: &mut Transition, timed: &Timed, now: OffsetDateTime) {
    transition.duration_ms = i32::try_from(timed.took.as_millis()).ok();
    match &timed.answer {
        Answer::NotSent(cause) => transition.error_code = Some(cause.code().to_owned()),
        Answer::Lost(lost) => transition.error_code = Some(lost.code().to_owned()),
        Answer::Reply(reply) => {
            transition.http_status = i16::try_from(reply.status).ok();
            transition.answer = bounded(&reply.body);
            transition.retry_after_s = hints::wait(reply, now).map(seconds);
            if reply.status >= 400 {
                transition.error_code = reply.stable_code();
                transition.message = reply.said().map(str::to_owned);
                transition.errors = reply
                    .object()
                    .and_then(|body| body.get("errors"))
                    .filter(|errors| errors.to_string().len() <= ANSWER_BYTES)
                    .cloned();
            }
        }
    }
}

/// What happened, where the gateway gave no text of its own.
pub fn explain(answer: &Answer) -> Option<String> {
    let text = match answer {
        Answer::NotSent(NotSent::Dns) => {
            "the gateway's name could not be resolved; nothing was sent"
        }
        Answer::NotSent(NotSent::LookUpsHang) => {
            "look-ups of the gateway's name hang until apipayd is started again; nothing was sent"
        }
        Answer::NotSent(NotSent::Connect) => "no connection to the gateway; nothing was sent",
        Answer::NotSent(NotSent::Tls) => {
            "the TLS handshake with the gateway failed; nothing was sent"
        }
        Answer::NotSent(NotSent::CertificateExpired) => {
            "the gateway's certificate is out of date, or this machine's clock is; nothing was sent"
        }
        Answer::NotSent(NotSent::CertificateName) => {
            "the gateway's certificate is another host's; nothing was sent"
        }
        Answer::NotSent(NotSent::CertificateIssuer) => {
            "this machine trusts nobody who vouches for the gateway's certificate; nothing was sent"
        }
        Answer::NotSent(NotSent::ForbiddenAddress) => {
            "the gateway's name leads to a private address; nothing was sent"
        }
        Answer::NotSent(NotSent::Stopping) => "the daemon was told to stop; nothing was sent",
        Answer::NotSent(NotSent::WindowClosed) => {
            "too much of the lease was gone; nothing was sent"
        }
        Answer::NotSent(NotSent::AccountParked) => {
            "the account was parked after the job was claimed; nothing was sent"
        }
        Answer::NotSent(NotSent::KeyTooOld) => {
            "an earlier request is unproven for too long; it is looked up first, and nothing was sent"
        }
        Answer::NotSent(NotSent::QuotaSpent) => {
            "the account's limit of requests left none for what had to be read first; nothing was sent"
        }
        Answer::NotSent(NotSent::DatabaseFailed) => {
            "the database did not take what had to be written first; nothing was sent"
        }
        Answer::NotSent(NotSent::HistoryLost) => {
            "the database has forgotten what was committed; nothing was sent"
        }
        Answer::NotSent(NotSent::KeyDoubted) => {
            "the account's key is not known to be of its organization; nothing was sent"
        }
        Answer::NotSent(NotSent::AccountClosed) => {
            "the account was taken out of the daemon's configuration, or changed there; nothing was sent"
        }
        Answer::NotSent(NotSent::UnknownOperation) => {
            "this version of apipayd does not know the operation; nothing was sent"
        }
        Answer::Lost(lost) => match lost {
            crate::domain::answer::Lost::Timeout => "no complete answer in time",
            crate::domain::answer::Lost::Cut => "the connection ended before the answer",
        },
        Answer::Reply(Reply {
            body: Body::TooLarge,
            ..
        }) => "the answer was longer than http.max_body_bytes, or of far too many values",
        Answer::Reply(Reply {
            body: Body::Broken, ..
        }) => "the answer broke off",
        Answer::Reply(Reply {
            body: Body::Text(_),
            ..
        }) => "the answer was not JSON",
        Answer::Reply(Reply {
            body: Body::Json(_),
            status,
            ..
        }) if *status < 400 => "the answer had not the documented shape",
        Answer::Reply(_) => return None,
    };
    Some(text.to_owned())
}

const ANSWER_BYTES: usize = 16 * 1024;

/// The body of an answer for the ledger: whole if it is short JSON, else the beginning of its text.
fn bounded(body: &Body) -> Option<Value> {
    match body {
        Body::Json(value) => {
            let text = value.to_string();
            Some(if text.len() <= ANSWER_BYTES {
                value.clone()
            } else {
                Value::String(beginning(&text, ANSWER_BYTES).to_owned())
            })
        }
        Body::Text(text) => Some(Value::String(beginning(text, ANSWER_BYTES).to_owned())),
        Body::TooLarge | Body::Broken => None,
    }
}

fn written(request: &Request) -> Value {
    json!({ "method": request.method.as_str(), "path": request.path, "body": request.body })
}

fn sha256(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
