//! Finds out whether the keys of the accounts are of their organizations. Of an account whose key is not known to be so
//! nothing is claimed, sent or asked, but whether the gateway shows this key the account's invoices.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::db::accounts::AlertText;
use crate::db::alerts::About;
use crate::db::claim::Purpose;
use crate::db::entry::Entry;
use crate::db::fault::AtFault;
use crate::db::organization::{self as keys, Keys};
use crate::db::{DbError, progress};
use crate::domain::account::AccountName;
use crate::domain::answer::{Answer, Timed};
use crate::domain::outage;
use crate::gateway::wire;
use crate::policy::breaker::probe_delay;
use crate::policy::division::is_answer_to_content;
use crate::policy::hints;
use crate::policy::inquiry::{self, Inquiry, NoProof};
use crate::policy::organization::{
    Doubt, KeyStanding, Known, Telling, shown, standing, telling, with,
};
use crate::policy::outage::{Sign, sign_of_read};
use crate::policy::quoted::words;
use crate::policy::verdict::{AccountSignal, Reason};
use crate::telemetry::Chain;
use crate::worker::alerting;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::held_up::Stage;
use crate::worker::jitter::jitter;
use crate::worker::open;
use crate::worker::probe;
use crate::worker::pulse::Step;
use crate::worker::recorder::Outcome;
use crate::worker::room::Room;
use crate::worker::spell::warn_in_spells;

/// How often a daemon gives a sign of life. Others count on it to be half a minute old at most.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// The loop's memory: what was announced, which keys are doubted, and what the gateway is being asked. It waits for no
/// answer of the gateway, for other accounts count on being confirmed in time.
#[derive(Default)]
pub struct Organizations {
    announced: Option<Announced>,
    doubted: HashMap<AccountName, Doubted>,
    asked: JoinSet<Asked>,
    looks: JoinSet<()>,
}

/// What other daemons and people can see of this one.
struct Announced {
    at: Moment,
    known: BTreeSet<AccountName>,
    /// The keys in doubt, each with its account. An alert about a key that no daemon says it has would end at once.
    doubted: BTreeSet<String>,
}

/// What the gateway was asked by a key that is not known, and what that came to.
struct Asked {
    room: Arc<Room>,
    /// The account's keys when it was asked.
    before: Vec<String>,
    /// Whether another daemon served the account then.
    is_served: bool,
    /// Where the questions go on.
    inquiry: Inquiry,
    /// The last answer.
    answer: Timed,
    /// Why the key is still in doubt, and how many invoices say so.
    meaning: Result<(), (Doubt, usize)>,
}

/// A key that is not known.
struct Doubted {
    /// Its fingerprint.
    key: String,
    times: u32,
    again_at: Moment,
    /// What people were told of it.
    told: Option<AlertText>,
    /// What the gateway was asked for by it.
    inquiry: Inquiry,
}

/// Why a key serves nothing for a while.
struct Refusal {
    doubt: Doubt,
    /// How many invoices say so.
    invoices: usize,
    /// Whether another daemon serves the account.
    is_served: bool,
    /// How long the gateway asks to wait.
    hint: Option<Duration>,
    /// What came in place of a clear answer.
    fault: Option<outage::Fault>,
}

