//! What people read about each kind of standstill: what does not move, and what ends that.

use crate::db::progress::Stop;
use crate::policy::progress::{Concern, Standstill};
use crate::policy::remedy::{CHECK, CHECK_FIRST, Remedy, of_limit};
use crate::policy::unserved;

/// Accounts that are named one by one.
const NAMED: usize = 5;

/// That it does not move. Its age is not in the sentence: a text that changes with each look would be written with each
/// look. `stop` is who has stopped all sending.
pub(super) fn sentence(standstill: &Standstill, stop: Option<&Stop>) -> String {
    let account = standstill.account.as_deref().unwrap_or_default();
    let cause = &standstill.cause;
    let why = match cause.as_str() {
        "" => String::new(),
        cause => format!(": {cause}"),
    };
    match standstill.concern {
        Concern::Claims => {
            format!("Payments of account {account} are due and none is taken up{why}.")
        }
        Concern::Window => format!(
            "Payments of account {account} are claimed, but each time too late to be sent: the database or this machine is slow."
        ),
        Concern::LookUps => {
            format!("Uncertain payments of account {account} are due and none is looked up{why}.")
        }
        Concern::Answers => format!(
            "Uncertain payments of account {account} are looked up again and again, and nothing comes of it{why}."
        ),
        Concern::Checks => {
            format!(
                "What ApiPay accepted for account {account} is due to be checked and is not{why}."
            )
        }
        Concern::Limit => format!(
            "ApiPay refuses every payment of account {account}, again and again, because {} ({cause}): they wait{}.",
            limit(standstill).what,
            until(standstill)
        ),
        Concern::AskingLimit => format!(
            "ApiPay refuses whatever is asked about payments of account {account}, because {} ({cause}): what became of \
             them is not seen{}.",
            limit(standstill).what,
            until(standstill)
        ),
        Concern::Probing => format!(
            "Account {account} is parked, and no daemon asks ApiPay whether it is well again: its probe is {cause} and is not \
             made."
        ),
        Concern::Probes => format!(
            "Account {account} is parked, and whether it is well again is not seen: ApiPay gives no clear answer when asked \
             for its health ({cause})."
        ),
        Concern::Leases => format!(
            "Payments of account {account} are held by a daemon that is gone or cannot write down what became of them, \
             and are not recovered."
        ),
        Concern::Turns => format!(
            "Refunds of account {account} waited for another one of their invoice, and do not go on although it has ended{why}."
        ),
        Concern::Start => format!(
            "An apipayd cannot begin to serve {}: {cause}",
            named(&standstill.accounts)
        ),
        Concern::Change => format!(
            "What ApiPay says of {} cannot be stored, and nothing of it is sent before that: {cause}",
            named(&standstill.accounts)
        ),
        Concern::Service => format!(
            "No running apipayd has account {account} in its configuration: its payments wait, and what becomes of its \
             invoices is not seen."
        ),
        Concern::StoppedDaemon => missed(standstill, &format!("was stopped at {cause}")),
        Concern::SilentDaemon => missed(
            standstill,
            &format!("has given no sign of life since {cause}"),
        ),
        Concern::Database => format!("The database cannot be used: {cause}."),
        Concern::Loop => format!("A part of apipayd fails again and again: {cause}."),
        Concern::Outcomes => format!(
            "The database does not take what became of payments, so nothing new is sent: {cause}."
        ),
        Concern::Deliveries => format!("Alerts are not delivered: {cause}."),
        Concern::Schema => format!("Payments cannot move: {cause}."),
        Concern::Numbers => format!("New payments are refused or go a slow way: {cause}."),
        Concern::Stop => {
            let (by, why) = stop.map_or(("somebody", ""), |stop| {
                (stop.changed_by.as_str(), stop.reason.as_str())
            });
            format!("All sending has been stopped for more than a day, by {by} ({why}).")
        }
    }
}

