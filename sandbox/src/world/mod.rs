//! The gateway's world as a plain state machine: organisations, invoices, refunds, and timers.
//!
//! It knows neither HTTP nor a clock; every call is told what time it is.

mod invoice;
mod organisation;
mod refund;

use std::collections::{BinaryHeap, HashMap, HashSet};

use rust_decimal::Decimal;
use time::{Duration, OffsetDateTime};

pub(crate) use invoice::{Discount, Draft, Invoice, Line, Status};
pub use organisation::Mode;
pub(crate) use organisation::{
    CatalogItem, Kyc, Organisation, RefundPages, Search, Session, Switches, Tariff,
    amount as read_amount,
};
pub(crate) use refund::{Refund, RefundDraft, RefundOutcome, RefundStatus, ReturnedItem};

use crate::clock::Moment;
use crate::ledger::{Effect, Kind, Ledger};
use crate::life::{Event, Step, Story, Timer, story_of_phone};

const FIRST_INVOICE: u64 = 100_001;
const FIRST_REFUND: u64 = 500_001;
const REFUND_STEP: Duration = Duration::SECOND;

/// Who did something and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) organisation: usize,
    pub(crate) now: Moment,
    /// The request, by its number in the request log.
    pub(crate) request: u64,
}

/// How a cancel request was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelTaken {
    AtOnce,
    Queued,
    Refused,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) organisations: Vec<Organisation>,
    pub(crate) ledger: Ledger,
    pub(crate) defaults: Switches,
    strict_keys: bool,
    keys: HashMap<String, usize>,
    revoked_keys: HashSet<String>,
    invoices: Vec<Invoice>,
    refunds: Vec<Refund>,
    timers: BinaryHeap<Timer>,
    timers_set: u64,
}

impl World {
    pub(crate) fn new(defaults: Switches, strict_keys: bool) -> Self {
        Self {
            organisations: Vec::new(),
            ledger: Ledger::default(),
            defaults,
            strict_keys,
            keys: HashMap::new(),
            revoked_keys: HashSet::new(),
            invoices: Vec::new(),
            refunds: Vec::new(),
            timers: BinaryHeap::new(),
            timers_set: 0,
        }
    }

    /// The organisation a request's key belongs to; an unknown key founds one unless keys are strict.
    pub(crate) fn admit(&mut self, key: &str) -> Option<usize> {
        if self.revoked_keys.contains(key) {
            return None;
        }
        let known = self.keys.get(key).copied();
        let organisation = match known {
            Some(organisation) => organisation,
            None if self.strict_keys => return None,
            None => self.found(key),
        };
        (!self.organisations[organisation].switches.revoked).then_some(organisation)
    }

    /// The organisation with this key or name.
    pub(crate) fn find_organisation(&self, key_or_name: &str) -> Option<usize> {
        let by_key = self.keys.get(key_or_name).copied();
        by_key.or_else(|| {
            self.organisations
                .iter()
                .position(|organisation| organisation.name == key_or_name)
        })
    }

    /// As [`Self::find_organisation`], but an unknown text is taken for a new key.
    pub(crate) fn find_or_found(&mut self, key_or_name: &str) -> usize {
        self.find_organisation(key_or_name)
            .unwrap_or_else(|| self.found(key_or_name))
    }

    pub(crate) fn add_key(&mut self, organisation: usize, key: String) {
        self.revoked_keys.remove(&key);
        self.keys.insert(key, organisation);
    }

    pub(crate) fn revoke_key(&mut self, key: String) {
        self.revoked_keys.insert(key);
    }

    /// What logs call the owner of a key.
    pub(crate) fn label(&self, key: &str) -> String {
        let known = self
            .keys
            .get(key)
            .map(|organisation| self.organisations[*organisation].name.clone());
        known.unwrap_or_else(|| masked(key))
    }

    pub(crate) fn invoice(&self, id: u64) -> Option<&Invoice> {
        self.invoices.get(index(id, FIRST_INVOICE)?)
    }

    pub(crate) fn invoice_mut(&mut self, id: u64) -> Option<&mut Invoice> {
        self.invoices.get_mut(index(id, FIRST_INVOICE)?)
    }

