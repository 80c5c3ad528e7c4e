//! What holds payments up although everything works: an account that is parked, a stop of all sending, a job or the row of
//! an account that somebody keeps locked, and whatever an open alert tells.

use std::time::Duration;

use time::OffsetDateTime;

use super::result::CheckResult;
use crate::db::accounts::{self, Obstacle};
use crate::db::alerts::{self, Open};
use crate::db::locks::{self, Blocker, InTheWay, LockedJob, LockedMirror};
use crate::db::progress::{self, Stop};
use crate::db::{DbError, Pool};
use crate::policy::remedy::{ANY_LOCK, in_check};
use crate::telemetry::Chain;

/// How long a job is due before it counts as kept locked: shorter locks are everyday life.
const OVERDUE: Duration = Duration::from_secs(15);

/// Alerts that are told one by one.
const TOLD: i64 = 20;

/// What is told of these accounts: of a database that is not usable the open alerts may say why.
pub(super) async fn told(pool: &Pool, configured: &[String]) -> Vec<CheckResult> {
    match alerts::open_now(pool, configured, TOLD).await {
        Ok(open) => open.iter().map(alert).chain(more(&open)).collect(),
        Err(error) => vec![CheckResult::failed("alerts", Chain(&error))],
    }
}

/// Who keeps whole tables locked, be it that it waits for one itself: then nothing else can be asked.
pub(super) async fn locked_tables(pool: &Pool) -> Vec<CheckResult> {
    match locks::of_tables(pool).await {
        Ok(ways) => ways.iter().map(keeps).collect(),
        Err(error) => vec![CheckResult::failed("locks", Chain(&error))],
    }
}

/// Asks the database; `configured` are the accounts of this configuration.
pub(super) async fn gather(pool: &Pool, configured: &[String]) -> Vec<CheckResult> {
    let asked = async {
        let obstacles = accounts::obstacles(pool, configured).await?;
        let stop = progress::stop(pool).await?;
        let locked = locks::due_jobs(pool, configured, OVERDUE).await?;
        let kept = locks::kept_accounts(pool, configured).await?;
        let kept = locks::in_the_way(pool, &kept).await?;
        let mirrors = locks::due_mirrors(pool, configured, OVERDUE).await?;
        let open = alerts::open_now(pool, configured, TOLD).await?;
        Ok::<_, DbError>((obstacles, stop, locked, kept, mirrors, open))
    };
    match asked.await {
        Ok((obstacles, stop, locked, kept, mirrors, open)) => {
            let mut results = vec![sending(stop.as_ref())];
            results.extend(obstacles.iter().map(account));
            results.extend(locked.iter().map(lock));
            let now = OffsetDateTime::now_utc();
            let lasting = kept.iter().filter(|way| is_lasting(&way.blocker, now));
            results.extend(lasting.map(keeps));
            results.extend(mirrors.iter().map(mirror));
            results.extend(open.iter().map(alert));
            results.extend(more(&open));
            results
        }
        Err(error) => vec![CheckResult::failed("waiting", Chain(&error))],
    }
}

fn sending(stop: Option<&Stop>) -> CheckResult {
    match stop {
        None => CheckResult::ok("sending", "sending is not stopped"),
        Some(Stop {
            changed_by, reason, ..
        }) => {
            let why = match reason.as_str() {
                "" => String::new(),
                reason => format!(" ({reason})"),
            };
            CheckResult::warning(
                "sending",
                format_args!(
                    "all sending, of every account, is stopped by {changed_by}{why}; to start it: select \
                     apipay.start('why');"
                ),
            )
        }
    }
}

fn account(obstacle: &Obstacle) -> CheckResult {
    let name = &obstacle.account;
    match &obstacle.why {
        None => CheckResult::ok(
            "account",
            format_args!("account {name}: neither parked nor told to wait"),
        ),
        // The daemon parks what the gateway says is unwell.
        Some(why) if obstacle.is_unwell => {
            CheckResult::failed("account", format_args!("nothing is sent: {why}"))
        }
        Some(why) => CheckResult::warning("account", format_args!("sending waits: {why}")),
    }
}

/// Whether it has kept what it keeps for long; so does one of which that is not to be seen.
fn is_lasting(blocker: &Blocker, now: OffsetDateTime) -> bool {
    blocker.since().is_none_or(|since| now - since >= OVERDUE)
}

/// Without its row an account is not probed, parked, resumed or told to wait.
fn keeps(way: &InTheWay) -> CheckResult {
    let table = &way.table;
    let chain: Vec<&Blocker> = [&way.blocker]
        .into_iter()
        .chain(&way.behind)
        .chain(&way.root)
        .collect();
    let (last, waiting) = match chain.as_slice() {
        [waiting @ .., last] => (*last, waiting),
        [] => (&way.blocker, [].as_slice()),
    };
    let mut by: String = waiting
        .iter()
        .map(|blocker| format!("{}, which waits for ", blocker.name()))
        .collect();
    by += &last.with_remedy();
    let what = match &way.account {
        Some(account) => format!("the row of account {account} in {table}"),
        None => format!("the table {table}"),
    };
    CheckResult::warning("locks", format_args!("{what} is kept locked by {by}"))
}

fn mirror(locked: &LockedMirror) -> CheckResult {
    let LockedMirror { account, id, .. } = locked;
    let what = if locked.is_refund {
        "refund"
    } else {
        "invoice"
    };
    CheckResult::warning(
        "locks",
        format_args!(
            "{what} {id} of account {account} is due to be checked and kept locked by {}",
            holder(locked.blocker.as_ref())
        ),
    )
}

