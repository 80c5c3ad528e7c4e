//! A decision on its way to the database, and who waits to hear of it.

use time::OffsetDateTime;
use tokio::sync::oneshot;
use tracing::debug;

use super::backlog::Kept;
use super::shelf::Shelved;
use crate::db::clock::SteadySecond;
use crate::db::entry::Entry;
use crate::db::fate::Recorded;
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::policy::combined::RefusedSend;
use crate::policy::hints::Remaining;
use crate::policy::outage::{Errand, Sign};
use crate::policy::verdict::AccountSignal;
use crate::worker::alerting::Alert;

/// A decision and everything that has to become true with it.
#[derive(Debug)]
pub struct Outcome {
    /// The account it concerns.
    pub account: AccountName,
    /// The rows.
    pub entry: Entry,
    /// What it means for the account.
    pub signal: Option<AccountSignal>,
    /// What was refused with that.
    pub refused: Option<RefusedSend>,
    /// An alert that belongs to it.
    pub alert: Option<Alert>,
    /// When the gateway accepted what Kaspi has delivered now, if that may show that its account is well again.
    pub delivered: Option<OffsetDateTime>,
    /// What the end of its request says of the gateway.
    pub signed: Option<Signed>,
    /// What the answer said remains of the quota.
    pub remaining: Option<Remaining>,
    /// The second whose quota was taken for a request of which no byte left.
    pub unspent: Option<SteadySecond>,
}

impl Outcome {
    /// A decision that concerns nothing but its rows.
    pub fn plain(account: &AccountName, entry: Entry) -> Outcome {
        Outcome {
            account: account.clone(),
            entry,
            signal: None,
            refused: None,
            alert: None,
            delivered: None,
            signed: None,
            remaining: None,
            unspent: None,
        }
    }

    /// Whether something was sent with success, as far as it says anything of the account.
    pub fn got_through(&self) -> bool {
        let is_clear =
            |signed: &Signed| signed.errand.kind().is_none() && signed.sign == Sign::Clear;
        self.signal.is_none() && self.signed.as_ref().is_some_and(is_clear)
    }
}

/// What the end of one request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What it was for.
    pub errand: Errand,
    /// The job that it was about; none for a read that is about many.
    pub job: Option<JobId>,
    /// What it says.
    pub sign: Sign,
}

/// An outcome on its way, with who waits to hear of it.
#[derive(Debug)]
pub struct Message {
    /// The outcome. It is large and handed on often, so it lies apart.
    pub outcome: Box<Outcome>,
    /// Rises with each outcome: of two sights of a job the later one counts.
    pub number: u64,
    reply: Option<oneshot::Sender<Recorded>>,
    /// Its part of the backlog, until it is recorded, or set aside.
    pub(super) kept: Option<Kept>,
    /// Has its job left alone until then, if the outcome waits for its account.
    pub(in crate::worker) place: Option<Shelved>,
}

impl Message {
    /// An outcome with its number, and who waits to hear of it.
    pub fn new(outcome: Outcome, number: u64, reply: Option<oneshot::Sender<Recorded>>) -> Message {
        Message {
            outcome: Box::new(outcome),
            number,
            reply,
            kept: None,
            place: None,
        }
    }

    /// It is part of the backlog no more: what has its job left alone is its place on the shelf.
    pub(in crate::worker) fn leave_backlog(&mut self) {
        self.kept = None;
    }

    /// Tells whoever waits what became of it; only the first word counts.
    pub fn tell(&mut self, recorded: Recorded) {
        let told = self.reply.take().map(|reply| reply.send(recorded));
        if told.is_some_and(|told| told.is_err()) {
            debug!("whoever waited for a record is gone");
        }
    }
}
