//! Jobs about which a human has to decide.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::Alert;
use super::by_person::acknowledge;
use crate::db::accounts::AlertText;
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::object::Standing;
use crate::domain::operation::{self, Sight};
use crate::policy::verdict::{Next, Reason};
use crate::worker::guard::Guard;
use crate::worker::written::written;

/// When somebody is to acknowledge that a bill ended unseen, instead of having it cancelled.
const OTHERWISE: &str = "If nothing is there, or the invoice may stay as it is";

/// The kind of the alert of a job that a human decides about.
pub const HELD: &str = "job_held";

/// The same for a job of which the gateway has more than one object.
pub const DUPLICATE: &str = "duplicate_detected";

/// The `error_code` of a held job whose object is taken if somebody says so, although it differs from what was asked for.
pub const DIFFERS: &str = "differs";

/// The `error_code` of a held job that went by an object which carries another job's name.
pub const ANOTHERS: &str = "anothers_object";

/// What a person may have to cancel before a held job can be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToCancel {
    /// Nothing: it is no bill.
    Nothing,
    /// An invoice whose number is not known here, or one of several.
    Any,
    /// This invoice.
    Invoice(i64),
    /// Nothing more: this invoice is being cancelled.
    BeingCancelled(i64),
    /// Nothing: this invoice is paid, and cannot be cancelled.
    Paid(i64),
    /// Nothing more: this invoice is dead.
    Dead(i64),
}

impl ToCancel {
    /// Of a job with this operation, where nothing more is known.
    pub fn of(operation: &str) -> ToCancel {
        match operation::operation(operation) {
            Some(operation) if operation.makes_invoice() => ToCancel::Any,
            _ => ToCancel::Nothing,
        }
    }

    /// Of a job with this operation, about whose one invoice a person decides; how it stands where that is known.
    pub fn of_one(operation: &str, invoice: i64, standing: Option<Standing>) -> ToCancel {
        match (ToCancel::of(operation), standing) {
            (ToCancel::Nothing, _) => ToCancel::Nothing,
            (_, None | Some(Standing::Open)) => ToCancel::Invoice(invoice),
            (_, Some(Standing::BeingTakenBack)) => ToCancel::BeingCancelled(invoice),
            (_, Some(Standing::Paid)) => ToCancel::Paid(invoice),
            (_, Some(Standing::Dead)) => ToCancel::Dead(invoice),
        }
    }

    /// Whether it is a bill, of which an invoice may be paid.
    fn is_bill(self) -> bool {
        self != ToCancel::Nothing
    }
}

/// What is known of a job when a human has to decide about it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What the gateway was found to have, in words.
    pub found: Option<&'a str>,
    /// What the gateway has shown since of what was found, in words, where that has changed.
    pub since: Option<&'a str>,
    /// Whether the object that is meant is taken if somebody says so, although it differs from what was asked for.
    pub is_taken_anyway: bool,
    /// Whether the job went by an object that carries another job's name, which is not to be cancelled for it.
    pub is_anothers: bool,
    /// Since when somebody says that nothing was done, if anybody does.
    pub denied_since: Option<OffsetDateTime>,
    /// Whether the newest look-up of it was answered that the account's key may not ask (HTTP 403).
    pub is_refused: bool,
    /// What may have to be cancelled first.
    pub to_cancel: ToCancel,
    /// How a person sees what became of it.
    pub sight: Sight,
}

impl Known<'_> {
    /// Of a job with this operation, where nothing more is known.
    pub fn nothing_of(operation: &str) -> Known<'static> {
        Known {
            found: None,
            since: None,
            is_taken_anyway: false,
            is_anothers: false,
            denied_since: None,
            is_refused: false,
            to_cancel: ToCancel::of(operation),
            sight: sight(operation),
        }
    }
}

/// How a person sees what became of a job with this operation, which this version may not know.
fn sight(operation: &str) -> Sight {
    match operation::operation(operation) {
        Some(operation) => operation.sight(),
        None => Sight::made("GATEWAY_ID", ""),
    }
}

/// A job that a human has to decide about.
#[derive(Clone, Copy, Debug)]
pub struct HeldJob<'a> {
    /// The account.
    pub account: &'a AccountName,
    /// The job.
    pub id: JobId,
    /// The code of why it is held.
    pub reason: &'a str,
    /// What is known of it.
    pub known: Known<'a>,
}

