//! An account at run time: its client, and what is known of its state.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Semaphore;

use crate::domain::account::{AccountName, DuplicateProtection};
use crate::domain::answer::{Answer, NotSent, Timed};
use crate::domain::operation::Request;
use crate::domain::outage::{Course, Outage, Read};
use crate::gateway::client::Gateway;
use crate::gateway::wire;
use crate::heart;
use crate::policy::breaker::slow_start_limit;
use crate::policy::division::Division;
use crate::policy::judge::is_refused_for_rate;
use crate::policy::rules::BreakerRules;
use crate::policy::verdict::AccountSignal;
use crate::worker::clock::Moment;
use crate::worker::modes::{Modes, Sight};
use crate::worker::room::Places;
use crate::worker::slots::{Slot, Slots};

/// An account at run time.
pub struct Account {
    /// Its name.
    pub name: AccountName,
    gateway: Gateway,
    /// What it may rely on against a second invoice.
    pub protection: DuplicateProtection,
    /// Requests in flight at once.
    pub concurrency: usize,
    /// Its limit at the gateway.
    pub requests_per_minute: u32,
    slots: Arc<Semaphore>,
    /// Places for its tasks beside its sends.
    pub places: Places,
    /// Jobs claimed and not yet finished: in flight, or waiting for a slot.
    claimed: AtomicUsize,
    /// Jobs claimed since the start.
    claims: AtomicU64,
    /// Sends since the start that were answered soon.
    brisk: AtomicU64,
    /// Jobs that the database refuses to have claimed, and that are left out.
    refused: AtomicU32,
    refusals: Refusals,
    /// When its key was last seen to be known, while it serves the account.
    known_at: Mutex<Option<Moment>>,
    has_begun: AtomicBool,
    is_closed: AtomicBool,
    /// Whether the last claim was too old to be sent, and so was each since the last request of a job.
    is_late: AtomicBool,
    /// Since when probes get no clear answer, and what the last one got.
    unclear: Mutex<Option<(OffsetDateTime, String)>>,
    made_at: Moment,
    division: Mutex<Division>,
    state: Mutex<State>,
}

/// For how long a key that was seen to be known counts as known. Another one takes its place thirty seconds after the
/// last sign of life of a daemon at the earliest.
const KEY_KNOWN: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    /// Claims from before this moment must not be sent any more.
    parked_at: Option<Moment>,
    /// The gateway said that the account is unwell, and the database has not been told yet.
    is_park_unstored: bool,
    /// What the database said last.
    seen: Seen,
    /// Whether it is parked until something that the gateway accepted is delivered.
    waits_for_delivery: bool,
    /// Whether its health alone has ended its last park, and nothing was sent with success since.
    is_doubted: bool,
    /// When something was last sent with success.
    got_through_at: Option<Moment>,
    /// What is known of requests that got no clear answer.
    outage: Outage,
    /// What answers have shown of its mode.
    modes: Modes,
}

impl State {
    fn park(&mut self) {
        self.parked_at = Some(Moment::now());
        self.is_park_unstored = true;
    }

    fn park_is_stored(&mut self) {
        self.parked_at = Some(Moment::now());
        self.is_park_unstored = false;
        self.seen = Seen::Parked;
    }

    /// How many jobs may be claimed and not yet finished.
    fn limit(&self, concurrency: usize, ahead: usize, rules: &BreakerRules) -> usize {
        match self.seen {
            // The database still lets its jobs be claimed.
            _ if self.is_park_unstored => 0,
            Seen::Active => concurrency + ahead,
            Seen::Parked => 1,
            Seen::ResumedAt(moment) => slow_start_limit(concurrency, Some(moment.elapsed()), rules),
        }
    }
}

#[derive(Clone, Copy, Default)]
enum Seen {
    /// Active for so long that no slow start is due.
    #[default]
    Active,
    /// Parked: one request at a time until the resumption is seen.
    Parked,
    /// Resumed at this moment.
    ResumedAt(Moment),
}

/// Refusals for the rate in a row.
#[derive(Default)]
struct Refusals(AtomicU32);

impl Refusals {
    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts what a request brought, of which so many refusals were known when it was sent: those
    /// under way at the same time are refused together.
    fn note(&self, before: u32, is_refused: Option<bool>) {
        match is_refused {
            Some(true) => drop(
                self.0
                    .fetch_max(before.saturating_add(1), Ordering::Relaxed),
            ),
            Some(false) => self.0.store(0, Ordering::Relaxed),
            None => {}
        }
    }
}

/// A job of an account that is claimed and not yet finished.
pub struct Claimed(Arc<Account>);

