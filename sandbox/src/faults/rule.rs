//! A fault rule: which request it strikes, what becomes of the effect, and what the client gets to see.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::answer::Answer;
use super::{Target, deform};
use crate::api;
use crate::envelope::Reply;

const LARGEST_PADDING: usize = 256 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    None,
    Apply,
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cut {
    BeforeEffect,
    AfterEffect,
    MidHeaders,
    MidBody,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drip {
    pub(crate) bytes: usize,
    pub(crate) every_ms: u64,
}

/// Answers before the answer, of a status 1xx; without `times` they never end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Interim {
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) times: Option<u64>,
}

/// A rule as it is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    #[serde(default)]
    name: Option<String>,
    route: String,
    #[serde(default)]
    organization: Option<String>,
    #[serde(default)]
    r#match: Option<String>,
    #[serde(default)]
    pub(super) skip: u64,
    #[serde(default)]
    pub(super) times: Option<u64>,
    #[serde(default)]
    pub(super) share: Option<f64>,
    #[serde(default)]
    pub(super) seed: u64,
    #[serde(default)]
    effect: Option<Effect>,
    #[serde(default)]
    after_ms: Option<u64>,
    #[serde(default)]
    answer: Option<Answer>,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    hang: bool,
    #[serde(default)]
    hang_ms: Option<u64>,
    #[serde(default)]
    cut: Option<Cut>,
    #[serde(default)]
    drip: Option<Drip>,
    #[serde(default)]
    endless_headers: bool,
    #[serde(default)]
    endless_body: bool,
    #[serde(default)]
    interim: Option<Interim>,
    #[serde(default)]
    raw: Option<String>,
    #[serde(default)]
    body_bytes: Option<usize>,
    #[serde(default)]
    broken_json: bool,
    #[serde(default)]
    gzip_bomb: bool,
    #[serde(default)]
    redirect_to: Option<String>,
}

/// How the bytes of an answer travel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner<'a> {
    Whole,
    Never,
    CloseAfter(Duration),
    MidHeaders,
    MidBody,
    Drip(Drip),
    EndlessHeaders,
    EndlessBody,
    Interim(Interim),
    /// These bytes in place of any answer, then the end of the connection.
    Raw(&'a [u8]),
}

/// What is wrong with a rule: the field, and what is allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadRule {
    pub(crate) field: &'static str,
    pub(crate) problem: String,
}

pub(super) fn bad(field: &'static str, problem: impl Into<String>) -> Result<(), BadRule> {
    Err(BadRule {
        field,
        problem: problem.into(),
    })
}

impl Rule {
    pub(crate) fn check(&self) -> Result<(), BadRule> {
        let known: Vec<_> = api::ROUTES
            .iter()
            .map(|route| route.template)
            .chain(["*"])
            .collect();
        if !known.contains(&self.route.as_str()) {
            return bad(
                "route",
                format!(
                    "unknown route `{}`, expected one of: {}",
                    self.route,
                    known.join(", ")
                ),
            );
        }
        if self.times.is_some() && self.share.is_some() {
            return bad("share", "give either times or share");
        }
        if self
            .share
            .is_some_and(|share| !(0.0..=1.0).contains(&share))
        {
            return bad("share", "expected a number from 0.0 to 1.0");
        }
        if self.after_ms.is_some() && self.effect() != Effect::Late {
            return bad("after_ms", "only with \"effect\":\"late\"");
        }
        if self.cut == Some(Cut::BeforeEffect) && self.effect() == Effect::Apply {
            return bad("cut", "before_effect applies nothing; use after_effect");
        }
        if self.effect() == Effect::None
            && !self.speaks_for_itself()
            && self.cut.is_none()
            && !self.hangs()
        {
            return bad(
                "answer",
                "required when nothing is applied, unless the rule cuts, hangs or redirects",
            );
        }
        if self.raw.is_some() && self.answers_itself() {
            return bad("raw", "takes the place of an answer; give only one of them");
        }
        if self
            .interim
            .is_some_and(|interim| !(100..=199).contains(&interim.status) || interim.status == 101)
        {
            return bad("interim", "status: expected 100 or 102 to 199");
        }
        if self.drip.is_some_and(|drip| drip.bytes == 0) {
            return bad("drip", "bytes must be at least 1");
        }
        if self.body_bytes.is_some_and(|bytes| bytes > LARGEST_PADDING) {
            return bad("body_bytes", format!("at most {LARGEST_PADDING}"));
        }
        self.answer.as_ref().map_or(Ok(()), Answer::check)
    }