    pub(crate) fn refund(&self, id: u64) -> Option<&Refund> {
        self.refunds.get(index(id, FIRST_REFUND)?)
    }

    pub(crate) fn invoices(&self) -> &[Invoice] {
        &self.invoices
    }

    pub(crate) fn refunds(&self) -> &[Refund] {
        &self.refunds
    }

    /// The alive or paid invoice that holds an idempotency key.
    pub(crate) fn key_holder(&self, organisation: usize, key: &str) -> Option<&Invoice> {
        let organisation = &self.organisations[organisation];
        if !organisation.switches.honour_idempotency_key {
            return None;
        }
        let newest = self.invoice(*organisation.newest_by_key.get(key)?)?;
        let released =
            organisation.switches.idempotency_key_released && newest.status.releases_key();
        (!released).then_some(newest)
    }

    /// Creates an invoice and enters the effect.
    pub(crate) fn create_invoice(&mut self, origin: Origin, draft: Draft) -> u64 {
        let story = story_of_phone(&draft.phone);
        let id = self.insert_invoice(
            origin.organisation,
            origin.now,
            draft,
            Status::Processing,
            story,
        );
        if self.organisations[origin.organisation]
            .switches
            .wrong_amount
            && let Some(invoice) = self.invoice_mut(id)
        {
            invoice.draft.amount += Decimal::ONE;
        }
        self.enter(origin, Kind::Create, id, None);
        self.send_to_kaspi(id, origin.now.life);
        id
    }

    /// Puts an invoice there without an effect or a story of its own.
    pub(crate) fn plant_invoice(
        &mut self,
        organisation: usize,
        now: Moment,
        draft: Draft,
        status: Status,
        story: Option<&'static Story>,
    ) -> u64 {
        let told = story.unwrap_or_else(|| story_of_phone(&draft.phone));
        let id = self.insert_invoice(organisation, now, draft, status, told);
        self.become_status(id, status, now.life);
        if story.is_some() {
            self.schedule(id, told.steps, now.life);
        }
        id
    }

    /// Starts a cancel; live invoices that reached Kaspi take their time.
    pub(crate) fn cancel(&mut self, origin: Origin, id: u64) -> CancelTaken {
        let Some(invoice) = self.invoice(id) else {
            return CancelTaken::Refused;
        };
        if !matches!(invoice.status, Status::Pending | Status::Processing) {
            return CancelTaken::Refused;
        }
        let switches = &self.organisations[origin.organisation].switches;
        let outcome = invoice
            .cancel_outcome
            .or(switches.cancel_outcome)
            .unwrap_or(invoice.story.cancel);
        let at_once = switches.mode == Mode::Sandbox || invoice.kaspi_invoice_id.is_none();
        self.enter(origin, Kind::Cancel, id, None);
        self.new_turn(id);
        if at_once {
            self.become_status(id, Status::Cancelled, origin.now.life);
            return CancelTaken::AtOnce;
        }
        self.become_status(id, Status::Cancelling, origin.now.life);
        self.schedule(id, outcome.steps(), origin.now.life);
        CancelTaken::Queued
    }

    /// What can still be given back: refunds under way are already taken off.
    pub(crate) fn available_for_refund(&self, invoice: &Invoice) -> Decimal {
        invoice.draft.amount - invoice.total_refunded - self.pending_refunds(invoice)
    }

    pub(crate) fn pending_refunds(&self, invoice: &Invoice) -> Decimal {
        let refunds = invoice.refunds.iter().filter_map(|id| self.refund(*id));
        refunds
            .filter(|refund| refund.status.is_open())
            .map(|refund| refund.draft.amount)
            .sum()
    }

