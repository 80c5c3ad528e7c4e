//! Fault rules: which request is hit, what becomes of its effect, and what the client gets to see.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::envelope::Reply;
use crate::{api, presets};

const LARGEST_PADDING: usize = 256 * 1024 * 1024;
const BOMB_BYTES: usize = 10 * 1024 * 1024;

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

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// A rule as it is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    #[serde(default)]
    name: Option<String>,
    route: String,
    #[serde(default)]
    organisation: Option<String>,
    #[serde(default)]
    r#match: Option<String>,
    #[serde(default)]
    skip: u64,
    #[serde(default)]
    times: Option<u64>,
    #[serde(default)]
    share: Option<f64>,
    #[serde(default)]
    seed: u64,
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
pub(crate) enum Manner {
    Whole,
    Never,
    CloseAfter(Duration),
    MidHeaders,
    MidBody,
    Drip(Drip),
    EndlessHeaders,
}

/// What is wrong with a rule: the field, and what is allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadRule {
    pub(crate) field: &'static str,
    pub(crate) problem: String,
}

fn bad(field: &'static str, problem: impl Into<String>) -> Result<(), BadRule> {
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

    pub(crate) fn manner(&self) -> Manner {
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
            pad(&mut reply.body, bytes);
        }
        if self.broken_json {
            let kept = reply.body.len() * 2 / 3;
            reply.body.truncate(kept);
        }
        if self.gzip_bomb {
            reply.body = bomb();
            reply.set_header("Content-Encoding", "gzip".to_owned());
        }
        reply
    }

    fn speaks_for_itself(&self) -> bool {
        self.answer.is_some() || self.redirect_to.is_some()
    }

    fn hangs(&self) -> bool {
        self.hang || self.hang_ms.is_some()
    }

    fn aims_at(&self, target: &Target<'_>) -> bool {
        let organisation = self.organisation.as_deref();
        let r#match = self.r#match.as_deref();
        (self.route == "*" || self.route == target.route)
            && organisation
                .is_none_or(|wanted| wanted == target.owner || Some(wanted) == target.key)
            && r#match.is_none_or(|text| target.body.contains(text) || target.query.contains(text))
    }
}

impl Answer {
    fn check(&self) -> Result<(), BadRule> {
        if self
            .status
            .is_some_and(|status| !(200..=599).contains(&status))
        {
            return bad("answer.status", "expected 200 to 599");
        }
        let bodies = [
            self.preset.is_some(),
            self.json.is_some(),
            self.text.is_some(),
            self.base64.is_some(),
        ];
        if bodies.into_iter().filter(|given| *given).count() > 1 {
            return bad("answer", "give only one of preset, json, text, base64");
        }
        if let Some(name) = self
            .preset
            .as_deref()
            .filter(|name| presets::find(name).is_none())
        {
            return bad(
                "answer.preset",
                format!("unknown preset `{name}`, see GET /_sandbox/presets"),
            );
        }
        if self
            .base64
            .as_ref()
            .is_some_and(|text| decode(text).is_none())
        {
            return bad("answer.base64", "not base64");
        }
        if self
            .headers
            .iter()
            .any(|(name, value)| !is_header(name, value))
        {
            return bad(
                "answer.headers",
                "names are tokens, values have no line breaks",
            );
        }
        Ok(())
    }

    fn reply(&self, now: OffsetDateTime) -> Reply {
        let preset = self.preset.as_deref().and_then(presets::find);
        let mut reply = match (preset, &self.json, &self.text, &self.base64) {
            (Some(build), ..) => build(now),
            (_, Some(json), ..) => Reply::json(200, json),
            (_, _, Some(text), _) => {
                Reply::with_type(200, "text/plain; charset=UTF-8", text.clone().into_bytes())
            }
            (.., Some(text)) => Reply::with_type(
                200,
                "application/octet-stream",
                decode(text).unwrap_or_default(),
            ),
            (None, None, None, None) => Reply::with_type(200, "application/json", b"{}".to_vec()),
        };
        reply.status = self.status.unwrap_or(reply.status);
        for (name, value) in &self.headers {
            reply.set_header(name, value.clone());
        }
        reply
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

fn is_header(name: &str, value: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token) && !value.contains(['\r', '\n', '\0'])
}

/// Makes a body long and leaves it valid JSON where it was.
fn pad(body: &mut Vec<u8>, bytes: usize) {
    let is_object = body.last() == Some(&b'}');
    let missing = bytes.saturating_sub(body.len());
    if !is_object {
        body.resize(body.len() + missing, b' ');
        return;
    }
    body.pop();
    let is_empty = body.iter().all(|byte| b"{ ".contains(byte));
    body.extend_from_slice(if is_empty {
        b"\"padding\":\""
    } else {
        b",\"padding\":\""
    });
    body.resize(body.len() + missing, b'x');
    body.extend_from_slice(b"\"}");
}

fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(&vec![0; BOMB_BYTES]);
    written.and_then(|()| encoder.finish()).unwrap_or_default()
}

/// What a rule is compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) route: &'static str,
    pub(crate) owner: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) body: &'a str,
    pub(crate) query: &'a str,
}

/// A rule that was hit.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) name: String,
    pub(crate) rule: Arc<Rule>,
}

