//! `/_sandbox/clock`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Outcome, read, refuse};
use crate::clock::{Clock, parse_span};
use crate::hub::State;
use crate::stamp;

const FASTEST: f64 = 1e9;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    speed: Option<f64>,
    advance: Option<String>,
    freeze: Option<bool>,
}

pub(super) fn change(state: &mut State, body: &[u8]) -> Outcome {
    let change: Change = read(body)?;
    if change
        .speed
        .is_some_and(|speed| !(0.0..=FASTEST).contains(&speed))
    {
        return Err(refuse("speed", "expected a number from 0 to 1000000000"));
    }
    let advance = match change.advance.as_deref() {
        Some(text) => Some(parse_span(text).ok_or_else(|| {
            refuse(
                "advance",
                "expected a span such as \"90s\", \"1h30m\", \"250ms\", \"2d\"",
            )
        })?),
        None => None,
    };
    if let Some(speed) = change.speed {
        state.clock.set_speed(speed);
    }
    if let Some(frozen) = change.freeze {
        state.clock.set_frozen(frozen);
    }
    if let Some(span) = advance {
        state.clock.advance(span);
    }
    state.world.settle(state.clock.now().life);
    Ok(show(&state.clock))
}

pub(super) fn show(clock: &Clock) -> Value {
    let now = clock.now();
    json!({
        "now": stamp::millis(now.life),
        "real": stamp::millis(now.real),
        "speed": clock.speed(),
        "frozen": clock.is_frozen(),
    })
}