    /// Queues a refund and enters the effect.
    pub(crate) fn create_refund(
        &mut self,
        origin: Origin,
        invoice: u64,
        draft: RefundDraft,
    ) -> u64 {
        let marked = draft.reason.as_deref().and_then(RefundOutcome::marked_in);
        let outcome = marked.unwrap_or_else(|| {
            self.organisations[origin.organisation]
                .switches
                .refund_outcome
                .clone()
        });
        let id = self.insert_refund(origin.organisation, origin.now, invoice, draft, outcome);
        self.enter(origin, Kind::Refund, invoice, Some(id));
        let at = origin.now.life.saturating_add(REFUND_STEP);
        self.set_timer(
            at,
            Event::Refund {
                id,
                turn: 0,
                to: RefundStatus::Processing,
            },
        );
        id
    }

    /// Puts a refund there without an effect, as a cashier's own refund would be.
    pub(crate) fn plant_refund(
        &mut self,
        now: Moment,
        invoice: u64,
        draft: RefundDraft,
        status: RefundStatus,
    ) -> Option<u64> {
        let organisation = self.invoice(invoice)?.organisation;
        let id = self.insert_refund(organisation, now, invoice, draft, RefundOutcome::Completed);
        self.force_refund(id, status, None, now.life);
        Some(id)
    }

    /// Moves an invoice to any status; what was going to happen to it is called off.
    pub(crate) fn force_invoice(
        &mut self,
        id: u64,
        status: Status,
        error: Option<(String, Option<String>)>,
        at: OffsetDateTime,
    ) {
        self.new_turn(id);
        self.become_status(id, status, at);
        if let (Some(invoice), Some((code, message))) = (self.invoice_mut(id), error) {
            invoice.error_message = Some(message.unwrap_or_else(|| error_text(&code)));
            invoice.error_code = Some(code);
        }
    }

    /// Starts a story from now on.
    pub(crate) fn tell(&mut self, id: u64, story: &'static Story, at: OffsetDateTime) {
        self.new_turn(id);
        if let Some(invoice) = self.invoice_mut(id) {
            invoice.story = story;
        }
        self.schedule(id, story.steps, at);
    }

    /// Moves a refund to any status and keeps the invoice's sums right.
    pub(crate) fn force_refund(
        &mut self,
        id: u64,
        status: RefundStatus,
        error_code: Option<String>,
        at: OffsetDateTime,
    ) {
        let Some(refund) = index(id, FIRST_REFUND).and_then(|index| self.refunds.get_mut(index))
        else {
            return;
        };
        let was_completed = refund.status == RefundStatus::Completed;
        refund.turn += 1;
        refund.status = status;
        refund.error_message = error_code.as_deref().map(error_text);
        refund.error_code = error_code;
        let (invoice, amount) = (refund.invoice, refund.draft.amount);
        let completed = status == RefundStatus::Completed;
        if completed {
            refund.kaspi_refund_id = Some(format!("{}", 7_000_000 + id));
        }
        match (was_completed, completed) {
            (false, true) => self.book_refund(invoice, amount, at),
            (true, false) => self.book_refund(invoice, -amount, at),
            (true, true) | (false, false) => {}
        }
    }

    /// Stops or resumes holding invoices back; resuming sends the held ones.
    pub(crate) fn set_accumulating(
        &mut self,
        organisation: usize,
        accumulating: bool,
        now: Moment,
    ) {
        let organisation = &mut self.organisations[organisation];
        organisation.switches.accumulating = accumulating;
        if accumulating {
            organisation.held_since.get_or_insert(now.life);
            return;
        }
        organisation.held_since = None;
        for id in std::mem::take(&mut organisation.held) {
            self.send_to_kaspi(id, now.life);
        }
    }

    /// Lets everything happen that was due by `now`, in order, each at its own time.
    pub(crate) fn settle(&mut self, now: OffsetDateTime) {
        while self.timers.peek().is_some_and(|timer| timer.at <= now) {
            let Some(timer) = self.timers.pop() else {
                return;
            };
            match timer.event {
                Event::Invoice { id, turn, steps } => self.take_step(id, turn, steps, timer.at),
                Event::Refund { id, turn, to } => self.move_refund(id, turn, to, timer.at),
            }
        }
    }

    fn found(&mut self, key: &str) -> usize {
        let organisation = self.organisations.len();
        self.organisations
            .push(Organisation::new(masked(key), self.defaults.clone()));
        self.keys.insert(key.to_owned(), organisation);
        organisation
    }