impl Alert {
    /// The alert of what becomes of a job, if a human has to decide.
    pub fn of(guard: &Guard, next: &Next, known: Known<'_>) -> Option<Alert> {
        match next {
            Next::Held(reason) => Some(Alert::held(HeldJob {
                account: &guard.account,
                id: guard.id,
                reason: reason.code(),
                known,
            })),
            Next::CalledOff { is_seen: false, .. } => Some(Alert::ended_unseen(guard, known)),
            _ => None,
        }
    }

    /// A job has ended on a person's word, and ApiPay has not told whether it has anything of it. Nothing of it is asked for
    /// any more, so that only a person can see that.
    pub fn ended_unseen(guard: &Guard, known: Known<'_>) -> Alert {
        let (id, account) = (guard.id, &guard.account);
        let since = known
            .denied_since
            .map_or_else(String::new, |since| format!(" since {}", written(since)));
        let (alive, new) = match known.to_cancel.is_bill() {
            false => ("it has had its effect all the same.", "job for it"),
            true => (
                "the customer can pay that invoice: unless it is to be paid, cancel it:",
                "payment",
            ),
        };
        let by_itself =
            "This ends then by itself, and another alert tells you if it has been paid.";
        let cancel = |id: &str| {
            format!(" select apipay.cancel_invoice({id}, account => '{account}'); {by_itself}")
        };
        let (cancel, looked) = match known.to_cancel {
            ToCancel::Nothing => (String::new(), "Once you have looked"),
            // Nothing clear was shown: how an invoice stands is not known.
            ToCancel::Any | ToCancel::Paid(_) | ToCancel::Dead(_) => {
                (cancel("INVOICE_ID"), OTHERWISE)
            }
            ToCancel::Invoice(invoice) | ToCancel::BeingCancelled(invoice) => {
                (cancel(&invoice.to_string()), OTHERWISE)
            }
        };
        Alert {
            kind: HELD,
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "Job {id} of account {account} has ended as somebody said, that its request had no effect, and ApiPay \
                     has given no clear answer about it{since}: whether it has something of the job is not known."
                ),
                action: format!(
                    "look for it in the ApiPay dashboard before you enqueue a new {new}. If it is there, {alive}{cancel} \
                     {looked}: {}",
                    acknowledge(HELD, account, &id.to_string())
                ),
                details: json!({ "job": id.0, "reason": Reason::CalledOffUnseen.code() }),
            },
            renews: false,
        }
    }

    /// A human has to decide about a job.
    pub fn held(job: HeldJob<'_>) -> Alert {
        let HeldJob {
            account,
            id,
            reason,
            known:
                Known {
                    found,
                    since,
                    is_taken_anyway,
                    is_anothers,
                    denied_since,
                    is_refused,
                    to_cancel,
                    sight,
                },
        } = job;
        let is = |other: Reason| reason == other.code();
        let again = match denied_since {
            Some(_) => " again",
            None => "",
        };
        let gateway_id = sight.id.unwrap_or("null");
        let name_it = format!("select apipay.resolve({id}, true, {gateway_id}, 'why');");
        let deny = format!(
            "select apipay.resolve({id}, false, null, 'why'); sends it again once ApiPay shows {}, and with and_cancel => \
             true it ends unsent.",
            sight.before_again
        );
        let or_not = format!("if {}, {deny}", sight.not_done);
        // What lives of it holds the job again, whatever is said.
        let first = match to_cancel {
            _ if is_anothers => String::new(),
            ToCancel::Nothing | ToCancel::Paid(_) | ToCancel::Dead(_) => String::new(),
            ToCancel::Any => cancel_first("INVOICE_ID", account),
            ToCancel::Invoice(invoice) => cancel_first(&invoice.to_string(), account),
            ToCancel::BeingCancelled(invoice) => format!(
                "invoice {invoice} is being cancelled, and holds the job again until ApiPay shows it as cancelled: wait \
                 for that; then, or "
            ),
        };
        let known_first = match to_cancel {
            ToCancel::Invoice(_) | ToCancel::BeingCancelled(_) => first.as_str(),
            _ => "",
        };
        let look = "look the payment up in the ApiPay dashboard, then";
        let anyway = "the same with anyway => true if it is that one although it differs;";
        let cancel_others = match to_cancel.is_bill() {
            false => String::new(),
            true => format!(
                " An invoice that is not kept can still be paid, so cancel each of those: \
                 select apipay.cancel_invoice(INVOICE_ID, account => '{account}'); one that was paid too has to be refunded. Once \
                 none of them lives: select apipay.resolve({id}, false, null, 'why', and_cancel => true); ends it, and after \
                 that select apipay.retry({id}, 'why'); bills anew."
            ),
        };
        // What helps where the one invoice that is meant is seen paid, or dead.
        let settled = match to_cancel {
            _ if is_anothers => None,
            ToCancel::Paid(invoice) => {
                let differs = is(Reason::Mismatch) || is_taken_anyway;
                Some(keep_paid(id, invoice, differs))
            }
            ToCancel::Dead(invoice) => Some(format!(
                "as ApiPay shows it now, invoice {invoice} holds the job no more: {deny} If another one is that payment: {name_it}"
            )),
            _ => None,
        };
        let (kind, what, action) = if is(Reason::DuplicateDetected) {
            (
                DUPLICATE,
                format!("held{again}: more than one object at ApiPay carries its name"),
                format!(
                    "see in the ApiPay dashboard which of them the customer is to pay or has paid, and say which: \
                     {name_it}{cancel_others}"
                ),
            )
        } else if is(Reason::Mismatch) {
            (
                HELD,
                format!("held{again}: the object with its name or key does not fit"),
                settled.unwrap_or_else(|| format!("{look}: {name_it} {anyway} {first}{or_not}")),
            )
        } else if is(Reason::NotAsStated) {
            (
                HELD,
                "held again: what was said of it is not what ApiPay has".to_owned(),
                match (sight.id, is_taken_anyway) {
                    _ if settled.is_some() => settled.unwrap_or_default(),
                    (None, _) => format!("{look}, if {}: {name_it} {or_not}", sight.done),
                    (_, true) => format!(
                        "{look} name the right one: {name_it} {anyway} {known_first}{or_not}"
                    ),
                    (_, false) => {
                        format!("{look} name the right one: {name_it} {known_first}{or_not}")
                    }
                },
            )
        } else if is(Reason::OriginalLives) {
            let both = match to_cancel.is_bill() {
                false => "",
                true => {
                    " The customer could then pay both, so cancel the one that is not to be paid."
                }
            };
            (
                HELD,
                "held and not sent, and whether an earlier request of it had its effect cannot be told from here"
                    .to_owned(),
                format!(
                    "{look}, if nothing with its name is there: select apipay.resolve({id}, false, null, 'why', \
                     and_cancel => true); which ends it unsent; if it is there: {name_it}{both}"
                ),
            )
        } else if is(Reason::OtherOrganization) {
            (
                HELD,
                "held: it was sent while the account was for another organization, and ApiPay shows nothing of it to \
                 the account's present key"
                    .to_owned(),
                format!(
                    "look the payment up in the dashboard of the earlier organization, then, if it was done there: \
                     select apipay.resolve({id}, true, {gateway_id}, 'why', anyway => true); (believed, since it cannot \
                     be asked for); if it was not, or was taken back there, select apipay.resolve({id}, false, null, \
                     'why'); sends it again, to the account's present organization, and with and_cancel => true it ends unsent."
                ),
            )
        } else if is(Reason::Unconfirmed) {
            let since =
                denied_since.map_or_else(String::new, |since| format!(" since {}", written(since)));
            let (answer, ask_why) = match is_refused {
                true => (
                    format!(
                        "no answer about it{since}, the newest time because the account's key may not ask (HTTP 403)"
                    ),
                    "ask ApiPay's support why the key may not; ",
                ),
                false => (format!("no clear answer about it{since}"), ""),
            };
            (
                HELD,
                format!(
                    "held again: somebody said that its request had no effect, and ApiPay has given {answer}, so nothing was \
                     sent"
                ),
                format!(
                    "{ask_why}to have ApiPay asked again: select apipay.resolve({id}, false, null, 'why'); to end it: \
                     select apipay.resolve({id}, false, null, 'why', and_cancel => true); which sends nothing. {}\
                     If the dashboard shows that it was done: {name_it}",
                    sight.before_new
                ),
            )
        } else {
            (
                HELD,
                format!("held{again}: whether its request had its effect cannot be told from here"),
                format!("{look}, if {}: {name_it} {or_not}", sight.done),
            )
        };
        let found: Vec<&str> = found.into_iter().chain(since).collect();
        let found = match found.join("; ") {
            none if none.is_empty() => none,
            found => format!(": {found}"),
        };
        Alert {
            kind,
            severity: "critical",
            text: AlertText {
                summary: format!("Job {id} of account {account} is {what}{found}."),
                action: format!("{action} All held jobs: select * from apipay.uncertain;"),
                details: details(&job),
            },
            renews: false,
        }
    }
}

