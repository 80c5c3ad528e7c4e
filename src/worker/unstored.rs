//! Invoices and refunds whose mirrors the database does not let be changed, as by a trigger of the shop's that raises.
//!
//! Nothing is asked about one of them for a while, which grows: what the gateway says could not be stored. When a
//! claim of checks fails because of single mirrors, they are found by halves, and left out from then on. All of this
//! is memory: a daemon that starts again finds out again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::db::alerts::About;
use crate::db::entry::Entry;
use crate::db::fault::Cause;
use crate::db::mirrors::{self, AmongMirrors, DueMirror, Mirror, MirrorKind};
use crate::db::{DbError, Pool};
use crate::domain::account::AccountName;
use crate::policy::checks::left_out_distance;
use crate::policy::rules::Jitter;
use crate::telemetry::Chain;
use crate::worker::alerting::Alert;
use crate::worker::culprits::is_of_schema;
use crate::worker::jitter::jitter;
use crate::worker::open;
use crate::worker::spell::warn_in_spells;
use crate::worker::wake::Wake;

/// Mirrors that are remembered. With more, it is not about single rows, and those beyond are asked about as usual.
const MOST: usize = 1_000;

/// One that has been due for so long is no longer followed, or by another daemon.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

/// Statements in search of bad mirrors, of one round.
const SEARCH: usize = 64;

/// The mirrors that the database refuses to have changed.
#[derive(Debug, Default)]
pub struct Unstored(Mutex<BTreeMap<Mirror, Refused>>);

#[derive(Debug)]
struct Refused {
    times: u32,
    due: Instant,
}

impl Unstored {
    /// The keys of those that are not due yet.
    fn left_out(&self, kind: MirrorKind) -> Vec<String> {
        let now = Instant::now();
        let mut refused = self.refused();
        refused.retain(|_, refused| now.saturating_duration_since(refused.due) < FORGOTTEN_AFTER);
        let waiting = refused.iter();
        let waiting = waiting.filter(|(mirror, refused)| mirror.kind == kind && refused.due > now);
        waiting.map(|(mirror, _)| mirror.key()).collect()
    }

    /// The keys of all, whether they are due or not.
    pub fn keys(&self, kind: MirrorKind) -> Vec<String> {
        let refused = self.refused();
        let of_kind = refused.keys().filter(|mirror| mirror.kind == kind);
        of_kind.map(Mirror::key).collect()
    }

    /// One was refused, for the first time or once more.
    fn refuse(&self, mirror: &Mirror, jitter: Jitter) {
        let mut all = self.refused();
        let is_known = all.contains_key(mirror);
        if !is_known && all.len() >= MOST {
            return;
        }
        let refused = all.entry(mirror.clone()).or_insert_with(|| Refused {
            times: 0,
            due: Instant::now(),
        });
        refused.times = refused.times.saturating_add(1);
        refused.due = Instant::now() + left_out_distance(refused.times, jitter);
    }

    /// What was seen of an account's objects is stored.
    pub fn stored(&self, account: &AccountName, entry: &Entry) {
        // Nearly always none is refused, and it costs nothing.
        if self.refused().is_empty() {
            return;
        }
        for mirror in in_entry(account, entry) {
            self.forget(&mirror);
        }
    }

