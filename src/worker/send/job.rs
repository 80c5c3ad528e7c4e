//! A job in this worker's hands: from its claim to the record of what came of it.

use serde_json::Value;
use tracing::{info, warn};

use crate::db::claim::{self, Claim, Purpose};
use crate::db::fate::{Forgotten, Lost, Recorded};
use crate::domain::answer::{Answer, NotSent, Timed};
use crate::domain::job::History;
use crate::domain::operation;
use crate::domain::state::State;
use crate::domain::times::SEND_WINDOW;
use crate::policy::breaker::{Trial, trial_put_back};
use crate::policy::combined::RefusedSend;
use crate::policy::hints;
use crate::policy::judge::{Circumstances, alone, not_sent};
use crate::policy::outage::{Errand, Sign, sign_of_alone, sign_of_doubted};
use crate::policy::verdict::{AccountSignal, Next, Reason, Verdict};
use crate::telemetry::Chain;
use crate::worker::alerting::Alert;
use crate::worker::clock::Moment;
use crate::worker::guard::Guard;
use crate::worker::in_hand::Taken;
use crate::worker::outcome::{self, Evidence};
use crate::worker::recorder::{Outcome, Signed};
use crate::worker::room::Room;

/// A job in this worker's hands.
pub struct Job {
    /// What was claimed.
    pub claim: Claim,
    /// From before the claim was asked for, so that a slow claim counts.
    pub claimed_at: Moment,
    /// From when the send window counts: from before the claim, or from before quota was taken once more and the lease
    /// renewed. Within the window the job is ours for a whole request more.
    pub window_from: Moment,
    /// What it is sent for.
    pub role: Role,
    _in_hand: Taken,
}

/// What a job is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To be done.
    Usual,
    /// The one job that a parked account lets through.
    TrialOfPark,
    /// The one job of an account that has slowed down.
    TrialOfOutage,
}

impl Job {
    /// Takes a claim in hand that was asked for at this moment. `None` when the database has forgotten that this daemon has
    /// the job already: then nothing more is sent, and the job stays as it is until the request under way is answered,
    /// or its lease has run out.
    pub fn take(room: &Room, claim: Claim, claimed_at: Moment, role: Role) -> Option<Job> {
        let Some(in_hand) = room.handles.in_hand.take(&claim.name, claim.epoch) else {
            room.handles.recorder.forget(Forgotten {
                account: claim.account,
                job: claim.id.0,
                epoch: claim.epoch.0,
                lost: Lost::Repeated,
            });
            room.handles.wake.deliver.notify_one();
            return None;
        };
        Some(Job {
            claim,
            claimed_at,
            window_from: claimed_at,
            role,
            _in_hand: in_hand,
        })
    }

    pub(super) fn signed(&self, sign: Sign) -> Signed {
        let errand = match self.role {
            Role::Usual | Role::TrialOfPark => Errand::Send,
            Role::TrialOfOutage => Errand::Trial,
        };
        Signed {
            errand,
            job: Some(self.claim.id),
            sign,
        }
    }

    /// What it says that a list brought nothing that is read before the job is sent: such reads have their own course, so
    /// sends that get through do not hide it. The one job of an account that has slowed down has shown nothing of sends.
    pub(super) fn signed_first(&self, errand: Errand, sign: Sign) -> Signed {
        let signed = self.signed(sign);
        match self.role {
            Role::Usual | Role::TrialOfPark => Signed { errand, ..signed },
            Role::TrialOfOutage => signed,
        }
    }
}

/// The guard of a claim of ours.
pub fn guard(room: &Room, claim: &Claim, state: State) -> Guard {
    Guard {
        account: claim.account.clone(),
        id: claim.id,
        token: claim.name.token,
        worker: Some(room.handles.worker),
        epoch: claim.epoch,
        state,
    }
}

/// A verdict that the account has obeyed, as far as its answer is believed.
pub struct Heard {
    /// The verdict, as it is recorded.
    pub verdict: Verdict,
    /// Whether what it says of the account is believed.
    is_believed: bool,
    /// What the answer says of the requests of its account, where that is not what it says of the job: a send that is not
    /// believed, or a question that is asked before a bill is sent.
    pub(super) of_account: Option<Sign>,
    /// What was refused, if that parks the account.
    refused: Option<RefusedSend>,
}

/// Has the account obey what the answer to a look-up means for it.
pub fn hear_lookup(room: &Room, verdict: Verdict) -> Heard {
    let is_believed = room.park.heed_read(verdict.signal.as_ref(), room.age());
    Heard {
        verdict: Verdict {
            signal: verdict.signal.filter(|_| is_believed),
            ..verdict
        },
        is_believed,
        of_account: None,
        refused: None,
    }
}

/// Has the account obey what the answer to a job's send means for it, or to what is read first, before that. What is not
/// believed has the job back off by itself.
pub(super) fn hear(
    room: &Room,
    job: &Job,
    timed: &Timed,
    verdict: Verdict,
    read_first: bool,
) -> Heard {
    let Claim { id, operation, .. } = &job.claim;
    let now = room.age();
    let signal = verdict.signal.as_ref();
    if verdict.next.is_taken() && !read_first {
        let left_at = now.saturating_sub(timed.took);
        room.park.got_through(operation, *id, left_at, now);
    }
    if matches!(signal, Some(AccountSignal::Park { .. })) {
        room.probing.trials().note_refused(operation, *id);
    }
    let is_believed = room.park.heed_send(operation, *id, signal, now);
    if !is_believed {
        let history = &job.claim.history;
        // What only asks grows apart by how often it has asked.
        let asked = History {
            attempts: history.lookups,
            ..history.clone()
        };
        info!(job.id = %id, account = %room.name, "it was answered as if the account were unwell, and others were not; the account goes on, and the job backs off by itself");
        let makes_invoice = operation::operation(operation).is_some_and(|it| it.makes_invoice());
        let history = match makes_invoice && read_first {
            true => &asked,
            false => history,
        };
        return Heard {
            of_account: Some(sign_of_alone(timed, makes_invoice)),
            verdict: alone(verdict, history, circumstances(room, job)),
            is_believed,
            refused: None,
        };
    }
    let refused = matches!(verdict.next, Next::Parked(_)).then(|| RefusedSend {
        job: *id,
        operation: operation.clone(),
    });
    Heard {
        verdict,
        is_believed,
        of_account: None,
        refused,
    }
}

