//! What the database does not take, lets nobody move or has forgotten, and the clock of its machine.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::Alert;
use super::lock::end_of_lock;
use crate::db::accounts::AlertText;
use crate::db::clock::SteadySecond;
use crate::db::entry::Transition;
use crate::db::fate::Forgotten;
use crate::db::fate::Lost;
use crate::db::fault::Cause;
use crate::db::locks::{Blocker, LockedJob};
use crate::db::mirrors::{Mirror, MirrorKind};
use crate::domain::account::AccountName;
use crate::domain::job::{Epoch, JobId};
use crate::domain::state::State;
use crate::policy::clock::SpanUs;
use crate::policy::remedy::ANY_LOCK;

/// The kind of the alerts of what the database does not take or lets nobody move.
pub const STUCK: &str = "job_stuck";

/// What becomes of the other jobs of an account of which one does not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They go on.
    GoOn,
    /// So many are refused too; the rest goes on.
    Refused(usize),
    /// So many are refused that no other is tried.
    Wait(usize),
}

impl Others {
    /// How many are refused.
    fn refused(self) -> usize {
        match self {
            Others::GoOn => 0,
            Others::Refused(jobs) | Others::Wait(jobs) => jobs,
        }
    }
}

/// A job that does not move, as it stands in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StuckJob {
    /// The job.
    pub id: JobId,
    /// Its state.
    pub state: State,
    /// Its epoch.
    pub epoch: Epoch,
}

impl Alert {
    /// The database does not take the outcome of a job, although it takes others; `alike` are all that it refuses
    /// for the same cause. The outcomes are in the memory of `worker`, and gone with it.
    pub fn stuck(
        account: &AccountName,
        transition: &Transition,
        cause: &Cause,
        blocker: Option<&Blocker>,
        others: Others,
        alike: &[StuckJob],
        worker: Uuid,
    ) -> Alert {
        let job = transition.job_id;
        let alike: BTreeMap<String, Value> = alike
            .iter()
            .map(|stuck| {
                let stands = json!({ "state": stuck.state, "epoch": stuck.epoch.0 });
                (stuck.id.to_string(), stands)
            })
            .collect();
        let rest = match others {
            Others::GoOn => "Other jobs go on".to_owned(),
            Others::Refused(jobs) => format!(
                "It does not take those of {jobs} more of this account either; whatever it takes goes on"
            ),
            Others::Wait(jobs) => format!(
                "It does not take those of {jobs} more of this account either: nothing new of it is sent until it \
                 takes some; other accounts go on"
            ),
        };
        let action = blocker.map_or_else(|| mending(cause).to_owned(), end_of_lock);
        Alert {
            kind: STUCK,
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "The database does not take the outcome of job {job} of account {account}: {}.",
                    said(cause)
                ),
                action: format!(
                    "{action} The outcome waits in the daemon's memory and is written as soon as that is possible; \
                     until then do not stop apipayd. {rest}"
                ),
                details: json!({
                    "job": job, "state": transition.from_state, "epoch": transition.epoch,
                    "case": blocker.map_or_else(|| cause.incident(), Blocker::name),
                    "sqlstate": cause.sqlstate, "message": cause.message, "place": cause.place,
                    "blocking_pid": blocker.and_then(Blocker::pid), "blocker": blocker.map(Blocker::name), "worker": worker,
                    "more": others.refused(), "alike": { worker.to_string(): alike },
                    // What is not claimed meanwhile waits for these.
                    "others_refused": match others { Others::Wait(jobs) => jobs, _ => 0 },
                }),
            },
            renews: false,
        }
    }

    /// The database does not let a job move whose time has come, nor so many others of its account.
    pub fn unmoved(
        account: &AccountName,
        job: JobId,
        state: State,
        epoch: i64,
        others: Others,
        cause: &Cause,
    ) -> Alert {
        let refused = others.refused();
        let rest = match others {
            Others::GoOn => {
                "Other jobs go on; should it be a refund that may have been sent, the others of its invoice wait for it"
                    .to_owned()
            }
            Others::Refused(jobs) => {
                format!("It refuses {jobs} more of this account; all others go on")
            }
            Others::Wait(jobs) => format!(
                "It refuses {jobs} more of this account, at the least: no other of it goes out until one of these \
                 does. One is tried every few seconds; other accounts go on"
            ),
        };
        Alert {
            kind: STUCK,
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "The database does not let job {job} of account {account} leave the state {state}: {}.",
                    said(cause)
                ),
                action: format!("{} {rest}", mending(cause)),
                details: json!({
                    "job": job.0, "state": state, "epoch": epoch, "others_refused": refused, "case": cause.incident(),
                    "sqlstate": cause.sqlstate, "message": cause.message, "place": cause.place,
                }),
            },
            renews: false,
        }
    }

    /// The database does not take what was seen of an invoice or refund.
    pub fn unstored(mirror: &Mirror, cause: &Cause) -> Alert {
        let Mirror {
            kind,
            account,
            id,
            invoice_id: invoice,
        } = mirror;
        let object = match kind {
            MirrorKind::Invoice => "invoice",
            MirrorKind::Refund => "refund",
        };
        Alert {
            kind: STUCK,
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "The database does not take what ApiPay shows of {object} {id} of account {account}, so \
                     apipay.{object}s does not show whether money moved: {}.",
                    said(cause)
                ),
                action: format!(
                    "{} ApiPay is asked about it ever less often, every five minutes in the end, until it can be stored; all \
                     others go on. Its jobs: select * from apipay.overview where invoice_id = {invoice};",
                    mending(cause)
                ),
                details: json!({
                    object: id, "sqlstate": cause.sqlstate, "message": cause.message, "place": cause.place,
                }),
            },
            renews: false,
        }
    }

    /// Somebody keeps a due job locked, so that every claim passes it over.
    pub fn locked(job: &LockedJob) -> Alert {
        let (id, account, state) = (job.id, &job.account, job.state);
        let blocker = job.blocker.as_ref();
        let who = match blocker {
            Some(Blocker::Prepared(_)) => "a prepared transaction",
            Some(Blocker::Session(_)) | None => "another session",
        };
        let end = blocker.map_or_else(|| ANY_LOCK.to_owned(), end_of_lock);
        Alert {
            kind: STUCK,
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "Job {id} of account {account} is due ({state}) and {who} keeps it locked."
                ),
                action: format!("{end} Other jobs go on"),
                details: json!({
                    "job": id.0, "state": state, "epoch": job.epoch, "locked": true,
                    "blocking_pid": blocker.and_then(Blocker::pid), "blocker": blocker.map(Blocker::name),
                }),
            },
            renews: false,
        }
    }
}

