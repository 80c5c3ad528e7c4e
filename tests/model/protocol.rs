//! The protocol: two workers, a database and a gateway, and every step any of them may take.
//!
//! An action is one atomic step. What must hold for it stands in [`Protocol::act`], once; a step
//! that is not possible returns none.

use apipayd::domain::state::State as Status;
use stateright::{Model, Property};

use crate::daemon::{Daemon, Heard, Learned};
use crate::gateway::{Gateway, Glimpse, Response, Sight, Target};
use crate::setup::{FOR_EVER, Op, Setup, Variant};
use crate::table::{self, Move, Row};
use crate::time::{QUIET, REQUEST, is_lease_over, is_window_closed};

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// `apipay.jobs`
    pub(crate) rows: Vec<Row>,
    /// What each worker has in hand.
    pub(crate) hands: [Option<Hand>; 2],
    /// Requests that are under way, or answered and not yet heard.
    pub(crate) requests: Vec<Request>,
    /// The gateway.
    pub(crate) gateway: Gateway,
    /// Whether the account is parked.
    pub(crate) parked: bool,
    /// The first thing that must never happen and did.
    pub(crate) flaw: Option<Flaw>,
}

/// A job in a worker's hands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Hand {
    /// The job.
    pub(crate) job: u8,
    /// The epoch of the claim.
    pub(crate) epoch: u8,
    /// Ticks since the claim, and then since the request was sent.
    pub(crate) age: u8,
    /// How far it is.
    pub(crate) step: Step,
}

/// How far a worker is with a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A refund of which the refunds before it are not known yet.
    NeedsBaseline,
    /// They are read and not stored.
    BaselineRead(u8),
    /// Claimed: the window check and the first byte are next.
    Ready,
    /// The window was checked and no byte has left: only where the setup suspends workers here.
    Checked,
    /// The request left.
    Waiting,
    /// A look-up is claimed.
    Asking,
    /// It was answered.
    LookedUp(Glimpse),
    /// The decision is made and not recorded.
    Decided(Move),
}

/// A request on its way to the gateway, or its answer on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Request {
    /// The job.
    pub(crate) job: u8,
    /// The worker that waits for the answer.
    pub(crate) client: Option<usize>,
    /// For how many ticks it may still have its effect; it is lost if it has not by then.
    pub(crate) left: u8,
    /// The answer, once the gateway worked on it.
    pub(crate) response: Option<Response>,
}

/// What must never happen, where a state alone does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flaw {
    /// A request left without a committed open attempt of the same epoch under a valid lease.
    SentWithoutAttempt,
    /// A final row changed.
    FinalChanged,
    /// An epoch fell.
    EpochFell,
    /// A job moved as the table of `domain::state` does not allow.
    MovedIllegally,
}

/// Who or what moves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Ten seconds pass.
    Tick,
    /// kill -9, and a new process.
    Kill(usize),
    /// A due job is claimed.
    Claim(usize, u8),
    /// A due job is claimed, and its worker never hears that the claim was committed.
    ClaimUnheard(u8),
    /// A parked account lets one job through.
    ClaimTrialOfPark(usize, u8),
    /// The refunds that are there before are read.
    ReadBaseline(usize, Sight),
    /// They are stored.
    StoreBaseline(usize),
    /// The window is found closed.
    RefuseWindow(usize),
    /// The key is found too old to be sent again.
    RefuseOldKey(usize),
    /// The window is found open, and the worker suspended.
    CheckWindow(usize),
    /// The window is found open and the request leaves.
    Send(usize),
    /// No connection could be made.
    FailToConnect(usize),
    /// The gateway does what the request asks for.
    Work(usize),
    /// The gateway refuses the request, whatever it asks for.
    Refuse(usize, Response),
    /// The worker hears the gateway's answer.
    HearAnswer(usize),
    /// The worker hears something else, or nothing.
    Hear(usize, Heard),
    /// The account is parked, because the answer said so.
    Park(usize),
    /// The decision is recorded.
    Record(usize),
    /// The decision is committed, and its worker does not hear that: it will record it again.
    RecordUnheard(usize),
    /// An expired lease is found.
    Recover(u8),
    /// A due look-up is claimed.
    ClaimLookup(usize, u8),
    /// The gateway is asked.
    LookUp(usize, Sight),
    /// What it showed is decided upon.
    Decide(usize),
    /// An accepted object is checked.
    Check(usize, u8),
    /// The account is well again.
    Resume,
    /// A parked job of an active account goes on.
    Release(u8),
    /// The user cancels the job, or it expires, before anything was sent.
    Withdraw(u8),
    /// The gateway gets an object to where it was to go.
    Complete(u8),
    /// The gateway completes a cancel.
    CompleteCancel,
    /// The customer pays the invoice that is to be cancelled.
    Pay,
}