impl Organizations {
    /// Confirms the keys that are known, and tries to have the others known.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        // What was doubted of the key that an account had before says nothing of the one that it has.
        self.doubted.retain(|name, doubted| {
            let room = ctx.rooms.get(name);
            room.is_some_and(|room| {
                !room.client.serving.is_closed() && room.client.fingerprint() == doubted.key
            })
        });
        let mut stored = keys::keys(&ctx.pool, &ctx.account_names()).await?;
        let mut known = known(ctx, &stored);
        let mut changing = BTreeSet::new();
        let begins = |room: &&Arc<Room>| known.contains(&room.name) && !room.serves();
        let beginning: Vec<String> = ctx
            .rooms
            .open()
            .iter()
            .filter(begins)
            .map(|room| room.name.to_string())
            .collect();
        let in_doubt = in_doubt(ctx, &known);
        if self.is_to_be_announced(&known, &in_doubt) || !beginning.is_empty() {
            let names: Vec<String> = known.iter().map(AccountName::to_string).collect();
            let doubted: Vec<String> = in_doubt.iter().cloned().collect();
            progress::announce(&ctx.pool, ctx.worker, &ctx.host, &names, &doubted).await?;
            self.announced = Some(Announced {
                at: Moment::now(),
                known: known.clone(),
                doubted: in_doubt,
            });
            // Another key takes the place of one only while nobody is seen to serve with it: so what is read after
            // the announcement holds, unless somebody has looked before it and has not committed yet.
            let settled = match keys::settled(&ctx.pool, &beginning).await {
                Err(error) if error.fault() != AtFault::Database => Vec::new(),
                settled => settled?,
            };
            changing.extend(
                beginning
                    .iter()
                    .filter(|name| !settled.contains(name))
                    .cloned(),
            );
            stored = keys::keys(&ctx.pool, &ctx.account_names()).await?;
            let announced = known;
            known = self::known(ctx, &stored);
            known.retain(|name| announced.contains(name) && !changing.contains(name.as_str()));
            self.tell_again(ctx, &known).await?;
        }
        let mut begun = Vec::new();
        let mut step = match self.hear(ctx, &known).await? {
            true => Step::Worked,
            false => Step::Idle,
        };
        for room in ctx.rooms.open() {
            if known.contains(&room.name) {
                self.doubted.remove(&room.name);
                ctx.held_up.clear(&room.name, Stage::Key);
                if room.client.serving.know() {
                    begun.push(room.clone());
                }
                continue;
            }
            room.client.serving.doubt_key();
            if changing.contains(room.name.as_str()) {
                continue;
            }
            // A row that cannot be seen says nothing.
            let row = stored.iter().find(|row| row.account == room.name.as_str());
            let Some(row) = row.filter(|_| self.has_announced(&room) && self.is_due(&room.name))
            else {
                continue;
            };
            let tried = self.try_key(ctx, &room, row).await;
            if unless_locked(ctx, &room, tried).await? {
                step = Step::Worked;
            }
        }
        while self.looks.try_join_next().is_some() {}
        if !begun.is_empty() {
            ctx.wake.dispatch.notify_one();
            ctx.wake.lookup.notify_one();
            let ctx = ctx.clone();
            self.looks
                .spawn(async move { probe::look_around(&ctx, begun).await });
        }
        Ok(step)
    }

    /// Takes what the gateway has answered. True when a key is known by it.
    async fn hear(
        &mut self,
        ctx: &Arc<Context>,
        known: &BTreeSet<AccountName>,
    ) -> Result<bool, DbError> {
        let mut is_news = false;
        while let Some(done) = self.asked.try_join_next() {
            let asked = match done {
                Ok(asked) => asked,
                Err(panic) => {
                    error!(error = %Chain(&panic), "asking for an account's invoices panicked; it is asked again");
                    continue;
                }
            };
            let room = &asked.room;
            // Another daemon, or a person, knew it meanwhile; or the account has another key by now.
            if known.contains(&room.name) || room.client.serving.is_closed() {
                continue;
            }
            let stored = match asked.meaning {
                Ok(()) => {
                    info!(account = %room.name, "ApiPay knows the account's invoices by its new key");
                    let all = with(&asked.before, room.client.fingerprint());
                    keys::store(&ctx.pool, &room.name, Some(&asked.before), &all, None).await
                }
                Err((doubt, invoices)) => {
                    if let Some(doubted) = self.doubted.get_mut(&room.name) {
                        doubted.inquiry = asked.inquiry;
                    }
                    let refusal = Refusal {
                        doubt,
                        invoices,
                        is_served: asked.is_served,
                        hint: match &asked.answer.answer {
                            Answer::Reply(reply) => hints::wait(reply, ctx.clock.expected()),
                            Answer::NotSent(_) | Answer::Lost(_) => None,
                        },
                        fault: match sign_of(&asked.answer, doubt) {
                            Sign::Failing(fault) | Sign::GivenUp(fault) => Some(fault),
                            Sign::Clear | Sign::Refused | Sign::Capped | Sign::Silent => None,
                        },
                    };
                    let told = self.refuse(ctx, room, refusal).await;
                    if let Ok(Telling::Park(reason)) = told {
                        self.park(ctx, room, reason, &asked.answer);
                    }
                    told.map(|_| false)
                }
            };
            is_news |= unless_locked(ctx, room, stored).await?;
        }
        Ok(is_news)
    }

    fn is_to_be_announced(
        &self,
        known: &BTreeSet<AccountName>,
        in_doubt: &BTreeSet<String>,
    ) -> bool {
        self.announced.as_ref().is_none_or(|announced| {
            &announced.known != known
                || &announced.doubted != in_doubt
                || announced.at.elapsed() >= SIGN_OF_LIFE
        })
    }

    /// Whether others can see that this key of the account is in doubt here.
    fn has_announced(&self, room: &Room) -> bool {
        let doubt = keys::doubt(&room.name, room.client.fingerprint());
        let announced = self.announced.as_ref();
        announced.is_some_and(|announced| announced.doubted.contains(&doubt))
    }

    fn is_due(&self, account: &AccountName) -> bool {
        let doubted = self.doubted.get(account);
        doubted.is_none_or(|doubted| Moment::now() >= doubted.again_at)
    }

    /// Has the key known, if it may be. True when it is.
    async fn try_key(
        &mut self,
        ctx: &Arc<Context>,
        room: &Arc<Room>,
        row: &Keys,
    ) -> Result<bool, DbError> {
        let most = i64::try_from(wire::CHECK_IDS).unwrap_or(i64::MAX);
        let traces = keys::traces(&ctx.pool, &room.name, ctx.worker, most).await?;
        let own = room.client.fingerprint();
        let known = Known {
            stored: row.stored.as_deref(),
            invoices: &traces.invoices,
            may_have_sent: traces.may_have_sent,
            is_served: traces.served_on.is_some(),
            was_given_over: traces.was_given_over,
        };
        let before = row.stored.as_deref();
        let doubt = match standing(own, known) {
            KeyStanding::Serve => return Ok(true),
            KeyStanding::Take => {
                let alone = before.map(|_| ctx.worker);
                let only = [own.to_owned()];
                return keys::store(&ctx.pool, &room.name, before, &only, alone).await;
            }
            KeyStanding::Refuse(doubt) => doubt,
            KeyStanding::Ask => {
                if room.take_one(Purpose::Probe).await? {
                    let before = before.unwrap_or_default().to_vec();
                    let is_served = traces.served_on.is_some();
                    self.ask(ctx, room, before, traces.invoices, is_served);
                }
                return Ok(false);
            }
        };
        let refusal = Refusal {
            doubt,
            invoices: traces.invoices.len(),
            is_served: traces.served_on.is_some(),
            hint: None,
            fault: None,
        };
        self.refuse(ctx, room, refusal).await?;
        Ok(false)
    }

    /// Asks the gateway whether it knows the account's newest invoices, or some of them, by the account's key; the answer
    /// is heard in a later round.
    fn ask(
        &mut self,
        ctx: &Context,
        room: &Arc<Room>,
        before: Vec<String>,
        newest: Vec<i64>,
        is_served: bool,
    ) {
        // Not again before the last of its questions is answered.
        let again_at = Moment::now().after(ctx.rules.request_timeout * (inquiry::QUESTIONS + 1));
        let doubted = self.doubted.entry(room.name.clone());
        let doubted = doubted.or_insert_with(|| Doubted {
            key: room.client.fingerprint().to_owned(),
            times: 0,
            again_at,
            told: None,
            inquiry: Inquiry::default(),
        });
        doubted.again_at = again_at;
        let inquiry = doubted.inquiry.clone();
        let room = room.clone();
        self.asked.spawn(async move {
            let (inquiry, answer, meaning) = inquire(&room, inquiry, &newest).await;
            Asked {
                room,
                before,
                is_served,
                inquiry,
                answer,
                meaning,
            }
        });
    }

    /// What the gateway says of the key is what people are told: the account is parked. The organization of the key
    /// stays in doubt, so no probe ends that before it is known.
    fn park(&mut self, ctx: &Arc<Context>, room: &Room, reason: Reason, said: &Timed) {
        let signal = AccountSignal::Park {
            reason,
            hint: None,
            said: match &said.answer {
                Answer::Reply(reply) => words(reply),
                Answer::NotSent(_) | Answer::Lost(_) => None,
            },
            undelivered: None,
        };
        room.park.heed(Some(&signal));
        let outcome = Outcome {
            signal: Some(signal),
            ..Outcome::plain(&room.name, Entry::default())
        };
        let ctx = ctx.clone();
        // The writer may be busy, and this loop waits for nobody.
        self.looks
            .spawn(async move { ctx.recorder.record(outcome).await });
    }

    /// Whatever ended an alert while its key is still in doubt, it is open again.
    async fn tell_again(
        &self,
        ctx: &Context,
        known: &BTreeSet<AccountName>,
    ) -> Result<(), DbError> {
        for room in ctx.rooms.open() {
            let doubted = self.doubted.get(&room.name);
            let told = doubted.and_then(|doubted| doubted.told.as_ref());
            let Some(text) = told.filter(|_| !known.contains(&room.name)) else {
                continue;
            };
            let opened = open::once(&ctx.pool, &about(&room), text).await;
            unless_locked(ctx, &room, opened.map(|()| false)).await?;
        }
        Ok(())
    }

    async fn refuse(
        &mut self,
        ctx: &Context,
        room: &Room,
        refusal: Refusal,
    ) -> Result<Telling, DbError> {
        let name = &room.name;
        let doubt = refusal.doubt;
        let before = self.doubted.remove(name);
        let times = before.as_ref().map_or(0, |doubted| doubted.times) + 1;
        let wait = probe_delay(&ctx.rules.breaker, times, refusal.hint, jitter());
        let telling = telling(doubt, times, refusal.is_served);
        let (invoices, fault) = (refusal.invoices, refusal.fault.as_ref());
        let text =
            alerting::other_organization(name, doubt, invoices, fault, ctx.worker, &ctx.host);
        let (told, inquiry) = before
            .map(|doubted| (doubted.told, doubted.inquiry))
            .unwrap_or_default();
        let doubted = Doubted {
            key: room.client.fingerprint().to_owned(),
            times,
            again_at: Moment::now().after(wait),
            told: match telling {
                Telling::Doubt => Some(text.clone()),
                Telling::Park(_) | Telling::Nothing => told,
            },
            inquiry,
        };
        self.doubted.insert(name.clone(), doubted);
        warn!(account = %name, ?doubt, "the account's key is not known to be of its organization; nothing of it is served");
        if telling == Telling::Doubt {
            open::say(&ctx.pool, &about(room), &text).await?;
            ctx.wake.deliver.notify_one();
        }
        Ok(telling)
    }
}

