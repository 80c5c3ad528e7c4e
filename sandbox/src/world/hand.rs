//! What a test brings about by hand; none of it is an effect.

use time::OffsetDateTime;

use super::fate::error_text;
use super::{Draft, FIRST_REFUND, RefundDraft, RefundOutcome, RefundStatus, Status, World, index};
use crate::clock::Moment;
use crate::life::{Story, story_of_phone};

impl World {
    /// Puts an invoice there without an effect or a story of its own.
    pub(crate) fn plant_invoice(
        &mut self,
        organization: usize,
        now: Moment,
        draft: Draft,
        status: Status,
        story: Option<&'static Story>,
    ) -> u64 {
        let told = story.unwrap_or_else(|| story_of_phone(&draft.phone));
        let id = self.insert_invoice(organization, now, draft, status, told);
        self.become_status(id, status, now.life);
        if story.is_some() {
            self.schedule(id, told.steps, now.life);
        }
        id
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

    /// Puts a refund there without an effect, as a cashier's own refund would be.
    pub(crate) fn plant_refund(
        &mut self,
        now: Moment,
        invoice: u64,
        draft: RefundDraft,
        status: RefundStatus,
    ) -> Option<u64> {
        let organization = self.invoice(invoice)?.organization;
        let id = self.insert_refund(organization, now, invoice, draft, RefundOutcome::Completed);
        self.force_refund(id, status, None, now.life);
        Some(id)
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
        organization: usize,
        accumulating: bool,
        now: Moment,
    ) {
        let organization = &mut self.organizations[organization];
        organization.switches.accumulating = accumulating;
        if accumulating {
            organization.held_since.get_or_insert(now.life);
            return;
        }
        organization.held_since = None;
        for id in std::mem::take(&mut organization.held) {
            self.send_to_kaspi(id, now.life);
        }
    }
}
