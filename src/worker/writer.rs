//! The one writer of outcomes: whatever gathered while the last statement ran goes into the next.
//!
//! What only some rows are to blame for stops nobody else: [`record`] divides a batch until they stand alone,
//! [`aside`](crate::worker::aside) holds them and tries them again, and what concerns an account
//! ([`signals`]) waits for that account's row by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use crate::domain::account::AccountName;
use crate::heart::Heart;
use crate::worker::aside::Aside;
use crate::worker::context::Context;
use crate::worker::failing;
use crate::worker::record::{self, NotTaken};
use crate::worker::recorder::insist::finished;
use crate::worker::recorder::{Inbox, Message, Outcome};
use crate::worker::set_aside::SetAside;
use crate::worker::signals;

/// Statements under way at once.
const AT_ONCE: usize = 2;

/// Outcomes of one statement.
const BATCH: usize = 512;

/// Writes until the recorder is closed and everything is written.
///
/// Two batches may be under way, if the second is worth a statement of its own: while the database
/// makes one durable, it works on the next. The order of the two does not matter, for whatever depends on a
/// record reads it from the database first, and each moves a job only from the state that it was decided for. Within
/// a batch the later of two moves of one job counts.
pub async fn write(ctx: Arc<Context>, inbox: Inbox, heart: Arc<Heart>) {
    let errands = ctx.recorder.errands.clone();
    Writer::new(ctx, inbox, heart).run().await;
    errands.close();
    errands.wait().await;
}

struct Writer {
    ctx: Arc<Context>,
    inbox: Inbox,
    heart: Arc<Heart>,
    is_open: bool,
    /// What is to be recorded next.
    ready: Vec<Message>,
    batches: JoinSet<Result<(), NotTaken>>,
    /// Outcomes whose account is told of something first.
    signalling: JoinSet<Vec<Message>>,
    /// Batches that are divided, and whose turn it is: they leave connections to everybody else.
    dividing: JoinSet<Vec<SetAside>>,
    divisions: Arc<Semaphore>,
    aside: Aside,
}

impl Writer {
    fn new(ctx: Arc<Context>, inbox: Inbox, heart: Arc<Heart>) -> Writer {
        Writer {
            ctx,
            inbox,
            heart,
            is_open: true,
            ready: Vec::with_capacity(BATCH),
            batches: JoinSet::new(),
            signalling: JoinSet::new(),
            dividing: JoinSet::new(),
            divisions: Arc::new(Semaphore::new(AT_ONCE)),
            aside: Aside::default(),
        }
    }

    async fn run(&mut self) {
        let mut fresh = Vec::with_capacity(BATCH);
        while self.is_open || !self.is_done() {
            if self.is_writing() {
                self.heart.beat();
            } else {
                self.heart.rest();
            }
            let room = BATCH.saturating_sub(self.ready.len());
            tokio::select! {
                biased;
                Some(done) = self.batches.join_next() => self.written(done),
                Some(done) = self.signalling.join_next() => self.ready.extend(finished(done).unwrap_or_default()),
                Some(done) = self.dividing.join_next() => self.aside.put(finished(done).unwrap_or_default()),
                count = self.inbox.receiver.recv_many(&mut fresh, room), if self.is_open && room > 0 => {
                    self.is_open = count > 0;
                    self.take(&mut fresh);
                }
                () = self.inbox.closed.cancelled(), if !self.inbox.receiver.is_closed() => {
                    self.inbox.receiver.close();
                    self.aside.hurry();
                }
                () = self.aside.progress(&self.ctx) => {}
            }
            self.start();
        }
    }

    fn is_done(&self) -> bool {
        self.ready.is_empty() && !self.is_writing() && self.aside.is_empty()
    }

    /// Whether the database is asked something, in a task that gives the signs of life.
    fn is_writing(&self) -> bool {
        !(self.batches.is_empty() && self.signalling.is_empty() && self.dividing.is_empty())
    }

    /// What means something for its account waits until the account is told.
    fn take(&mut self, fresh: &mut Vec<Message>) {
        let mut signalling: BTreeMap<AccountName, Vec<Message>> = BTreeMap::new();
        for message in fresh.drain(..) {
            if message.outcome.got_through()
                && let Some(room) = self.ctx.rooms.get(&message.outcome.account)
            {
                room.park.note_success();
            }
            if self.is_about_account(&message.outcome) {
                let account = message.outcome.account.clone();
                signalling.entry(account).or_default().push(message);
            } else {
                self.ready.push(message);
            }
        }
        for (account, mut messages) in signalling {
            let ctx = self.ctx.clone();
            for message in &mut messages {
                let transition = message.outcome.entry.transition.as_ref();
                message.place = transition.map(|moved| ctx.recorder.shelf().protect(moved));
                message.leave_backlog();
            }
            let work = async move { signals::tell(&ctx, &account, messages).await };
            self.signalling.spawn(self.heart.clone().carry(work));
        }
    }

    /// Whether the account of an outcome is to be told of something before the rows are recorded.
    fn is_about_account(&self, outcome: &Outcome) -> bool {
        let room = self.ctx.rooms.get(&outcome.account);
        let room = room.as_ref();
        let is_news = |signed| room.is_some_and(|room| failing::is_news(room, signed));
        let ends_doubt = room.is_some_and(|room| room.park.is_doubted()) && outcome.got_through();
        outcome.signal.is_some()
            || outcome.alert.is_some()
            || outcome.delivered.is_some()
            || outcome.signed.as_ref().is_some_and(is_news)
            || ends_doubt
    }

    fn start(&mut self) {
        let is_worth_it = |batches: usize, ready: usize| {
            ready > 0 && (batches == 0 || (batches < AT_ONCE && ready >= BATCH / 2))
        };
        while is_worth_it(self.batches.len(), self.ready.len()) {
            let rest = self.ready.split_off(self.ready.len().min(BATCH));
            let batch = std::mem::replace(&mut self.ready, rest);
            let ctx = self.ctx.clone();
            let work = async move { record::batch(&ctx, batch).await };
            self.batches.spawn(self.heart.clone().carry(work));
        }
    }

    fn written(&mut self, done: Result<Result<(), NotTaken>, JoinError>) {
        if let Some(Err(refused)) = finished(done) {
            let (ctx, divisions) = (self.ctx.clone(), self.divisions.clone());
            self.dividing.spawn(self.heart.clone().carry(async move {
                // The semaphore is never closed.
                let _turn = divisions.acquire().await;
                record::divide(&ctx, refused, None).await
            }));
        }
    }
}