/// Asks for the account's newest invoices, and for parts of them where that helps, within its quota: until one is shown, or
/// it is time for a pause. Returns where the questions go on, and the last answer.
async fn inquire(
    room: &Room,
    mut inquiry: Inquiry,
    newest: &[i64],
) -> (Inquiry, Timed, Result<(), (Doubt, usize)>) {
    loop {
        let asked = inquiry.to_ask(newest);
        let answer = room.client.ask_for_invoices(&asked).await;
        let rows = wire::read_check(&answer);
        let ids: Option<Vec<i64>> = rows.map(|rows| rows.iter().map(|row| row.id).collect());
        let Err(doubt) = shown(&asked, ids.as_deref(), &answer.answer) else {
            return (inquiry, answer, Ok(()));
        };
        let heard = inquiry.heard(NoProof {
            asked: &asked,
            newest: newest.len(),
            doubt,
            is_about_content: is_answer_to_content(&sign_of(&answer, doubt)),
        });
        let may_go_on = heard.is_none()
            && !room.client.serving.is_closed()
            && !room.handles.stop.is_cancelled();
        let is_granted = may_go_on && matches!(room.take_one(Purpose::Probe).await, Ok(true));
        if !is_granted {
            // Nothing is clear before the question that was not asked.
            let meaning = heard.unwrap_or((Doubt::Unanswered, asked.len()));
            return (inquiry, answer, Err(meaning));
        }
    }
}