fn details(job: &HeldJob<'_>) -> Value {
    let mut details = json!({ "job": job.id.0, "reason": job.reason });
    if let Some(since) = job.known.since {
        details["since"] = json!(since);
    }
    if let ToCancel::Paid(invoice) = job.known.to_cancel {
        details["paid_invoice"] = json!(invoice);
    }
    details
}

/// What helps about the invoice of a held bill that the customer has paid: the job is not sent again beside it.
fn keep_paid(id: JobId, invoice: i64, differs: bool) -> String {
    let (anyway, although) = match differs {
        true => (", anyway => true", " although it differs"),
        false => ("", ""),
    };
    format!(
        "the customer has paid invoice {invoice}, so it cannot be cancelled, and the job is not sent again beside it. If it is \
         that one{although}: select apipay.resolve({id}, true, {invoice}, 'why'{anyway}); if it is not what was to be paid, \
         say the same, have it refunded in the ApiPay dashboard, or by your program with apipay.refund_invoice, and enqueue a \
         new job."
    )
}

/// What has to be done about an invoice that is wrong before its job is sent again.
fn cancel_first(invoice: &str, account: &AccountName) -> String {
    format!(
        "if that invoice is wrong and not paid, cancel it first, or it holds the job again: \
         select apipay.cancel_invoice({invoice}, account => '{account}'); wait until ApiPay shows it as cancelled; then, or "
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_invoice_is_to_be_seen_cancelled_before_it_is_said_that_nothing_was_done() {
        let action = |to_cancel| {
            let known = Known {
                to_cancel,
                ..Known::nothing_of("invoice.create")
            };
            let account = AccountName::parse("default").expect("a name");
            let job = HeldJob {
                account: &account,
                id: JobId(7),
                reason: Reason::Mismatch.code(),
                known,
            };
            Alert::held(job).text.action
        };
        let to_be = action(ToCancel::Invoice(15));
        assert!(
            to_be.contains(
                "select apipay.cancel_invoice(15, account => 'default'); wait until ApiPay shows it as cancelled; then, or \
                 if it is not there, select apipay.resolve(7, false, null, 'why');"
            ),
            "{to_be}"
        );
        let begun = action(ToCancel::BeingCancelled(15));
        assert!(
            begun.contains(
                "invoice 15 is being cancelled, and holds the job again until ApiPay shows it as cancelled: wait for that; \
                 then, or if it is not there, select apipay.resolve(7, false, null, 'why');"
            ) && !begun.contains("cancel_invoice"),
            "{begun}"
        );
    }

    #[test]
    fn a_key_that_may_not_ask_is_told_as_that() {
        let told = |is_refused| {
            let account = AccountName::parse("default").expect("a name");
            let job = HeldJob {
                account: &account,
                id: JobId(7),
                reason: Reason::Unconfirmed.code(),
                known: Known {
                    is_refused,
                    ..Known::nothing_of("invoice.create")
                },
            };
            Alert::held(job).text
        };
        let unclear = told(false);
        assert!(
            unclear
                .summary
                .contains("has given no clear answer about it, so nothing was sent"),
            "{}",
            unclear.summary
        );
        assert!(!unclear.action.contains("403"), "{}", unclear.action);
        let refused = told(true);
        assert!(
            refused.summary.contains(
                "has given no answer about it, the newest time because the account's key may not ask (HTTP 403), so nothing was \
                 sent"
            ),
            "{}",
            refused.summary
        );
        assert!(
            refused
                .action
                .starts_with("ask ApiPay's support why the key may not; "),
            "{}",
            refused.action
        );
    }
}