impl Drop for Claimed {
    fn drop(&mut self) {
        self.0.claimed.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Account {
    /// An account of which nothing is known yet.
    pub fn new(
        name: AccountName,
        gateway: Gateway,
        protection: DuplicateProtection,
        concurrency: usize,
        requests_per_minute: u32,
    ) -> Account {
        Account {
            name,
            gateway,
            protection,
            concurrency,
            requests_per_minute,
            slots: Arc::new(Semaphore::new(concurrency)),
            places: Places::default(),
            claimed: AtomicUsize::new(0),
            claims: AtomicU64::new(0),
            brisk: AtomicU64::new(0),
            refused: AtomicU32::new(0),
            refusals: Refusals::default(),
            known_at: Mutex::default(),
            has_begun: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
            unclear: Mutex::default(),
            made_at: Moment::now(),
            division: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Asks the gateway, once, counts refusals for the rate and notes in which mode the account is. Never fails:
    /// what went wrong is an answer. With a key that is not known to be of the account's organisation nothing leaves,
    /// whoever asks.
    pub async fn call(&self, request: &Request) -> Timed {
        if !self.serves() {
            return Timed {
                answer: Answer::NotSent(self.unserved()),
                took: Duration::ZERO,
            };
        }
        let before = self.refusals.count();
        let timed = self.gateway.call(request).await;
        heart::beat();
        self.refusals
            .note(before, is_refused_for_rate(&timed.answer));
        if let Some(shown) = wire::shown_mode(&timed) {
            self.state().modes.see(shown);
        }
        timed
    }

    /// Asks the gateway whether it knows these invoices by the account's key: the one question that a key may be used
    /// for before it is known to be of the account's organisation. What it shows says nothing of the account yet.
    pub async fn ask_for_invoices(&self, invoices: &[i64]) -> Timed {
        self.gateway.call(&wire::check_invoices(invoices)).await
    }

    /// Refusals for the rate in a row, to this moment.
    pub fn refusals(&self) -> u32 {
        self.refusals.count()
    }

    /// Jobs that were claimed since the start.
    pub fn claims(&self) -> u64 {
        self.claims.load(Ordering::Relaxed)
    }

    /// A send was answered soon.
    pub fn count_brisk(&self) {
        self.brisk.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends since the start that were answered soon: their number says how many will be.
    pub fn brisk(&self) -> u64 {
        self.brisk.load(Ordering::Relaxed)
    }

    /// Notes how many jobs are left out of its claims.
    pub fn note_refused(&self, jobs: u32) {
        self.refused.store(jobs, Ordering::Relaxed);
    }

    /// Jobs that are left out of its claims, because the database refuses them.
    pub fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Notes whether a claim was too old to be sent, or its request left.
    pub fn note_late(&self, is_late: bool) {
        self.is_late.store(is_late, Ordering::Relaxed);
    }

    /// Whether claims have only been too old to be sent of late.
    pub fn is_late(&self) -> bool {
        self.is_late.load(Ordering::Relaxed)
    }

    /// Notes what a probe got, if that was no clear answer.
    pub fn note_probe(&self, unclear: Option<String>) {
        let mut known = self.unclear();
        *known = unclear.map(|got| {
            let since = known.take().map(|(since, _)| since);
            (since.unwrap_or_else(OffsetDateTime::now_utc), got)
        });
    }

    /// Since when probes get no clear answer, and what the last one got; none when they do, or none is made.
    pub fn unclear_probes(&self) -> Option<(OffsetDateTime, String)> {
        self.unclear().clone()
    }

    fn unclear(&self) -> MutexGuard<'_, Option<(OffsetDateTime, String)>> {
        self.unclear.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many more jobs may be claimed: free slots, and `ahead` more unless the account is in its
    /// slow start.
    pub fn room(&self, ahead: usize, rules: &BreakerRules) -> usize {
        let limit = self.state().limit(self.concurrency, ahead, rules);
        limit.saturating_sub(self.claimed.load(Ordering::Relaxed))
    }

    /// Counts a claimed job for as long as the guard lives.
    pub fn hold(self: &Arc<Self>) -> Claimed {
        self.claimed.fetch_add(1, Ordering::Relaxed);
        self.claims.fetch_add(1, Ordering::Relaxed);
        Claimed(self.clone())
    }

    /// Waits for a slot of the account, and then of the daemon.
    pub async fn slot(self: Arc<Self>, slots: Slots) -> Slot {
        slots.take(&self.slots).await
    }

    /// Obeys what an answer means for the account, at once: of one that is unwell nothing more is sent. Its wait, if it
    /// is to wait, begins with the record of the answer, for the claim of every daemon respects that.
    pub fn heed(&self, signal: Option<&AccountSignal>) {
        if matches!(signal, Some(AccountSignal::Park { .. })) {
            self.park();
        }
    }

    /// From now on nothing claimed before is sent, and nothing more is claimed until [`park_is_stored`]: the
    /// gateway said that the account is unwell.
    ///
    /// This is known at once, before the database knows it, which may take as long as somebody locks the
    /// account's row.
    ///
    /// [`park_is_stored`]: Account::park_is_stored
    fn park(&self) {
        self.state().park();
    }

    /// The database has been told of the park: claims from before this moment are not sent, and its word of
    /// the account counts again, even should it have refused the park.
    pub fn park_is_stored(&self) {
        self.state().park_is_stored();
    }

    /// What tells its key from others.
    pub fn fingerprint(&self) -> &str {
        self.gateway.fingerprint()
    }

    /// Its key is known to be of the account's organisation, now. True when that is news.
    pub fn know(&self) -> bool {
        let served = self.serves();
        *self.known_at() = Some(Moment::now());
        !served
    }

    /// Its row is as it is to be, and what is counted for it counts from the start.
    pub fn begin(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    /// Whether what is done for it once after a start is done; before that it is not served.
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// Nothing more is claimed, sent or asked for it; what is under way is ended and recorded. There is no way back.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Whether it is closed, or about to be.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Whether none of its tasks is under way, and no job of it is claimed and not finished.
    pub fn is_idle(&self) -> bool {
        self.claimed.load(Ordering::Relaxed) == 0 && self.places.are_free()
    }

    /// Its key is not known any more.
    pub fn doubt_key(&self) {
        *self.known_at() = None;
    }

    /// Whether the gateway may be asked anything for it. Who could not read for a while whether its key is known
    /// asks nothing: another key may have taken its place.
    pub fn serves(&self) -> bool {
        !self.is_closed() && self.known_at().is_some_and(|at| at.elapsed() < KEY_KNOWN)
    }

    /// Why nothing is sent of an account that is not served.
    pub fn unserved(&self) -> NotSent {
        if self.is_closed() {
            NotSent::AccountClosed
        } else {
            NotSent::KeyDoubted
        }
    }

    fn known_at(&self) -> MutexGuard<'_, Option<Moment>> {
        self.known_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a job that was claimed at this moment may still be sent.
    pub fn may_send(&self, claimed_at: Moment) -> bool {
        let parked_at = self.state().parked_at;
        self.serves() && parked_at.is_none_or(|parked_at| claimed_at > parked_at)
    }

    /// What is known of its requests that got no clear answer.
    pub fn learn(&self, outage: Outage) {
        self.state().outage = outage;
    }

    /// What is known of its sends, or of its reads of this kind.
    pub fn learn_of(&self, kind: Option<Read>, course: Course) {
        let outage = &mut self.state().outage;
        match kind {
            None => outage.sends = course,
            Some(read) => drop(outage.reads.insert(read, course)),
        }
    }

    /// How its sends go, or its reads of this kind, as far as is known here.
    pub fn course(&self, kind: Option<Read>) -> Course {
        self.state().outage.course(kind)
    }

    /// Whether a read of this kind may be made (see [`Outage::may_read`]).
    pub fn may_read(&self, read: Read, now: OffsetDateTime, longest: Duration) -> bool {
        self.state().outage.may_read(read, now, longest)
    }

    /// Whether reads of this kind have slowed down.
    pub fn reads_slowly(&self, read: Read) -> bool {
        self.state().outage.reads_slowly(read)
    }

    /// For how long it has been known here, by a clock that nobody sets.
    pub fn age(&self) -> Duration {
        self.made_at.elapsed()
    }

    /// What is known of its invoices that cannot be shown.
    pub fn division(&self) -> MutexGuard<'_, Division> {
        self.division.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one job of it tries while the others wait.
    pub fn is_slow(&self) -> bool {
        self.state().outage.is_slow()
    }

    /// From now on its requests start slowly, as after a park.
    pub fn resume_slowly(&self) {
        self.state().seen = Seen::ResumedAt(Moment::now());
    }

    /// Whether it is parked until something that the gateway accepted is delivered, as the database last said.
    pub fn waits_for_delivery(&self) -> bool {
        self.state().waits_for_delivery
    }

    /// Notes whether it is parked until something is delivered.
    pub fn wait_for_delivery(&self, waits: bool) {
        self.state().waits_for_delivery = waits;
    }

    /// Whether its health alone has ended its last park, and nothing was sent with success since.
    pub fn is_doubted(&self) -> bool {
        self.state().is_doubted
    }

    /// Something was sent with success.
    pub fn note_success(&self) {
        self.state().got_through_at = Some(Moment::now());
    }

    /// Whether something was sent with success in this time, to this moment.
    pub fn got_through_within(&self, time: Duration) -> bool {
        let at = self.state().got_through_at;
        at.is_some_and(|at| at.elapsed() < time)
    }

    /// Notes whether its health alone has ended its last park.
    pub fn doubt(&self, is_doubted: bool) {
        self.state().is_doubted = is_doubted;
    }

    /// What the database says of the account.
    pub fn observe(&self, parked: bool, resumed_for: Option<Duration>, slow_start: Duration) {
        self.state().seen = match resumed_for.filter(|time| *time < slow_start) {
            _ if parked => Seen::Parked,
            Some(time) => Seen::ResumedAt(Moment::now().before(time)),
            None => Seen::Active,
        };
    }

    /// What was seen of its mode and is not compared yet with what is stored.
    pub fn untold_mode(&self) -> Option<Sight> {
        self.state().modes.untold()
    }

    /// Notes that this was compared; `is_disputed` while another mode is stored.
    pub fn mode_is_told(&self, sight: Sight, is_disputed: bool) {
        self.state().modes.told(sight, is_disputed);
    }

    /// Whether its mode was not seen for so long that a new invoice is to be read for it; not asked again at once.
    pub fn wants_mode(&self) -> bool {
        self.state().modes.wants_a_look()
    }

    /// Nothing in it can be half-changed, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_claimed_until_the_database_was_told_of_the_park() {
        let rules = BreakerRules {
            probe_initial: Duration::from_secs(60),
            probe_max: Duration::from_secs(900),
            slow_start: Duration::from_secs(60),
        };
        let mut state = State::default();
        assert_eq!(state.limit(8, 2, &rules), 10);
        state.park();
        assert_eq!(state.limit(8, 2, &rules), 0);
        // Its row is locked, and shows what it was before.
        state.seen = Seen::Active;
        assert_eq!(state.limit(8, 2, &rules), 0);
        state.park_is_stored();
        assert_eq!(state.limit(8, 2, &rules), 1);
        // It was refused, or somebody has resumed the account.
        state.seen = Seen::Active;
        assert_eq!(state.limit(8, 2, &rules), 10);
    }

    #[test]
    fn what_is_refused_together_counts_once_and_a_clear_answer_ends_the_row() {
        let refusals = Refusals::default();
        let before = refusals.count();
        refusals.note(before, Some(true));
        refusals.note(before, Some(true));
        assert_eq!(refusals.count(), 1);
        refusals.note(refusals.count(), None);
        refusals.note(refusals.count(), Some(true));
        assert_eq!(refusals.count(), 2);
        refusals.note(before, Some(true));
        assert_eq!(refusals.count(), 2, "late, and not news");
        refusals.note(refusals.count(), Some(false));
        assert_eq!(refusals.count(), 0);
    }

    /// An account whose gateway is a listener of this test, on a runtime of the test's.
    fn account_at(address: std::net::SocketAddr) -> Account {
        let base = reqwest::Url::parse(&format!("http://{address}")).unwrap();
        let second = Duration::from_secs(1);
        let limits = crate::domain::http::HttpLimits {
            connect_timeout: second,
            timeout: second,
            max_body_bytes: 1_000,
        };
        let key = secrecy::SecretString::from("a key");
        let gateway = Gateway::new(&base, &key, true, limits).unwrap();
        let name = AccountName::parse("default").unwrap();
        Account::new(name, gateway, DuplicateProtection::Key, 1, 60)
    }

    #[tokio::test]
    async fn with_a_key_in_doubt_nothing_leaves_but_the_look_for_an_invoice() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let account = account_at(listener.local_addr().unwrap());
        let requests = [
            wire::account_health(),
            wire::check_invoices(&[7]),
            wire::get_invoice(7),
        ];
        for request in &requests {
            let timed = account.call(request).await;
            assert_eq!(timed.answer, Answer::NotSent(NotSent::KeyDoubted));
        }
        assert!(account.know());
        account.doubt_key();
        let timed = account.call(&requests[0]).await;
        assert_eq!(timed.answer, Answer::NotSent(NotSent::KeyDoubted));
        assert!(listener.accept().is_err(), "nobody has connected");
        let asked = account.ask_for_invoices(&[7]).await;
        assert_ne!(asked.answer, Answer::NotSent(NotSent::KeyDoubted));
        assert!(listener.accept().is_ok());
        account.know();
        let timed = account.call(&requests[0]).await;
        assert_ne!(timed.answer, Answer::NotSent(NotSent::KeyDoubted));
        assert!(listener.accept().is_ok());
    }
}
