//! Reads what the database says of the accounts, and writes the line that `systemctl status` shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;

use crate::db::accounts::AccountRow;
use crate::db::health::{CountedJobs, Glance};
use crate::db::{DbError, accounts, health};
use crate::domain::account::AccountName;
use crate::domain::outage::{Awaited, Course, Outage, Row};
use crate::telemetry::Chain;
use crate::worker::context::Context;
use crate::worker::signals;
use crate::worker::spell::warn_in_spells;

/// Reads the accounts' states, so that parks and resumptions made elsewhere are known here too.
/// Returns the status line, with what the database refuses to do, if anything.
pub async fn look(ctx: &Arc<Context>, trouble: Option<String>) -> Result<String, DbError> {
    let rows = accounts::list(&ctx.pool).await?;
    for row in &rows {
        let Some(room) = AccountName::parse(&row.name).and_then(|name| ctx.rooms.get(&name)) else {
            continue;
        };
        let resumed_for = row
            .resumed_for_s
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        room.park.observe(
            row.parked_at.is_some(),
            row.is_doubted,
            resumed_for,
            ctx.rules.breaker.slow_start,
            room.age(),
        );
        // What the last probe got says nothing once there are no more.
        if !row.is_probed {
            room.probing.note(None);
        }
        room.park.wait_for_delivery(row.delivery_error.is_some());
        // It may have got through before this daemon knew of the doubt.
        let is_over = |time| row.is_doubted && room.park.got_through_within(time);
        if resumed_for.is_some_and(is_over)
            && let Err(error) = signals::end_doubt(&room).await
        {
            warn_in_spells!(room.name; account = %room.name, error = %Chain(&error), "the end of the doubt about the account is not stored yet; it is tried again");
        }
        room.outages.learn(row.outage.clone());
    }
    let glance = health::glance(&ctx.pool, ctx.worker).await?;
    let waiting = health::waiting(&ctx.pool, &ctx.account_names()).await?;
    let open = ctx.rooms.open();
    let ours: Vec<AccountRow> = rows
        .into_iter()
        .filter(|row| open.iter().any(|room| room.name.as_str() == row.name))
        .collect();
    let hidden = if glance.stopped.is_none() {
        Some("_control")
    } else {
        (ours.len() < open.len()).then_some("accounts")
    };
    let trouble = trouble.or_else(|| {
        hidden.map(|table| {
            format!("rows of apipay.{table} cannot be seen (row level security?), see what apipayd check says")
        })
    });
    Ok(status_line(
        trouble,
        &ours,
        &waiting,
        &glance,
        ctx.sends.len(),
    ))
}

/// One line for a human: what is wrong first, then what waits.
fn status_line(
    trouble: Option<String>,
    accounts: &[AccountRow],
    waiting: &[CountedJobs],
    glance: &Glance,
    in_flight: usize,
) -> String {
    let mut counts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in waiting {
        let more = if row.has_more { "+" } else { "" };
        let told = format!("{}{more} {}", row.jobs, row.state);
        counts.entry(&row.account).or_default().push(told);
    }
    let now = OffsetDateTime::now_utc();
    let mut parts: Vec<String> = trouble.into_iter().collect();
    if glance.stopped == Some(true) {
        parts.push("ALL SENDING STOPPED by apipay.stop()".to_owned());
    }
    for account in accounts {
        let parked = account.parked_reason.as_ref().zip(account.parked_at);
        let parked =
            parked.map(|(reason, since)| format!("PARKED {reason} since {}", clock(since)));
        let is_parked = parked.is_some();
        let still = |until: Option<OffsetDateTime>| until.filter(|until| *until > now);
        let waiting = still(account.blocked_until).filter(|_| !is_parked);
        let waiting = waiting.map(|until| format!("waiting until {}", clock(until)));
        let capped = still(account.capped_until).zip(account.capped_reason.as_ref());
        let capped = capped.map(|(until, code)| format!("CAPPED {code} until {}", clock(until)));
        let failing = failing(&account.outage, &account.awaited).filter(|_| !is_parked);
        let counted = counts
            .get(account.name.as_str())
            .map(|counts| counts.join(", "));
        let told = [parked, waiting, capped, failing, counted];
        let told: Vec<String> = told.into_iter().flatten().collect();
        if !told.is_empty() {
            parts.push(format!("{}: {}", account.name, told.join(", ")));
        }
    }
    if !glance.alerts.is_empty() {
        parts.push(format!("OPEN ALERTS: {}", glance.alerts.join(", ")));
    }
    // An answer takes a second or two. Later than that, the gateway hangs or the database does.
    let is_old = |age: &f64| in_flight > 0 && *age >= LONG_S;
    let oldest = glance
        .oldest_s
        .filter(is_old)
        .map_or_else(String::new, |age| format!(", THE OLDEST FOR {age:.0} s"));
    if parts.is_empty() && oldest.is_empty() {
        parts.push("all well".to_owned());
    }
    parts.push(format!("{in_flight} in flight{oldest}"));
    parts.join("; ")
}

