//! What people are told when a payment waits, and what they can do about it.

use std::time::Duration;

use serde_json::json;
use time::format_description::well_known::Rfc3339;

use crate::db::accounts::{AlertText, Park};
use crate::db::blocker::Blocker;
use crate::db::clock::SteadySecond;
use crate::db::fate::Lost;
use crate::db::fault::Cause;
use crate::db::locked::Locked;
use crate::db::mirrors::{DueMirror, Waiting};
use crate::db::record::Transition;
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::mirror::InvoiceStatus;
use crate::domain::outage::Fault;
use crate::policy::clock::SpanUs;
use crate::policy::remedy::{self, Remedy};
use crate::policy::verdict::{Next, Reason};
use crate::worker::failing::Telling;
use crate::worker::outcome::Guard;
use crate::worker::recorder::Forgotten;

/// An alert to open.
#[derive(Clone, Debug)]
pub struct Alarm {
    /// Its kind.
    pub kind: &'static str,
    /// `critical` or `warning`.
    pub severity: &'static str,
    /// What it says.
    pub text: AlertText,
}

impl Alarm {
    /// The alert of what becomes of a job, if a human has to decide.
    pub fn of(guard: &Guard, next: &Next) -> Option<Alarm> {
        match next {
            Next::Held(reason) => Some(Alarm::held(&guard.account, guard.id, reason.code())),
            _ => None,
        }
    }

    /// A human has to decide about a job, for a reason with this code.
    pub fn held(account: &AccountName, id: JobId, reason: &str) -> Alarm {
        let (kind, what) = if reason == Reason::DuplicateDetected.code() {
            (
                "duplicate_detected",
                "more than one object at ApiPay carries its name",
            )
        } else if reason == Reason::Mismatch.code() {
            (
                "job_held",
                "the object with its name or key has another amount, payer or order",
            )
        } else {
            (
                "job_held",
                "whether its request had its effect cannot be told from here",
            )
        };
        Alarm {
            kind,
            severity: "critical",
            text: AlertText {
                summary: format!("Job {id} of account {account} is held: {what}."),
                action: format!(
                    "look the payment up in the ApiPay dashboard, then: \
                     select apipay.resolve({id}, true, GATEWAY_ID, 'why'); if it is there, or \
                     select apipay.resolve({id}, false, null, 'why'); if it is not. \
                     All held jobs: select * from apipay.uncertain;"
                ),
                details: json!({ "job": id.0, "reason": reason }),
            },
        }
    }

    /// The gateway took a job on and does not come to an end with it.
    pub fn overdue(mirror: &DueMirror, job: &Waiting) -> Alarm {
        let (account, id, invoice) = (&mirror.account, job.id, mirror.invoice_id);
        let hours = job.accepted_for.as_secs() / 3600;
        Alarm {
            kind: "job_overdue",
            severity: "warning",
            text: AlertText {
                summary: format!(
                    "Job {id} of account {account} was accepted {hours} h ago and has not come to its end."
                ),
                action: format!(
                    "look invoice {invoice} up in the ApiPay dashboard, or ask ApiPay's support what holds it up; \
                     the daemon goes on asking. All that were accepted: \
                     select * from apipay.overview where state = 'accepted' order by updated_at;"
                ),
                details: json!({ "job": id.0, "invoice": invoice }),
            },
        }
    }