impl Action {
    /// Whether this happens when nothing goes wrong any more.
    pub(crate) fn is_calm(&self) -> bool {
        match self {
            Action::Kill(_)
            | Action::ClaimUnheard(_)
            | Action::FailToConnect(_)
            | Action::Refuse(..)
            | Action::RecordUnheard(_)
            | Action::CheckWindow(_)
            | Action::Withdraw(_)
            | Action::Pay => false,
            Action::ReadBaseline(_, sight) | Action::LookUp(_, sight) => *sight == Sight::Whole,
            // A request that was lost has no other end.
            Action::Hear(_, heard) => *heard == Heard::Timeout,
            _ => true,
        }
    }
}

/// The model of one configuration.
pub(crate) struct Protocol {
    /// The configuration.
    pub(crate) setup: Setup,
    /// Whether workers and jobs keep their names. For proofs they need none; a story does.
    keeps_names: bool,
    daemon: Daemon,
}

impl Protocol {
    /// The model of a configuration, for a proof: workers are alike, and so are jobs.
    pub(crate) fn new(setup: Setup) -> Protocol {
        Protocol {
            setup,
            keeps_names: false,
            daemon: Daemon::new(setup),
        }
    }

    /// The same model, for a story of who did what.
    pub(crate) fn with_names(setup: Setup) -> Protocol {
        Protocol {
            keeps_names: true,
            ..Protocol::new(setup)
        }
    }

    /// Whether nothing remains to be done about any job.
    pub(crate) fn is_over(&self, state: &State) -> bool {
        let held = |row: &Row| row.status == Status::Held;
        // A refund behind a held one of the same invoice waits for the same human.
        let waits = |row: &Row| row.status == Status::Queued && state.rows.iter().any(held);
        state
            .rows
            .iter()
            .all(|row| row.status.is_final() || held(row) || waits(row))
    }

    fn is_broken(&self, state: &State) -> bool {
        (state.flaw.is_some() && !self.setup.goes_on_after_a_flaw())
            || !at_most_one_effect(self, state)
            || !ends_tell_the_truth(self, state)
    }

