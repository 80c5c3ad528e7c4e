//! Points at which a test lets the process die, as if the power had gone just there.
//!
//! Without the feature `crash-points` all of this is nothing. With it, a daemon whose environment
//! names a point aborts when it gets there: `APIPAYD_CRASH_AT=after_claim`, or `after_claim:3` for
//! the third time.

#[cfg(all(feature = "crash-points", not(debug_assertions)))]
compile_error!("crash-points is for tests: a release must not be able to die on demand");

/// Names the point in the environment, and after a colon how often it is passed before.
pub const VARIABLE: &str = "APIPAYD_CRASH_AT";

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// The points, in the order of a job's walk.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[$doc])* $point,)*
        }

        impl Point {
            /// Every point.
            pub const ALL: &[Point] = &[$(Point::$point),*];

            /// The point's name in the environment.
            pub fn name(self) -> &'static str {
                match self {
                    $(Point::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// Jobs are about to be claimed.
    BeforeClaim = "before_claim",
    /// Jobs are claimed, and nothing else has happened.
    AfterClaim = "after_claim",
    /// The refunds of an invoice were read and are not stored yet.
    BeforeBaseline = "before_baseline",
    /// The refunds of an invoice are stored.
    AfterBaseline = "after_baseline",
    /// The invoices of a bill are about to be asked for before it is resubmitted, or those of what a copy repeats.
    EarlierBeforeRequest = "earlier_before_request",
    /// None of them lives, and the new one is not sent yet.
    EarlierAfterAnswer = "earlier_after_answer",
    /// The send window was found open, and no byte has left.
    BeforeSend = "before_send",
    /// Half of a request's body is on the wire.
    MidBody = "mid_body",
    /// A send is on the wire and no answer has come for a while.
    AfterBody = "after_body",
    /// The head of an answer is there, its body is unread.
    AfterHeaders = "after_headers",
    /// The whole answer to a send is there.
    AfterAnswer = "after_answer",
    /// The accounts and alerts of a batch of outcomes are written, its jobs are not.
    BeforeRecord = "before_record",
    /// A batch of outcomes is committed.
    AfterRecord = "after_record",
    /// Outcomes that the database did not take are about to be tried again; they wait in memory.
    BeforeAside = "before_aside",
    /// A look-up is claimed and not yet made.
    LookupBeforeRequest = "lookup_before_request",
    /// The answer to a look-up is there.
    LookupAfterAnswer = "lookup_after_answer",
    /// A check of invoices is claimed and not yet made.
    FollowBeforeRequest = "follow_before_request",
    /// The answer to a check of invoices is there.
    FollowAfterAnswer = "follow_after_answer",
    /// Another invoice of a job was found and told, and is not recorded yet.
    OthersBeforeRecord = "others_before_record",
    /// Another invoice of a job was recorded.
    OthersAfterRecord = "others_after_record",
    /// A failed invoice is about to be read for its code.
    CodeBeforeRequest = "code_before_request",
    /// A failed invoice was read.
    CodeAfterAnswer = "code_after_answer",
    /// A check of an invoice's refunds is claimed and not yet made.
    RefundsBeforeRequest = "refunds_before_request",
    /// The answer to a check of an invoice's refunds is there.
    RefundsAfterAnswer = "refunds_after_answer",
    /// A delivery is claimed and not yet posted.
    DeliverBeforePost = "deliver_before_post",
    /// A delivery was taken by its receiver, which is not recorded yet.
    DeliverAfterPost = "deliver_after_post",
    /// The health of a parked account is about to be asked for.
    ProbeBeforeRequest = "probe_before_request",
    /// The answer about the health of a parked account is there.
    ProbeAfterAnswer = "probe_after_answer",
    /// The one job that a parked account lets through is claimed.
    TrialOfParkClaimed = "trial_of_park_claimed",
    /// That job went well, and the account is still parked.
    TrialOfParkDone = "trial_of_park_done",
    /// Leases that ran out are about to be recovered.
    RecoverBefore = "recover_before",
    /// Leases that ran out are recovered.
    RecoverAfter = "recover_after",
}

/// Names a loop in the environment that gets stuck for good at its first step.
pub const WEDGE_VARIABLE: &str = "APIPAYD_WEDGE";

/// Names a kind of task in the environment of which the first one panics.
pub const PANIC_VARIABLE: &str = "APIPAYD_PANIC";

#[cfg(feature = "crash-points")]
pub use armed::{arm, is_armed, panic_in, reach, unanswered, wedge};
#[cfg(not(feature = "crash-points"))]
pub use unarmed::{panic_in, reach, unanswered, wedge};

#[cfg(feature = "crash-points")]
mod armed {
    use std::io::Write;
    use std::pin::pin;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::time::Duration;

    use super::{PANIC_VARIABLE, Point, VARIABLE, WEDGE_VARIABLE};

    /// The point, and how many times it is still passed, this one included.
    static ARMED: OnceLock<(Point, AtomicU32)> = OnceLock::new();

    /// Longer than a request needs to get onto the wire.
    const ON_THE_WIRE: Duration = Duration::from_millis(400);

    /// Arms the point that the value of [`VARIABLE`] names. The error says what is allowed.
    pub fn arm(value: &str) -> Result<(), String> {
        let (name, time) = value.split_once(':').unwrap_or((value, "1"));
        let point = Point::ALL.iter().find(|point| point.name() == name);
        let time = time.parse().ok().filter(|time| *time > 0);
        let (Some(point), Some(time)) = (point, time) else {
            let names: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
            return Err(format!(
                "{VARIABLE}: '{value}' is not POINT or POINT:TIME, where TIME is 1 or more and POINT one of {}",
                names.join(", ")
            ));
        };
        ARMED.get_or_init(|| (*point, AtomicU32::new(time)));
        Ok(())
    }

    /// Whether the process is to die at this point.
    pub fn is_armed(point: Point) -> bool {
        ARMED.get().is_some_and(|(armed, _)| *armed == point)
    }

    /// Dies here, if this is the point and the time.
    pub fn reach(point: Point) {
        let Some((armed, left)) = ARMED.get() else {
            return;
        };
        if *armed == point && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            writeln!(std::io::stderr(), "crash point {}", point.name()).ok();
            std::process::abort();
        }
    }

    /// Waits for ever, if this loop is the one to get stuck.
    pub async fn wedge(name: &str) {
        if std::env::var(WEDGE_VARIABLE).is_ok_and(|wedged| wedged == name) {
            std::future::pending().await
        }
    }

    /// Panics, if this kind of task is the one, for the first time.
    pub fn panic_in(task: &str) {
        static HAS_PANICKED: AtomicBool = AtomicBool::new(false);
        let is_named = std::env::var(PANIC_VARIABLE).is_ok_and(|named| named == task);
        assert!(
            !is_named || HAS_PANICKED.swap(true, Ordering::Relaxed),
            "told to by {PANIC_VARIABLE}"
        );
    }

    /// Waits for an answer, and reaches [`Point::AfterBody`] when it does not come soon.
    pub async fn unanswered<F: Future>(answer: F) -> F::Output {
        let mut answer = pin!(answer);
        tokio::select! {
            answer = &mut answer => return answer,
            () = tokio::time::sleep(ON_THE_WIRE) => reach(Point::AfterBody),
        }
        answer.await
    }
}

#[cfg(not(feature = "crash-points"))]
mod unarmed {
    use super::Point;

    /// Nothing.
    #[inline(always)]
    pub fn reach(_: Point) {}

    /// Nothing.
    #[inline(always)]
    pub fn wedge(_: &str) -> std::future::Ready<()> {
        std::future::ready(())
    }

    /// Nothing.
    #[inline(always)]
    pub fn panic_in(_: &str) {}

    /// The answer.
    #[inline(always)]
    pub fn unanswered<F: Future>(answer: F) -> F {
        answer
    }
}
