//! What people read about payments that do not move.

use serde_json::json;
use uuid::Uuid;

use super::standstills::{first_of, remedy, sentence};
use super::tell::Incident;
use crate::db::accounts::AlertText;
use crate::db::locks::{Blocker, InTheWay, LockedMirror, Session};
use crate::db::progress::{MOST_WEIGHED, Stop, Weight};
use crate::db::schema::Defect;
use crate::policy::progress::{Concern, Standstill};
use crate::policy::remedy::capitalized;
use crate::worker::alerting;
use crate::worker::written::written;

/// What waits behind it.
pub(super) struct Behind<'a> {
    pub(super) accounts: Vec<&'a str>,
    pub(super) weight: Option<Weight>,
    /// Whether it was counted before the database was away, and is no more than what was so then.
    pub(super) is_old: bool,
}

/// What else is known when something is found.
#[derive(Default)]
pub(super) struct Known<'a> {
    pub(super) faults: &'a [Defect],
    pub(super) stop: Option<&'a Stop>,
    /// What the database just said to one of the loops.
    pub(super) said: Option<&'a str>,
    /// Who keeps locked what is needed.
    pub(super) in_the_way: &'a [InTheWay],
    /// What cannot be checked because somebody keeps its row locked.
    pub(super) mirrors: &'a [LockedMirror],
}

/// The alert of what was found about one account, or about all.
pub(super) fn text(
    worker: Uuid,
    standstills: &[&Standstill],
    waiting: &Behind<'_>,
    known: &Known<'_>,
) -> AlertText {
    // A few rows that somebody keeps locked are not all of the account.
    let is_rows = |f: &Standstill| f.concern == Concern::Checks && !known.mirrors.is_empty();
    let mut summary: Vec<String> = standstills
        .iter()
        .map(|f| match is_rows(f) {
            true => rows(known.mirrors),
            false => sentence(f, known.stop),
        })
        .collect();
    let account = standstills.iter().find_map(|f| f.account.as_deref());
    match (account, known.said) {
        (None, _) if standstills.iter().any(|f| f.concern.holds_payments()) => {
            summary.extend(of_all(waiting));
        }
        (None, _) => {}
        (Some(_), Some(said)) => summary.push(format!("The database said: {said}.")),
        (Some(_), None) => {}
    }
    summary.extend(known.in_the_way.iter().map(keeps));
    let mut action: Vec<String> = known.in_the_way.iter().map(end).collect();
    let of_mirrors = || known.mirrors.iter().filter_map(|m| m.blocker.as_ref());
    for blocker in of_mirrors() {
        let step = end_of(blocker);
        if !action.contains(&step) {
            action.push(step);
        }
    }
    // What these are, it finds as well.
    let is_for_check = known.faults.iter().any(Defect::stops_payments)
        || !known.in_the_way.is_empty()
        || !known.mirrors.is_empty();
    for standstill in standstills {
        let step = remedy(standstill, is_for_check);
        if !action.contains(&step) {
            action.push(step);
        }
    }
    // A fault of the schema is worth more than a guess.
    let sql: Vec<String> = known
        .faults
        .iter()
        .filter(|fault| fault.stops_payments())
        .map(Defect::remedy)
        .collect();
    if !sql.is_empty() {
        action.insert(0, format!("as the schema's owner: {}", joined(&sql)));
    }
    let first = known.in_the_way.first().map(|way| &way.blocker);
    let blocker = first.or_else(|| of_mirrors().next());
    let concerns: Vec<String> = standstills
        .iter()
        .map(|f| f.concern.code().to_owned())
        .collect();
    AlertText {
        summary: summary.join(" "),
        action: joined(&action),
        details: json!({
            "worker": worker, "concerns": concerns,
            "blocking_pid": blocker.and_then(Blocker::pid), "blocker": blocker.map(Blocker::name),
            "said": standstills.iter().find(|f| f.concern.is_said()).map(|f| f.cause.as_str()),
        }),
    }
}

/// What somebody keeps from us.
fn keeps(way: &InTheWay) -> String {
    let InTheWay {
        blocker,
        table,
        account,
        behind,
        root,
    } = way;
    let what = match account {
        Some(account) => format!("the row of account {account} in {table}"),
        None => table.clone(),
    };
    let who = capitalized(&alerting::blocker(blocker));
    let Some(behind) = behind else {
        return format!("{who} keeps {what} locked.");
    };
    let root = root.as_ref().map_or_else(String::new, |root| {
        format!(", which waits in the end for {}", alerting::blocker(root))
    });
    format!(
        "{who} waits to lock {what}, and whatever comes later waits behind it; it waits for {}{root}.",
        alerting::blocker(behind)
    )
}

