//! A key that is not known to be of an account's organisation.

use serde_json::json;
use uuid::Uuid;

use crate::db::accounts::AlertText;
use crate::domain::account::AccountName;
use crate::policy::organization::Doubt;

/// The kind of the alert: an account's key may be of another organisation.
pub const ORGANIZATION: &str = "other_organization";

/// What is told when the daemon on a machine has such a key.
pub fn other_organization(
    account: &AccountName,
    doubt: Doubt,
    asked: usize,
    worker: Uuid,
    host: &str,
) -> AlertText {
    let why = match doubt {
        Doubt::NoneShown => {
            format!("ApiPay shows it none of the {asked} newest invoices of the account")
        }
        Doubt::NothingToAsk => {
            "payments of the account may have been sent with its earlier key, and there is no \
                                invoice yet that ApiPay could be asked for"
                .to_owned()
        }
        Doubt::ServedByOther => "another apipayd serves the account with another key".to_owned(),
        Doubt::Unanswered => {
            "ApiPay gives no clear answer when asked with it for the account's invoices".to_owned()
        }
    };
    AlertText {
        summary: format!(
            "The API key of account {account} on {host} is not the one that the account had, and seems to \
             be of another organisation at ApiPay: {why}. The apipayd there sends and asks nothing of the account."
        ),
        action: format!(
            "on {host}, put the account's own key back and restart apipayd; or, if the key is of a second \
             organisation, give that an account name of its own. An account is one organisation. Only if the account \
             is to be for the organisation of this key from now on, or this is the same organisation after all: stop \
             every apipayd that serves the account with another key, then select apipay.acknowledge(id, 'why') from \
             apipay.alerts where kind = '{ORGANIZATION}' and account = '{account}' and resolved_at is null; payments \
             that may have been sent with the earlier key are held then, for you to say what became of them: \
             select * from apipay.uncertain;"
        ),
        details: json!({ "worker": worker, "host": host }),
    }
}