/// What an answer that is no proof says of the gateway.
fn sign_of(answer: &Timed, doubt: Doubt) -> Sign {
    sign_of_read(answer, doubt == Doubt::NoneShown)
}

/// The alert about this key.
fn about(room: &Room) -> About<'_> {
    About {
        account: Some(&room.name),
        kind: alerting::ORGANIZATION,
        subject: room.client.fingerprint(),
        severity: "critical",
    }
}

/// An error that is no other account's: somebody keeps the account's row locked, and the next round comes soon.
async fn unless_locked(
    ctx: &Context,
    room: &Room,
    done: Result<bool, DbError>,
) -> Result<bool, DbError> {
    match done {
        Err(error) if error.fault() != AtFault::Database => {
            warn_in_spells!(room.name; account = %room.name, error = %Chain(&error), "the account's key was not stored yet");
            ctx.held_up
                .hold_up(&ctx.pool, &room.name, Stage::Key, Some(&error))
                .await;
            Ok(false)
        }
        done => {
            ctx.held_up.clear(&room.name, Stage::Key);
            done
        }
    }
}

/// The keys that are not known, each with its account. One that has not begun to be served is not in doubt.
fn in_doubt(ctx: &Context, known: &BTreeSet<AccountName>) -> BTreeSet<String> {
    let open = ctx.rooms.open().into_iter();
    let doubted =
        open.filter(|room| room.client.serving.has_begun() && !known.contains(&room.name));
    doubted
        .map(|room| keys::doubt(&room.name, room.client.fingerprint()))
        .collect()
}

/// The accounts whose key is known.
fn known(ctx: &Context, stored: &[Keys]) -> BTreeSet<AccountName> {
    let is_known = |room: &Arc<Room>| {
        if !room.client.serving.has_begun() {
            return false;
        }
        let row = stored.iter().find(|row| row.account == room.name.as_str());
        let keys = row.and_then(|row| row.stored.as_ref());
        keys.is_some_and(|keys| keys.iter().any(|key| key == room.client.fingerprint()))
    };
    let known = ctx.rooms.open().into_iter().filter(is_known);
    known.map(|room| room.name.clone()).collect()
}