/// That a daemon has ended so, and what waits for it.
fn missed(standstill: &Standstill, how: &str) -> String {
    let (them, their) = match standstill.accounts.len() {
        1 => ("it", "its"),
        _ => ("them", "their"),
    };
    format!(
        "The apipayd that served {} on {} {how}, and no other one serves {them}: {their} payments wait, and what becomes \
         of {their} invoices is not seen.",
        named(&standstill.accounts),
        standstill.host
    )
}

/// Why the requests of a standstill are refused, and what helps.
fn limit(standstill: &Standstill) -> Remedy {
    let refused = standstill.refused.as_ref();
    let code = refused.map_or("", |refused| refused.code.as_str());
    let account = standstill.account.as_deref().unwrap_or_default();
    of_limit(
        account,
        code,
        refused.and_then(|refused| refused.said.as_deref()),
    )
}

/// Until when they wait, where that is long.
fn until(standstill: &Standstill) -> String {
    let until = standstill.refused.as_ref().and_then(|r| r.until.as_ref());
    until.map_or_else(String::new, |until| format!(" until {until}"))
}

/// What ends it. `is_for_check` when `apipayd check` is known to say more.
pub(super) fn remedy(standstill: &Standstill, is_for_check: bool) -> String {
    let account = standstill.account.as_deref().unwrap_or_default();
    match standstill.concern {
        Concern::Service => format!(
            "add [accounts.{account}] to a configuration, then on that machine: sudo systemctl reload apipayd (restart, where \
             systemd loads its key). {}",
            unserved::give_up(&[account])
        ),
        Concern::StoppedDaemon | Concern::SilentDaemon => {
            let accounts: Vec<&str> = standstill.accounts.iter().map(String::as_str).collect();
            let start = unserved::start_again(&standstill.host);
            format!("{start}. {}", unserved::give_up(&accounts))
        }
        Concern::Start => {
            "end what keeps it locked, as named above; the account is served within seconds after that, and other accounts are served meanwhile"
                .to_owned()
        }
        Concern::Change => {
            "remove the cause that is named above; the account goes on within seconds, and other accounts are served meanwhile"
                .to_owned()
        }
        Concern::Stop => "select apipay.start('why');".to_owned(),
        Concern::Deliveries => {
            "see that whoever takes them does: the receiver of alerts.webhook answers, the journal or another reader of the \
             log reads it; they are tried until then"
                .to_owned()
        }
        Concern::Database => {
            "see that the database runs and lets apipayd in; apipayd check says what it answers"
                .to_owned()
        }
        Concern::Limit | Concern::AskingLimit => {
            let action = limit(standstill).action;
            let at_once = match until(standstill).as_str() {
                "" => String::new(),
                _ => format!(
                    ", or are tried at once with: select apipay.resume('{account}', 'why');"
                ),
            };
            format!(
                "{action}. They go on by themselves with the first request that is let through{at_once}"
            )
        }
        Concern::Probes => format!(
            "see in the ApiPay dashboard whether account {account} is well, and whether a proxy, a firewall or a CDN on the \
             way refuses the requests, or another program uses the same API key (429). Payments go on by themselves once \
             its health is answered, or at once with: select apipay.resume('{account}', 'why');"
        ),
        _ if is_for_check => CHECK.to_owned(),
        _ => CHECK_FIRST.to_owned(),
    }
}

/// Accounts in a sentence: `account a`, `accounts a, b, c, d, e and 2 more`.
fn named(accounts: &[String]) -> String {
    let names: Vec<&str> = accounts.iter().map(String::as_str).collect();
    let word = if names.len() == 1 {
        "account"
    } else {
        "accounts"
    };
    format!("{word} {}", first_of(&names))
}

/// The first of these accounts, and how many more there are.
pub(super) fn first_of(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named = names[..names.len() - more].join(", ");
    if more > 0 {
        format!("{named} and {more} more")
    } else {
        named
    }
}
