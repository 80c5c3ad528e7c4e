//! The ways to each point.

use apipayd::crash::Point;
use serde_json::{Value, json};

use crate::world::{World, phone};

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Create,
    /// The invoice fails: nobody has that number.
    CreateForNobody,
    /// The invoice fails each time, for a cause that can pass: it is resubmitted, and given up in the end.
    CreateResubmitted,
    Cancel,
    /// Two equal partial refunds of one invoice.
    Refunds,
}

const SENDS: [Task; 3] = [Task::Create, Task::Cancel, Task::Refunds];

impl Task {
    pub(super) fn route(self) -> &'static str {
        match self {
            Task::Create | Task::CreateForNobody | Task::CreateResubmitted => "POST /invoices",
            Task::Cancel => "POST /invoices/{id}/cancel",
            Task::Refunds => "POST /invoices/{id}/refund",
        }
    }

    pub(super) async fn enqueue(self, world: &World) {
        match self {
            Task::Create => drop(world.bill(phone::PAID, 100).await),
            Task::CreateForNobody => drop(world.bill(phone::CLIENT_NOT_FOUND, 100).await),
            Task::CreateResubmitted => drop(world.bill(phone::NETWORK_UNAVAILABLE, 100).await),
            Task::Cancel => drop(world.cancel_of_an_invoice().await),
            Task::Refunds => world.two_equal_refunds().await,
        }
    }
}

/// How the world is when the daemon comes to its point.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plight {
    Calm,
    /// The first send meets this at the gateway.
    Fault(Value),
    /// An earlier daemon died while its request was under way.
    Orphaned,
    /// The Kaspi session is gone when the first job is sent, and comes back then.
    Parked,
    /// The database lets no accepted job move until the daemon has died.
    Frozen,
}

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) point: Point,
    /// At which passing of the point it dies.
    pub(super) time: u32,
    pub(super) task: Task,
    pub(super) plight: Plight,
    /// The gateway ignores keys and its list is late: the look-up alone must be enough.
    pub(super) keyless: bool,
}

impl Case {
    fn calm(point: Point, task: Task) -> Case {
        Case {
            point,
            time: 1,
            task,
            plight: Plight::Calm,
            keyless: false,
        }
    }

    fn with(self, plight: Plight) -> Case {
        Case { plight, ..self }
    }

    fn with_fault(self, fault: Value) -> Case {
        self.with(Plight::Fault(fault))
    }
}

/// Every way to a point that is worth going. A new point does not compile without one.
pub(super) fn cases(point: Point) -> Vec<Case> {
    let of = |tasks: &[Task]| -> Vec<Case> {
        tasks.iter().map(|task| Case::calm(point, *task)).collect()
    };
    let parked = || Case::calm(point, Task::Create).with(Plight::Parked);
    match point {
        Point::BeforeClaim
        | Point::AfterClaim
        | Point::BeforeSend
        | Point::AfterAnswer
        | Point::AfterRecord => of(&SENDS),
        Point::EarlierBeforeRequest | Point::EarlierAfterAnswer => of(&[Task::CreateResubmitted]),
        Point::BeforeBaseline | Point::AfterBaseline => of(&[Task::Refunds]),
        // A cancel has no body.
        Point::MidBody => of(&[Task::Create, Task::Refunds]),
        Point::AfterBody => of(&SENDS)
            .into_iter()
            .flat_map(|case| {
                [
                    // It has its effect at once, or only after the daemon has died.
                    json!({"effect": "apply", "delay_ms": 1000}),
                    json!({"effect": "late", "after_ms": 900}),
                ]
                .map(|fault| case.clone().with_fault(fault))
            })
            .collect(),
        Point::AfterHeaders => of(&SENDS)
            .into_iter()
            .map(|case| Case {
                // A refund reads the refunds that exist first.
                time: if case.task == Task::Refunds { 2 } else { 1 },
                ..case
            })
            .collect(),
        Point::BeforeRecord => of(&SENDS).into_iter().chain([parked()]).collect(),
        // By then whatever was seen of its object is stored, if anything of it is.
        Point::BeforeAside => of(&SENDS)
            .into_iter()
            .map(|case| case.with(Plight::Frozen))
            .collect(),
        Point::LookupBeforeRequest | Point::LookupAfterAnswer => of(&SENDS)
            .into_iter()
            .flat_map(|case| {
                ["apply", "none"].map(|effect| {
                    let fault = json!({"effect": effect, "answer": {"preset": "502_html"}});
                    case.clone().with_fault(fault)
                })
            })
            .collect(),
        Point::FollowBeforeRequest | Point::FollowAfterAnswer => of(&[Task::Create, Task::Cancel]),
        Point::CodeBeforeRequest | Point::CodeAfterAnswer => of(&[Task::CreateForNobody]),
        // A bill with two invoices has tests of its own.
        Point::OthersBeforeRecord | Point::OthersAfterRecord => Vec::new(),
        Point::RefundsBeforeRequest | Point::RefundsAfterAnswer => of(&[Task::Refunds]),
        Point::DeliverBeforePost
        | Point::DeliverAfterPost
        | Point::ProbeBeforeRequest
        | Point::ProbeAfterAnswer
        | Point::TrialOfParkClaimed
        | Point::TrialOfParkDone => vec![parked()],
        Point::RecoverBefore | Point::RecoverAfter => of(&SENDS)
            .into_iter()
            .map(|case| case.with(Plight::Orphaned))
            .collect(),
    }
}
