//! How long rows wait, and what their waiting costs.

use proptest::prelude::*;

use super::*;

const PACE: Pace = Pace {
    initial: Duration::from_secs(2),
    apart: Duration::from_secs(3),
    longest: Duration::from_secs(300),
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn tried(now: Duration) -> Tried {
    Tried {
        now,
        took: Duration::ZERO,
        jitter: Jitter::NONE,
    }
}

#[test]
fn a_case_is_tried_every_few_seconds_and_many_cases_no_more_often_together() {
    for (failures, cases, took_ms, expected) in [
        (1, 1, 0, seconds(2)),
        (2, 1, 0, seconds(3)),
        (9, 1, 0, seconds(3)),
        (9, 10, 0, seconds(30)),
        (9, 100, 0, seconds(300)),
        (9, 10_000, 0, seconds(300)),
        // Whoever makes us wait is met less often.
        (9, 1, 100, seconds(3)),
        (9, 1, 1_000, seconds(20)),
        // A try that waited for a connection for long says nothing of the next one.
        (9, 1, 15_000, seconds(300)),
        (1, 1, 60_000, seconds(300)),
    ] {
        let took = Duration::from_millis(took_ms);
        let distance = PACE.distance(failures, cases, took, Jitter::NONE);
        assert_eq!(distance, expected, "{failures} {cases} {took_ms}");
    }
    let longest = PACE.distance(9, 1, Duration::ZERO, Jitter::new(1.0));
    assert_eq!(longest, Duration::from_millis(3_600));
}

/// The database, which refuses rows.
struct Database {
    refusals: Refusals<u32>,
    refused: Box<dyn Fn(u32) -> bool>,
    now: Duration,
    statements: u32,
    in_vain: u32,
}

impl Database {
    /// Each of so many rows was refused once.
    fn refusing(rows: u32, cause: impl Fn(u32) -> String) -> Database {
        let mut refusals = Refusals::new(PACE);
        for row in 0..rows {
            refusals.refuse(row, &cause(row), tried(Duration::ZERO));
        }
        Database {
            refusals,
            refused: Box::new(|_| true),
            now: Duration::ZERO,
            statements: 0,
            in_vain: 0,
        }
    }

    /// What a loop does, a few times a second.
    fn run_for(&mut self, span: Duration, most: usize) {
        let end = self.now + span;
        while self.now < end {
            self.now += Duration::from_millis(250);
            let mut turns = self.refusals.due(self.now, 8);
            for _ in 0..8 {
                let part = if turns.is_empty() {
                    self.refusals.hopeful(most)
                } else {
                    Some(Part::alone(turns.remove(0)))
                };
                let Some(part) = part else { break };
                self.statements += 1;
                if !part.rows.iter().any(|row| (self.refused)(*row)) {
                    let through = part.rows.clone();
                    for row in &through {
                        self.refusals.went_through(*row);
                    }
                    self.refusals.passed(part, &through);
                    continue;
                }
                self.in_vain += 1;
                if let [row] = part.rows[..] {
                    self.refusals.failed_alone(&part);
                    self.refusals.refuse(row, "still", tried(self.now));
                } else {
                    self.refusals.failed(part);
                }
            }
        }
    }
}

fn same(_: u32) -> String {
    "still".to_owned()
}

#[test]
fn what_is_not_mended_costs_one_statement_in_three_seconds_however_many_rows() {
    for rows in [1, 100, 5_000] {
        let mut database = Database::refusing(rows, same);
        database.run_for(seconds(300), 500);
        assert!(
            (90..=101).contains(&database.statements),
            "{rows}: {}",
            database.statements
        );
    }
}

#[test]
fn all_rows_of_a_case_move_within_seconds_of_the_mend() {
    for rows in [1, 100, 5_000] {
        let mut database = Database::refusing(rows, same);
        database.run_for(seconds(600), 500);
        database.refused = Box::new(|_| false);
        database.run_for(seconds(5), 500);
        assert!(database.refusals.is_empty(), "{rows}");
        assert_eq!(database.refusals.next_due(), None);
    }
}

#[test]
fn one_row_that_stays_bad_does_not_keep_five_thousand_from_moving() {
    let mut database = Database::refusing(5_000, same);
    database.refused = Box::new(|row| row == 1_234);
    database.run_for(seconds(30), 500);
    assert!(!database.refusals.is_empty());
    assert!(
        (0..5_000)
            .filter(|row| database.refusals.knows(*row))
            .eq([1_234])
    );
}

#[test]
fn a_cause_that_is_mended_for_one_row_only_costs_few_statements_more() {
    let mut database = Database::refusing(5_000, same);
    database.refused = Box::new(|row| row != 0);
    database.run_for(seconds(30), 500);
    assert!(!database.refusals.knows(0));
    assert!(database.in_vain <= 10 + IN_VAIN + 1, "{}", database.in_vain);
}

#[test]
fn what_somebody_asks_for_is_tried_at_once_and_brings_the_others() {
    let mut database = Database::refusing(9, same);
    database.run_for(seconds(10), 500);
    let before = database.statements;
    database.refusals.ask(7);
    database.refusals.ask(7);
    database.refusals.ask(99);
    assert_eq!(database.refusals.due(database.now, 8), [7]);
    database.refused = Box::new(|_| false);
    database.run_for(Duration::from_millis(250), 500);
    assert!(database.refusals.is_empty());
    assert_eq!(database.statements, before + 2);
}

#[test]
fn a_row_that_could_not_be_tried_is_put_off_and_one_that_is_gone_is_forgotten() {
    let mut refusals = Refusals::new(PACE);
    refusals.refuse(1, "a", tried(seconds(0)));
    refusals.refuse(2, "b", tried(seconds(0)));
    refusals.put_off(1, tried(seconds(100)));
    assert_eq!(refusals.due(seconds(100), 8), [2]);
    assert_eq!(refusals.due(seconds(110), 1), [2], "the longest due first");
    refusals.forget(2);
    assert_eq!(refusals.due(seconds(110), 8), [1]);
    refusals.hurry(seconds(5));
    assert_eq!(refusals.next_due(), Some(seconds(5)));
    refusals.forget(1);
    assert!(refusals.is_empty() && refusals.next_due().is_none());
}

#[test]
fn a_row_that_comes_to_another_case_is_no_better_than_before() {
    let mut refusals = Refusals::new(PACE);
    for now in 0..5 {
        refusals.refuse(1, "a", tried(seconds(now)));
    }
    refusals.refuse(2, "a", tried(seconds(5)));
    assert_eq!(
        refusals.failures(1),
        5,
        "who joins a case does not put it off"
    );
    refusals.refuse(1, "b", tried(seconds(6)));
    assert_eq!((refusals.failures(1), refusals.failures(2)), (6, 5));
    assert_eq!(refusals.case(2, 8).rows, [2]);
}

proptest! {
    /// However rows are refused, mended, asked for and forgotten: none is lost, and each is tried.
    #[test]
    fn every_row_is_tried_in_the_end(
        rows in prop::collection::vec((0_u32..40, 0_u8..4, 0_u8..5), 1..200), most in 1_usize..30,
    ) {
        let mut database = Database::refusing(0, same);
        for (row, cause, what) in rows {
            match what {
                0 => database.refusals.ask(row),
                1 => database.refusals.forget(row),
                2 => database.refusals.went_through(row),
                _ => database.refusals.refuse(row, &cause.to_string(), tried(database.now)),
            }
            database.run_for(Duration::from_millis(250), most);
        }
        database.refused = Box::new(|_| false);
        database.run_for(seconds(400), most);
        prop_assert!(database.refusals.is_empty(), "{:?}", database.refusals);
    }
}

#[test]
fn what_could_not_be_tried_is_neither_mended_nor_forgotten() {
    let mut refusals = Refusals::new(PACE);
    for row in 0..5_u32 {
        refusals.refuse(row, "x", tried(Duration::ZERO));
    }
    let now = seconds(10);
    refusals.untried(&Part::alone(0), tried(now));
    assert!((0..5).all(|row| refusals.knows(row)));
    assert_eq!(refusals.failures(0), 1, "it says nothing of the case");
    assert_eq!(refusals.due(now, 9), [] as [u32; 0]);
    assert_eq!(refusals.due(now + seconds(3), 9), [0]);

    // Together, after one of them went through: their turn comes again, too.
    refusals.went_through(0);
    let part = refusals.hopeful(9).expect("the others may be mended");
    refusals.untried(&part, tried(now));
    assert_eq!(refusals.hopeful(9), None);
    assert!((1..5).all(|row| refusals.knows(row)));
    assert_eq!(refusals.due(now + seconds(3), 9), [1]);
}

#[test]
fn a_try_of_many_rows_counts_once() {
    let mut refusals = Refusals::new(PACE);
    for now in [Duration::ZERO, seconds(5)] {
        for row in 0..100_u32 {
            refusals.refuse(row, "x", tried(now));
        }
    }
    assert_eq!(refusals.failures(7), 2);
}
