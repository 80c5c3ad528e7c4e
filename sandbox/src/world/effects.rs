//! What clients bring about: every act here is an effect and goes into the ledger.

use rust_decimal::Decimal;

use super::fate::REFUND_STEP;
use super::{
    Draft, FIRST_INVOICE, FIRST_REFUND, Invoice, Mode, Refund, RefundDraft, RefundOutcome,
    RefundStatus, Status, World,
};
use crate::clock::Moment;
use crate::ledger::{Effect, Kind};
use crate::life::{Event, Story, story_of_phone};

/// Who did something and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) organization: usize,
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

impl World {
    /// Creates an invoice and enters the effect.
    pub(crate) fn create_invoice(&mut self, origin: Origin, draft: Draft) -> u64 {
        let story = story_of_phone(&draft.phone);
        let id = self.insert_invoice(
            origin.organization,
            origin.now,
            draft,
            Status::Processing,
            story,
        );
        if self.organizations[origin.organization]
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

    /// Starts a cancel; live invoices that reached Kaspi take their time.
    pub(crate) fn cancel(&mut self, origin: Origin, id: u64) -> CancelTaken {
        let Some(invoice) = self.invoice(id) else {
            return CancelTaken::Refused;
        };
        if !matches!(invoice.status, Status::Pending | Status::Processing) {
            return CancelTaken::Refused;
        }
        let switches = &self.organizations[origin.organization].switches;
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

    /// Queues a refund and enters the effect.
    pub(crate) fn create_refund(
        &mut self,
        origin: Origin,
        invoice: u64,
        draft: RefundDraft,
    ) -> u64 {
        let marked = draft.reason.as_deref().and_then(RefundOutcome::marked_in);
        let outcome = marked.unwrap_or_else(|| {
            self.organizations[origin.organization]
                .switches
                .refund_outcome
                .clone()
        });
        let id = self.insert_refund(origin.organization, origin.now, invoice, draft, outcome);
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

    pub(super) fn insert_invoice(
        &mut self,
        organization: usize,
        now: Moment,
        draft: Draft,
        status: Status,
        story: &'static Story,
    ) -> u64 {
        let id = FIRST_INVOICE + self.invoices.len() as u64;
        let owner = &mut self.organizations[organization];
        owner.invoices.push(id);
        if let Some(key) = &draft.idempotency_key {
            owner.newest_by_key.insert(key.clone(), id);
        }
        let is_sandbox = owner.switches.shows_sandbox();
        self.invoices.push(Invoice {
            id,
            organization,
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

    pub(super) fn insert_refund(
        &mut self,
        organization: usize,
        now: Moment,
        invoice: u64,
        draft: RefundDraft,
        outcome: RefundOutcome,
    ) -> u64 {
        let id = FIRST_REFUND + self.refunds.len() as u64;
        self.organizations[organization].refunds.push(id);
        if let Some(invoice) = self.invoice_mut(invoice) {
            invoice.refunds.push(id);
        }
        self.refunds.push(Refund {
            id,
            invoice,
            organization,
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
        let (Some(invoice), organization) = (
            self.invoice(invoice),
            &self.organizations[origin.organization],
        ) else {
            return;
        };
        let refund = refund.and_then(|id| self.refund(id));
        let draft = &invoice.draft;
        let effect = Effect {
            at: origin.now.real,
            kind,
            organization: organization.name.clone(),
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
}
