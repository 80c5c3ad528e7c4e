//! Whether a key is of the organization that an account is for.
//!
//! No request of the gateway tells of which organization a key is, and what another one has looks like what nobody has:
//! a look-up with its key finds nothing, and that would count as proof that nothing was done. So a key counts once it
//! was seen to know an invoice of the account.

use crate::domain::answer::Answer;
use crate::policy::breaker::{Health, health};
use crate::policy::verdict::Reason;

/// What is known of an account, and of who serves it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The fingerprints of its keys; none before a daemon has served it.
    pub stored: Option<&'a [String]>,
    /// Its newest invoices.
    pub invoices: &'a [i64],
    /// Whether a job may have been sent, and its end is not known.
    pub may_have_sent: bool,
    /// Whether another daemon serves it.
    pub is_served: bool,
    /// Whether a person has given it to another organization before. Then the earlier one's key is still about, and
    /// invoices from before that are none of `invoices`.
    pub was_given_over: bool,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStanding {
    /// It is known.
    Serve,
    /// It is the account's first, or nothing stands in the way of its being the only one.
    Take,
    /// The gateway is to be asked whether it knows the account's invoices.
    Ask,
    /// It serves nothing.
    Refuse(Doubt),
}

/// Why a key serves nothing.
#[derive(Clone, Debug, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The gateway shows it none of the account's invoices.
    NoneShown,
    /// The gateway shows it none of those of the account's invoices of which its answer is clear.
    SomeNotShown,
    /// A job may have been sent, and there is no invoice to ask for.
    NothingToAsk,
    /// Nothing was sent yet, and another daemon serves the account with another key.
    ServedByOther,
    /// A person has given the account to another organization, and it has no invoice since then to ask for.
    GivenOver,
    /// The gateway gives it no clear answer.
    Unanswered,
    /// The gateway says that something is wrong with the key or what is behind it.
    Unwell(Reason),
}

/// What people are told of a key that is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Nothing yet: the next answer may be clear.
    Nothing,
    /// That the account is unwell, for this reason: it is parked.
    Park(Reason),
    /// That the key may be of another organization, or that nothing says so far that it is not.
    Doubt,
}

/// Answers that are not clear, in a row, before a person is told.
const UNCLEAR_MOST: u32 = 3;

/// What people are told when a key is in doubt, after so many looks in a row. What the gateway says of this key is no
/// other daemon's trouble: where one serves the account, the account is not parked.
pub fn telling(doubt: Doubt, times: u32, is_served: bool) -> Telling {
    match doubt {
        Doubt::Unwell(reason) if !is_served => Telling::Park(reason),
        Doubt::Unanswered if times < UNCLEAR_MOST => Telling::Nothing,
        _ => Telling::Doubt,
    }
}

/// What becomes of the key with this fingerprint.
pub fn standing(own: &str, known: Known<'_>) -> KeyStanding {
    match known.stored {
        None => KeyStanding::Take,
        Some(stored) if stored.iter().any(|key| key == own) => KeyStanding::Serve,
        Some(_) if !known.invoices.is_empty() => KeyStanding::Ask,
        Some(_) if known.may_have_sent => KeyStanding::Refuse(Doubt::NothingToAsk),
        Some(_) if known.is_served => KeyStanding::Refuse(Doubt::ServedByOther),
        Some(_) if known.was_given_over => KeyStanding::Refuse(Doubt::GivenOver),
        Some(_) => KeyStanding::Take,
    }
}

/// What the answer comes to: these invoices were asked for, and those were shown, if the answer shows any.
pub fn shown(asked: &[i64], shown: Option<&[i64]>, answer: &Answer) -> Result<(), Doubt> {
    match shown {
        None => Err(match health(answer) {
            Health::Unwell(reason) => Doubt::Unwell(reason),
            Health::Well | Health::Unclear => Doubt::Unanswered,
        }),
        Some(shown) if shown.iter().any(|id| asked.contains(id)) => Ok(()),
        Some(_) => Err(Doubt::NoneShown),
    }
}

/// Keys of one account that are remembered: one that is forgotten is asked about again.
const REMEMBERED: usize = 16;

