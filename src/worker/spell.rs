//! Logs what a loop meets again and again once for each spell of it.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use crate::policy::spells::Spells;
use crate::worker::clock::Moment;

/// Those of this process, whichever of its parts has met them.
static SPELLS: Mutex<Spells> = Mutex::new(Spells::new());

/// Whether a failure that was met at this place of the code, of an account, a job or nothing by name, is to be logged.
pub fn is_news(place: &'static str, of: impl Display) -> bool {
    let now = Moment::now().since_boot();
    let mut spells = SPELLS.lock().unwrap_or_else(PoisonError::into_inner);
    spells.is_news(place, &of.to_string(), now)
}

/// A warning of what its place meets again and again, of something with a name: once for each spell, and every few minutes
/// as long as it lasts.
macro_rules! warn_in_spells {
    ($of:expr; $($said:tt)+) => {
        if $crate::worker::spell::is_news(concat!(file!(), ":", line!()), &$of) {
            tracing::warn!($($said)+);
        }
    };
}

pub(crate) use warn_in_spells;