/// From this age on, in seconds, a request that is under way is told by it.
const LONG_S: f64 = 5.0;

/// What fails, and since when: sends of which one tries at a time, reads likewise, or a limit that lets
/// nothing through.
fn failing(outage: &Outage, awaited: &Awaited) -> Option<String> {
    let slow = |course: &Course| course.failing.clone().filter(|_| course.is_slow());
    // What nothing waits for is not tried, and shows itself with the next payment.
    let told = |is_awaited, to: &str, row: Row| {
        let (code, since) = (&row.fault.code, clock(row.since));
        match is_awaited {
            true => format!("NO CLEAR ANSWER{to} {code} since {since}"),
            false => format!("no clear answer{to} {code} since {since}, and nothing waits for one"),
        }
    };
    let mut parts = Vec::new();
    if let Some(row) = slow(&outage.sends) {
        parts.push(told(awaited.sends, "", row));
    }
    for (read, course) in &outage.reads {
        if let Some(row) = slow(course) {
            let is_awaited = awaited.reads.contains(read);
            parts.push(told(is_awaited, &format!(" to {}", read.as_str()), row));
        }
    }
    if let Some(since) = outage.sends.refused_since {
        parts.push(format!("refused for its limit since {}", clock(since)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Hours and minutes if it is today, else the date as well; in UTC, as everything in the log.
fn clock(moment: OffsetDateTime) -> String {
    let today = moment.date() == OffsetDateTime::now_utc().date();
    let written = if today {
        moment.format(format_description!("[hour]:[minute]Z"))
    } else {
        moment.format(format_description!("[year]-[month]-[day] [hour]:[minute]Z"))
    };
    written.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_well_only_without_alerts_and_old_requests() {
        let well = Glance {
            stopped: Some(false),
            alerts: Vec::new(),
            oldest_s: Some(1.2),
        };
        let line = |glance: &Glance, in_flight| status_line(None, &[], &[], glance, in_flight);
        assert_eq!(line(&well, 3), "all well; 3 in flight");

        let told = Glance {
            alerts: vec!["job_held".to_owned(), "2 cap_reached".to_owned()],
            ..well.clone()
        };
        assert_eq!(
            line(&told, 0),
            "OPEN ALERTS: job_held, 2 cap_reached; 0 in flight"
        );

        let hangs = Glance {
            oldest_s: Some(25.4),
            ..well.clone()
        };
        assert_eq!(line(&hangs, 3), "3 in flight, THE OLDEST FOR 25 s");
        // What others have in hand, or what is over, is not told.
        assert_eq!(line(&hangs, 0), "all well; 0 in flight");

        let stopped = Glance {
            stopped: Some(true),
            ..well
        };
        assert_eq!(
            line(&stopped, 0),
            "ALL SENDING STOPPED by apipay.stop(); 0 in flight"
        );
    }
}