    /// An invoice that was given up for dead is alive: the customer may pay it, and a later one too.
    pub fn revived(mirror: &DueMirror, status: &InvoiceStatus) -> Alarm {
        let (account, invoice, job) = (
            &mirror.account,
            mirror.invoice_id,
            mirror.made_by.unwrap_or_default(),
        );
        Alarm {
            kind: "duplicate_detected",
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "Invoice {invoice} of account {account} had failed and is {status} after all."
                ),
                action: format!(
                    "job {job} was given up or sent anew because of it: if both invoices live, cancel one with \
                     select apipay.cancel_invoice({invoice});"
                ),
                details: json!({ "invoice": invoice, "job": job, "status": status.as_str() }),
            },
        }
    }

    /// A cap of the account is reached, and its wait may be long.
    pub fn capped(account: &AccountName, code: &str, wait: Duration) -> Alarm {
        Alarm {
            kind: "cap_reached",
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "Account {account} has reached a cap ({code}); its payments wait {} minutes.",
                    wait.as_secs().div_ceil(60)
                ),
                action: format!(
                    "raise the cap or get the organisation approved in the ApiPay dashboard, then: \
                     select apipay.resume('{account}', 'why');"
                ),
                details: json!({ "code": code }),
            },
        }
    }

    /// The gateway gives no clear answer to the account, or to some job of it, for too long.
    pub fn failing(account: &AccountName, telling: &Telling) -> Alarm {
        let Telling { fault, since } = telling;
        let Remedy { what, action } = remedy::of_fault(fault);
        let since = since.replace_nanosecond(0).unwrap_or(*since);
        let since = since.format(&Rfc3339).unwrap_or_default();
        Alarm {
            kind: "gateway_failing",
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "ApiPay {what} for account {account} since {since} ({}): payments wait.",
                    seen(fault)
                ),
                action: format!(
                    "{action}. Nothing is lost: payments go on by themselves with the first clear answer; to try one \
                     now: select apipay.resume('{account}', 'why'); What waits, and until when: select * from apipay.waiting where account = '{account}';"
                ),
                details: json!({ "code": fault.code, "http_status": fault.status }),
            },
        }
    }

    /// The database does not take the outcome of a job, although it takes others.
    pub fn stuck(
        account: &AccountName,
        transition: &Transition,
        cause: &Cause,
        blocker: Option<&Blocker>,
    ) -> Alarm {
        let job = transition.job_id;
        let state = cause.sqlstate.as_deref().unwrap_or("no SQLSTATE");
        let place = cause.place.as_deref();
        let place = place.map_or_else(String::new, |place| format!(", {place}"));
        let action = match blocker {
            Some(Blocker { pid, user, application, since }) => format!(
                "session {pid} (user {}, application {}, in its transaction since {}) keeps it locked: end that \
                 transaction, or: select pg_terminate_backend({pid});",
                user.as_deref().unwrap_or("unknown"),
                application.as_deref().filter(|name| !name.is_empty()).unwrap_or("unknown"),
                since.map_or_else(|| "an unknown time".to_owned(), |since| since.to_string()),
            ),
            None if cause.sqlstate.as_deref() == Some("55P03") => {
                "end the transaction that keeps it locked: select pid, usename, application_name, xact_start \
                 from pg_stat_activity where xact_start < now() - interval '5 seconds' order by xact_start;"
                    .to_owned()
            }
            None => "mend what refuses it: a trigger or a constraint on the tables of apipay, or the database's encoding"
                .to_owned(),
        };
        Alarm {
            kind: "job_stuck",
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "The database does not take the outcome of job {job} of account {account}: {} ({state}{place}).",
                    cause.message
                ),
                action: format!(
                    "{action}. The outcome waits in the daemon's memory and is written as soon as that is possible; \
                     until then do not stop apipayd. Other jobs go on"
                ),
                details: json!({
                    "job": job, "state": transition.from_state, "epoch": transition.epoch,
                    "sqlstate": cause.sqlstate, "message": cause.message, "place": cause.place,
                    "blocking_pid": blocker.map(|blocker| blocker.pid),
                }),
            },
        }
    }

    /// The database does not let a job move whose time has come, nor so many others of its account.
    pub fn unmoved(
        account: &AccountName,
        job: JobId,
        state: &str,
        epoch: i64,
        others: usize,
        cause: &Cause,
    ) -> Alarm {
        let rest = match others {
            0 => "Other jobs go on".to_owned(),
            others => format!("It refuses {others} more of this account; all others go on"),
        };
        let code = cause.sqlstate.as_deref().unwrap_or("no SQLSTATE");
        let place = cause.place.as_deref();
        let place = place.map_or_else(String::new, |place| format!(", {place}"));
        Alarm {
            kind: "job_stuck",
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "The database does not let job {job} of account {account} leave the state {state}: {} ({code}{place}).",
                    cause.message
                ),
                action: format!(
                    "mend what refuses it: a trigger or a constraint on the tables of apipay. {rest}"
                ),
                details: json!({
                    "job": job.0, "state": state, "epoch": epoch,
                    "sqlstate": cause.sqlstate, "message": cause.message, "place": cause.place,
                }),
            },
        }
    }

    /// Somebody keeps a due job locked, so that every claim passes it over.
    pub fn locked(job: &Locked) -> Alarm {
        let (id, account, state) = (job.id, &job.account, &job.state);
        let known = |name: &Option<String>| {
            let name = name.clone().filter(|name| !name.is_empty());
            name.unwrap_or_else(|| "unknown".to_owned())
        };
        let action = match job.pid {
            Some(pid) => format!(
                "session {pid} (user {}, application {}, in its transaction since {}) keeps it locked: end that \
                 transaction, or: select pg_terminate_backend({pid});",
                known(&job.user),
                known(&job.application),
                known(&job.since.map(|since| since.to_string())),
            ),
            None => "end the transactions that keep it locked: select pid, usename, application_name, xact_start \
                     from pg_stat_activity where xact_start < now() - interval '30 seconds' order by xact_start;"
                .to_owned(),
        };
        Alarm {
            kind: "job_stuck",
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "Job {id} of account {account} is due ({state}) and another session keeps it locked."
                ),
                action: format!("{action} Other jobs go on"),
                details: json!({
                    "job": id.0, "state": state, "epoch": job.epoch, "blocking_pid": job.pid,
                }),
            },
        }
    }

    /// The database has forgotten commits: an outcome came whose claim it does not know.
    pub fn history_lost(forgotten: &Forgotten) -> Alarm {
        let Forgotten {
            account,
            job,
            epoch,
            lost,
        } = forgotten;
        let found = match lost {
            Lost::Gone => "there is no such job in it now".to_owned(),
            Lost::Another => "that number is another job's in it now".to_owned(),
            Lost::Behind(now) => format!("the job is at epoch {} in it now", now.0),
            Lost::Reclaimed => "that epoch is another worker's in it now".to_owned(),
        };
        Alarm {
            kind: "history_lost",
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "The database has lost commits: job {job} of account {account} was claimed at epoch {epoch}, and \
                     {found}. This daemon sends nothing any more."
                ),
                action: "what was sent in the lost time stands at ApiPay and not in the database: see why the database \
                         went back (a failover, a restored backup, synchronous_commit or fsync off), compare what is \
                         queued with the ApiPay dashboard, then: systemctl restart apipayd"
                    .to_owned(),
                details: json!({
                    "account": account.as_str(), "job": job, "epoch": epoch,
                    "epoch_now": match lost { Lost::Behind(now) => Some(now.0), _ => None },
                }),
            },
        }
    }

    /// The key's organisation has moved between sandbox and live.
    pub fn mode_changed(account: &AccountName, before: &str, now: &str) -> Alarm {
        Alarm {
            kind: "mode_mismatch",
            severity: "critical",
            text: AlertText {
                summary: format!("Account {account} was {before} and its invoices are {now} now."),
                action: "check which organisation the API key belongs to".to_owned(),
                details: json!({ "before": before, "now": now }),
            },
        }
    }
}

