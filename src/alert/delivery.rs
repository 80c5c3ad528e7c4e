//! What is told about an alert, in words and as values.

use std::fmt::Write;

use rust_decimal::Decimal;
use time::OffsetDateTime;

use crate::domain::job::MOST_COUNTED;

/// Something to tell about one alert.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What is new.
    pub status: Status,
    /// The account it concerns; none: the whole daemon.
    pub account: Option<String>,
    /// The alert's kind, such as `account_parked`.
    pub kind: String,
    /// What it is about, where several of its kind may be open at the same time; else empty.
    pub subject: String,
    /// `critical` or `warning`.
    pub severity: String,
    /// What happened.
    pub summary: String,
    /// What to do, with the exact command.
    pub action: String,
    /// Since when.
    pub opened_at: OffsetDateTime,
    /// What waits; none where it could not be counted.
    pub waiting: Option<Waiting>,
}

/// What waits in an account for the end of whatever an alert tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Its jobs; from [`MOST_COUNTED`] on there may be more.
    pub jobs: i64,
    /// The tenge in them, as far as known.
    pub amount: Option<Decimal>,
}

/// What is new about an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It began.
    Firing,
    /// It is still open.
    StillFiring,
    /// It ended.
    Resolved {
        /// When.
        at: OffsetDateTime,
        /// How.
        how: String,
    },
}

/// The delivery as one line for the log.
pub fn log_line(delivery: &Delivery) -> String {
    let mut line = match &delivery.status {
        Status::Firing => format!("ALERT {}", delivery.kind),
        Status::StillFiring => format!("ALERT still open: {}", delivery.kind),
        Status::Resolved { .. } => format!("ALERT resolved: {}", delivery.kind),
    };
    if let Some(account) = &delivery.account {
        line += &format!(" of account {account}");
    }
    line += &match &delivery.status {
        Status::Firing => format!(": {}", delivery.summary),
        Status::StillFiring => {
            format!(" since {}: {}", clock(delivery.opened_at), delivery.summary)
        }
        Status::Resolved { at, how } => {
            format!(" after {}: {how}", span(*at - delivery.opened_at))
        }
    };
    line += &waiting(delivery);
    if !matches!(delivery.status, Status::Resolved { .. }) {
        line += &format!(" To do: {}", delivery.action);
    }
    // One delivery is one line, and a terminal obeys no gateway.
    line.replace(|c: char| c.is_control(), " ")
}

fn waiting(delivery: &Delivery) -> String {
    let Some(waiting) = delivery.waiting else {
        return String::new();
    };
    let jobs = match waiting.jobs {
        0 => return String::new(),
        1 => "1 job waits".to_owned(),
        jobs => format!("{} jobs wait", counted(jobs)),
    };
    let least = if waiting.jobs >= MOST_COUNTED {
        "at least "
    } else {
        ""
    };
    match waiting.amount {
        Some(amount) => format!(" ({jobs}, {least}{amount} KZT)."),
        None => format!(" ({jobs})."),
    }
}

/// A count of jobs in words: `10000+` when there may be more.
pub(super) fn counted(jobs: i64) -> String {
    let more = if jobs >= MOST_COUNTED { "+" } else { "" };
    format!("{jobs}{more}")
}

fn clock(at: OffsetDateTime) -> String {
    at.format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_else(|_| at.unix_timestamp().to_string())
}

/// The two largest units.
fn span(length: time::Duration) -> String {
    let seconds = length.whole_seconds().max(0);
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let from = units
        .iter()
        .position(|(number, _)| *number > 0)
        .unwrap_or(units.len() - 1);
    let mut text = String::new();
    for (number, unit) in units.iter().skip(from).take(2) {
        let blank = if text.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        write!(text, "{blank}{number} {unit}").ok();
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use time::macros::datetime;

    use super::*;

    pub(in crate::alert) fn delivery(status: Status) -> Delivery {
        Delivery {
            status,
            account: Some("shop".into()),
            kind: "account_parked".into(),
            subject: String::new(),
            severity: "critical".into(),
            summary: "The Kaspi session has expired.".into(),
            action: "Log in again, then: select apipay.resume('shop', 'logged in');".into(),
            opened_at: datetime!(2026-11-01 14:02:03 UTC),
            waiting: Some(waiting(37)),
        }
    }

    fn waiting(jobs: i64) -> Waiting {
        let amount = Some(Decimal::new(12_500_050, 2));
        Waiting { jobs, amount }
    }

    pub(in crate::alert) fn resolved() -> Status {
        Status::Resolved {
            at: datetime!(2026-11-01 16:07:03 UTC),
            how: "the gateway is well again".into(),
        }
    }

    #[test]
    fn a_line_says_what_happened_what_waits_and_what_to_do() {
        assert_eq!(
            log_line(&delivery(Status::Firing)),
            "ALERT account_parked of account shop: The Kaspi session has expired. (37 jobs wait, 125000.50 KZT). \
             To do: Log in again, then: select apipay.resume('shop', 'logged in');"
        );
        assert_eq!(
            log_line(&delivery(Status::StillFiring)),
            "ALERT still open: account_parked of account shop since 2026-11-01T14:02:03Z: The Kaspi session has \
             expired. (37 jobs wait, 125000.50 KZT). To do: Log in again, then: select apipay.resume('shop', \
             'logged in');"
        );
        assert_eq!(
            log_line(&delivery(resolved())),
            "ALERT resolved: account_parked of account shop after 2 h 5 min: the gateway is well again (37 jobs \
             wait, 125000.50 KZT)."
        );
    }

    #[test]
    fn a_line_stays_one_line() {
        let mut delivery = delivery(Status::Firing);
        delivery.account = None;
        delivery.summary = "two\nlines \u{1b}[31mred".into();
        delivery.waiting = Some(Waiting::default());
        delivery.action = "look".into();
        assert_eq!(
            log_line(&delivery),
            "ALERT account_parked: two lines  [31mred To do: look"
        );
    }

    #[test]
    fn what_was_not_counted_is_not_told() {
        let mut delivery = delivery(Status::Firing);
        delivery.waiting = None;
        let line = log_line(&delivery);
        assert!(!line.contains("wait"), "{line}");
    }

    #[test]
    fn what_was_not_counted_to_its_end_is_told_so() {
        let mut delivery = delivery(Status::Firing);
        delivery.waiting = Some(waiting(9_999));
        assert!(log_line(&delivery).contains("(9999 jobs wait, 125000.50 KZT)"));
        delivery.waiting = Some(waiting(10_000));
        assert!(log_line(&delivery).contains("(10000+ jobs wait, at least 125000.50 KZT)"));
    }

    #[test]
    fn spans_show_two_units() {
        let shown = |seconds| span(time::Duration::seconds(seconds));
        assert_eq!(shown(-5), "0 s");
        assert_eq!(shown(59), "59 s");
        assert_eq!(shown(60), "1 min 0 s");
        assert_eq!(shown(90_000), "1 d 1 h");
    }
}
