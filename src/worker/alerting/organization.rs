//! A key that is not known to be of an account's organization.

use serde_json::json;
use uuid::Uuid;

use super::gateway::seen;
use crate::db::accounts::AlertText;
use crate::domain::account::AccountName;
use crate::domain::outage::Fault;
use crate::policy::organization::Doubt;
use crate::policy::remedy::{self, READ_KEY};
use crate::policy::verdict::Reason;

/// The kind of the alert: an account's key may be of another organization.
pub const ORGANIZATION: &str = "other_organization";

/// What is told when the daemon on a machine has such a key: so many invoices say so, and this came in place of a clear
/// answer, if any did.
pub fn other_organization(
    account: &AccountName,
    doubt: Doubt,
    asked: usize,
    fault: Option<&Fault>,
    worker: Uuid,
    host: &str,
) -> AlertText {
    let why = match doubt {
        Doubt::Unwell(reason) => return unwell(account, reason, worker, host),
        Doubt::Unanswered => return unanswered(account, fault, worker, host),
        Doubt::SomeNotShown => format!(
            "ApiPay shows it none of {asked} of the newest invoices of the account, and gives no clear answer when \
             asked for the others"
        ),
        Doubt::NoneShown => {
            format!("ApiPay shows it none of the {asked} newest invoices of the account")
        }
        Doubt::NothingToAsk => {
            "payments of the account may have been sent with its earlier key, and there is no \
                                invoice yet that ApiPay could be asked for"
                .to_owned()
        }
        Doubt::ServedByOther => "another apipayd serves the account with another key".to_owned(),
        Doubt::GivenOver => {
            "somebody has given the account to another organization before, and it has no invoice since then that ApiPay \
             could be asked for"
                .to_owned()
        }
    };
    // What was not seen says nothing of the organization.
    let seems = match doubt {
        Doubt::SomeNotShown | Doubt::GivenOver => "may be",
        _ => "seems to be",
    };
    AlertText {
        summary: format!(
            "The API key of account {account} on {host} is not the one that the account had, and {seems} \
             of another organization at ApiPay: {why}. The apipayd there sends and asks nothing of the account."
        ),
        action: format!(
            "on {host}, put the account's own key back and {READ_KEY}; or, if the key is of a second \
             organization, give that an account name of its own. An account is one organization. Only if the account \
             is to be for the organization of this key from now on, or this is the same organization after all: stop \
             every apipayd that serves the account with another key, then select apipay.acknowledge(id, 'why') from \
             apipay.alerts where kind = '{ORGANIZATION}' and account = '{account}' and resolved_at is null; payments \
             that may have been sent with the earlier key, those that ApiPay accepted among them, are held then, for you to \
             say what became of them: select * from apipay.uncertain; bills that are open at the earlier organization \
             are not asked about any more"
        ),
        details: json!({ "worker": worker, "host": host }),
    }
}

/// Another daemon serves the account, and ApiPay says what is wrong with the key of this one.
fn unwell(account: &AccountName, reason: Reason, worker: Uuid, host: &str) -> AlertText {
    let remedy = remedy::of_park(reason);
    AlertText {
        summary: format!(
            "The apipayd on {host} serves nothing of account {account}, which another one serves with another key: {}. \
             Whether its key is of the same organization cannot be asked before that is mended.",
            remedy.what
        ),
        action: format!(
            "{}; or, on {host}, put the key there that the other apipayd has, and {READ_KEY}",
            remedy.action
        ),
        details: json!({ "worker": worker, "host": host, "reason": reason.code() }),
    }
}

/// Nothing is known but that no answer was clear.
fn unanswered(account: &AccountName, fault: Option<&Fault>, worker: Uuid, host: &str) -> AlertText {
    let failed = match fault {
        Some(fault) => format!(
            "ApiPay failed when asked with it for the account's invoices ({})",
            seen(fault)
        ),
        None => {
            "ApiPay refused each time to be asked with it for the account's invoices".to_owned()
        }
    };
    AlertText {
        summary: format!(
            "The API key of account {account} on {host} is not the one that the account had, and whether it is of the \
             account's organization is not known yet: {failed}. The apipayd there serves nothing of the account before \
             ApiPay shows it one of them."
        ),
        action: format!(
            "on {host}, see whether ApiPay can be reached (apipayd check); if it can, ask ApiPay's support why it fails. \
             apipayd asks on by itself, for all of the newest invoices and for some of them at a time, and goes on once \
             one is shown; so it does at once with a key that the account had before. To acknowledge this is no remedy: \
             it gives the account to the organization of this key, and holds what is under way"
        ),
        details: json!({ "worker": worker, "host": host }),
    }
}