/// The kind of the alert of a database that has lost commits.
pub const HISTORY: &str = "history_lost";

/// The database has forgotten commits: an outcome came whose claim it does not know. `worker` is this daemon, on
/// this machine, with these accounts.
pub fn history_lost(
    forgotten: &Forgotten,
    worker: Uuid,
    host: &str,
    accounts: &[String],
) -> AlertText {
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
        Lost::Repeated => "it gave the same claim again while the request was under way".to_owned(),
    };
    let (or_deleted, or_by_whom) = match lost {
        Lost::Gone => (
            format!(", or somebody has deleted job {job}"),
            format!(", or who deleted job {job} from apipay.jobs, as nobody should"),
        ),
        _ => Default::default(),
    };
    AlertText {
        summary: format!(
            "The database has lost commits{or_deleted}: job {job} of account {account} was claimed at epoch {epoch}, and \
             {found}. The apipayd on {host} sends nothing any more."
        ),
        action: format!(
            "what was sent in the lost time stands at ApiPay and not in the database: see why the database went back \
             (a failover, a restored backup, synchronous_commit or fsync off){or_by_whom}, compare what is queued with the \
             ApiPay dashboard, then on {host}: sudo systemctl restart apipayd. If it will never run there again: \
             select apipay.acknowledge(id, 'why') from apipay.alerts where kind = '{HISTORY}' and subject = '{host}' \
             and resolved_at is null;"
        ),
        details: json!({
            "account": account.as_str(), "job": job, "epoch": epoch,
            "epoch_now": match lost { Lost::Behind(now) => Some(now.0), _ => None },
            "worker": worker, "host": host, "accounts": accounts,
        }),
    }
}