    fn act(&self, state: &mut State, action: &Action) -> Option<()> {
        match action {
            Action::Tick => self.tick(state),
            Action::Kill(worker) => {
                state.hands[*worker].take()?;
                hang_up(state, *worker, None);
            }
            Action::Claim(worker, job) => self.claim(state, Some(*worker), *job)?,
            Action::ClaimUnheard(job) => self.claim(state, None, *job)?,
            Action::ClaimTrialOfPark(worker, job) => {
                self.claim_trial_of_park(state, *worker, *job)?
            }
            Action::ReadBaseline(worker, sight) => self.read_baseline(state, *worker, *sight)?,
            Action::StoreBaseline(worker) => self.store_baseline(state, *worker)?,
            Action::RefuseWindow(worker) => {
                at(state, *worker, &Step::Ready).filter(|hand| is_window_closed(hand.age))?;
                self.learn(state, *worker, &Learned::WindowClosed)?;
            }
            Action::RefuseOldKey(worker) => {
                let hand = at(state, *worker, &Step::Ready)?;
                self.is_key_too_old(state, hand).then_some(())?;
                state.hands[*worker].as_mut()?.step = Step::Decided(Move::LOOK_UP_FIRST);
            }
            Action::CheckWindow(worker) => {
                at(state, *worker, &Step::Ready).filter(|hand| !is_window_closed(hand.age))?;
                state.hands[*worker].as_mut()?.step = Step::Checked;
            }
            Action::Send(worker) => self.send(state, *worker)?,
            Action::FailToConnect(worker) => {
                at(state, *worker, &Step::Ready).filter(|hand| !is_window_closed(hand.age))?;
                self.learn(state, *worker, &Learned::Sent(Heard::NoConnection, 0))?;
            }
            Action::Work(number) => {
                let job = unanswered(state, *number)?;
                let response = state.gateway.work(&self.setup, job);
                respond(state, *number, response);
            }
            Action::Refuse(number, response) => {
                unanswered(state, *number)?;
                respond(state, *number, *response);
            }
            Action::HearAnswer(worker) => self.hear_answer(state, *worker)?,
            Action::Hear(worker, heard) => self.hear(state, *worker, *heard)?,
            Action::Park(worker) => {
                let Step::Decided(decided) = &mut state.hands[*worker].as_mut()?.step else {
                    return None;
                };
                decided.parks.then_some(())?;
                decided.parks = false;
                state.parked = true;
            }
            Action::Record(worker) => {
                self.record(state, *worker)?;
                state.hands[*worker] = None;
            }
            Action::RecordUnheard(worker) => self.record(state, *worker)?,
            Action::Recover(job) => {
                let row = &mut state.rows[usize::from(*job)];
                let lost = row.status == Status::Sending && is_lease_over(row.lease_age);
                lost.then(|| table::recover(row, &self.setup))?;
            }
            Action::ClaimLookup(worker, job) => self.claim_lookup(state, *worker, *job)?,
            Action::LookUp(worker, sight) => self.look_up(state, *worker, *sight)?,
            Action::Decide(worker) => {
                let Step::LookedUp(glimpse) = &state.hands[*worker].as_ref()?.step else {
                    return None;
                };
                let learned = Learned::LookedUp(glimpse.clone());
                self.learn(state, *worker, &learned)?;
            }
            Action::Check(worker, job) => self.check(state, *worker, *job)?,
            Action::Resume => {
                state.parked.then_some(())?;
                state.parked = false;
            }
            Action::Release(job) => {
                let row = &mut state.rows[usize::from(*job)];
                let due = row.status == Status::Parked && !state.parked;
                due.then(|| table::release(row))?;
            }
            Action::Withdraw(job) => {
                let row = &mut state.rows[usize::from(*job)];
                let unsent =
                    matches!(row.status, Status::Queued | Status::Parked) && row.unproven.is_none();
                unsent.then(|| table::withdraw(row))?;
            }
            Action::Complete(object) => {
                let object = &mut state.gateway.objects[usize::from(*object)];
                (!object.done).then_some(())?;
                object.done = true;
            }
            Action::CompleteCancel => {
                (state.gateway.target == Target::Cancelling).then_some(())?;
                state.gateway.target = Target::Cancelled;
            }
            Action::Pay => {
                (state.gateway.target == Target::Pending).then_some(())?;
                state.gateway.target = Target::Paid;
            }
        }
        Some(())
    }

    fn tick(&self, state: &mut State) {
        for row in &mut state.rows {
            row.tick(&self.setup);
        }
        for hand in state.hands.iter_mut().flatten() {
            // Neither the window nor a request's time limit tells older ages apart.
            hand.age = (hand.age + 1).min(REQUEST);
        }
        for request in &mut state.requests {
            request.left = request.left.saturating_sub(1);
        }
        forget_lost(state);
        state.gateway.tick(&self.setup);
    }

    /// Dispatch: the due jobs of an active account.
    fn claim(&self, state: &mut State, worker: Option<usize>, job: u8) -> Option<()> {
        let row = &state.rows[usize::from(job)];
        let due = row.status == Status::Queued && row.due_in == 0 && !state.parked;
        due.then_some(())?;
        self.take(state, worker, job)
    }

    /// worker/probe.rs: a job that nothing is unproven about, of an operation that is safe to try.
    fn claim_trial_of_park(&self, state: &mut State, worker: usize, job: u8) -> Option<()> {
        let row = &state.rows[usize::from(job)];
        let due = row.status == Status::Parked || (row.status == Status::Queued && row.due_in == 0);
        let safe = self.setup.operation != Op::Refund && row.unproven.is_none();
        (state.parked && due && safe).then_some(())?;
        self.take(state, Some(worker), job)
    }

