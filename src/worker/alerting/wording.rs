//! Parts of sentences that several alerts have.

use crate::policy::remedy::Remedy;

/// What a human can do, and where, if it is done on a machine.
pub(super) fn on_machine(remedy: &Remedy, machine: &str) -> String {
    match remedy.is_of_machine {
        true => format!("on {machine}: {}", remedy.action),
        false => remedy.action.to_string(),
    }
}

/// What it takes that what is promised happens: the alert of a park or a cap stays open while nobody serves the account.
pub(super) const SERVED: &str = "as long as an apipayd serves the account";

/// Where it is said that nobody serves the account.
pub(super) const IF_NOT_SERVED: &str =
    "if none does, the alert no_progress or apipay.account_status says so";

/// Where requests are made, for a sentence.
pub(super) fn machines(hosts: &[String]) -> String {
    match hosts {
        [] => "the machine that serves the account".to_owned(),
        [host] => host.clone(),
        hosts => format!(
            "each machine that serves the account ({})",
            hosts.join(", ")
        ),
    }
}

/// The gateway's own words, for a sentence.
pub(super) fn quoted(said: Option<&str>) -> String {
    said.map_or_else(String::new, |said| format!(" (ApiPay said: {said})"))
}
