//! Accounts that are parked, and what is seen of them while they are.

use serde_json::json;

use super::wording::{IF_NOT_SERVED, SERVED, machines, on_machine, quoted};
use crate::db::accounts::{AlertText, Alone, Park};
use crate::db::alerts::UntoldPark;
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::outage::Undelivered;
use crate::policy::combined::RefusedSend;
use crate::policy::remedy::{self, Remedy, capitalized};
use crate::policy::verdict::Reason;

/// A park for this reason, with what the gateway said of it to this machine, and what it has refused so.
pub fn parked(
    account: &AccountName,
    reason: Reason,
    said: Option<&str>,
    refused: Option<&RefusedSend>,
    host: &str,
) -> Park {
    let remedy = remedy::of_park(reason);
    let (what, action) = (remedy.what, on_machine(&remedy, host));
    let quoted = quoted(said);
    let named = refused.map_or_else(String::new, |RefusedSend { job, operation }| {
        format!(" ApiPay refused job {job} ({operation}) so.")
    });
    let alone = refused.map(|RefusedSend { job, operation }| Alone {
        job: *job,
        remedy: format!(
            "if ApiPay refuses nothing but job {job} ({operation}), what ends it is select apipay.cancel({job}, 'why'), and \
             select apipay.retry({job}, 'why') makes a new one of it later"
        ),
    });
    let or_alone = alone
        .as_ref()
        .map_or_else(String::new, |Alone { remedy, .. }| {
            format!(" Or, {remedy}.")
        });
    Park {
        reason: reason.code(),
        said: said.map(str::to_owned),
        text: AlertText {
            summary: format!(
                "Account {account} is parked: {what}{quoted}.{named} Its payments wait."
            ),
            action: format!("{action}. {}{or_alone}", goes_on(account)),
            details: json!({
                "reason": reason.code(), "job": refused.map(|refused| refused.job.0),
            }),
        },
        remedy: action,
        alone,
        undelivered: None,
    }
}

/// What ends a park because of an answer, in a sentence.
fn goes_on(account: &AccountName) -> String {
    format!(
        "{} ({IF_NOT_SERVED}), payments go on by themselves once a probe \
         succeeds, or at once with: select apipay.resume('{account}', 'why');",
        capitalized(SERVED)
    )
}

/// What is told of a park that was stored while its alert could not say so.
pub fn of_park(account: &AccountName, park: &UntoldPark) -> AlertText {
    if park.parked_by != "apipayd" {
        let said = park.said.as_ref().map(|said| format!(": {said}"));
        let taken_over = park.taken_over.as_ref();
        let taken_over = taken_over.map(|how| format!(" It was {how}."));
        let first = match taken_over {
            Some(_) => "see that what apipayd had parked it for is mended; then ",
            None => "",
        };
        return AlertText {
            summary: format!(
                "Account \"{account}\" was parked by {}{}.{}",
                park.parked_by,
                said.unwrap_or_default(),
                taken_over.unwrap_or_default()
            ),
            // As apipay._ends_of_park has it.
            action: format!(
                "{first}select apipay.resume('{account}', 'why'); if it is to stay parked, this has it told no more: \
                 select apipay.acknowledge(id, 'why') from apipay.alerts where kind = 'account_parked' and account = \
                 '{account}' and resolved_at is null;"
            ),
            details: json!({}),
        };
    }
    let known = Reason::ALL
        .iter()
        .find(|reason| reason.code() == park.reason);
    let reason = known.copied().unwrap_or(Reason::ServiceUnavailable);
    let refused = park.job.zip(park.operation.clone());
    let refused = refused.map(|(job, operation)| RefusedSend {
        job: JobId(job),
        operation,
    });
    let mut text = match &park.delivery_error {
        Some(code) => undelivered(account, reason, code, Appearance::Unknown),
        None => {
            let said = park.said.as_deref();
            parked(account, reason, said, refused.as_ref(), &machines(&[])).text
        }
    };
    // The machine stands there.
    if let (None, Some(remedy)) = (&park.delivery_error, &park.remedy) {
        let asked = on_machine(&remedy::of_park(reason), &machines(&[]));
        text.action = text.action.replacen(&asked, remedy, 1);
    }
    let mut details = text.details;
    // One that a later version gave is not known here.
    details["reason"] = json!(park.reason);
    AlertText { details, ..text }
}

/// What the gateway's health says of an account whose invoices fail at Kaspi.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appearance {
    /// It was not asked yet, or says that the account is unwell.
    Unknown,
    /// It says that the account is well.
    Well,
}