/// What the alert of a jump of the database's clock says.
pub fn clock_jumped(by: SpanUs, at: SteadySecond) -> AlertText {
    let way = if by.0 > 0 { "forward" } else { "back" };
    let span = span(Duration::from_micros(by.0.unsigned_abs()));
    AlertText {
        summary: format!(
            "The clock of the database's machine was set {way} by {span}, from one second to the next."
        ),
        action: "let NTP keep that clock (there: timedatectl, chronyc tracking). Nothing has to be done here: \
                 the limit of requests is counted by another clock, and waits, leases and look-ups were carried \
                 along. A run_at or expires_at that you gave is judged by the clock as it is now; if it is still \
                 wrong, select apipay.stop('clock'); holds all sending until it is right"
            .to_owned(),
        details: json!({ "seconds": by.0 as f64 / 1e6, "steady_second": at.0 }),
    }
}

/// A length of time for a sentence.
fn span(span: Duration) -> String {
    let seconds = (span + Duration::from_millis(500)).as_secs();
    match seconds {
        0..90 => format!("{seconds} s"),
        90..5_400 => format!("{} min", seconds / 60),
        5_400..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// What came in place of a clear answer.
fn seen(fault: &Fault) -> String {
    let what = match fault.status {
        Some(status) => format!("HTTP {status}"),
        None => fault.code.clone(),
    };
    match &fault.said {
        Some(said) => format!("{what}: {said}"),
        None => what,
    }
}

/// A park for this reason, with what the gateway said of it.
pub fn parked(account: &AccountName, reason: Reason, said: Option<&str>) -> Park {
    let Remedy { what, action } = remedy::of_park(reason);
    let quoted = said.map_or_else(String::new, |said| format!(" (ApiPay said: {said})"));
    Park {
        reason: reason.code(),
        said: said.map(str::to_owned),
        remedy: action,
        text: AlertText {
            summary: format!("Account {account} is parked: {what}{quoted}. Its payments wait."),
            action: format!(
                "{action}. Payments go on by themselves once a probe succeeds, or at once with: \
                 select apipay.resume('{account}', 'why');"
            ),
            details: json!({ "reason": reason.code() }),
        },
    }
}