/// The account's keys with this one, which was seen to be of the same organization.
pub fn with(stored: &[String], own: &str) -> Vec<String> {
    let forgotten = (stored.len() + 1).saturating_sub(REMEMBERED);
    let kept = stored.iter().skip(forgotten).cloned();
    kept.chain([own.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::answer::{Body, Limits, Lost, Reply};

    const FRESH: Known<'_> = Known {
        stored: None,
        invoices: &[],
        may_have_sent: false,
        is_served: false,
        was_given_over: false,
    };

    #[test]
    fn the_first_key_of_an_account_serves_it_and_so_does_each_that_is_known() {
        let known = ["a".to_owned(), "b".to_owned()];
        let served = Known {
            stored: Some(&known),
            invoices: &[7],
            may_have_sent: true,
            is_served: true,
            was_given_over: true,
        };
        assert_eq!(standing("a", FRESH), KeyStanding::Take);
        for own in ["a", "b"] {
            assert_eq!(standing(own, served), KeyStanding::Serve);
        }
    }

    #[test]
    fn another_key_is_asked_about_and_takes_over_only_where_nothing_can_be_lost() {
        let known = ["a".to_owned()];
        let idle = Known {
            stored: Some(&known),
            ..FRESH
        };
        assert_eq!(standing("b", idle), KeyStanding::Take);
        for may_have_sent in [false, true] {
            for is_served in [false, true] {
                let asked = Known {
                    invoices: &[7],
                    may_have_sent,
                    is_served,
                    ..idle
                };
                assert_eq!(standing("b", asked), KeyStanding::Ask);
                let without = Known {
                    invoices: &[],
                    ..asked
                };
                let expected = match (may_have_sent, is_served) {
                    (true, _) => KeyStanding::Refuse(Doubt::NothingToAsk),
                    (false, true) => KeyStanding::Refuse(Doubt::ServedByOther),
                    (false, false) => KeyStanding::Take,
                };
                assert_eq!(standing("b", without), expected);
            }
        }
    }

    #[test]
    fn no_key_takes_over_without_proof_what_a_person_has_given_to_another_organization() {
        let known = ["a".to_owned()];
        for may_have_sent in [false, true] {
            for is_served in [false, true] {
                let given = Known {
                    stored: Some(&known),
                    invoices: &[],
                    may_have_sent,
                    is_served,
                    was_given_over: true,
                };
                let expected = match (may_have_sent, is_served) {
                    (true, _) => Doubt::NothingToAsk,
                    (false, true) => Doubt::ServedByOther,
                    (false, false) => Doubt::GivenOver,
                };
                assert_eq!(standing("b", given), KeyStanding::Refuse(expected));
                assert_eq!(standing("a", given), KeyStanding::Serve);
                let asked = Known {
                    invoices: &[7],
                    ..given
                };
                assert_eq!(standing("b", asked), KeyStanding::Ask);
            }
        }
    }

    #[test]
    fn one_invoice_that_is_shown_is_proof_and_one_that_nobody_asked_for_is_none() {
        let clear = replied(200, "{}");
        let of = |ids: &[i64]| shown(&[7, 8], Some(ids), &clear);
        assert_eq!(of(&[8]), Ok(()));
        assert_eq!(of(&[9]), Err(Doubt::NoneShown));
        assert_eq!(of(&[]), Err(Doubt::NoneShown));
        assert_eq!(shown(&[7, 8], None, &clear), Err(Doubt::Unanswered));
    }

    fn replied(status: u16, body: &str) -> Answer {
        Answer::Reply(Reply::new(
            status,
            Body::read(body.as_bytes()),
            Limits::default(),
            false,
        ))
    }

    #[test]
    fn what_the_gateway_says_of_a_key_is_told_as_what_it_is() {
        let said = r#"{"message": "no"}"#;
        for (status, expected) in [
            (401, Doubt::Unwell(Reason::KeyRejected)),
            (403, Doubt::Unwell(Reason::AccessDenied)),
            (503, Doubt::Unwell(Reason::ServiceUnavailable)),
            (404, Doubt::Unwell(Reason::RouteNotFound)),
            (429, Doubt::Unanswered),
            (502, Doubt::Unanswered),
        ] {
            let answer = replied(status, said);
            assert_eq!(shown(&[7], None, &answer), Err(expected), "{status}");
        }
        let lost = Answer::Lost(Lost::Timeout);
        assert_eq!(shown(&[7], None, &lost), Err(Doubt::Unanswered));
    }

    #[test]
    fn a_key_that_is_refused_parks_its_account_unless_another_daemon_serves_that() {
        let refused = Doubt::Unwell(Reason::KeyRejected);
        assert_eq!(
            telling(refused, 1, false),
            Telling::Park(Reason::KeyRejected)
        );
        assert_eq!(telling(refused, 1, true), Telling::Doubt);
        assert_eq!(telling(Doubt::Unanswered, 2, false), Telling::Nothing);
        assert_eq!(telling(Doubt::Unanswered, 3, true), Telling::Doubt);
        for doubt in [
            Doubt::NoneShown,
            Doubt::SomeNotShown,
            Doubt::NothingToAsk,
            Doubt::ServedByOther,
            Doubt::GivenOver,
        ] {
            assert_eq!(telling(doubt, 1, false), Telling::Doubt);
        }
    }

    #[test]
    fn the_newest_keys_are_remembered() {
        let mut keys = Vec::new();
        for key in 0..40 {
            keys = with(&keys, &key.to_string());
        }
        assert_eq!(keys.len(), REMEMBERED);
        assert_eq!(keys.last().unwrap(), "39");
        assert_eq!(keys.first().unwrap(), "24");
    }
}
