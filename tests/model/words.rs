//! Steps in words, for the stories that failing runs tell.

use std::fmt;

use crate::daemon::Heard;
use crate::gateway::{Response, Sight};
use crate::protocol::Action;

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Tick => write!(f, "ten seconds pass"),
            Action::Kill(w) => write!(f, "worker {w} is killed"),
            Action::Claim(w, job) => write!(f, "worker {w} claims job {job}"),
            Action::ClaimUnheard(job) => {
                write!(f, "job {job} is claimed, and no worker hears of it")
            }
            Action::ClaimTrialOfPark(w, job) => write!(f, "worker {w} claims job {job} as a probe"),
            Action::ReadBaseline(w, sight) => {
                write!(f, "worker {w} reads the refunds so far{sight}")
            }
            Action::StoreBaseline(w) => write!(f, "worker {w} stores them"),
            Action::RefuseWindow(w) => write!(f, "worker {w} finds its window closed"),
            Action::RefuseOldKey(w) => {
                write!(f, "worker {w} finds the key too old to be sent again")
            }
            Action::CheckWindow(w) => {
                write!(f, "worker {w} finds its window open, and is suspended")
            }
            Action::Send(w) => write!(f, "worker {w} sends"),
            Action::FailToConnect(w) => write!(f, "worker {w} gets no connection"),
            Action::Work(_) => write!(f, "the gateway works on a request"),
            Action::Refuse(_, response) => write!(f, "the gateway answers {response}"),
            Action::HearAnswer(w) => write!(f, "worker {w} hears the answer"),
            Action::Hear(w, heard) => write!(f, "worker {w} gets {heard}"),
            Action::Park(w) => write!(f, "worker {w} parks the account"),
            Action::Record(w) => write!(f, "worker {w} records its decision"),
            Action::RecordUnheard(w) => {
                write!(
                    f,
                    "worker {w} records its decision, and does not hear that it did"
                )
            }
            Action::Recover(job) => write!(f, "the expired lease of job {job} is found"),
            Action::ClaimLookup(w, job) => write!(f, "worker {w} claims the look-up of job {job}"),
            Action::LookUp(w, sight) => write!(f, "worker {w} asks the gateway{sight}"),
            Action::Decide(w) => write!(f, "worker {w} decides"),
            Action::Check(w, job) => write!(f, "worker {w} checks what became of job {job}"),
            Action::Resume => write!(f, "the account is resumed"),
            Action::Release(job) => write!(f, "job {job} is released"),
            Action::Withdraw(job) => write!(f, "job {job} is cancelled by its user, or expires"),
            Action::Complete(_) => write!(f, "the gateway completes what it accepted"),
            Action::CompleteCancel => write!(f, "the gateway completes the cancel"),
            Action::Pay => write!(f, "the customer pays"),
        }
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sight::Whole => "",
            Sight::Lagging => ", whose list lags",
            Sight::Error => ", which fails",
        })
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Heard::Response(response, _) => response.fmt(f),
            Heard::BadGateway => f.write_str("a 502"),
            Heard::Cut => f.write_str("a cut connection"),
            Heard::Timeout => f.write_str("a time-out"),
            Heard::NoConnection => f.write_str("no connection"),
        }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Response::Made(_) => "201",
            Response::Duplicate(_) => "409 for the key",
            Response::CancelQueued => "202",
            Response::StateRefused => "400 for the state",
            Response::Refused => "422",
            Response::SessionGone => "503",
        })
    }
}
