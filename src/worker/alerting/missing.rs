//! What the gateway does not show any more.

use serde_json::{Map, Value, json};

use crate::db::accounts::AlertText;
use crate::db::missing::Missing;
use crate::domain::account::AccountName;
use crate::worker::written::written;

/// The kind of the alert of invoices and refunds that the gateway does not show any more.
pub const MISSING: &str = "invoice_missing";

/// So many are named in the sentence.
const NAMED: usize = 5;

/// The gateway leaves these out of its answers, up to so many.
pub fn missing(account: &AccountName, mut all: Vec<Missing>, most: usize) -> AlertText {
    // The newest first: what is added to it is to be read.
    all.sort_by_key(|one| std::cmp::Reverse((one.last_shown, one.invoice, one.refund)));
    let since = all.last().map(|oldest| written(oldest.last_shown));
    let since = since.unwrap_or_default();
    let shown: Vec<String> = all.iter().take(NAMED).map(in_words).collect();
    let more = match all.len().saturating_sub(NAMED) {
        0 => String::new(),
        more if all.len() >= most => format!(", and {more} or more others"),
        more => format!(", and {more} more"),
    };
    let what = shown.join(", ");
    let of = |is_refund: bool| -> Map<String, Value> {
        let those = all.iter().filter(|one| one.refund.is_some() == is_refund);
        let id = |one: &Missing| one.refund.unwrap_or(one.invoice).to_string();
        those.map(|one| (id(one), exactly(one).into())).collect()
    };
    let answers: Map<String, Value> = (all.iter())
        .filter_map(|one| Some((one.invoice.to_string(), one.answer.clone()?.into())))
        .collect();
    let fails = if answers.is_empty() {
        ""
    } else {
        "Where an answer stands beside one, ApiPay, or a proxy that base_url leads through, fails because of that \
         invoice: tell their support, with that answer. "
    };
    AlertText {
        summary: format!(
            "ApiPay does not show these any more to the key of account {account}, although it is asked for them: \
             {what}{more}; the first was last shown at {since}. Whether they are paid is not seen here."
        ),
        action: format!(
            "look them up in the ApiPay dashboard. {fails}If they are there, see that the API key of account {account} is of \
             their organization, and put it right; if it is, or they are not there, ask ApiPay's support. What was paid there and is \
             not paid here has to be delivered by you. apipayd goes on asking, and this ends once ApiPay shows all of \
             them. Their jobs: select o.* from apipay.overview o where o.account = '{account}' and exists (select from \
             apipay.alerts l where l.account = o.account and l.kind = '{MISSING}' and l.resolved_at is null and \
             (l.details -> 'invoices' ? o.invoice_id::text or l.details -> 'refunds' ? o.refund_id::text));"
        ),
        details: json!({ "invoices": of(false), "refunds": of(true), "answers": answers }),
    }
}

/// As the database has it, to the microsecond.
fn exactly(one: &Missing) -> String {
    let written = one
        .last_shown
        .format(&time::format_description::well_known::Rfc3339);
    written.unwrap_or_default()
}

fn in_words(one: &Missing) -> String {
    let what = match one.refund {
        Some(refund) => format!("refund {refund} of invoice {}", one.invoice),
        None => format!("invoice {}", one.invoice),
    };
    let job = one.job.map(|job| format!("job {job}"));
    let answer = one.answer.as_ref();
    let answer = answer.map(|answer| format!("asked for by itself: {answer}"));
    let more: Vec<String> = job.into_iter().chain(answer).collect();
    if more.is_empty() {
        return what;
    }
    format!("{what} ({})", more.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    fn one(invoice: i64) -> Missing {
        Missing {
            invoice,
            refund: None,
            job: Some(invoice + 100),
            last_shown: OffsetDateTime::UNIX_EPOCH + time::Duration::hours(invoice),
            answer: None,
        }
    }

    #[test]
    fn the_newest_are_named_and_the_others_counted() {
        let shop = AccountName::parse("shop").unwrap();
        let text = missing(&shop, (1..=7).map(one).collect(), 1000);
        for part in [
            "invoice 7 (job 107), invoice 6 (job 106)",
            "invoice 3 (job 103), and 2 more;",
            "last shown at 1970-01-01T01:00:00Z",
        ] {
            assert!(text.summary.contains(part), "{}", text.summary);
        }
        assert!(!text.summary.contains("invoice 2 "), "{}", text.summary);
        let named = text.details["invoices"].as_object().unwrap();
        assert_eq!(named.len(), 7);
        assert_eq!(named["2"], "1970-01-01T02:00:00Z");
        let capped = missing(&shop, (1..=7).map(one).collect(), 7).summary;
        assert!(capped.contains("and 2 or more others;"), "{capped}");
    }

    #[test]
    fn what_came_in_place_of_one_is_quoted_beside_it() {
        let shop = AccountName::parse("shop").unwrap();
        let fails = Missing {
            answer: Some("HTTP 503: Service Unavailable".to_owned()),
            ..one(1)
        };
        let text = missing(&shop, vec![fails, one(2)], 1000);
        let named = "invoice 2 (job 102), invoice 1 (job 101, asked for by itself: HTTP 503: Service Unavailable);";
        assert!(text.summary.contains(named), "{}", text.summary);
        assert!(text.action.contains("with that answer"), "{}", text.action);
        assert_eq!(text.details["answers"].as_object().unwrap().len(), 1);
        let silent = missing(&shop, vec![one(2)], 1000);
        assert!(
            !silent.action.contains("answer stands"),
            "{}",
            silent.action
        );
    }

    #[test]
    fn a_refund_is_named_with_its_invoice() {
        let shop = AccountName::parse("shop").unwrap();
        let refund = Missing {
            refund: Some(55),
            job: None,
            ..one(1)
        };
        let text = missing(&shop, vec![refund], 1000);
        assert!(
            text.summary.contains(": refund 55 of invoice 1;"),
            "{}",
            text.summary
        );
        assert!(text.details["refunds"]["55"].is_string());
    }
}
