//! The control API under `/_sandbox`: what a test sees and sets behind the client's back.

mod objects;
mod organization;
mod report;
mod time;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::Request;
use crate::clock::Moment;
use crate::envelope::Reply;
use crate::faults::Rule;
use crate::hub::State;

pub(crate) const PREFIX: &str = "/_sandbox";

type Outcome = Result<Value, Reply>;

pub(crate) fn answer(state: &mut State, request: &Request, now: Moment) -> Reply {
    state.world.settle(now.life);
    let path = request.path.strip_prefix(PREFIX).unwrap_or_default();
    let segments: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let outcome = match (request.method.as_str(), segments.as_slice()) {
        ("GET", ["ledger"]) => report::show_ledger(state, &request.query),
        ("GET", ["requests"]) => report::show_requests(state, &request.query),
        _ => dispatch(state, request, &segments, now).map(|body| Reply::json(200, &body)),
    };
    outcome.unwrap_or_else(|refusal| refusal)
}

fn dispatch(state: &mut State, request: &Request, segments: &[&str], now: Moment) -> Outcome {
    match (request.method.as_str(), segments) {
        ("GET", ["stats"]) => Ok(state.journal.stats()),
        ("GET", ["presets"]) => Ok(report::presets()),
        ("GET", ["faults"]) => Ok(json!({"faults": state.faults.show()})),
        ("POST", ["faults"]) => add_fault(state, &request.body),
        ("DELETE", ["faults"]) => {
            state.faults.clear();
            Ok(json!({}))
        }
        ("DELETE", ["faults", id]) => {
            let removed = id.parse().is_ok_and(|id| state.faults.remove(id));
            if removed {
                Ok(json!({}))
            } else {
                Err(Reply::message_only(404, "no such fault"))
            }
        }
        ("POST", ["session"]) => organization::session(&mut state.world, &request.body, now),
        ("POST", ["organization"]) => organization::change(&mut state.world, &request.body, now),
        ("GET", ["organizations"]) => Ok(organization::list(&state.world)),
        ("POST", ["invoices"]) => objects::plant_invoice(&mut state.world, &request.body, now),
        ("POST", ["invoices", id]) => {
            objects::force_invoice(&mut state.world, id, &request.body, now)
        }
        ("POST", ["refunds"]) => objects::plant_refund(&mut state.world, &request.body, now),
        ("POST", ["refunds", id]) => {
            objects::force_refund(&mut state.world, id, &request.body, now)
        }
        ("GET", ["clock"]) => Ok(time::show(&state.clock)),
        ("POST", ["clock"]) => time::change(state, &request.body),
        ("POST", ["reset"]) => {
            state.reset();
            Ok(json!({}))
        }
        _ => Err(Reply::message_only(
            404,
            "no such control route; see README.md",
        )),
    }
}

fn add_fault(state: &mut State, body: &[u8]) -> Outcome {
    let rule: Rule = read(body)?;
    rule.check()
        .map_err(|bad| refuse(bad.field, &bad.problem))?;
    Ok(json!({"id": state.faults.add(rule)}))
}

/// Reads a control body; whatever is wrong is told with the field's name.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Reply> {
    let body = if body.trim_ascii().is_empty() {
        b"{}"
    } else {
        body
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        refuse(&field, &error.inner().to_string())
    })?;
    json.end()
        .map_err(|error| refuse(".", &error.to_string()))?;
    Ok(value)
}

fn refuse(field: &str, problem: &str) -> Reply {
    Reply::json(
        400,
        &json!({"error": "bad_control_request", "field": field, "message": format!("{field}: {problem}")}),
    )
}