#[derive(Debug)]
struct Armed {
    id: u64,
    rule: Arc<Rule>,
    to_skip: u64,
    left: Option<u64>,
    seen: u64,
    hits: u64,
    dice: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: Vec<Armed>,
    last_id: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, rule: Rule) -> u64 {
        self.last_id += 1;
        let left = if rule.share.is_some() {
            None
        } else {
            Some(rule.times.unwrap_or(1))
        };
        self.armed.push(Armed {
            id: self.last_id,
            to_skip: rule.skip,
            left,
            seen: 0,
            hits: 0,
            dice: rule.seed,
            rule: Arc::new(rule),
        });
        self.last_id
    }

    pub(crate) fn clear(&mut self) {
        self.armed.clear();
    }

    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let before = self.armed.len();
        self.armed.retain(|armed| armed.id != id);
        self.armed.len() < before
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }

    /// The first rule, oldest first, that strikes this request.
    pub(crate) fn pick(&mut self, target: &Target<'_>) -> Option<Hit> {
        self.armed.iter_mut().find_map(|armed| {
            let strikes = armed.rule.aims_at(target) && armed.strikes();
            strikes.then(|| Hit {
                name: armed.rule.name(armed.id),
                rule: Arc::clone(&armed.rule),
            })
        })
    }

    pub(crate) fn show(&self) -> Vec<Value> {
        let armed = self.armed.iter();
        armed
            .map(|armed| {
                json!({
                    "id": armed.id,
                    "name": armed.rule.name(armed.id),
                    "seen": armed.seen,
                    "hits": armed.hits,
                    "left": armed.left,
                    "rule": *armed.rule,
                })
            })
            .collect()
    }
}

impl Armed {
    fn strikes(&mut self) -> bool {
        self.seen += 1;
        if self.to_skip > 0 {
            self.to_skip -= 1;
            return false;
        }
        let struck = match (self.left, self.rule.share) {
            (Some(left), _) => left > 0,
            (None, share) => self.throw_dice() < share.unwrap_or(1.0),
        };
        if struck {
            self.left = self.left.map(|left| left - 1);
            self.hits += 1;
        }
        struck
    }

    /// The next number of a seeded sequence (splitmix64), at least 0 and below 1.
    fn throw_dice(&mut self) -> f64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: Value) -> Rule {
        serde_json::from_value(json).unwrap()
    }

    const CREATE: Target<'static> = Target {
        route: "POST /invoices",
        owner: "shop",
        key: Some("secret"),
        body: "job-7",
        query: "",
    };

    #[test]
    fn rules_are_skipped_and_spent() {
        let mut faults = Faults::default();
        faults.add(rule(
            json!({"route": "POST /invoices", "skip": 1, "times": 2}),
        ));
        let struck = [(); 5].map(|()| faults.pick(&CREATE).is_some());
        assert_eq!(struck, [false, true, true, false, false]);
        assert_eq!(
            (&faults.show()[0]["hits"], &faults.show()[0]["seen"]),
            (&json!(2), &json!(5))
        );
    }

    #[test]
    fn rules_aim_at_what_they_name() {
        for (filter, struck) in [
            (json!({"route": "*"}), true),
            (json!({"route": "GET /invoices"}), false),
            (json!({"route": "*", "organisation": "shop"}), true),
            (json!({"route": "*", "organisation": "secret"}), true),
            (json!({"route": "*", "organisation": "other"}), false),
            (json!({"route": "*", "match": "job-7"}), true),
            (json!({"route": "*", "match": "job-8"}), false),
        ] {
            assert_eq!(rule(filter.clone()).aims_at(&CREATE), struck, "{filter}");
        }
    }

    #[test]
    fn a_share_is_the_same_for_the_same_seed() {
        let hits = |seed: u64| {
            let mut faults = Faults::default();
            faults.add(rule(json!({"route": "*", "share": 0.3, "seed": seed})));
            (0..1000)
                .map(|_| faults.pick(&CREATE).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(hits(7), hits(7));
        assert_ne!(hits(7), hits(8));
        let count = hits(7).into_iter().filter(|hit| *hit).count();
        assert!((250..350).contains(&count), "{count}");
    }

    #[test]
    fn bad_rules_are_named() {
        for (json, field) in [
            (json!({"route": "POST /nothing"}), "route"),
            (json!({"route": "*", "effect": "none"}), "answer"),
            (json!({"route": "*", "share": 2}), "share"),
            (
                json!({"route": "*", "effect": "apply", "cut": "before_effect"}),
                "cut",
            ),
            (json!({"route": "*", "after_ms": 5}), "after_ms"),
            (
                json!({"route": "*", "answer": {"preset": "999"}}),
                "answer.preset",
            ),
            (
                json!({"route": "*", "answer": {"headers": {"X": "a\r\nb"}}}),
                "answer.headers",
            ),
        ] {
            assert_eq!(
                rule(json.clone()).check().unwrap_err().field,
                field,
                "{json}"
            );
        }
    }

    #[test]
    fn padded_bodies_stay_valid() {
        for body in ["{}", "{\"id\":7}", "[1]"] {
            let mut bytes = body.as_bytes().to_vec();
            pad(&mut bytes, 1000);
            assert!(bytes.len() >= 1000);
            assert!(serde_json::from_slice::<Value>(&bytes).is_ok(), "{body}");
        }
    }
}