/// What is not checked for somebody who keeps its row locked: the first of them.
fn rows(mirrors: &[LockedMirror]) -> String {
    let Some(first) = mirrors.first() else {
        return String::new();
    };
    let what = if first.is_refund { "Refund" } else { "Invoice" };
    let who = first.blocker.as_ref().map(alerting::blocker);
    let who = who.unwrap_or_else(|| "another session".to_owned());
    let more = match mirrors.len() {
        1 => String::new(),
        _ => " It is not the only one: apipayd check names the others.".to_owned(),
    };
    format!(
        "{what} {} of account {} is due to be checked and is not, because {who} keeps its row locked.{more}",
        first.id, first.account
    )
}

/// What ends that.
fn end(way: &InTheWay) -> String {
    if let Some(root) = &way.root {
        let others = way.behind.iter().chain([&way.blocker]);
        let others: Vec<String> = others.map(Blocker::name).collect();
        return format!(
            "{} That may be enough; otherwise end that of {} too, in the same way",
            with_stop(&end_of(root)),
            others.join(" and ")
        );
    }
    let Some(behind) = &way.behind else {
        return end_of(&way.blocker);
    };
    match (&way.blocker, behind) {
        (Blocker::Session(Session { pid, .. }), Blocker::Session(behind)) => {
            let behind = behind.pid;
            format!(
                "end the transaction that session {pid} or session {behind} has open, or, as a superuser: select \
                 pg_terminate_backend({pid}); or select pg_terminate_backend({behind});"
            )
        }
        (blocker, behind) => format!("{} or {}", end_of(blocker), end_of(behind)),
    }
}

fn end_of(blocker: &Blocker) -> String {
    match blocker {
        Blocker::Session(Session { pid, .. }) => format!(
            "end the transaction that session {pid} has open, or, as a superuser: select pg_terminate_backend({pid});"
        ),
        Blocker::Prepared(prepared) => {
            format!("end {}: {}", blocker.name(), prepared.end())
        }
    }
}

/// As a whole sentence, except after SQL, which is left so that it can be copied.
fn with_stop(step: &str) -> String {
    match step.ends_with(';') {
        true => step.to_owned(),
        false => format!("{step}."),
    }
}

/// One step after the other; SQL is left so that it can be copied.
fn joined(steps: &[String]) -> String {
    let mut text = String::new();
    for step in steps {
        match text.chars().next_back() {
            None => text += step,
            Some(';') => text += &format!(" then {step}"),
            Some(_) => text += &format!(". {}", capitalized(step)),
        }
    }
    text
}

/// For the status line; none when all moves.
pub(super) fn status(incidents: &[Incident]) -> Option<String> {
    let summaries: Vec<&str> = incidents.iter().map(|i| i.text.summary.as_str()).collect();
    (!summaries.is_empty()).then(|| format!("NO PROGRESS: {}", summaries.join(" ")))
}