    fn take(&self, state: &mut State, worker: Option<usize>, job: u8) -> Option<()> {
        if let Some(worker) = worker {
            state.hands[worker].is_none().then_some(())?;
        }
        let epoch = table::claim(&mut state.rows, usize::from(job), &self.setup)?;
        let needs_baseline =
            self.setup.operation == Op::Refund && state.rows[usize::from(job)].baseline.is_none();
        if let Some(worker) = worker {
            let step = match needs_baseline {
                true => Step::NeedsBaseline,
                false => Step::Ready,
            };
            state.hands[worker] = Some(Hand::new(job, epoch, step));
        }
        Some(())
    }

    fn read_baseline(&self, state: &mut State, worker: usize, sight: Sight) -> Option<()> {
        at(state, worker, &Step::NeedsBaseline)?;
        match seen(&state.gateway, sight)? {
            Glimpse::List(shown) => {
                let known = shown
                    .iter()
                    .fold(0, |known, (object, _)| known | 1 << object);
                state.hands[worker].as_mut()?.step = Step::BaselineRead(known);
            }
            Glimpse::Nothing | Glimpse::One(..) | Glimpse::Target(_) => {
                self.learn(state, worker, &Learned::NoBaseline)?;
            }
        }
        Some(())
    }

    /// The window check and the first byte, which is one step unless the setup says otherwise.
    fn store_baseline(&self, state: &mut State, worker: usize) -> Option<()> {
        let hand = state.hands[worker].as_mut()?;
        let Step::BaselineRead(known) = hand.step else {
            return None;
        };
        let row = &mut state.rows[usize::from(hand.job)];
        let is_held = table::store_baseline(row, hand.epoch, known);
        if is_held || self.setup.variant == Variant::WindowWithoutLease {
            (hand.step, hand.age) = (Step::Ready, 0);
        } else {
            state.hands[worker] = None;
        }
        Some(())
    }

    fn send(&self, state: &mut State, worker: usize) -> Option<()> {
        let hand = state.hands[worker].as_ref()?;
        let open = match &hand.step {
            Step::Ready if self.setup.suspends_after_check => false,
            Step::Ready => {
                !is_window_closed(hand.age) || self.setup.variant == Variant::NoWindowCheck
            }
            Step::Checked => true,
            _ => false,
        };
        (open && !self.is_key_too_old(state, hand)).then_some(())?;
        let row = &state.rows[usize::from(hand.job)];
        let covered = row.open_send == Some(hand.epoch)
            && row.epoch == hand.epoch
            && row.status == Status::Sending
            && !is_lease_over(row.lease_age);
        if !covered {
            state.flaw = state.flaw.or(Some(Flaw::SentWithoutAttempt));
        }
        state.requests.push(Request {
            job: hand.job,
            client: Some(worker),
            left: REQUEST + QUIET + self.setup.late,
            response: None,
        });
        let hand = state.hands[worker].as_mut()?;
        (hand.step, hand.age) = (Step::Waiting, 0);
        Some(())
    }

    fn is_key_too_old(&self, state: &State, hand: &Hand) -> bool {
        let age = state.rows[usize::from(hand.job)].unproven;
        self.setup.checks_key_before_sending && age.is_some() && age >= self.setup.give_up
    }

    fn hear_answer(&self, state: &mut State, worker: usize) -> Option<()> {
        let hand = at(state, worker, &Step::Waiting)?;
        let age = hand.age;
        let number = state
            .requests
            .iter()
            .position(|request| request.client == Some(worker))?;
        let response = state.requests[number].response?;
        let done = match response {
            Response::Made(object) => state.gateway.objects[usize::from(object)].done,
            _ => false,
        };
        state.requests.remove(number);
        let heard = Heard::Response(response, done);
        self.learn(state, worker, &Learned::Sent(heard, age))
    }

    fn hear(&self, state: &mut State, worker: usize, heard: Heard) -> Option<()> {
        let hand = at(state, worker, &Step::Waiting)?;
        let (age, quiet) = match heard {
            Heard::Timeout if hand.age >= REQUEST => (hand.age, QUIET),
            Heard::Cut => (hand.age, QUIET),
            Heard::BadGateway => (hand.age, 0),
            _ => return None,
        };
        // What the quiet period assumes of a request whose client has gone.
        let left = quiet.max(REQUEST.saturating_sub(age)) + self.setup.late;
        hang_up(state, worker, Some(left));
        self.learn(state, worker, &Learned::Sent(heard, age))
    }

