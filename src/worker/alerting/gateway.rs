//! What the gateway says or does not say of a job or an account.

use serde_json::json;
use time::OffsetDateTime;

use super::Alert;
use super::wording::{IF_NOT_SERVED, SERVED, machines, on_machine, quoted};
use crate::db::accounts::AlertText;
use crate::db::mirrors::{AcceptedJob, DueMirror};
use crate::db::refused;
use crate::db::troubled::{self, ToldFailing};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::object::Object;
use crate::domain::operation::OPERATIONS;
use crate::domain::outage::{FailingJob, Fault, Read, RefusedJob, ToBeShown};
use crate::domain::state::State;
use crate::domain::times::SILENT_CANCEL;
use crate::policy::outage::telling::{Ending, Telling};
use crate::policy::remedy::{self, Remedy};
use crate::policy::verdict::{Reason, Scope};
use crate::worker::alerting;
use crate::worker::written::written;

/// The kind of the alert of a job that was accepted and is not seen to come to its end.
pub const OVERDUE: &str = "job_overdue";

/// Jobs that are named besides the first.
const NAMED: usize = 5;

impl Alert {
    /// The gateway took a job on and does not come to an end with it.
    pub fn overdue(mirror: &DueMirror, job: &AcceptedJob) -> Alert {
        let (account, id, invoice) = (&mirror.account, job.id, mirror.invoice_id);
        let mut details = json!({ "job": id.0, "invoice": invoice });
        if let Some(refund) = mirror.refund_id {
            details["refund"] = refund.into();
        }
        let (object, waiting) = match mirror.refund_id {
            Some(refund) => (
                format!("refund {refund} of invoice {invoice}"),
                format!(
                    " Other refunds of that invoice wait for it: select id, explain from apipay.waiting where \
                     account = '{account}' and cause = 'other_refund';"
                ),
            ),
            None => (format!("invoice {invoice}"), String::new()),
        };
        Alert {
            kind: OVERDUE,
            severity: "warning",
            text: AlertText {
                summary: format!(
                    "Job {id} ({}) of account {account} was accepted at {} and {}: {object}.",
                    job.operation,
                    written(mirror.now - job.accepted_for),
                    if mirror.has_failed() {
                        "has failed at Kaspi since; it is asked about once more before a new one follows"
                    } else {
                        "was not seen to come to its end"
                    }
                ),
                action: format!(
                    "look {object} up in the ApiPay dashboard, or ask ApiPay's support what holds it up; \
                     the daemon goes on asking.{waiting} All that were accepted: \
                     select * from apipay.overview where state = 'accepted' order by updated_at;"
                ),
                details,
            },
            renews: false,
        }
    }

    /// Nothing comes of what the gateway accepts of a job, which is asked for again and again.
    pub fn dropped(mirror: &DueMirror, job: &AcceptedJob, shown: &Object) -> Alert {
        let (account, id, invoice) = (&mirror.account, job.id, mirror.invoice_id);
        let (sent, status) = (job.history.attempts, shown.status());
        Alert {
            kind: OVERDUE,
            severity: "warning",
            text: AlertText {
                summary: format!(
                    "Job {id} ({}) of account {account} was sent {sent} times, ApiPay accepted it, the last time at {}, \
                     and shows nothing of it: invoice {invoice} is {status}.",
                    job.operation,
                    written(mirror.now - job.accepted_for),
                ),
                action: format!(
                    "ask ApiPay's support why nothing comes of it, or do it in the ApiPay dashboard; until then the customer \
                     can pay that invoice. The daemon asks for it again, {} minutes after each time, until it is done or can \
                     no longer be: select explain from apipay.overview where id = {id};",
                    SILENT_CANCEL.as_secs() / 60
                ),
                details: json!({ "job": id.0, "invoice": invoice, "dropped": true }),
            },
            renews: false,
        }
    }

