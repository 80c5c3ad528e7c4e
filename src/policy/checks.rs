//! Checks of accepted objects: what one shows, when the next one is due, and what a person is told because of it.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::object::{Invoice, InvoiceStatus, Outlook};
use crate::policy::backoff;
use crate::policy::rules::{Curve, FollowRules, Jitter};

/// When an object is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextCheck {
    /// After this time.
    After(Duration),
    /// Never: nothing can change any more.
    Settled,
}

/// How many invoices of an account are open: a check asks for a hundred at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowd {
    /// No more than one check asks for: to ask for all of them costs as much as to ask for one.
    OneCheck,
    /// More than that: each takes the place of another.
    ManyChecks,
}

/// Before this age an open invoice of few is looked at as often as at first: most customers pay now.
const SOON: Duration = Duration::from_secs(15 * 60);

/// Until this age it is looked at a sixth as often.
const LATER: Duration = Duration::from_secs(2 * 3600);

/// How an object was just looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// For how long it has had this status.
    pub unchanged_for: Duration,
    /// How many share a check with it, if it is checked among many.
    pub crowd: Crowd,
    /// Whether its invoice was read after it, so that what it changed there is known.
    pub is_invoice_read: bool,
    /// Whether the other invoices of its job are still to be searched for.
    pub has_unsought: bool,
}

impl Sighting {
    /// The first sight of an object, by itself.
    pub const FIRST: Sighting = Sighting {
        unchanged_for: Duration::ZERO,
        crowd: Crowd::ManyChecks,
        is_invoice_read: false,
        has_unsought: false,
    };
}

/// When to look at an object again.
///
/// The longer nothing happened, the less likely it is to happen now. Of many, an invoice is looked at
/// whenever it is a sixteenth older: what is paid four minutes after its delivery is seen a quarter of
/// a minute later, and the many old ones leave room for the few young. Where that is more than the
/// checks can carry, all of them wait for a little longer.
/// What is dead and may revive is watched for `follow.watch_after_final`. What failed is looked at once more. What is
/// done was looked at for the last time once its invoice was read after it. What would be settled is looked at for as long
/// as other invoices of its job are to be searched for.
pub fn next_check(
    outlook: Outlook,
    seen: Sighting,
    rules: &FollowRules,
    jitter: Jitter,
) -> NextCheck {
    let unchanged_for = seen.unchanged_for;
    let is_settled = match outlook {
        Outlook::Settled => true,
        Outlook::MayRevive => unchanged_for >= rules.watch_after_final,
        Outlook::Failed => unchanged_for >= rules.first,
        Outlook::ChangesInvoice => seen.is_invoice_read,
        Outlook::OpenByItself | Outlook::OpenAmongMany => false,
    };
    if is_settled && !seen.has_unsought {
        return NextCheck::Settled;
    }
    let wait = match outlook {
        Outlook::Settled
        | Outlook::MayRevive
        | Outlook::Failed
        | Outlook::ChangesInvoice
        | Outlook::OpenByItself => unchanged_for / 2,
        Outlook::OpenAmongMany => match seen.crowd {
            Crowd::OneCheck if unchanged_for < SOON => rules.first,
            Crowd::OneCheck if unchanged_for < LATER => rules.first * 6,
            Crowd::OneCheck | Crowd::ManyChecks => unchanged_for / 16,
        },
    };
    NextCheck::After(spread(wait, rules, jitter))
}

/// The distance of an account's checks while more is due than they can carry: twenty a minute for two
/// thousand invoices leave an account of 200 requests a minute nine tenths of them for its bills.
const CHECKS_APART: Duration = Duration::from_secs(3);

/// How long after a check of an account's invoices the next one may begin, however many are due.
pub fn check_distance(rules: &FollowRules) -> Duration {
    rules.first.min(CHECKS_APART)
}

/// How long nothing is asked about an object after that has failed so often because of the object itself: the database
/// does not take what was seen of it, or the gateway cannot show it. Both last until somebody mends the cause.
pub fn left_out_distance(failures: u32, jitter: Jitter) -> Duration {
    let curve = Curve {
        initial: Duration::from_secs(5),
        max: Duration::from_secs(300),
        multiplier: 2.0,
        jitter: SPREAD,
        attempts: 0,
    };
    backoff::delay(&curve, failures, jitter)
}

/// Whether an invoice is to be read by itself, because a check does not show what has to be known of it
/// (API, section 2.6): why it failed, and what of it was refunded. `before` is its mirror's status; that of
/// money which is in is looked at again only after a refund.
pub fn is_to_be_read(before: &InvoiceStatus, shown: &Invoice, is_waited_for: bool) -> bool {
    match shown.status {
        InvoiceStatus::Error => {
            shown.error_code.is_none() && (is_waited_for || *before != InvoiceStatus::Error)
        }
        InvoiceStatus::PartiallyRefunded => true,
        InvoiceStatus::Paid => before.is_paid(),
        _ => false,
    }
}

/// A tenth of the time is spread at random, so that objects made together are not checked together
/// for ever.
const SPREAD: f64 = 0.1;

fn spread(wait: Duration, rules: &FollowRules, jitter: Jitter) -> Duration {
    jitter.lengthen(wait.clamp(rules.first.min(rules.max), rules.max), SPREAD)
}

/// Whether an invoice for which no job waits lives, against expectation: it can be paid, or was, although it was dead
/// before, or although its job goes by another one. A person must hear of it.
pub fn lives_unexpectedly(
    before: &InvoiceStatus,
    now: &InvoiceStatus,
    is_superseded: bool,
) -> bool {
    !now.releases_key() && (is_superseded || before.releases_key())
}

/// What a check shows, by id. Of an invoice that it shows twice, and not the same, nothing is believed: it counts as left
/// out.
pub fn by_id(rows: Vec<Invoice>) -> HashMap<i64, Invoice> {
    let mut shown: HashMap<i64, Option<Invoice>> = HashMap::new();
    for row in rows {
        shown
            .entry(row.id)
            .and_modify(|known| *known = known.take().filter(|known| *known == row))
            .or_insert(Some(row.clone()));
    }
    let agreed = shown.into_iter();
    agreed.filter_map(|(id, row)| Some((id, row?))).collect()
}

/// How long the gateway may leave an object out of its answers before a human is told.
const MISSING_AFTER: Duration = Duration::from_mins(15);

/// Whether an object that the gateway has just left out of an answer has not been shown for so long that a human must
/// know: what becomes of it is not seen.
pub fn is_missing(unshown_for: Duration) -> bool {
    unshown_for >= MISSING_AFTER
}

#[cfg(test)]
mod tests;
