//! What each kind of object is asked.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::domain::phone::Phone;

/// What the daemon needs to know about one kind of object of the gateway, asked of an object as one answer showed it.
///
/// All of it follows from that answer alone: settings and the history of a job are the policy's.
pub trait ObjectKind {
    /// What such an object is called in a sentence, before its number.
    fn noun(&self) -> &'static str;

    /// The gateway's id of it, among objects of its kind.
    fn id(&self) -> i64;

    /// The ids under which a job keeps it.
    fn numbers(&self) -> Numbers;

    /// The gateway's word for its status.
    fn status(&self) -> &str;

    /// Its amount in tenge, if it shows one.
    fn amount(&self) -> Option<Decimal>;

    /// Who pays it, if it shows that.
    fn payer(&self) -> Option<&Phone> {
        None
    }

    /// The merchant's order id, if it shows one.
    fn order_id(&self) -> Option<&str> {
        None
    }

    /// The text of it in which a request of ours leaves its job's name as a mark, if it shows one.
    fn marked_text(&self) -> Option<&str>;

    /// Whether it came into being elsewhere, so that it cannot be ours whatever stands in it.
    fn is_imported(&self) -> bool {
        false
    }

    /// The gateway's code of why it failed, if it shows one.
    fn error_code(&self) -> Option<&str>;

    /// The gateway's text for that.
    fn error_message(&self) -> Option<&str>;

    /// Whether its status is that of a failure.
    fn is_failed(&self) -> bool;

    /// Whether no money moves by it any more, unless it comes to life again.
    fn is_dead(&self) -> bool;

    /// Whether it brought the customer's money in.
    fn is_paid(&self) -> bool {
        false
    }

    /// Whether the gateway takes the idempotency key of the request that made it for a new one (API, section 3.1).
    fn frees_key(&self) -> bool {
        false
    }

    /// The SQL function by which a person takes such an object back as long as it is not paid; none where nothing can.
    fn taken_back_by(&self) -> Option<&'static str> {
        None
    }

    /// Whether it is being taken back, and still lives until the gateway shows that it was.
    fn is_being_taken_back(&self) -> bool {
        false
    }

    /// What may still become of it.
    fn outlook(&self) -> Outlook;

    /// What of it stands in `apipay.jobs.result`.
    fn result(&self) -> Value;

    /// Whether nothing that it shows contradicts what was asked for. What is not shown, or was not asked for,
    /// contradicts nothing.
    fn agrees(&self, expected: &Expected) -> bool {
        agree(self.amount(), expected.amount) && agree(self.payer(), expected.phone.as_ref())
    }
}

fn agree<T: PartialEq>(shown: Option<T>, asked: Option<T>) -> bool {
    shown.is_none() || asked.is_none() || shown == asked
}

/// What an object must show to be taken for the one that was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// The amount in tenge, where the request states it.
    pub amount: Option<Decimal>,
    /// The payer, where the request states one.
    pub phone: Option<Phone>,
    /// The order id that is sent along, where one is.
    pub order_id: Option<String>,
}

/// The ids under which a job keeps its object, in the columns of `apipay.jobs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The gateway's id of the invoice: of the object itself, or of the one that it belongs to.
    pub invoice_id: i64,
    /// The gateway's id of the refund, if it is one.
    pub refund_id: Option<i64>,
}

/// What may still become of an object: by that it is decided when it is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It can change at any moment, and one request asks about many of its kind.
    OpenAmongMany,
    /// It can change at any moment, and is asked about by a request for its invoice alone.
    OpenByItself,
    /// It is dead, and may come to life all the same.
    MayRevive,
    /// It failed for good. A job may have adopted it; that job is decided at the next check.
    Failed,
    /// It is done, and its invoice has changed by it.
    ChangesInvoice,
    /// Nothing can change any more.
    Settled,
}

/// How an object stands about which a person decides: what helps goes by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It lives, and is not paid.
    Open,
    /// It is being taken back.
    BeingTakenBack,
    /// It is paid.
    Paid,
    /// It is dead.
    Dead,
}

impl Standing {
    /// How this one stands.
    pub fn of(object: &dyn ObjectKind) -> Standing {
        if object.is_paid() {
            Standing::Paid
        } else if object.is_dead() {
            Standing::Dead
        } else if object.is_being_taken_back() {
            Standing::BeingTakenBack
        } else {
            Standing::Open
        }
    }

    /// Reads the database's word (`apipay._standing`).
    pub fn parse(word: &str) -> Option<Standing> {
        match word {
            "open" => Some(Standing::Open),
            "cancelling" => Some(Standing::BeingTakenBack),
            "paid" => Some(Standing::Paid),
            "dead" => Some(Standing::Dead),
            _ => None,
        }
    }
}