    /// A cap of the account is reached, and its wait may be long.
    pub fn capped(account: &AccountName, code: &str, said: Option<&str>, scope: &Scope) -> Alert {
        let Remedy { what, action, .. } = remedy::of_cap(account.as_str(), code);
        let quoted = quoted(said);
        let (stops, waiting) = match scope {
            Scope::Everything => (
                Some("everything"),
                "All of it waits: ApiPay answers so when asked about payments, too, and they are not seen".to_owned(),
            ),
            Scope::Sends(capped) => {
                let named = |are_capped| {
                    let operations = OPERATIONS.iter();
                    let named = operations.filter(|o| capped.contains(&o.name()) == are_capped);
                    listed(&named.map(|o| o.in_plural()).collect::<Vec<_>>())
                };
                let waiting = named(true).unwrap_or_default();
                let others = named(false)
                    .map_or_else(String::new, |others| format!("{others} go on, and "));
                (None, format!("What waits for it: {waiting}; {others}payments are still seen, {SERVED}"))
            }
        };
        Alert {
            kind: "cap_reached",
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "Account {account} has reached a cap of ApiPay's ({code}): {what}{quoted}. {waiting}."
                ),
                action: format!(
                    "{action}. Nothing is tried before the wait is over that ApiPay asked for; until when that is: \
                     select explain from apipay.account_status where account = '{account}'; so once the cause is mended: \
                     select apipay.resume('{account}', 'why'); which has one tried at once, and the others go on if it is \
                     taken. All of this goes by itself {SERVED}: {IF_NOT_SERVED}."
                ),
                details: json!({ "code": code, "stops": stops }),
            },
            // Another cap is news, and so is more that it is about.
            renews: true,
        }
    }

    /// The gateway gives no clear answer: to the account, when it is asked about payments, or to some job.
    /// `hosts` are the machines that serve the account.
    pub fn failing(
        account: &AccountName,
        telling: &Telling<'_>,
        to_be_shown: &ToBeShown,
        hosts: &[String],
    ) -> Alert {
        let action_of = |fault: &Fault| on_machine(&remedy::of_fault(fault), &machines(hosts));
        let (summary, action, fault, job) = match telling {
            Telling::Sends(row, fault) => (
                format!(
                    "ApiPay {} for account {account} since {} ({}): payments wait.",
                    remedy::of_fault(fault).what,
                    written(row.since),
                    seen(fault)
                ),
                format!(
                    "{}. Payments that wait for it go on by themselves with the first clear answer, and those that are held \
                     (alert job_held) wait for a person; to have the next one that is due tried now: select apipay.resume('{account}', 'why'); What waits, and until when: \
                     select * from apipay.waiting where account = '{account}';",
                    action_of(fault)
                ),
                *fault,
                None,
            ),
            Telling::Reads(reads, row, job) => {
                let fault = &row.fault;
                let unseen: Vec<&str> = reads.iter().map(|read| unseen(*read)).collect();
                let waiting = waiting(reads, *job, to_be_shown);
                (
                    format!(
                        "ApiPay {} when asked about payments of account {account} since {} ({}): {}.{}{} Other \
                         payments are tried as usual.",
                        remedy::of_fault(fault).what,
                        written(row.since),
                        seen(fault),
                        unseen.join("; "),
                        not_sent_so_far(to_be_shown),
                        job.map_or_else(String::new, unanswered_too),
                    ),
                    format!(
                        "{}. The daemon goes on asking, ever less often; to have it ask now{}: \
                         select apipay.resume('{account}', 'why'); What waits for it, besides the bills that were delivered \
                         and are not paid: select * from apipay.overview \
                         where account = '{account}' and {waiting};",
                        action_of(fault),
                        match to_be_shown.in_words {
                            Some(_) => ", also for what is not sent before it answers",
                            None => "",
                        }
                    ),
                    fault,
                    None,
                )
            }
            Telling::Job(job) => (
                of_job(account, job),
                action_of_job(account, job, to_be_shown, &action_of(&job.fault)),
                &job.fault,
                Some(job.id.0),
            ),
        };
        failing(AlertText {
            summary,
            action,
            details: json!({
                "fails": telling.fails(), "code": fault.code, "http_status": fault.status, "job": job,
            }),
        })
    }

    /// The gateway refuses a job again and again, for a reason of its own, and some others of its account.
    pub fn refused(account: &AccountName, job: &RefusedJob, others: &[RefusedJob]) -> Alert {
        let RefusedJob {
            id,
            operation,
            since,
            fault,
        } = job;
        let Remedy { what, action, .. } = remedy::of_refusal(account.as_str(), &fault.code);
        let numbers: Vec<i64> = others.iter().map(|job| job.id.0).collect();
        let so_too = match numbers.as_slice() {
            [] => String::new(),
            [one] => format!(" It refuses job {one}, too."),
            more => {
                let named: Vec<String> = more.iter().take(NAMED).map(i64::to_string).collect();
                let rest = more.len().saturating_sub(NAMED);
                let rest = (rest > 0).then(|| format!(" and {rest} more"));
                format!(
                    " It refuses jobs {}{}, too.",
                    named.join(", "),
                    rest.unwrap_or_default()
                )
            }
        };
        let jobs: Vec<i64> = [id.0].into_iter().chain(numbers).collect();
        Alert {
            kind: refused::KIND,
            severity: "warning",
            text: AlertText {
                summary: format!(
                    "ApiPay refuses job {id} ({operation}) of account {account} again and again since {}: {what} ({}). It \
                     waits.{so_too} The account's other payments are tried as usual.",
                    written(*since),
                    refusal(fault)
                ),
                action: format!(
                    "{action}. The job is tried on and on, and goes on by itself once ApiPay takes it; to have it tried \
                     now: select apipay.retry({id}, 'why'); to take it back: select apipay.cancel({id}, 'why');"
                ),
                details: json!({
                    "job": id.0, "jobs": jobs, "code": fault.code, "http_status": fault.status,
                }),
            },
            renews: false,
        }
    }

    /// The resolution text of a `job_refused` alert.
    pub fn end_of_refusals(told: &refused::ToldRefused) -> String {
        match (told.job, told.state.as_deref().and_then(State::parse)) {
            (Some(job), Some(State::Queued | State::Sending | State::Uncertain)) => {
                format!("job {job} was not refused any more")
            }
            (Some(job), Some(state)) => format!("job {job} is {state} now"),
            _ => "the job that was refused is gone".to_owned(),
        }
    }

    /// A job was given up, since it may be tried only so often and no try got a clear answer.
    pub fn gave_up(
        account: &AccountName,
        id: JobId,
        since: OffsetDateTime,
        fault: &Fault,
    ) -> Alert {
        failing(AlertText {
            summary: format!(
                "Job {id} of account {account} was given up: it has got no clear answer since {} ({}).",
                written(since),
                seen(fault)
            ),
            action: format!(
                "{}. It may be tried only as often as retry.*.attempts says; to try it again, as a new job: \
                 select apipay.retry({id}, 'why');",
                on_machine(&remedy::of_fault(fault), &machines(&[]))
            ),
            details: json!({
                "fails": "job", "code": fault.code, "http_status": fault.status, "job": id.0,
            }),
        })
    }

    /// How it ended that the gateway gave no clear answer.
    pub fn end_of_failing(ending: Ending, told: &ToldFailing) -> String {
        match (ending, &told.job, told.fails.as_deref()) {
            (Ending::Parked, ..) => alerting::PARKED_NOW.to_owned(),
            (Ending::NothingWaits, ..) => {
                "nothing waits for it any more; the next payment will show whether ApiPay answers"
                    .to_owned()
            }
            (Ending::Answered, Some(job), Some("job")) => format!("job {job} now"),
            (Ending::Answered, ..) => "ApiPay gives clear answers again".to_owned(),
        }
    }
}