fn holder(blocker: Option<&Blocker>) -> String {
    let unknown = || {
        let end = ANY_LOCK.trim_end_matches('.');
        format!("somebody who is not known: {end}")
    };
    blocker.map_or_else(unknown, Blocker::with_remedy)
}

fn lock(job: &LockedJob) -> CheckResult {
    let holder = holder(job.blocker.as_ref());
    CheckResult::warning(
        "locks",
        format_args!(
            "job {} of account {} is due ({}) and kept locked by {holder}",
            job.id, job.account, job.state
        ),
    )
}

/// How many are open besides those that are told one by one.
fn more(told: &[Open]) -> Option<CheckResult> {
    let all = told.first()?.all_open;
    let more = all - i64::try_from(told.len()).unwrap_or(i64::MAX);
    (more > 0).then(|| {
        CheckResult::warning(
            "alerts",
            format_args!(
                "{more} more of {all} open alerts are not shown here: select id, opened_at, account, kind, summary, \
                 action from apipay.alerts where resolved_at is null order by id;"
            ),
        )
    })
}

fn alert(open: &Open) -> CheckResult {
    let Open {
        kind,
        summary,
        action,
        all_open: _,
    } = open;
    let action = in_check(action);
    let text = format!("{kind} is open: {summary} To do: {action}");
    match kind.as_str() {
        "history_lost" => CheckResult::failed("alerts", text),
        _ => CheckResult::warning("alerts", text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::State;
    use super::*;
    use crate::cli::print::Row;
    use crate::domain::account::AccountName;
    use crate::domain::job::JobId;
    use crate::policy::remedy::{CHECK, CHECK_FIRST, capitalized};

    #[test]
    fn a_stop_is_told_with_the_command_that_ends_it() {
        assert_eq!(sending(None).state, State::Ok);
        let stop = Stop {
            seconds: 5.0,
            changed_by: "dba".into(),
            reason: "moving house".into(),
        };
        let line = sending(Some(&stop)).line(false);
        assert_eq!(
            line,
            "warning  sending       all sending, of every account, is stopped by dba (moving house); to start it: \
             select apipay.start('why');"
        );
    }

    #[test]
    fn an_account_that_the_daemon_parked_fails_and_one_that_waits_is_warned_of() {
        let obstacle = |is_unwell, why: Option<&str>| {
            let why = why.map(str::to_owned);
            account(&Obstacle {
                account: "shop".into(),
                is_unwell,
                why,
            })
        };
        assert_eq!(obstacle(false, None).state, State::Ok);
        assert_eq!(
            obstacle(true, Some("account shop is parked")).state,
            State::Failed
        );
        assert_eq!(
            obstacle(false, Some("account shop is parked")).state,
            State::Warning
        );
    }

    #[test]
    fn a_chain_of_those_who_wait_is_named_to_its_end() {
        let session = |pid| {
            Blocker::Session(locks::Session {
                pid,
                user: Some("aida".into()),
                application: None,
                since: None,
                state: None,
                statement: None,
            })
        };
        let way = |behind: Option<i32>, root: Option<i32>| InTheWay {
            blocker: session(3),
            table: "apipay.jobs".into(),
            account: None,
            behind: behind.map(session),
            root: root.map(session),
        };
        let by = "the table apipay.jobs is kept locked by session 3";
        let end = "(user aida): end that transaction";
        assert_eq!(keeps(&way(None, None)).text, format!("{by} {end}"));
        assert_eq!(
            keeps(&way(Some(2), Some(1))).text,
            format!("{by}, which waits for session 2, which waits for session 1 {end}")
        );
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let open = Open {
            kind: "job_held".into(),
            summary: "It is.".into(),
            action: "look".into(),
            all_open: 3,
        };
        let told = vec![open.clone(), open];
        let line = more(&told).unwrap().line(false);
        assert!(line.contains("1 more of 3 open alerts"), "{line}");
        assert_eq!(
            more(&told[..1]).map(|more| more.state),
            Some(State::Warning)
        );
        assert_eq!(more(&[]), None);
    }

    #[test]
    fn a_lock_names_its_job_and_lost_history_fails() {
        let job = LockedJob {
            id: JobId(7),
            account: AccountName::parse("shop").unwrap(),
            state: crate::domain::state::State::Queued,
            epoch: 1,
            is_refund: false,
            lock: "750".into(),
            blocker: None,
        };
        let text = lock(&job).text;
        assert!(
            text.contains("job 7 of account shop is due (queued)"),
            "{text}"
        );
        assert!(
            text.contains("(select pid, usename, application_name, xact_start from"),
            "{text}"
        );
        let open = |kind: &str| {
            alert(&Open {
                kind: kind.into(),
                summary: "It is.".into(),
                action: "look".into(),
                all_open: 1,
            })
        };
        assert_eq!(open("history_lost").state, State::Failed);
        for action in [
            CHECK.to_owned(),
            CHECK_FIRST.to_owned(),
            format!("end it; then {CHECK}. {}", capitalized(CHECK_FIRST)),
        ] {
            let line = alert(&Open {
                kind: "no_progress".into(),
                summary: "It is.".into(),
                action,
                all_open: 1,
            })
            .line(false);
            assert!(line.contains("other line"), "{line}");
            assert!(!line.contains("apipayd check"), "{line}");
        }
        assert_eq!(
            open("job_held").line(false),
            "warning  alerts        job_held is open: It is. To do: look"
        );
    }
}
