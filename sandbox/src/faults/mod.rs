//! Fault rules: kept, counted and picked. What a rule does to bytes is done in `wire`.

mod answer;
mod deform;
mod rule;

use std::sync::Arc;

use serde_json::{Value, json};

pub(crate) use rule::{Drip, Effect, Interim, Manner, Rule};

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
            (json!({"route": "*", "organization": "shop"}), true),
            (json!({"route": "*", "organization": "secret"}), true),
            (json!({"route": "*", "organization": "other"}), false),
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
                json!({"route": "*", "raw": "?", "answer": {"status": 502}}),
                "raw",
            ),
            (json!({"route": "*", "interim": {"status": 200}}), "interim"),
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
}
