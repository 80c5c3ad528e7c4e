//! How long the gateway asks to wait.

use apipayd::domain::answer::{Body, Reply};
use apipayd::policy::hints;
use serde_json::{Value, json};

use crate::answers::limits;
use crate::jobs::NOW;
use crate::seeds::{Seeds, Tape, tapes};

#[test]
fn whatever_a_hint_says_it_is_read_or_ignored_and_a_second_one_of_its_kind_only_lengthens() {
    let seeds = Seeds::of("hints");
    seeds.each(|tape, written| hinted(tape, written, &seeds));
    bolero::check!()
        .with_generator(tapes())
        .for_each(|input: &Vec<u8>| {
            let mut tape = Tape(input);
            let written = seeds.mutated(&mut tape);
            hinted(&mut tape, &written, &seeds);
        });
}

fn hinted(tape: &mut Tape<'_>, written: &[u8], seeds: &Seeds) {
    let text = String::from_utf8_lossy(written).into_owned();
    let value: Value = serde_json::from_slice(written).unwrap_or_else(|_| json!(text));
    let field = tape.pick(&["retry_after", "retry_after_seconds", "reset_at", "meta"]);
    let body = match field {
        "meta" => json!({"meta": {"reset_at": value}}),
        _ => json!({field: value}),
    };
    let bare = Reply::new(429, Body::Json(body.clone()), Default::default(), false);
    let mut full = bare.clone();
    full.limits = limits(tape, seeds);
    let mut less = full.clone();
    less.limits.retry_after.pop();
    for fewer in [bare, less] {
        // A number of seconds where there was none before counts instead of the moments.
        if counts_seconds(&full) == counts_seconds(&fewer) {
            let (wait, before) = (hints::wait(&full, NOW), hints::wait(&fewer, NOW));
            assert!(wait >= before, "{full:?}");
        }
    }
}

/// Whether one of the hints is a number of seconds.
fn counts_seconds(reply: &Reply) -> bool {
    let is_number = |text: &str| text.trim().parse::<f64>().is_ok_and(|n| !n.is_nan());
    let field = |key| {
        let value = reply.object().and_then(|body| body.get(key));
        value.is_some_and(|value| value.is_number() || value.as_str().is_some_and(is_number))
    };
    let headers = &reply.limits.retry_after;
    headers.iter().any(|written| is_number(written))
        || field("retry_after")
        || field("retry_after_seconds")
}
