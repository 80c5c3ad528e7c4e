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
    AlertText {
        summary: format!(
            "ApiPay does not show these any more to the key of account {account}, although it is asked for them: \
             {what}{more}; the first was last shown at {since}. Whether they are paid is not seen here."
        ),
        action: format!(
            "look them up in the ApiPay dashboard. If they are there, see that the API key of account {account} is of \
             their organization, and put it right; if it is, or they are not there, ask ApiPay's support. What was paid there and is \
             not paid here has to be delivered by you. apipayd goes on asking, and this ends once ApiPay shows all of \
             them. Their jobs: select o.* from apipay.overview o where o.account = '{account}' and exists (select from \
             apipay.alerts l where l.account = o.account and l.kind = '{MISSING}' and l.resolved_at is null and \
             (l.details -> 'invoices' ? o.invoice_id::text or l.details -> 'refunds' ? o.refund_id::text));"
        ),
        details: json!({ "invoices": of(false), "refunds": of(true) }),
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
    match one.job {
        Some(job) => format!("{what} (job {job})"),
        None => what,
    }
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