    fn insert_invoice(
        &mut self,
        organisation: usize,
        now: Moment,
        draft: Draft,
        status: Status,
        story: &'static Story,
    ) -> u64 {
        let id = FIRST_INVOICE + self.invoices.len() as u64;
        let owner = &mut self.organisations[organisation];
        owner.invoices.push(id);
        if let Some(key) = &draft.idempotency_key {
            owner.newest_by_key.insert(key.clone(), id);
        }
        let is_sandbox = owner.switches.shows_sandbox();
        self.invoices.push(Invoice {
            id,
            organisation,
            draft,
            status,
            shown_status: None,
            error_code: None,
            error_message: None,
            client_name: None,
            kaspi_invoice_id: None,
            is_sandbox,
            is_imported: false,
            created_at: now.life,
            created_real: now.real,
            updated_at: now.life,
            paid_at: None,
            total_refunded: Decimal::ZERO,
            refunds: Vec::new(),
            story,
            cancel_outcome: None,
            turn: 0,
            cached: None,
        });
        id
    }

    fn insert_refund(
        &mut self,
        organisation: usize,
        now: Moment,
        invoice: u64,
        draft: RefundDraft,
        outcome: RefundOutcome,
    ) -> u64 {
        let id = FIRST_REFUND + self.refunds.len() as u64;
        self.organisations[organisation].refunds.push(id);
        if let Some(invoice) = self.invoice_mut(invoice) {
            invoice.refunds.push(id);
        }
        self.refunds.push(Refund {
            id,
            invoice,
            organisation,
            draft,
            status: RefundStatus::Pending,
            error_code: None,
            error_message: None,
            kaspi_refund_id: None,
            created_at: now.life,
            created_real: now.real,
            outcome,
            turn: 0,
        });
        id
    }

    fn enter(&mut self, origin: Origin, kind: Kind, invoice: u64, refund: Option<u64>) {
        let (Some(invoice), organisation) = (
            self.invoice(invoice),
            &self.organisations[origin.organisation],
        ) else {
            return;
        };
        let refund = refund.and_then(|id| self.refund(id));
        let draft = &invoice.draft;
        let effect = Effect {
            at: origin.now.real,
            kind,
            organisation: organisation.name.clone(),
            invoice: invoice.id,
            refund: refund.map(|refund| refund.id),
            amount: refund.map_or(draft.amount, |refund| refund.draft.amount),
            phone: Some(draft.phone.clone()),
            external_order_id: draft.external_order_id.clone(),
            idempotency_key: draft.idempotency_key.clone(),
            internal_comment: draft.internal_comment.clone(),
            reason: refund.and_then(|refund| refund.draft.reason.clone()),
            request: origin.request,
        };
        self.ledger.enter(effect);
    }

    fn send_to_kaspi(&mut self, id: u64, at: OffsetDateTime) {
        let Some(invoice) = self.invoice(id) else {
            return;
        };
        if invoice.status != Status::Processing {
            return;
        }
        let (organisation, steps) = (invoice.organisation, invoice.story.steps);
        let owner = &mut self.organisations[organisation];
        if owner.switches.accumulating {
            owner.held.push(id);
            return;
        }
        self.schedule(id, steps, at);
    }

    fn schedule(&mut self, id: u64, steps: &'static [Step], from: OffsetDateTime) {
        let (Some(step), Some(invoice)) = (steps.first(), self.invoice(id)) else {
            return;
        };
        let processing_ms = self.organisations[invoice.organisation]
            .switches
            .processing_ms;
        let event = Event::Invoice {
            id,
            turn: invoice.turn,
            steps,
        };
        self.set_timer(from.saturating_add(step.after.span(processing_ms)), event);
    }

    fn set_timer(&mut self, at: OffsetDateTime, event: Event) {
        self.timers_set += 1;
        self.timers.push(Timer {
            at,
            order: self.timers_set,
            event,
        });
    }

