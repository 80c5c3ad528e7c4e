use super::*;
use crate::policy::verdict::Reason;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

const BILL: &str = "invoice.create";
const CANCEL: &str = "invoice.cancel";
const REFUND: &str = "invoice.refund";

const FIRST: JobId = JobId(1);
const SECOND_JOB: JobId = JobId(2);
const THIRD: JobId = JobId(3);

fn unwell(reason: Reason) -> AccountSignal {
    AccountSignal::Park {
        reason,
        hint: None,
        said: None,
        undelivered: None,
    }
}

fn denied() -> AccountSignal {
    unwell(Reason::AccessDenied)
}

/// Of an account that a read has parked, and that went on after that.
fn doubted() -> Beliefs {
    let mut beliefs = Beliefs::default();
    assert!(beliefs.heed_read(&unwell(Reason::ServiceUnavailable), SECOND));
    beliefs.observe(true, SECOND);
    beliefs.observe(false, SECOND);
    beliefs
}

/// Of an account that a cancel has parked, and whose bills went through after that.
fn doubted_cancels() -> Beliefs {
    let mut beliefs = Beliefs::default();
    assert!(beliefs.heed_send(CANCEL, FIRST, &denied(), SECOND));
    beliefs.got_through(BILL, SECOND_JOB, SECOND * 2, SECOND * 3);
    beliefs
}

#[test]
fn the_first_such_answer_to_a_read_parks_and_the_next_ones_do_not_once_the_account_went_on() {
    let mut beliefs = doubted();
    for hours in [1, 20, 40, 60] {
        let now = HOUR * hours;
        assert!(!beliefs.heed_read(&unwell(Reason::ServiceUnavailable), now));
        assert!(!beliefs.heed_read(&unwell(Reason::SessionExpired), now));
        // The key has just been good for a send.
        assert!(!beliefs.heed_read(&unwell(Reason::KeyRejected), now));
    }
    assert!(beliefs.heed_read(&unwell(Reason::ServiceUnavailable), HOUR * 85));
}

#[test]
fn a_row_that_was_read_before_the_park_was_stored_ends_no_belief() {
    let mut beliefs = Beliefs::default();
    assert!(beliefs.heed_read(&unwell(Reason::SessionExpired), SECOND));
    beliefs.observe(false, SECOND);
    assert!(beliefs.heed_read(&unwell(Reason::SessionExpired), SECOND));
}

#[test]
fn a_send_or_a_probe_that_says_so_as_well_restores_the_belief_in_reads() {
    let mut beliefs = doubted();
    beliefs.confirm();
    assert!(beliefs.heed_read(&unwell(Reason::ServiceUnavailable), SECOND));
    assert!(beliefs.heed_send(BILL, FIRST, &denied(), SECOND));
    beliefs.observe(true, SECOND);
    beliefs.observe(false, SECOND);
    assert!(beliefs.heed_read(&unwell(Reason::ServiceUnavailable), SECOND));
}

#[test]
fn the_probe_that_ends_the_park_begins_the_doubt_about_reads() {
    let mut beliefs = Beliefs::default();
    beliefs.resume(SECOND);
    assert!(beliefs.heed_read(&unwell(Reason::ServiceUnavailable), SECOND));
    beliefs.resume(SECOND);
    assert!(!beliefs.heed_read(&unwell(Reason::ServiceUnavailable), SECOND));
}

#[test]
fn what_one_operation_is_answered_parks_no_more_once_another_got_through_after_it() {
    let mut beliefs = doubted_cancels();
    for hours in [1, 20, 40, 60] {
        // Whatever job of it, and whatever it says.
        assert!(!beliefs.heed_send(CANCEL, FIRST, &denied(), HOUR * hours));
        let unavailable = unwell(Reason::ServiceUnavailable);
        assert!(!beliefs.heed_send(CANCEL, THIRD, &unavailable, HOUR * hours));
    }
    assert!(beliefs.heed_send(CANCEL, FIRST, &denied(), HOUR * 85));
}