/// A park because what the gateway accepted fails at Kaspi.
pub fn parked_undelivered(account: &AccountName, reason: Reason, failed: &Undelivered) -> Park {
    Park {
        reason: reason.code(),
        said: None,
        remedy: remedy::of_park(reason).action.into_owned(),
        alone: None,
        text: undelivered(account, reason, &failed.code, Appearance::Unknown),
        undelivered: Some(failed.clone()),
    }
}

/// What the alert says of an account whose invoices are accepted and fail at Kaspi with this code.
pub fn undelivered(
    account: &AccountName,
    reason: Reason,
    code: &str,
    health: Appearance,
) -> AlertText {
    let Remedy { what, action, .. } = remedy::of_park(reason);
    let despite = match health {
        Appearance::Well => "its health says well, but ",
        Appearance::Unknown => "",
    };
    AlertText {
        summary: format!(
            "Account {account} is parked: {what} ({despite}invoices that ApiPay accepts fail with {code}). \
             Its payments wait."
        ),
        action: format!(
            "{action}. {} ({IF_NOT_SERVED}), one payment is tried with each probe, and all go on by themselves once \
             one is delivered, or at once with: select apipay.resume('{account}', 'why');",
            capitalized(SERVED)
        ),
        details: json!({ "reason": reason.code(), "delivery_error": code, "job": null }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::verdict::Scope;
    use crate::worker::alerting::Alert;

    #[test]
    fn a_park_names_what_was_refused_and_what_ends_it_also_when_it_is_told_late() {
        let account = AccountName::parse("shop").unwrap();
        let refused = RefusedSend {
            job: JobId(16),
            operation: "invoice.cancel".to_owned(),
        };
        let reason = Reason::AccessDenied;
        let park = parked(&account, reason, Some("No."), Some(&refused), "till-1");
        assert_eq!(
            park.text.summary,
            "Account shop is parked: ApiPay denies access (ApiPay said: No.). ApiPay refused job 16 (invoice.cancel) so. \
             Its payments wait."
        );
        let stored = UntoldPark {
            account: account.to_string(),
            parked_by: "apipayd".to_owned(),
            reason: reason.code().to_owned(),
            said: park.said.clone(),
            remedy: Some(park.remedy.clone()),
            job: Some(refused.job.0),
            operation: Some(refused.operation.clone()),
            delivery_error: None,
            taken_over: None,
        };
        let told_late = of_park(&account, &stored);
        assert_eq!(
            (&told_late.summary, &told_late.action),
            (&park.text.summary, &park.text.action)
        );
        assert_eq!(told_late.details["job"], 16);
        let ends = "if ApiPay refuses nothing but job 16 (invoice.cancel), what ends it is select apipay.cancel(16, 'why'), and \
                    select apipay.retry(16, 'why') makes a new one of it later";
        let alone = park.alone.unwrap();
        assert_eq!(alone.job, refused.job);
        for text in [&alone.remedy, &park.text.action] {
            assert!(text.contains(ends), "{text}");
        }
        // Once it is over, or everything is refused.
        let over = of_park(
            &account,
            &UntoldPark {
                job: None,
                operation: None,
                ..stored
            },
        );
        assert!(!over.action.contains("16") && !over.summary.contains("16"));
        assert!(over.details["job"].is_null() && over.action.contains("ask ApiPay's support why"));
        let resume = "select apipay.resume('shop', 'why');";
        for text in [&park.text.action, &told_late.action] {
            assert!(text.contains(resume), "{text}");
        }
        let asked = parked(&account, reason, None, None, "till-1");
        assert!(!asked.text.summary.contains("job") && !asked.text.action.contains("job"));
        assert!(asked.alone.is_none());
    }

    /// An alert stays open while its daemon is gone, and what it promises then is done by nobody.
    #[test]
    fn no_park_or_cap_promises_what_nobody_does_while_no_daemon_serves_the_account() {
        let account = AccountName::parse("shop").unwrap();
        let condition = "as long as an apipayd serves the account";
        for reason in Reason::ALL {
            let park = parked(&account, *reason, None, None, "till-1").text;
            let failed = undelivered(&account, *reason, "x", Appearance::Unknown);
            for action in [park.action, failed.action] {
                assert!(action.to_lowercase().contains(condition), "{action}");
                assert!(action.contains("no_progress"), "{action}");
                assert!(!action.contains("the daemon asks"), "{action}");
            }
        }
        let sends = Scope::Sends(vec!["invoice.create"]);
        for scope in [Scope::Everything, sends] {
            let cap = Alert::capped(&account, "tariff_limit_reached", None, &scope).text;
            assert!(cap.action.contains(condition), "{}", cap.action);
            assert!(cap.action.contains("no_progress"), "{}", cap.action);
            assert!(
                !cap.summary.contains("still seen") || cap.summary.contains(condition),
                "{}",
                cap.summary
            );
        }
    }
}
