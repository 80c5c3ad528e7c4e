//! The answer a rule brings along.

use std::collections::BTreeMap;

use base64::Engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use super::rule::{BadRule, bad};
use crate::envelope::Reply;
use crate::presets;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
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

impl Answer {
    pub(super) fn check(&self) -> Result<(), BadRule> {
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

    pub(super) fn reply(&self, now: OffsetDateTime) -> Reply {
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