    fn record(&self, state: &mut State, worker: usize) -> Option<()> {
        let hand = state.hands[worker].as_ref()?;
        let Step::Decided(decided) = &hand.step else {
            return None;
        };
        (!decided.parks).then_some(())?;
        let row = &mut state.rows[usize::from(hand.job)];
        table::record(row, hand.epoch, decided, &self.setup);
        Some(())
    }

    fn claim_lookup(&self, state: &mut State, worker: usize, job: u8) -> Option<()> {
        let row = &mut state.rows[usize::from(job)];
        let due = row.status == Status::Uncertain && row.due_in == 0 && !state.parked;
        (due && state.hands[worker].is_none()).then_some(())?;
        let epoch = table::claim_lookup(row);
        state.hands[worker] = Some(Hand::new(job, epoch, Step::Asking));
        Some(())
    }

    fn look_up(&self, state: &mut State, worker: usize, sight: Sight) -> Option<()> {
        let hand = at(state, worker, &Step::Asking)?;
        let known = state.rows[usize::from(hand.job)].object;
        let glimpse = match (self.setup.operation, known, sight) {
            (_, _, Sight::Error) => Glimpse::Nothing,
            (Op::Cancel, _, Sight::Whole) => Glimpse::Target(state.gateway.target),
            (Op::Create, Some(object), Sight::Whole) => state.gateway.one(object),
            // What is asked for by its id is never hidden.
            (Op::Cancel, _, Sight::Lagging) | (Op::Create, Some(_), Sight::Lagging) => return None,
            (Op::Create | Op::Refund, _, sight) => seen(&state.gateway, sight)?,
        };
        state.hands[worker].as_mut()?.step = Step::LookedUp(glimpse);
        Some(())
    }

    /// worker/follow.rs: looks at the object of an accepted job, and decides.
    fn check(&self, state: &mut State, worker: usize, job: u8) -> Option<()> {
        let row = &state.rows[usize::from(job)];
        let free = state.hands[worker].is_none() && !state.parked;
        (free && row.status == Status::Accepted).then_some(())?;
        let glimpse = match (self.setup.operation, row.object) {
            (Op::Cancel, _) => Glimpse::Target(state.gateway.target),
            (Op::Create | Op::Refund, Some(object)) => state.gateway.one(object),
            (Op::Create | Op::Refund, None) => return None,
        };
        state.hands[worker] = Some(Hand::new(job, row.epoch, Step::Asking));
        self.learn(state, worker, &Learned::Checked(glimpse))
    }

    /// Lets the worker decide about what it learned.
    fn learn(&self, state: &mut State, worker: usize, learned: &Learned) -> Option<()> {
        let hand = state.hands[worker].as_mut()?;
        let row = &state.rows[usize::from(hand.job)];
        let job_of = state
            .gateway
            .objects
            .iter()
            .map(|object| object.job)
            .collect();
        // The claim carries the row as it was; a row that changed since has another epoch, and then
        // the decision is refused whatever it is.
        let decided = self.daemon.decide(hand.job, row, job_of, learned)?;
        hand.step = Step::Decided(decided);
        Some(())
    }
}

impl Hand {
    fn new(job: u8, epoch: u8, step: Step) -> Hand {
        Hand {
            job,
            epoch,
            age: 0,
            step,
        }
    }
}

fn at<'a>(state: &'a State, worker: usize, step: &Step) -> Option<&'a Hand> {
    state.hands[worker]
        .as_ref()
        .filter(|hand| hand.step == *step)
}

/// What a list shows; none where it could not lag.
fn seen(gateway: &Gateway, sight: Sight) -> Option<Glimpse> {
    (sight != Sight::Lagging || gateway.hides()).then(|| gateway.list(sight))
}

/// The job of a request that the gateway has not worked on.
fn unanswered(state: &State, number: usize) -> Option<u8> {
    let request = state.requests.get(number)?;
    request.response.is_none().then_some(request.job)
}

fn respond(state: &mut State, number: usize, response: Response) {
    let request = &mut state.requests[number];
    match request.client {
        Some(_) => (request.response, request.left) = (Some(response), 0),
        None => {
            state.requests.remove(number);
        }
    }
}