#[test]
fn what_left_before_the_refusal_and_what_ends_the_park_prove_nothing_of_a_send() {
    let mut beliefs = Beliefs::default();
    assert!(beliefs.heed_send(CANCEL, FIRST, &denied(), SECOND * 2));
    beliefs.got_through(BILL, SECOND_JOB, SECOND, SECOND * 3);
    beliefs.observe(true, SECOND * 4);
    beliefs.observe(false, SECOND * 5);
    beliefs.resume(SECOND * 6);
    assert!(beliefs.heed_send(CANCEL, FIRST, &denied(), SECOND * 7));
}

#[test]
fn a_success_of_the_operation_itself_restores_the_belief_in_all_but_the_jobs_that_were_refused() {
    let mut beliefs = doubted_cancels();
    assert!(!beliefs.heed_send(CANCEL, FIRST, &denied(), SECOND * 4));
    beliefs.got_through(CANCEL, THIRD, SECOND * 5, SECOND * 6);
    assert!(!beliefs.heed_send(CANCEL, FIRST, &denied(), SECOND * 7));
    assert!(beliefs.heed_send(CANCEL, SECOND_JOB, &denied(), SECOND * 8));
    // Which takes nothing from what is known of the first.
    assert!(!beliefs.heed_send(CANCEL, FIRST, &denied(), SECOND * 9));
}

#[test]
fn a_job_that_is_done_is_an_account_that_is_well_again_and_casts_no_doubt() {
    let mut beliefs = Beliefs::default();
    assert!(beliefs.heed_send(BILL, FIRST, &denied(), SECOND));
    beliefs.got_through(BILL, FIRST, SECOND * 2, SECOND * 3);
    assert!(beliefs.heed_send(BILL, FIRST, &denied(), SECOND * 4));
    assert!(beliefs.heed_send(BILL, SECOND_JOB, &denied(), SECOND * 5));
}

#[test]
fn an_outage_that_a_cancel_was_tried_after_leaves_no_doubt_about_bills_that_go_through() {
    let mut beliefs = Beliefs::default();
    assert!(beliefs.heed_send(BILL, FIRST, &denied(), SECOND));
    beliefs.got_through(CANCEL, THIRD, SECOND * 2, SECOND * 3);
    beliefs.got_through(BILL, FIRST, SECOND * 4, SECOND * 5);
    assert!(beliefs.heed_send(BILL, SECOND_JOB, &denied(), SECOND * 6));
}

#[test]
fn another_operation_or_health_that_says_so_as_well_ends_the_doubt_until_something_gets_through() {
    let mut beliefs = doubted_cancels();
    assert!(beliefs.heed_send(BILL, THIRD, &denied(), SECOND * 4));
    assert!(beliefs.heed_send(CANCEL, FIRST, &denied(), SECOND * 5));
    let mut beliefs = doubted_cancels();
    beliefs.confirm();
    assert!(beliefs.heed_send(CANCEL, FIRST, &denied(), SECOND * 5));
}

#[test]
fn two_operations_that_are_refused_park_once_each() {
    let mut beliefs = doubted_cancels();
    assert!(beliefs.heed_send(REFUND, THIRD, &denied(), SECOND * 4));
    beliefs.got_through(BILL, JobId(4), SECOND * 5, SECOND * 6);
    for second in [7, 8] {
        assert!(!beliefs.heed_send(REFUND, THIRD, &denied(), SECOND * second));
        assert!(!beliefs.heed_send(CANCEL, FIRST, &denied(), SECOND * second));
    }
}

#[test]
fn what_asks_to_wait_is_obeyed_whatever_is_doubted() {
    let block = AccountSignal::Block {
        wait: SECOND,
        code: String::new(),
        said: None,
        scope: crate::policy::verdict::Scope::Everything,
        capped: false,
    };
    let mut beliefs = doubted_cancels();
    assert!(beliefs.heed_send(CANCEL, FIRST, &block, SECOND * 4));
    assert!(doubted().heed_read(&block, SECOND * 4));
}

#[test]
fn only_so_many_jobs_are_remembered() {
    let mut beliefs = Beliefs::default();
    for job in 0..2000 {
        beliefs.heed_send(BILL, JobId(job), &denied(), SECOND * job as u32);
    }
    let jobs = &beliefs.sends[BILL].jobs;
    assert_eq!(jobs.len(), REMEMBERED);
    assert!(!jobs.contains_key(&JobId(999)) && jobs.contains_key(&JobId(1000)));
}