    fn forget(&self, mirror: &Mirror) {
        self.refused().remove(mirror);
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, BTreeMap<Mirror, Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mirrors that an entry changes, what it is about first.
fn in_entry(account: &AccountName, entry: &Entry) -> impl Iterator<Item = Mirror> {
    let refund = entry.refund.as_ref().map(|refund| Mirror {
        kind: MirrorKind::Refund,
        account: account.clone(),
        id: refund.id,
        invoice_id: refund.invoice_id,
    });
    let invoices = entry.invoices.iter().map(|invoice| Mirror {
        kind: MirrorKind::Invoice,
        account: account.clone(),
        id: invoice.id,
        invoice_id: invoice.id,
    });
    refund.into_iter().chain(invoices)
}

impl Unstored {
    /// What was seen of an object is refused: it is told, and nothing is asked about the object for a while.
    pub async fn refuse_seen(
        &self,
        pool: &Pool,
        wake: &Wake,
        account: &AccountName,
        entry: &Entry,
        cause: &Cause,
    ) {
        if let Some(mirror) = in_entry(account, entry).next() {
            self.leave_out(pool, wake, &mirror, cause).await;
        }
    }

    async fn leave_out(&self, pool: &Pool, wake: &Wake, mirror: &Mirror, cause: &Cause) {
        self.refuse(mirror, jitter());
        let alert = Alert::unstored(mirror, cause);
        // It stands in the way of no alert about a job.
        let about = About {
            account: Some(&mirror.account),
            kind: alert.kind,
            subject: "what ApiPay shows",
            severity: alert.severity,
        };
        if let Err(error) = open::once(pool, &about, &alert.text).await {
            warn_in_spells!(mirror.account; account = %mirror.account, error = %Chain(&error), "the alert of what cannot be stored was not opened yet");
        }
        wake.deliver.notify_one();
    }

    /// Claims what is due for a check with this statement, all but what is refused.
    ///
    /// An error means that nothing was claimed, and that the reason is no single mirror.
    pub async fn claim<F>(
        &self,
        pool: &Pool,
        wake: &Wake,
        kind: MirrorKind,
        accounts: &[String],
        statement: impl Fn(AmongMirrors) -> F,
    ) -> Result<Vec<DueMirror>, DbError>
    where
        F: Future<Output = Result<Vec<DueMirror>, DbError>>,
    {
        let without = self.left_out(kind);
        let among = |only: Option<&[Mirror]>| AmongMirrors {
            without: without.clone(),
            only: only.map(|mirrors| mirrors.iter().map(Mirror::key).collect()),
        };
        let error = match statement(among(None)).await {
            Ok(due) => return Ok(due),
            Err(error) => error,
        };
        if !error.is_about_rows() || error.is_cancelled() || is_of_schema(pool, &error).await {
            return Err(error);
        }
        // A trigger of the statement, or a lock on a table.
        statement(among(Some(&[]))).await?;
        let due = mirrors::due_soonest(pool, kind, accounts, &without).await?;
        let mut parts: Vec<&[Mirror]> = vec![&due];
        for _ in 0..SEARCH {
            let Some(part) = parts.pop() else {
                break;
            };
            match (statement(among(Some(part))).await, part) {
                // The others are claimed by the next round, without what was found.
                (Ok(claimed), _) if !claimed.is_empty() => return Ok(claimed),
                (Ok(_), _) => {}
                (Err(error), _) if !error.is_about_rows() => return Err(error),
                (Err(error), [bad]) => {
                    warn!(account = %bad.account, object.id = bad.id, error = %Chain(&error), "the database does not let a mirror be changed; it is left out for a while, the others go on");
                    self.leave_out(pool, wake, bad, &error.cause()).await;
                }
                (Err(_), part) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_left_out_until_it_is_stored() {
        let unstored = Unstored::default();
        let shop = AccountName::parse("shop").unwrap();
        let mirror = |kind, id| Mirror {
            kind,
            account: shop.clone(),
            id,
            invoice_id: 7,
        };
        unstored.refuse(&mirror(MirrorKind::Invoice, 7), Jitter::NONE);
        unstored.refuse(&mirror(MirrorKind::Refund, 9), Jitter::NONE);
        assert_eq!(unstored.left_out(MirrorKind::Invoice), ["shop 7"]);
        assert_eq!(unstored.left_out(MirrorKind::Refund), ["shop 9"]);
        let of_another = Mirror {
            account: AccountName::parse("other").unwrap(),
            ..mirror(MirrorKind::Invoice, 7)
        };
        unstored.forget(&of_another);
        assert_eq!(unstored.left_out(MirrorKind::Invoice), ["shop 7"]);
        unstored.forget(&mirror(MirrorKind::Invoice, 7));
        assert!(unstored.left_out(MirrorKind::Invoice).is_empty());
        assert_eq!(unstored.left_out(MirrorKind::Refund), ["shop 9"]);
    }

    #[test]
    fn one_that_is_due_again_is_looked_at_and_waits_for_longer_once_it_is_refused() {
        let unstored = Unstored::default();
        let mirror = Mirror {
            kind: MirrorKind::Invoice,
            account: AccountName::parse("shop").unwrap(),
            id: 7,
            invoice_id: 7,
        };
        let mut before = Duration::ZERO;
        for times in 1..=8 {
            unstored.refuse(&mirror, Jitter::NONE);
            assert_eq!(unstored.left_out(MirrorKind::Invoice).len(), 1);
            let now = Instant::now();
            let wait = unstored.refused()[&mirror].due - now;
            assert!(wait > before || times > 7, "{times}: {wait:?}");
            assert!(wait <= Duration::from_secs(300), "{wait:?}");
            before = wait;
            unstored.refused().get_mut(&mirror).unwrap().due = now;
            assert!(unstored.left_out(MirrorKind::Invoice).is_empty());
        }
        assert!(before > Duration::from_secs(290), "{before:?}");
    }
}
