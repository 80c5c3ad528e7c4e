//! What happens by itself when its time has come.

use rust_decimal::Decimal;
use time::{Duration, OffsetDateTime};

use super::{RefundOutcome, RefundStatus, Status, World};
use crate::life::{Event, Step, Timer};

/// How long a refund stays `pending`, and then `processing`.
pub(super) const REFUND_STEP: Duration = Duration::SECOND;

impl World {
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

    pub(super) fn send_to_kaspi(&mut self, id: u64, at: OffsetDateTime) {
        let Some(invoice) = self.invoice(id) else {
            return;
        };
        if invoice.status != Status::Processing {
            return;
        }
        let (organization, steps) = (invoice.organization, invoice.story.steps);
        let owner = &mut self.organizations[organization];
        if owner.switches.accumulating {
            owner.held.push(id);
            return;
        }
        self.schedule(id, steps, at);
    }

    pub(super) fn schedule(&mut self, id: u64, steps: &'static [Step], from: OffsetDateTime) {
        let (Some(step), Some(invoice)) = (steps.first(), self.invoice(id)) else {
            return;
        };
        let processing_ms = self.organizations[invoice.organization]
            .switches
            .processing_ms;
        let event = Event::Invoice {
            id,
            turn: invoice.turn,
            steps,
        };
        self.set_timer(from.saturating_add(step.after.span(processing_ms)), event);
    }

    pub(super) fn set_timer(&mut self, at: OffsetDateTime, event: Event) {
        self.timers_set += 1;
        self.timers.push(Timer {
            at,
            order: self.timers_set,
            event,
        });
    }

    pub(super) fn become_status(&mut self, id: u64, status: Status, at: OffsetDateTime) {
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

    pub(super) fn new_turn(&mut self, id: u64) {
        if let Some(invoice) = self.invoice_mut(id) {
            invoice.turn += 1;
        }
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

    pub(super) fn book_refund(&mut self, invoice: u64, amount: Decimal, at: OffsetDateTime) {
        let Some(invoice) = self.invoice_mut(invoice) else {
            return;
        };
        invoice.total_refunded += amount;
        invoice.updated_at = at;
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
pub(super) fn error_text(code: &str) -> String {
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