    fn take_step(&mut self, id: u64, turn: u32, steps: &'static [Step], at: OffsetDateTime) {
        let current = self.invoice(id).is_some_and(|invoice| invoice.turn == turn);
        let (true, Some((step, rest))) = (current, steps.split_first()) else {
            return;
        };
        self.become_status(id, step.to, at);
        if let (Some(code), Some(invoice)) = (step.error_code, self.invoice_mut(id)) {
            invoice.error_code = Some(code.to_owned());
            invoice.error_message = Some(error_text(code));
        }
        self.schedule(id, rest, at);
    }

    fn become_status(&mut self, id: u64, status: Status, at: OffsetDateTime) {
        let Some(invoice) = self.invoice_mut(id) else {
            return;
        };
        invoice.status = status;
        invoice.updated_at = at;
        if status != Status::Error {
            invoice.error_code = None;
            invoice.error_message = None;
        }
        if status.is_paid() {
            invoice.paid_at.get_or_insert(at);
        }
        let reached_kaspi = !matches!(
            status,
            Status::Processing | Status::Error | Status::Cancelled
        );
        if reached_kaspi && invoice.kaspi_invoice_id.is_none() {
            invoice.kaspi_invoice_id = Some(format!("{}", 9_000_000_000 + id));
        }
    }

    fn new_turn(&mut self, id: u64) {
        if let Some(invoice) = self.invoice_mut(id) {
            invoice.turn += 1;
        }
    }

    fn move_refund(&mut self, id: u64, turn: u32, to: RefundStatus, at: OffsetDateTime) {
        let Some(refund) = self.refund(id).filter(|refund| refund.turn == turn) else {
            return;
        };
        let end = match (to, &refund.outcome) {
            (RefundStatus::Processing, RefundOutcome::Stuck) => None,
            (RefundStatus::Processing, RefundOutcome::Completed) => Some(RefundStatus::Completed),
            (RefundStatus::Processing, RefundOutcome::Failed(_)) => Some(RefundStatus::Failed),
            (RefundStatus::Pending | RefundStatus::Completed | RefundStatus::Failed, _) => None,
        };
        let error_code = match (to, &refund.outcome) {
            (RefundStatus::Failed, RefundOutcome::Failed(code)) => Some(code.clone()),
            _ => None,
        };
        self.force_refund(id, to, error_code, at);
        if let (Some(end), Some(turn)) = (end, self.refund(id).map(|refund| refund.turn)) {
            self.set_timer(
                at.saturating_add(REFUND_STEP),
                Event::Refund { id, turn, to: end },
            );
        }
    }

    fn book_refund(&mut self, invoice: u64, amount: Decimal, at: OffsetDateTime) {
        let Some(invoice) = self.invoice_mut(invoice) else {
            return;
        };
        invoice.total_refunded += amount;
        invoice.updated_at = at;
        invoice.cached = None;
        if invoice.status.is_paid() && !invoice.is_fully_refunded() {
            let untouched = invoice.total_refunded.is_zero();
            invoice.status = if untouched {
                Status::Paid
            } else {
                Status::PartiallyRefunded
            };
        }
    }
}

/// A human sentence for an error code, as the gateway adds one.
pub(crate) fn error_text(code: &str) -> String {
    let text = match code {
        "client_not_found" => "Клиент с таким номером не найден в Kaspi",
        "network_unavailable" => "Kaspi временно недоступен",
        "kaspi_throttled" => "Kaspi ограничил частоту запросов",
        "kaspi_session_invalid" => "Сессия Kaspi недействительна",
        "invoice_already_paid" => "Счёт уже оплачен",
        "invoice_already_cancelled" => "Счёт уже отменён",
        "refund_window_expired" => "Срок возврата истёк",
        "refund_insufficient_funds" => "Недостаточно средств для возврата",
        other => return format!("Ошибка: {other}"),
    };
    text.to_owned()
}

fn index(id: u64, first: u64) -> Option<usize> {
    usize::try_from(id.checked_sub(first)?).ok()
}

/// A stable name for a key that does not give the key away.
fn masked(key: &str) -> String {
    let shown = key.chars().count().min(8) / 2;
    let start: String = key.chars().take(shown).collect();
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{start}…{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}