/// What becomes of a job that gets no clear answer, or is not shown what is to be known before it is sent.
fn of_job(account: &AccountName, job: &FailingJob) -> String {
    let so_too = match (job.others, job.is_left_out) {
        (0, _) => String::new(),
        (1, true) => " 1 more job of the account waits so, or has got no clear answer.".to_owned(),
        (more, true) => {
            format!(" {more} more jobs of the account wait so, or have got no clear answer.")
        }
        (1, false) => " 1 more job of the account has got none either.".to_owned(),
        (more, false) => format!(" {more} more jobs of the account have got none either."),
    };
    let (id, operation, since) = (job.id, &job.operation, written(job.since));
    let said = match job.is_left_out {
        true => format!("is not sent, since {since}: {}", left_out(job)),
        false => {
            let asked_first = job.asked_first.as_deref();
            format!(
                "has got no clear answer since {since} ({}).{}",
                seen(&job.fault),
                asked_first.map_or_else(String::new, not_sent_before)
            )
        }
    };
    format!(
        "Job {id} ({operation}) of account {account} {said}{so_too} The account's other payments are tried as usual."
    )
}

/// What helps such a job. What it waits to be shown may never be: then only a person can tell that nothing of it lives.
fn action_of_job(
    account: &AccountName,
    job: &FailingJob,
    to_be_shown: &ToBeShown,
    of_fault: &str,
) -> String {
    let id = job.id;
    let ended = format!("select apipay.cancel({id}, 'why'); and enqueue a new job");
    let (first, if_never) = match (job.is_left_out, job.waits_to_be_shown()) {
        (true, _) => (
            format!(
                "if ApiPay goes on leaving it out, see in its dashboard that nothing of it lives; then {ended}. Until then \
                 the daemon goes on asking"
            ),
            String::new(),
        ),
        (false, true) => (
            format!("{of_fault}. Until then the daemon goes on asking"),
            format!(
                " If ApiPay never shows it, see in its dashboard that nothing of it lives; then {ended}."
            ),
        ),
        (false, false) => (
            format!("{of_fault}. The daemon goes on trying"),
            String::new(),
        ),
    };
    format!(
        "{first}, ever less often. When it is queued, this tries it now: select apipay.retry({id}, 'why');{if_never} Where it \
         is: select explain from apipay.overview where id = {id};{}",
        match job.waits_to_be_shown() && to_be_shown.bills > 1 {
            true => many_at_once(account, job),
            false => String::new(),
        }
    )
}