    pub(crate) fn name(&self, id: u64) -> String {
        self.name.clone().unwrap_or_else(|| format!("fault {id}"))
    }

    /// Without a word about it, a rule that brings its own answer applies nothing.
    pub(crate) fn effect(&self) -> Effect {
        let silent_none = self.speaks_for_itself() || self.cut == Some(Cut::BeforeEffect);
        self.effect.unwrap_or(if silent_none {
            Effect::None
        } else {
            Effect::Apply
        })
    }

    pub(crate) fn late_after(&self) -> Duration {
        Duration::from_millis(self.after_ms.unwrap_or(1_000))
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    pub(crate) fn manner(&self) -> Manner<'_> {
        if self.hang {
            return Manner::Never;
        }
        if let Some(hang_ms) = self.hang_ms {
            return Manner::CloseAfter(Duration::from_millis(hang_ms));
        }
        match self.cut {
            Some(Cut::BeforeEffect | Cut::AfterEffect) => {
                return Manner::CloseAfter(Duration::ZERO);
            }
            Some(Cut::MidHeaders) => return Manner::MidHeaders,
            Some(Cut::MidBody) => return Manner::MidBody,
            None => {}
        }
        if self.endless_headers {
            return Manner::EndlessHeaders;
        }
        if self.endless_body {
            return Manner::EndlessBody;
        }
        if let Some(raw) = &self.raw {
            return Manner::Raw(raw.as_bytes());
        }
        if let Some(interim) = self.interim {
            return Manner::Interim(interim);
        }
        self.drip.map_or(Manner::Whole, Manner::Drip)
    }

    /// The answer that stands in for the real one.
    pub(crate) fn own_answer(&self, now: OffsetDateTime) -> Option<Reply> {
        if let Some(target) = &self.redirect_to {
            let status = self
                .answer
                .as_ref()
                .and_then(|answer| answer.status)
                .unwrap_or(307);
            return Some(Reply::html(status, "").header("Location", target));
        }
        if let Some(answer) = &self.answer {
            return Some(answer.reply(now));
        }
        (self.effect() == Effect::None).then(|| Reply::message_only(500, "Server Error"))
    }

    /// What the rule does to the body of an answer, whoever gave it.
    pub(crate) fn deform(&self, mut reply: Reply) -> Reply {
        if let Some(bytes) = self.body_bytes {
            deform::pad(&mut reply.body, bytes);
        }
        if self.broken_json {
            let kept = reply.body.len() * 2 / 3;
            reply.body.truncate(kept);
        }
        if self.gzip_bomb {
            reply.body = deform::bomb();
            reply.set_header("Content-Encoding", "gzip".to_owned());
        }
        reply
    }

    fn speaks_for_itself(&self) -> bool {
        self.answers_itself() || self.raw.is_some()
    }

    fn answers_itself(&self) -> bool {
        self.answer.is_some() || self.redirect_to.is_some()
    }

    fn hangs(&self) -> bool {
        self.hang || self.hang_ms.is_some()
    }

    pub(super) fn aims_at(&self, target: &Target<'_>) -> bool {
        let organization = self.organization.as_deref();
        let r#match = self.r#match.as_deref();
        (self.route == "*" || self.route == target.route)
            && organization
                .is_none_or(|wanted| wanted == target.owner || Some(wanted) == target.key)
            && r#match.is_none_or(|text| target.body.contains(text) || target.query.contains(text))
    }
}