fn of_all(waiting: &Behind<'_>) -> Option<String> {
    let weight = waiting.weight.filter(|weight| weight.jobs > 0)?;
    let jobs = match weight.jobs {
        MOST_WEIGHED.. => format!("{MOST_WEIGHED} payments or more wait"),
        1 => "1 payment waits".to_owned(),
        jobs => format!("{jobs} payments wait"),
    };
    let amount = weight
        .amount
        .map_or_else(String::new, |amount| format!(", {amount} KZT"));
    let accounts = first_of(&waiting.accounts);
    let at = match waiting.is_old {
        true => format!(", at {}", written(weight.counted_at)),
        false => String::new(),
    };
    Some(format!(
        "When last counted{at}: {jobs}{amount}, of {accounts}; what is not due now, such as what is blocked, capped or \
         parked, is not counted."
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rust_decimal::Decimal;
    use time::macros::datetime;

    use super::*;
    use crate::policy::progress::RefusedRequests;
    use crate::policy::remedy::{CHECK, CHECK_FIRST};

    fn standstill(account: Option<&str>, concern: Concern, cause: &str) -> Standstill {
        Standstill {
            account: account.map(str::to_owned),
            host: String::new(),
            accounts: Vec::new(),
            concern,
            lasted: Duration::from_secs(200),
            cause: cause.into(),
            refused: None,
        }
    }

    fn waiting(accounts: Vec<&str>) -> Behind<'_> {
        Behind {
            accounts,
            weight: Some(Weight {
                counted_at: datetime!(2026-11-01 14:02:03.5 UTC),
                jobs: 12,
                amount: Some(Decimal::new(15_000, 0)),
            }),
            is_old: false,
        }
    }

    #[test]
    fn an_alert_of_all_says_the_cause_what_waits_and_where() {
        let found = standstill(None, Concern::Database, "connection refused");
        let accounts = vec!["a", "b", "c", "d", "e", "f", "g"];
        let text = text(
            Uuid::nil(),
            &[&found],
            &Behind {
                is_old: true,
                ..waiting(accounts)
            },
            &Known::default(),
        );
        assert_eq!(
            text.summary,
            "The database cannot be used: connection refused. When last counted, at 2026-11-01T14:02:03Z: 12 payments \
             wait, 15000 KZT, of a, b, c, d, e and 2 more; what is not due now, such as what is blocked, capped or \
             parked, is not counted."
        );
        assert!(text.action.contains("apipayd check"), "{}", text.action);
    }

    #[test]
    fn what_is_not_asked_about_is_told_with_its_cause() {
        for (concern, said) in [
            (Concern::LookUps, "due and none is looked up: it is silent."),
            (
                Concern::Checks,
                "due to be checked and is not: it is silent.",
            ),
            (Concern::Turns, "although it has ended: it is silent."),
        ] {
            let known = sentence(&standstill(Some("clinic"), concern, "it is silent"), None);
            assert!(known.ends_with(said), "{known}");
            let unknown = sentence(&standstill(Some("clinic"), concern, ""), None);
            assert!(!unknown.contains(':'), "{unknown}");
        }
    }

    #[test]
    fn of_a_chain_the_root_is_ended_first() {
        let session = |pid| {
            Blocker::Session(Session {
                pid,
                user: None,
                application: None,
                since: None,
                state: None,
                statement: None,
            })
        };
        let way = InTheWay {
            blocker: session(3),
            table: "apipay.jobs".into(),
            account: None,
            behind: Some(session(2)),
            root: Some(session(1)),
        };
        let found = standstill(None, Concern::Database, "canceling statement");
        let known = Known {
            in_the_way: &[way],
            ..Known::default()
        };
        let text = text(Uuid::nil(), &[&found], &waiting(vec!["a"]), &known);
        let (summary, action) = (text.summary, text.action);
        assert!(summary.contains("Session 3 "), "{summary}");
        assert!(summary.contains("it waits for session 2 "), "{summary}");
        assert!(
            summary.contains("which waits in the end for session 1 "),
            "{summary}"
        );
        assert!(
            action.starts_with(
                "end the transaction that session 1 has open, or, as a superuser: select pg_terminate_backend(1); That may \
                 be enough; otherwise end that of session 2 and session 3 too, in the same way"
            ),
            "{action}"
        );
    }

    #[test]
    fn check_is_not_said_to_find_what_is_not_known_to_be_found_by_it() {
        let fault = Defect::SequenceBehind {
            sequence: "apipay.jobs_id_seq".into(),
            highest: 7,
            beyond: None,
        };
        let found = standstill(Some("clinic"), Concern::Claims, "expired ones go first");
        let said = |faults: &[Defect]| {
            let known = Known {
                faults,
                ..Known::default()
            };
            text(Uuid::nil(), &[&found], &waiting(vec!["clinic"]), &known)
        };
        let unknown = said(&[]);
        assert_eq!(
            unknown.summary,
            "Payments of account clinic are due and none is taken up: expired ones go first."
        );
        assert_eq!(unknown.action, CHECK_FIRST);
        assert!(said(&[fault]).action.contains(CHECK));
    }

    #[test]
    fn steps_are_sentences_and_sql_can_be_copied() {
        let steps =
            |steps: &[&str]| joined(&steps.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            steps(&["select f(1);", "run: apipayd check", "see that it runs"]),
            "select f(1); then run: apipayd check. See that it runs"
        );
    }

    #[test]
    fn a_fault_of_the_schema_comes_with_its_sql() {
        let fault = Defect::SequenceBehind {
            sequence: "apipay.jobs_id_seq".into(),
            highest: 7,
            beyond: None,
        };
        let found = standstill(None, Concern::Numbers, &fault.to_string());
        let known = Known {
            faults: &[fault],
            ..Known::default()
        };
        let text = text(Uuid::nil(), &[&found], &waiting(vec!["a"]), &known);
        assert!(
            text.action
                .starts_with("as the schema's owner: select setval('apipay.jobs_id_seq', 7);"),
            "{}",
            text.action
        );
    }

    #[test]
    fn an_account_that_nobody_serves_is_named_with_both_ways_out() {
        let found = standstill(Some("clinic"), Concern::Service, "");
        let text = text(
            Uuid::nil(),
            &[&found],
            &waiting(vec!["clinic"]),
            &Known::default(),
        );
        assert_eq!(
            text.summary,
            "No running apipayd has account clinic in its configuration: its payments wait, and what becomes of its \
             invoices is not seen."
        );
        assert!(text.action.contains("[accounts.clinic]"));
        for way_out in [
            "apipay.cancel_jobs(",
            "select apipay.park('clinic', 'why');",
        ] {
            assert!(text.action.contains(way_out), "{}", text.action);
        }
    }

    #[test]
    fn a_daemon_that_ended_is_named_with_its_machine_and_its_accounts() {
        let found = Standstill {
            host: "kassa-2".into(),
            accounts: (1..=7).map(|n| format!("shop{n}")).collect(),
            ..standstill(None, Concern::SilentDaemon, "2026-11-01T14:02:03Z")
        };
        let text = text(
            Uuid::nil(),
            &[&found],
            &waiting(vec!["shop3"]),
            &Known::default(),
        );
        assert_eq!(
            text.summary,
            "The apipayd that served accounts shop1, shop2, shop3, shop4, shop5 and 2 more on kassa-2 has given no sign of \
             life since 2026-11-01T14:02:03Z, and no other one serves them: their payments wait, and what becomes of their \
             invoices is not seen. When last counted: 12 payments wait, 15000 KZT, of shop3; what is not due now, such as \
             what is blocked, capped or parked, is not counted."
        );
        assert!(
            text.action
                .starts_with("on kassa-2: sudo systemctl start apipayd;"),
            "{}",
            text.action
        );
        let found = Standstill {
            concern: Concern::StoppedDaemon,
            accounts: vec!["shop1".into()],
            ..found
        };
        let waiting = waiting(vec!["shop1"]);
        let text = super::text(Uuid::nil(), &[&found], &waiting, &Known::default());
        assert!(
            text.summary.starts_with(
                "The apipayd that served account shop1 on kassa-2 was stopped at 2026-11-01T14:02:03Z, and no other one \
                 serves it: its payments wait"
            ),
            "{}",
            text.summary
        );
    }

    #[test]
    fn alerts_that_are_not_delivered_hold_no_payment_up() {
        let found = standstill(None, Concern::Deliveries, "webhook: refused");
        let text = text(
            Uuid::nil(),
            &[&found],
            &waiting(vec!["shop"]),
            &Known::default(),
        );
        assert_eq!(text.summary, "Alerts are not delivered: webhook: refused.");
    }

    #[test]
    fn a_stop_says_who_and_why() {
        let stop = Stop {
            seconds: 90_000.0,
            changed_by: "dba".into(),
            reason: "moving house".into(),
        };
        let found = standstill(None, Concern::Stop, "");
        let known = Known {
            stop: Some(&stop),
            ..Known::default()
        };
        let text = text(Uuid::nil(), &[&found], &waiting(vec![]), &known);
        assert!(text.summary.starts_with(
            "All sending has been stopped for more than a day, by dba (moving house)."
        ));
        assert_eq!(text.action, "select apipay.start('why');");
    }

    #[test]
    fn a_limit_says_until_when_the_account_waits_and_what_helps_against_its_code() {
        let refused = |until: Option<&str>| Standstill {
            refused: Some(RefusedRequests {
                since: "12:00".into(),
                code: "too_many_failed_authentications".into(),
                said: None,
                until: until.map(str::to_owned),
            }),
            ..standstill(Some("shop"), Concern::Limit, "HTTP 429, since 12:00")
        };
        let text = |until| {
            let found = refused(until);
            text(
                Uuid::nil(),
                &[&found],
                &waiting(vec!["shop"]),
                &Known::default(),
            )
        };
        let long = text(Some("13:00"));
        assert_eq!(
            long.summary,
            "ApiPay refuses every payment of account shop, again and again, because requests with a wrong key came too \
             often (HTTP 429, since 12:00): they wait until 13:00."
        );
        assert!(
            long.action.contains("compare the key of account shop"),
            "{}",
            long.action
        );
        assert!(
            long.action
                .ends_with("select apipay.resume('shop', 'why');"),
            "{}",
            long.action
        );
        let short = text(None);
        assert!(short.summary.ends_with("they wait."), "{}", short.summary);
        assert!(!short.action.contains("resume"), "{}", short.action);
    }
}