/// Nobody waits for the worker's request any more. With a limit: for so long it may still have its
/// effect.
fn hang_up(state: &mut State, worker: usize, left: Option<u8>) {
    state
        .requests
        .retain(|request| request.client != Some(worker) || request.response.is_none());
    for request in &mut state.requests {
        if request.client == Some(worker) {
            request.client = None;
            request.left = request.left.min(left.unwrap_or(u8::MAX));
        }
    }
    forget_lost(state);
}

/// A request that had no effect in its time never has one.
fn forget_lost(state: &mut State) {
    state
        .requests
        .retain(|request| request.left > 0 || request.response.is_some());
}

/// Whatever the step was: final rows stay as they are, epochs only rise, and no job moves but as the table of
/// `domain::state` allows.
fn note_rewritten_history(before: &State, after: &mut State) {
    for (old, new) in before.rows.iter().zip(&after.rows) {
        let flaw = match () {
            () if old.status.is_final() && new.status != old.status => Flaw::FinalChanged,
            () if new.epoch < old.epoch => Flaw::EpochFell,
            () if !(old.status == new.status || old.status.may_become(new.status)) => {
                Flaw::MovedIllegally
            }
            () => continue,
        };
        after.flaw = after.flaw.or(Some(flaw));
    }
}

/// Gives states that differ only in what nothing depends on the same form.
fn normalise(state: &mut State) {
    for row in &mut state.rows {
        row.forget();
    }
    for hand in state.hands.iter_mut().flatten() {
        if !matches!(hand.step, Step::Ready | Step::Waiting) {
            hand.age = 0;
        }
    }
    close_up_epochs(state);
    state.requests.sort_unstable();
}

/// Epochs are only compared, so what counts is their order.
fn close_up_epochs(state: &mut State) {
    for (job, row) in (0_u8..).zip(&mut state.rows) {
        let mut epochs: Vec<&mut u8> = vec![&mut row.epoch];
        epochs.extend(&mut row.open_send);
        let hands = state.hands.iter_mut().flatten();
        epochs.extend(
            hands
                .filter(|hand| hand.job == job)
                .map(|hand| &mut hand.epoch),
        );
        let mut order: Vec<u8> = epochs.iter().map(|epoch| **epoch).collect();
        order.sort_unstable();
        order.dedup();
        for epoch in epochs {
            let below = order.iter().filter(|known| **known < *epoch).count();
            *epoch = u8::try_from(below).unwrap_or(u8::MAX);
        }
    }
}

/// Gives states that differ only in which worker or which job is which the same form.
fn forget_names(state: &mut State) {
    if state.hands[0] > state.hands[1] {
        state.hands.swap(0, 1);
        for request in &mut state.requests {
            request.client = request.client.map(|worker| 1 - worker);
        }
    }
    if state.rows.len() == 2 && state.rows[0] > state.rows[1] {
        state.rows.swap(0, 1);
        let objects = state
            .gateway
            .objects
            .iter_mut()
            .map(|object| &mut object.job);
        let requests = state.requests.iter_mut().map(|request| &mut request.job);
        let hands = state.hands.iter_mut().flatten().map(|hand| &mut hand.job);
        for job in objects.chain(requests).chain(hands) {
            *job = 1 - *job;
        }
    }
    state.requests.sort_unstable();
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            rows: (0..self.setup.jobs).map(|_| Row::new()).collect(),
            hands: [None, None],
            requests: Vec::new(),
            gateway: Gateway::default(),
            parked: false,
            flaw: None,
        }]
    }

    /// What might be possible. Nothing goes on once a promise is broken.
    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if self.is_broken(state) {
            return;
        }
        actions.push(Action::Tick);
        for (worker, hand) in state.hands.iter().enumerate() {
            match hand {
                Some(hand) => {
                    actions.push(Action::Kill(worker));
                    self.actions_of_hand(worker, hand, actions);
                }
                None => self.actions_of_idle(worker, state, actions),
            }
        }
        for (number, request) in state.requests.iter().enumerate() {
            if request.response.is_some() {
                continue;
            }
            actions.push(Action::Work(number));
            actions.push(Action::Refuse(number, Response::Refused));
            if self.setup.may_park {
                actions.push(Action::Refuse(number, Response::SessionGone));
            }
        }
        for (job, row) in (0_u8..).zip(&state.rows) {
            match row.status {
                Status::Queued => {
                    actions.extend([Action::ClaimUnheard(job), Action::Withdraw(job)]);
                }
                Status::Parked => actions.extend([Action::Release(job), Action::Withdraw(job)]),
                Status::Sending if is_lease_over(row.lease_age) => {
                    actions.push(Action::Recover(job));
                }
                _ => {}
            }
        }
        actions.extend(
            (0_u8..)
                .zip(&state.gateway.objects)
                .map(|(number, _)| Action::Complete(number)),
        );
        if self.setup.operation == Op::Cancel {
            actions.extend([Action::CompleteCancel, Action::Pay]);
        }
        if state.parked {
            actions.push(Action::Resume);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.act(&mut next, &action)?;
        note_rewritten_history(state, &mut next);
        normalise(&mut next);
        if !self.keeps_names {
            forget_names(&mut next);
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        crate::promises::properties(&self.setup)
    }
}

