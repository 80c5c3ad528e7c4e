//! The job as the decisions see it.

use std::fmt;

use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// The number of a job, `apipay.jobs.id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Jobs of one account and state are counted up to this number, so that a queue of millions is not read for one line;
/// then the count is shown as `10000+`.
pub const MOST_COUNTED: i64 = 10_000;

/// The fence of a job: rises with every claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub i64);

/// The name of a job at the gateway: its token, and a counter from the second generation on.
///
/// It is the idempotency key, and it is written into every field that the gateway echoes, so that
/// a look-up finds exactly this job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobName {
    /// `apipay.jobs.token`.
    pub token: Uuid,
    /// `apipay.jobs.generation`; 1 unless an earlier invoice of the job certainly died.
    pub generation: i16,
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.generation <= 1 {
            write!(f, "{}", self.token)
        } else {
            write!(f, "{}-{}", self.token, self.generation)
        }
    }
}

impl JobName {
    /// The longest mark in bytes, with the blank before it: see [`JobName::marked`].
    pub const MARK_MAX: usize = 64;

    /// How every mark begins.
    pub const MARK_START: &'static str = "[apipayd ";

    /// The name in brackets, to stand at the end of a text of the user's.
    ///
    /// The closing bracket makes the match exact: the mark of generation 1 is no part of that of
    /// generation 2.
    pub fn mark(&self) -> String {
        format!("{}{self}]", JobName::MARK_START)
    }

    /// The user's text with the mark behind it, or the mark alone.
    pub fn marked(&self, text: Option<&str>) -> String {
        match text {
            Some(text) if !text.is_empty() => format!("{text} {}", self.mark()),
            _ => self.mark(),
        }
    }

    /// Whether a text that the gateway echoed carries a mark of any job.
    pub fn is_marked(text: &str) -> bool {
        text.contains(JobName::MARK_START)
    }

    /// The names whose marks stand in a text that the gateway echoed.
    pub fn named_in(text: &str) -> impl Iterator<Item = JobName> {
        let marks = text.split(JobName::MARK_START).skip(1);
        marks.filter_map(|rest| JobName::parse(rest.split_once(']')?.0))
    }

    /// Reads a name as it is written.
    pub fn parse(name: &str) -> Option<JobName> {
        let (token, counter) = name.split_at_checked(36)?;
        Some(JobName {
            token: Uuid::parse_str(token).ok()?,
            generation: match counter.strip_prefix('-') {
                Some(counter) => counter.parse().ok()?,
                None if counter.is_empty() => 1,
                None => return None,
            },
        })
    }

    /// The first name of the same job. Those of later generations begin with it, so a search for it finds
    /// what carries any of them.
    pub fn first(self) -> JobName {
        JobName {
            generation: 1,
            ..self
        }
    }

    /// Whether a text that the gateway echoed carries the mark.
    pub fn marks(&self, text: &str) -> bool {
        text.contains(&self.mark())
    }
}

/// What already happened to a job: the part of it that decisions depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Attempts that count against the limit, without the one being judged.
    pub attempts: u32,
    /// The generation of the name.
    pub generation: i16,
    /// How many of the generations died of the account's trouble, and count against no limit. Known where
    /// an accepted job is followed.
    pub spared: u32,
    /// Since when a request of this generation is unproven.
    pub unproven_since: Option<OffsetDateTime>,
    /// When a complete look-up first found nothing.
    pub absent_since: Option<OffsetDateTime>,
    /// Look-ups since the job became uncertain; or how often it could not be seen, before the bill is sent, whether an
    /// earlier invoice lives.
    pub lookups: u32,
    /// Since when its requests get no clear answer; `None` once one did.
    pub failing_since: Option<OffsetDateTime>,
    /// Whether no request is made of it any more, so that what was sent is settled: it is past its `expires_at`, or this
    /// version does not take its params.
    pub is_sent_no_more: bool,
    /// Whether the invoice that it acts on has been seen at the gateway: then it does not believe that there is none.
    pub is_target_known: bool,
    /// When its last request was sent, as far as that is known.
    pub sent_at: Option<OffsetDateTime>,
    /// Whether more than one of its requests may have had an effect. Known where a job is looked up, and only there.
    pub is_repeated: bool,
    /// Since when a person says that the unproven request had no effect, if one does.
    pub denied_since: Option<OffsetDateTime>,
    /// The invoice the job is known to have made or to act on.
    pub invoice_id: Option<i64>,
    /// Whether its last send was answered that the gateway has something with its key. Known where a job is looked up, and only
    /// there.
    pub is_key_taken: bool,
}

impl History {
    /// Whether a person says that the unproven request had no effect.
    pub fn is_denied(&self) -> bool {
        self.denied_since.is_some()
    }
}

/// What somebody said of a job whose outcome is unknown: that the gateway did it, as this object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Stated {
    /// The gateway's id of the invoice, or of the refund.
    pub id: i64,
    /// To be taken although its amount, payer or order differs from what was asked.
    pub anyway: bool,
    /// Another job to which the object belongs, as far as the database knows.
    pub owner: Option<i64>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(token: u128, generation: i16) -> JobName {
        JobName {
            token: Uuid::from_u128(token),
            generation,
        }
    }

    #[test]
    fn the_first_generation_is_the_bare_token() {
        let token = "00000000-0000-0000-0000-000000000007";
        assert_eq!(name(7, 1).to_string(), token);
        assert_eq!(name(7, 2).to_string(), format!("{token}-2"));
        assert_eq!(name(7, 1).marked(None), format!("[apipayd {token}]"));
        assert_eq!(name(7, 1).marked(Some("")), format!("[apipayd {token}]"));
        assert_eq!(
            name(7, 3).marked(Some("till 2")),
            format!("till 2 [apipayd {token}-3]")
        );
    }

    proptest! {
        #[test]
        fn a_mark_is_found_in_any_text(token: u128, generation in 1..=i16::MAX, text in ".*") {
            let name = name(token, generation);
            prop_assert!(name.marks(&name.marked(Some(&text))));
            prop_assert_eq!(JobName::named_in(&name.marked(Some(&text))).last(), Some(name));
            prop_assert!(name.mark().len() < JobName::MARK_MAX);
            prop_assert!(name.mark().starts_with(JobName::MARK_START));
        }

        #[test]
        fn no_job_is_taken_for_another(token: u128, other: u128, one in 1_i16..=30, two in 1_i16..=30) {
            let seen = name(token, two).marked(Some("a text"));
            prop_assert_eq!(name(token, one).marks(&seen), one == two);
            prop_assert_eq!(name(other, two).marks(&seen), other == token);
        }

        #[test]
        fn a_cut_mark_is_no_mark(token: u128, generation in 1..=i16::MAX, cut in 1_usize..40) {
            let name = name(token, generation);
            let mark = name.mark();
            prop_assert!(!name.marks(&mark[..mark.len() - cut]));
            prop_assert!(!name.marks(&mark[cut..]));
        }
    }
}
