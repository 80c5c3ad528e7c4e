//! The resolution text of a `no_progress` alert, which says only what is true of what is not found any more.

use crate::db::progress::{AccountNow, Stop};
use crate::policy::progress::Concern;
use crate::worker::alerting;
use crate::worker::written::written;

/// What tells in its place why nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InPlace<'a> {
    /// The alert of this kind.
    Alert(&'a str),
    /// What is told of the daemon of this machine.
    Daemon(&'a str),
    /// What is told of all accounts.
    All,
}

/// What is found of a parked account as well, and so does not end because it is parked.
const FOUND_WHILE_PARKED: [Concern; 4] = [
    Concern::Service,
    Concern::Probing,
    Concern::Probes,
    Concern::Leases,
];

/// How it ended for one account, given how the account stands now.
pub(super) fn of_account(
    concerns: &[String],
    standing: Option<&AccountNow>,
    stop: Option<&Stop>,
    in_place: Option<InPlace<'_>>,
) -> String {
    let Some(standing) = standing else {
        return "there is no such account any more".to_owned();
    };
    let how = how(concerns, standing, stop, in_place);
    let unseen = if !standing.is_served && standing.open > 0 {
        "; no running apipayd serves it, so what becomes of what ApiPay has accepted of it is not seen until one does"
    } else {
        ""
    };
    format!("{how}{unseen}")
}

fn how(
    concerns: &[String],
    standing: &AccountNow,
    stop: Option<&Stop>,
    in_place: Option<InPlace<'_>>,
) -> String {
    if is_ended_by_park(concerns, standing) {
        return alerting::PARKED_NOW.to_owned();
    }
    match in_place {
        Some(InPlace::Alert(kind)) => return format!("the alert {kind} says now why it waits"),
        Some(InPlace::Daemon(host)) => {
            return format!("the alert about the apipayd on {host} says now why it waits");
        }
        Some(InPlace::All) => {
            return "the alert about all accounts says now why it waits".to_owned();
        }
        None => {}
    }
    if standing.is_served && concerns == [Concern::Service.code()] {
        return "an apipayd serves it again".to_owned();
    }
    if standing.is_parked {
        return "it is not found any more; the account is parked: its alert account_parked says why"
            .to_owned();
    }
    if !standing.is_waiting {
        let served = match standing.is_served {
            true => "",
            false => ", and no running apipayd serves it",
        };
        let was_taken_up =
            standing.was_claimed && concerns.iter().any(|code| code == Concern::Claims.code());
        let how = match was_taken_up {
            true => "payments of it were taken up again, and nothing more of it is due",
            false => "nothing of it is due any more",
        };
        return match standing.held {
            0 => format!("{how}{served}"),
            1 => format!("{how}; 1 job of it is held: see job_held{served}"),
            held => format!("{how}; {held} jobs of it are held: see job_held{served}"),
        };
    }
    if let Some(stop) = stop {
        return format!("{}, and what is due waits", stopped(stop));
    }
    if !standing.is_served {
        return "no running apipayd serves it, and what is due waits".to_owned();
    }
    if let Some(until) = standing.blocked_until {
        let until = written(until);
        return format!("ApiPay limits it until {until}, and it waits until then");
    }
    "it moves again".to_owned()
}

/// Whether the account is parked, and that is why it is not found any more. Of one that an operator has parked nothing is
/// asked, so nobody is missed.
fn is_ended_by_park(concerns: &[String], standing: &AccountNow) -> bool {
    let is_found_while_parked = |code: &String| {
        FOUND_WHILE_PARKED
            .iter()
            .any(|concern| concern.code() == code)
    };
    standing.is_left_alone
        || standing.is_parked
            && (concerns.is_empty() || !concerns.iter().all(is_found_while_parked))
}

fn stopped(stop: &Stop) -> String {
    match stop.reason.as_str() {
        "" => format!("all sending was stopped by {}", stop.changed_by),
        reason => format!("all sending was stopped by {} ({reason})", stop.changed_by),
    }
}

/// How it ended that a daemon was missing.
const NO_LONGER_AWAITED: &str = "nothing that is due waits for that daemon any more";

/// How it ended that something was told of no single account.
pub(super) fn of_all(concerns: &[String]) -> String {
    let mut how: Vec<&str> = [
        (Concern::Database, "the database answers again"),
        (
            Concern::Loop,
            "each part of apipayd gets its work done again",
        ),
        (
            Concern::Outcomes,
            "the database takes what became of payments again",
        ),
        (
            Concern::Deliveries,
            "alerts are delivered again, or none waits after a failed try any more",
        ),
        (Concern::Schema, "the schema stops nothing any more"),
        (Concern::Numbers, "new numbers are free again"),
        (
            Concern::Stop,
            "sending was started again, or nothing is due any more",
        ),
        (
            Concern::Start,
            "no account is kept from being served any more",
        ),
        (
            Concern::Change,
            "what ApiPay says of the accounts is stored again",
        ),
        (Concern::StoppedDaemon, NO_LONGER_AWAITED),
        (Concern::SilentDaemon, NO_LONGER_AWAITED),
    ]
    .into_iter()
    .filter(|(concern, _)| concerns.iter().any(|code| code == concern.code()))
    .map(|(_, how)| how)
    .collect();
    how.dedup();
    match how.as_slice() {
        [] => "it is not found any more".to_owned(),
        how => how.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn standing() -> AccountNow {
        AccountNow {
            is_served: true,
            is_waiting: true,
            ..AccountNow::default()
        }
    }

    fn ended(standing: &AccountNow) -> String {
        of_account(&["claims".to_owned()], Some(standing), None, None)
    }

    fn stop() -> Stop {
        Stop {
            seconds: 5.0,
            changed_by: "dba".into(),
            reason: "looking".into(),
        }
    }

    /// Whatever keeps it from moving, it is not said to move.
    #[test]
    fn only_what_moves_is_said_to_move() {
        assert_eq!(ended(&standing()), "it moves again");
        let parked = AccountNow {
            is_parked: true,
            ..standing()
        };
        assert_eq!(ended(&parked), alerting::PARKED_NOW);
        let idle = AccountNow {
            is_waiting: false,
            ..standing()
        };
        assert_eq!(ended(&idle), "nothing of it is due any more");
        let taken_up = AccountNow {
            was_claimed: true,
            ..idle.clone()
        };
        assert_eq!(
            ended(&taken_up),
            "payments of it were taken up again, and nothing more of it is due"
        );
        let looked_up = of_account(&["look_ups".to_owned()], Some(&taken_up), None, None);
        assert_eq!(looked_up, "nothing of it is due any more");
        let given_up = AccountNow {
            held: 3,
            ..idle.clone()
        };
        assert_eq!(
            ended(&given_up),
            "nothing of it is due any more; 3 jobs of it are held: see job_held"
        );
        let limited = AccountNow {
            blocked_until: Some(OffsetDateTime::UNIX_EPOCH),
            ..standing()
        };
        assert_eq!(
            ended(&limited),
            "ApiPay limits it until 1970-01-01T00:00:00Z, and it waits until then"
        );
        let stop = stop();
        let of_stop = |standing: &AccountNow| of_account(&[], Some(standing), Some(&stop), None);
        assert_eq!(
            of_stop(&standing()),
            "all sending was stopped by dba (looking), and what is due waits"
        );
        assert_eq!(of_stop(&idle), "nothing of it is due any more");
        for (in_place, how) in [
            (
                InPlace::Alert("job_stuck"),
                "the alert job_stuck says now why it waits",
            ),
            (
                InPlace::Daemon("kassa-2"),
                "the alert about the apipayd on kassa-2 says now why it waits",
            ),
            (
                InPlace::All,
                "the alert about all accounts says now why it waits",
            ),
        ] {
            let ended = of_account(&[], Some(&standing()), None, Some(in_place));
            assert_eq!(ended, how);
        }
    }

    /// What is found of a parked account as well does not end because it is parked.
    #[test]
    fn a_park_ends_only_what_is_not_found_of_a_parked_account() {
        let parked = AccountNow {
            is_parked: true,
            ..standing()
        };
        let unserved = AccountNow {
            is_served: false,
            ..parked.clone()
        };
        let of = |code: &str, standing: &AccountNow, in_place| {
            of_account(&[code.to_owned()], Some(standing), None, in_place)
        };
        assert_eq!(
            of("service", &unserved, Some(InPlace::Daemon("vm"))),
            "the alert about the apipayd on vm says now why it waits"
        );
        assert_eq!(of("service", &parked, None), "an apipayd serves it again");
        for code in ["service", "probing", "probes", "leases"] {
            let ended = of(code, &unserved, None);
            assert!(ended.starts_with("it is not found any more"), "{ended}");
        }
        let left_alone = AccountNow {
            is_left_alone: true,
            ..unserved.clone()
        };
        assert_eq!(of("service", &left_alone, None), alerting::PARKED_NOW);
        for code in ["claims", "checks"] {
            let ended = of(code, &unserved, Some(InPlace::Daemon("vm")));
            assert_eq!(ended, alerting::PARKED_NOW);
        }
    }

    #[test]
    fn nothing_due_and_nobody_serving_are_said_only_where_they_are_so() {
        let unserved = AccountNow {
            is_served: false,
            ..standing()
        };
        assert_eq!(
            ended(&unserved),
            "no running apipayd serves it, and what is due waits"
        );
        let idle = AccountNow {
            is_waiting: false,
            ..unserved
        };
        assert_eq!(
            ended(&idle),
            "nothing of it is due any more, and no running apipayd serves it"
        );
        let open = AccountNow { open: 1, ..idle };
        assert!(ended(&open).ends_with("not seen until one does"));
        let again = of_account(&["service".to_owned()], Some(&standing()), None, None);
        assert_eq!(again, "an apipayd serves it again");
    }

    #[test]
    fn what_concerns_all_ends_with_what_was_told() {
        let ended =
            |codes: &[&str]| of_all(&codes.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(ended(&["database"]), "the database answers again");
        assert_eq!(
            ended(&["stop"]),
            "sending was started again, or nothing is due any more"
        );
        assert_eq!(
            ended(&["loop", "outcomes"]),
            "each part of apipayd gets its work done again; the database takes what became of payments again"
        );
        assert_eq!(ended(&["unheard of"]), "it is not found any more");
    }
}