impl Protocol {
    fn actions_of_hand(&self, worker: usize, hand: &Hand, actions: &mut Vec<Action>) {
        match hand.step {
            Step::NeedsBaseline => actions.extend([
                Action::ReadBaseline(worker, Sight::Whole),
                Action::ReadBaseline(worker, Sight::Lagging),
                Action::ReadBaseline(worker, Sight::Error),
            ]),
            Step::BaselineRead(_) => actions.push(Action::StoreBaseline(worker)),
            Step::Ready => {
                actions.extend([
                    Action::RefuseWindow(worker),
                    Action::Send(worker),
                    Action::FailToConnect(worker),
                ]);
                if self.setup.suspends_after_check {
                    actions.push(Action::CheckWindow(worker));
                }
                if self.setup.checks_key_before_sending {
                    actions.push(Action::RefuseOldKey(worker));
                }
            }
            Step::Checked => actions.push(Action::Send(worker)),
            Step::Waiting => actions.extend([
                Action::HearAnswer(worker),
                Action::Hear(worker, Heard::BadGateway),
                Action::Hear(worker, Heard::Cut),
                Action::Hear(worker, Heard::Timeout),
            ]),
            Step::Asking => actions.extend([
                Action::LookUp(worker, Sight::Whole),
                Action::LookUp(worker, Sight::Lagging),
                Action::LookUp(worker, Sight::Error),
            ]),
            Step::LookedUp(_) => actions.push(Action::Decide(worker)),
            Step::Decided(_) => actions.extend([
                Action::Park(worker),
                Action::RecordUnheard(worker),
                Action::Record(worker),
            ]),
        }
    }

    fn actions_of_idle(&self, worker: usize, state: &State, actions: &mut Vec<Action>) {
        for (job, row) in (0_u8..).zip(&state.rows) {
            match row.status {
                Status::Queued if state.parked => {
                    actions.push(Action::ClaimTrialOfPark(worker, job))
                }
                Status::Queued => actions.push(Action::Claim(worker, job)),
                Status::Parked => actions.push(Action::ClaimTrialOfPark(worker, job)),
                Status::Uncertain if row.due_in == 0 => {
                    actions.push(Action::ClaimLookup(worker, job));
                }
                Status::Accepted => actions.push(Action::Check(worker, job)),
                _ => {}
            }
        }
    }
}

/// No job has two effects at the gateway.
pub(crate) fn at_most_one_effect(model: &Protocol, state: &State) -> bool {
    (0..model.setup.jobs).all(|job| state.gateway.effects(&model.setup, job) <= 1)
}

/// A job that succeeded has its effect in the ledger; one that failed, expired or was cancelled by
/// the user has none and never will.
pub(crate) fn ends_tell_the_truth(model: &Protocol, state: &State) -> bool {
    (0_u8..).zip(&state.rows).all(|(job, row)| {
        let effects = state.gateway.effects(&model.setup, job);
        match row.status {
            Status::Succeeded => effects >= 1,
            // Without a list that ends its lag only the key protects: what is given up may be there.
            Status::Failed if model.setup.lag == FOR_EVER => true,
            Status::Failed | Status::Cancelled => effects == 0,
            _ => true,
        }
    })
}
