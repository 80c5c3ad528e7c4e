//! What a refund means that is shown although its job has ended otherwise than with success, or goes by another one.

use crate::domain::object::{Object, RefundStatus};

/// What people are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Nothing: it gives no money back.
    Nothing,
    /// That it gives money back after all.
    Anew,
    /// How it stands now, where that is still told.
    Further,
}

/// What is told of such a refund, by the status that was last known of it as its job's. `None` when what is shown is no news.
pub fn telling(known: Option<&str>, shown: &Object) -> Option<Telling> {
    if known == Some(shown.status()) {
        return None;
    }
    let had_failed = known.is_none_or(|status| status == RefundStatus::Failed.as_str());
    Some(match (shown.is_dead(), had_failed) {
        (true, _) => Telling::Nothing,
        (false, true) => Telling::Anew,
        (false, false) => Telling::Further,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::object::Refund;

    #[test]
    fn what_gives_money_back_is_told_once_and_what_is_known_is_no_news() {
        for (known, shown, expected) in [
            (None, "pending", Some(Telling::Anew)),
            (None, "completed", Some(Telling::Anew)),
            (None, "failed", Some(Telling::Nothing)),
            (Some("failed"), "completed", Some(Telling::Anew)),
            (Some("failed"), "failed", None),
            (Some("pending"), "completed", Some(Telling::Further)),
            (Some("pending"), "failed", Some(Telling::Nothing)),
            (Some("completed"), "completed", None),
        ] {
            let refund = serde_json::json!({"id": 3, "status": shown});
            let refund = Object::Refund(Refund::read(&refund, 7).unwrap());
            assert_eq!(telling(known, &refund), expected, "{known:?} {shown}");
        }
    }
}