/// What is done with all bills of the account that wait to be shown what they repeat.
fn many_at_once(account: &AccountName, job: &FailingJob) -> String {
    let waiting = format!(
        "from apipay.overview where account = '{account}' and state = 'queued' and reason = '{}'",
        Reason::EarlierUnseen.code()
    );
    format!(
        " All that wait so: select id, explain {waiting}; to try all of them now: select * from \
         apipay.retry_jobs(array(select id {waiting}), 'why'); to cancel many of them, by their numbers: select * from \
         apipay.cancel_jobs(array[{}], 'why');",
        job.id
    )
}

/// What waits for reads of these kinds, and this job, as a condition for a query.
fn waiting(reads: &[Read], job: Option<&FailingJob>, to_be_shown: &ToBeShown) -> String {
    let all_queued = reads.contains(&Read::Refunds) || to_be_shown.refunds > 0;
    let queued = all_queued.then_some("'queued'");
    // Of those the question may be under way.
    let sending = (all_queued || to_be_shown.bills > 0).then_some("'sending'");
    let states = queued.into_iter().chain(sending);
    let states: Vec<&str> = states.chain(["'accepted'", "'uncertain'"]).collect();
    let mut waiting = vec![format!("state in ({})", states.join(", "))];
    if let Some(job) = job {
        waiting.insert(0, format!("id = {}", job.id));
    }
    if to_be_shown.bills > 0 && !all_queued {
        let unseen = Reason::EarlierUnseen.code();
        waiting.push(format!("(state = 'queued' and reason = '{unseen}')"));
    }
    match waiting.as_slice() {
        [one] => one.clone(),
        more => format!("({})", more.join(" or ")),
    }
}

/// What is not sent before the gateway answers a question about it, as a sentence.
fn not_sent_so_far(to_be_shown: &ToBeShown) -> String {
    let in_words = to_be_shown.in_words.as_deref();
    in_words.map_or_else(String::new, |words| format!(" {words}."))
}

/// What the answer left out, and what the job waits for.
fn left_out(job: &FailingJob) -> String {
    let said = job.fault.said.as_deref();
    let said = said.unwrap_or("ApiPay left out what is to be known first");
    format!("{said}. It is sent once none of that is shown alive.")
}

/// That a job gets no clear answer either, while reads of its account fail.
fn unanswered_too(job: &FailingJob) -> String {
    if job.is_left_out {
        let (id, operation, since) = (job.id, &job.operation, written(job.since));
        return format!(
            " Job {id} ({operation}) is not sent either, since {since}: {}",
            left_out(job)
        );
    }
    let first = job.asked_first.as_deref();
    format!(
        " Job {} ({}) has got no clear answer either, since {} ({}).{}",
        job.id,
        job.operation,
        written(job.since),
        seen(&job.fault),
        first.map_or_else(String::new, not_sent_before),
    )
}

fn not_sent_before(request: &str) -> String {
    format!(" It is not sent before ApiPay answers {request}.")
}

fn failing(text: AlertText) -> Alert {
    Alert {
        kind: troubled::KIND,
        severity: "critical",
        text,
        renews: false,
    }
}

/// What is not seen while reads of this kind fail.
fn unseen(read: Read) -> &'static str {
    match read {
        Read::LookUp => "it is not seen whether uncertain payments were made, and they wait",
        Read::Check => "it is not seen whether bills were delivered and paid",
        Read::Code => "it is not seen why bills failed, and those wait",
        Read::Refunds => {
            "it is not seen whether refunds were made, and no further one is made before it is"
        }
    }
}

/// What came in place of a clear answer.
pub(super) fn seen(fault: &Fault) -> String {
    let what = match fault.status {
        Some(status) => format!("HTTP {status}"),
        None => fault.code.clone(),
    };
    match &fault.said {
        Some(said) => format!("{what}: {said}"),
        None => what,
    }
}

/// How the gateway refused, with its code and words.
fn refusal(fault: &Fault) -> String {
    let status = fault.status.map(|status| format!("HTTP {status}"));
    let code = Some(fault.code.clone()).filter(|code| !code.is_empty());
    let named: Vec<String> = status.into_iter().chain(code).collect();
    let said = fault
        .said
        .as_ref()
        .map(|said| format!("; ApiPay said: {said}"));
    format!("{}{}", named.join(", "), said.unwrap_or_default())
}

/// Words as a list for a sentence; none of none.
fn listed(words: &[&str]) -> Option<String> {
    let (last, others) = words.split_last()?;
    Some(match others {
        [] => (*last).to_owned(),
        others => format!("{} and {last}", others.join(", ")),
    })
}