/// What the database said of a refusal, and where.
fn said(cause: &Cause) -> String {
    let known = [cause.sqlstate.as_deref(), cause.place.as_deref()];
    let known: Vec<&str> = known.into_iter().flatten().collect();
    if known.is_empty() {
        return cause.message.clone();
    }
    format!("{} ({})", cause.message, known.join(", "))
}

/// Why an account cannot begin to be served, and what ends that.
pub fn held_up(cause: Option<&Cause>, blocker: Option<&Blocker>) -> String {
    match (blocker, cause) {
        (Some(blocker), _) => end_of_lock(blocker),
        (None, Some(cause)) => format!("{}. To end that, {}", said(cause), mending(cause)),
        (None, None) => format!("a row of it is locked. To end that, {ANY_LOCK}"),
    }
}

/// What ends a refusal, in whole sentences.
fn mending(cause: &Cause) -> &'static str {
    match cause.sqlstate.as_deref() {
        Some(LOCK_TIMEOUT) => ANY_LOCK,
        Some(CANCELLED) => {
            "the statement took too long: see what it waits for (select pid, state, wait_event_type, query from \
             pg_stat_activity;) and whether a trigger on the tables of apipay is slow."
        }
        _ => {
            "mend what refuses it: a trigger or a constraint on the tables of apipay, or the database's encoding."
        }
    }
}

/// `lock_not_available`.
const LOCK_TIMEOUT: &str = "55P03";

/// `query_canceled`: it took longer than statements may.
const CANCELLED: &str = "57014";

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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sqlstate: &str) -> String {
        let cause = Cause {
            sqlstate: Some(sqlstate.into()),
            message: "no".into(),
            place: None,
        };
        let shop = AccountName::parse("shop").unwrap();
        Alert::unmoved(&shop, JobId(7), State::Queued, 1, Others::GoOn, &cause)
            .text
            .action
    }

    #[test]
    fn what_mends_a_refusal_goes_by_its_cause() {
        assert!(refused("55P03").contains("end the transaction"));
        assert!(refused("57014").contains("took too long"));
        assert!(refused("P0001").contains("a trigger or a constraint"));
    }

    /// Of a row that is gone nobody can tell whether its commit was lost or somebody deleted it.
    #[test]
    fn a_job_that_is_gone_may_have_been_deleted() {
        let told = |lost| {
            let forgotten = Forgotten {
                account: AccountName::parse("shop").unwrap(),
                job: 7,
                epoch: 2,
                lost,
            };
            let text = history_lost(&forgotten, Uuid::nil(), "kassa-1", &[]);
            (text.summary, text.action)
        };
        let (summary, action) = told(Lost::Gone);
        assert!(
            summary.starts_with(
                "The database has lost commits, or somebody has deleted job 7: job 7 of account shop was claimed"
            ),
            "{summary}"
        );
        assert!(
            action.contains("or who deleted job 7 from apipay.jobs"),
            "{action}"
        );
        let (summary, action) = told(Lost::Behind(Epoch(1)));
        assert!(!summary.contains("deleted"), "{summary}");
        assert!(!action.contains("deleted"), "{action}");
    }

    #[test]
    fn what_the_database_has_not_said_is_left_out() {
        let cause = |sqlstate: Option<&str>, place: Option<&str>| {
            said(&Cause {
                sqlstate: sqlstate.map(Into::into),
                message: "no".into(),
                place: place.map(Into::into),
            })
        };
        assert_eq!(cause(None, None), "no");
        assert_eq!(cause(Some("P0001"), None), "no (P0001)");
        assert_eq!(cause(Some("P0001"), Some("a line")), "no (P0001, a line)");
    }

    #[test]
    fn an_action_has_one_mark_at_the_end_of_a_sentence() {
        for text in [refused("55P03"), refused("57014"), refused("P0001")] {
            assert!(!text.contains(";."), "{text}");
        }
    }
}
