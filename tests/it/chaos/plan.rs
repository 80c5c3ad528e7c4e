//! What a storm does and when: all of it follows from its seed.

use std::time::Duration;

use serde_json::{Value, json};

/// A storm in a few words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storm {
    pub(super) seed: u64,
    pub(super) protection: Protection,
    pub(super) daemons: usize,
    /// Whether the gateway fails; otherwise it is only slow.
    pub(super) faults: bool,
    /// Daemons that are killed, the last of them all at once.
    pub(super) kills: usize,
    /// Daemons that are stopped for a while.
    pub(super) pauses: usize,
    pub(super) longest_pause: Duration,
    /// How often the database is killed.
    pub(super) outages: usize,
    /// Whether it says how it goes.
    pub(super) talks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    Key,
    /// The gateway ignores keys, and its lists are late.
    Lookup,
}

/// The lease in the harness's configuration.
pub(super) const LEASE: Duration = Duration::from_secs(12);

/// A job, or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    UnpaidBill,
    PaidBill,
    Cancel,
    /// Two equal partial refunds of one invoice.
    Refunds,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Enqueue(Vec<Order>),
    Wait(Duration),
    /// Kills a daemon, so long after it was ready, or however far its start has come. It is started
    /// again at once.
    Kill(usize, Option<Duration>),
    Pause(usize, Duration),
    /// Kills the database, which is started again after a while.
    Outage(Duration),
}

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn of(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `end`, without it.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end as u64).unwrap()
    }

    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = usize::try_from(to.saturating_sub(from).as_millis()).unwrap();
        from + Duration::from_millis(self.below(span.max(1)) as u64)
    }
}

impl Storm {
    /// Nothing happens in it.
    pub(super) const CALM: Storm = Storm {
        seed: 0,
        protection: Protection::Key,
        daemons: 1,
        faults: false,
        kills: 0,
        pauses: 0,
        longest_pause: Duration::ZERO,
        outages: 0,
        talks: false,
    };

    /// Any storm: a round of the long form.
    pub(super) fn any(seed: u64) -> Storm {
        let mut dice = Dice::of(seed);
        let protection = match dice.below(2) {
            0 => Protection::Key,
            _ => Protection::Lookup,
        };
        let longest_pause = match (protection, dice.below(3)) {
            (Protection::Key, 0) => LEASE + Duration::from_secs(3),
            _ => Duration::from_secs(7),
        };
        Storm {
            seed,
            protection,
            daemons: 1 + dice.below(3),
            faults: dice.below(4) > 0,
            kills: 10 + dice.below(30),
            pauses: dice.below(4),
            longest_pause,
            outages: [0, 0, 1, 3][dice.below(4)],
            talks: true,
        }
    }

    /// The steps, before the last blow that takes all daemons at once.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut dice = Dice::of(self.seed);
        let kills = self.kills.saturating_sub(self.daemons);
        let mut deeds: Vec<Step> = Vec::new();
        for _ in 0..kills {
            let ready = dice.below(5) > 0;
            let time = dice.between(Duration::ZERO, Duration::from_millis(400));
            deeds.push(Step::Kill(dice.below(self.daemons), ready.then_some(time)));
        }
        for _ in 0..self.pauses {
            let time = dice.between(Duration::from_millis(300), self.longest_pause);
            deeds.push(Step::Pause(dice.below(self.daemons), time));
        }
        for _ in 0..self.outages {
            let time = dice.between(Duration::ZERO, Duration::from_secs(2));
            deeds.push(Step::Outage(time));
        }
        for last in (1..deeds.len()).rev() {
            deeds.swap(last, dice.below(last + 1));
        }
        let mut steps = vec![Step::Enqueue(self.orders(&mut dice, 20))];
        for deed in deeds {
            let count = 2 * (self.daemons + 1) + dice.below(5);
            steps.push(Step::Enqueue(self.orders(&mut dice, count)));
            let wait = dice.between(Duration::ZERO, Duration::from_millis(200));
            steps.push(Step::Wait(wait));
            steps.push(deed);
        }
        steps
    }

    /// Nobody can fence a request that a daemon sends when it wakes up after its lease
    /// (ARCHITECTURE.md, limits of the promise): the key covers bills, and nothing else.
    fn orders(&self, dice: &mut Dice, count: usize) -> Vec<Order> {
        let kinds = if self.longest_pause > LEASE { 2 } else { 5 };
        let order = |_| match dice.below(kinds) {
            0 => Order::PaidBill,
            1 => Order::UnpaidBill,
            2 | 3 => Order::Cancel,
            _ => Order::Refunds,
        };
        (0..count).map(order).collect()
    }

    /// What requests meet at the gateway; the first rule that strikes wins.
    pub(super) fn rules(&self) -> Vec<Value> {
        let mut rules = Vec::new();
        if self.faults {
            rules.extend([
                json!({"share": 0.06, "effect": "apply", "answer": {"preset": "502_html"}}),
                json!({"share": 0.06, "answer": {"preset": "504_html"}}),
                json!({"share": 0.05, "cut": "after_effect"}),
                json!({"share": 0.05, "cut": "before_effect"}),
                json!({"share": 0.04, "cut": "mid_body"}),
                json!({"share": 0.03, "effect": "apply", "hang": true}),
                json!({"share": 0.04, "broken_json": true}),
                json!({"share": 0.02, "effect": "late", "after_ms": 700, "answer": {"preset": "504_html"}}),
            ]);
        }
        // So slow that a kill finds requests under way: with their effect, and still without it.
        rules.extend([
            json!({"share": 0.3, "effect": "late", "after_ms": 250}),
            json!({"share": 0.4, "effect": "apply", "delay_ms": 250}),
        ]);
        let mut dice = Dice::of(self.seed);
        for rule in &mut rules {
            rule["route"] = "*".into();
            rule["seed"] = json!(dice.roll() >> 16);
        }
        rules
    }
}

#[test]
fn a_storm_follows_from_its_seed() {
    for seed in 0..50 {
        let storm = Storm::any(seed);
        assert_eq!(storm, Storm::any(seed));
        assert_eq!(storm.steps(), storm.steps());
        assert_eq!(storm.rules(), storm.rules());
        let other = Storm::any(seed + 50);
        assert_ne!(storm.steps(), other.steps(), "{seed}");
        let kills = storm.steps();
        let kills = kills.iter().filter(|step| matches!(step, Step::Kill(..)));
        assert_eq!(kills.count() + storm.daemons, storm.kills);
    }
}