/// Records a verdict that the account has obeyed, with its evidence; waits for that only if asked to.
pub async fn conclude(
    room: &Room,
    evidence: &Evidence<'_>,
    heard: Heard,
    wait: bool,
) -> Option<Recorded> {
    let Heard {
        verdict,
        is_believed,
        of_account,
        refused,
    } = heard;
    let mut evidence = evidence.clone();
    if !is_believed {
        evidence.signed.sign = sign_of_doubted(evidence.timed);
    }
    let evidence = &evidence;
    let signed = Signed {
        sign: of_account.unwrap_or_else(|| evidence.signed.sign.clone()),
        ..evidence.signed.clone()
    };
    let following = room.following();
    let outcome = Outcome {
        account: evidence.guard.account.clone(),
        entry: outcome::entry(evidence, &verdict, following),
        alert: alert_of(evidence, &verdict),
        delivered: None,
        unspent: None,
        signed: Some(signed),
        refused,
        remaining: match &evidence.timed.answer {
            Answer::Reply(reply) => hints::remaining(reply, evidence.now),
            Answer::NotSent(_) | Answer::Lost(_) => None,
        },
        signal: verdict.signal,
    };
    if wait {
        Some(room.handles.recorder.record_now(outcome).await)
    } else {
        room.handles.recorder.record(outcome).await;
        None
    }
}

/// What a trial says of its account, unless it is known that its job did not move.
pub(super) fn if_recorded(trial: Trial, recorded: Option<Recorded>) -> Trial {
    match recorded {
        None | Some(Recorded::Moved) => trial,
        Some(_) => Trial::NotTaken,
    }
}

/// What people must be told with this record: that a human decides, or that the job was given up.
fn alert_of(evidence: &Evidence<'_>, verdict: &Verdict) -> Option<Alert> {
    let (guard, sign) = (evidence.guard, &evidence.signed.sign);
    match (sign, &verdict.next) {
        (Sign::Failing(fault), Next::Failed(Reason::GaveUp)) => {
            let since = evidence.failing_since.unwrap_or(evidence.now);
            Some(Alert::gave_up(&guard.account, guard.id, since, fault))
        }
        (_, next) => Alert::of(guard, next, evidence.known),
    }
}

pub(super) fn circumstances<'a>(room: &'a Room, job: &Job) -> Circumstances<'a> {
    room.circumstances(job.claim.now + job.claimed_at.elapsed())
}

/// Makes sure that the claim holds for a whole request more, after something was read for it: the lease is renewed, and
/// what leaves late has quota of its own, since that of the claim counts as of the claim. Returns from when the send
/// window counts, or, when the job is no longer ours or was put back, what that says of the account.
pub(super) async fn renew_lease(
    room: &Room,
    guard: &Guard,
    job: &Job,
    baseline: Option<&Value>,
) -> Result<Moment, Trial> {
    let is_late = job.window_from.elapsed() > SEND_WINDOW / 2;
    let window_from = if is_late {
        Moment::now()
    } else {
        job.window_from
    };
    if is_late {
        take_quota(room, guard, job).await?;
    }
    match claim::renew(
        &room.handles.pool,
        room.handles.worker,
        &job.claim,
        baseline,
        room.handles.lease,
    )
    .await
    {
        Ok(true) => Ok(window_from),
        Ok(false) => {
            info!(job.id = %guard.id, account = %guard.account, "its lease ran out before it was sent; nothing was sent");
            Err(Trial::NotNow)
        }
        Err(error) => {
            warn!(job.id = %guard.id, error = %Chain(&error), "the claim could not be renewed; nothing was sent");
            Err(put_back(room, guard, job, NotSent::DatabaseFailed).await)
        }
    }
}

/// What quota is taken for. A parked account has some for nothing but its probe.
pub(super) fn purpose(job: &Job) -> Purpose {
    match job.role {
        Role::TrialOfPark => Purpose::Probe,
        Role::Usual | Role::TrialOfOutage => Purpose::Send,
    }
}

/// Takes quota for one more request of the job. Without it the job is put back; then it returns what that says of the
/// account.
pub(super) async fn take_quota(room: &Room, guard: &Guard, job: &Job) -> Result<(), Trial> {
    match room.take_one(purpose(job)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(put_back(room, guard, job, NotSent::QuotaSpent).await),
        Err(error) => {
            warn!(job.id = %guard.id, error = %Chain(&error), "no quota could be taken; nothing was sent");
            Err(put_back(room, guard, job, NotSent::DatabaseFailed).await)
        }
    }
}

/// Records that nothing was sent, and why. Returns what that says of the account.
pub(super) async fn put_back(room: &Room, guard: &Guard, job: &Job, cause: NotSent) -> Trial {
    let verdict = not_sent(cause, &job.claim.history, circumstances(room, job));
    let entry = outcome::not_sent(guard, cause, &verdict);
    room.handles
        .recorder
        .record(Outcome {
            signed: Some(job.signed(Sign::Silent)),
            ..Outcome::plain(&guard.account, entry)
        })
        .await;
    trial_put_back(cause)
}
