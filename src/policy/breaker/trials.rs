//! Which job a probe of a parked account lets through.
//!
//! What is refused may be about one operation, or about one job. So what was refused last is tried again last: each
//! operation and each job has its turn, and the account goes on as soon as one of them is taken.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::domain::job::JobId;
use crate::domain::operation::OPERATIONS;

/// What of an account was answered as if it were unwell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trials {
    /// Of each operation the job that was answered so last, with a number that rises with each.
    jobs: BTreeMap<String, (u64, JobId)>,
    /// Operations of which a trial was answered so, or proved nothing, the one that was tried last at the end.
    tried: Vec<String>,
    number: u64,
}

impl Trials {
    /// The send of a job was answered so, as a trial or before.
    pub fn note_refused(&mut self, operation: &str, job: JobId) {
        self.number += 1;
        self.jobs.insert(operation.to_owned(), (self.number, job));
    }

    /// A trial of this job was no success. It counts if it was answered so.
    pub fn note_tried(&mut self, operation: &str, job: JobId) {
        if self
            .jobs
            .get(operation)
            .is_some_and(|(_, last)| *last == job)
        {
            self.put_last(operation);
        }
    }

    /// A trial of this operation was taken, where only a delivery is proof: the others have their turn before the next one.
    pub fn note_unproven(&mut self, operation: &str) {
        self.put_last(operation);
    }

    fn put_last(&mut self, operation: &str) {
        self.tried.retain(|tried| tried != operation);
        self.tried.push(operation.to_owned());
    }

    /// A new row of probes begins.
    pub fn begin(&mut self) {
        self.tried.clear();
    }

    /// The operations of which a job is tried, by name: one of the first group in which there is one. First those that are
    /// safe to try and were not tried, then the others that were not, then those that were, the one that was tried
    /// last at the end.
    pub fn order(&self) -> Vec<Vec<&'static str>> {
        let untried = |is_safe| {
            let operations = OPERATIONS.iter();
            let untried = operations.filter(move |operation| {
                operation.is_safe_to_try() == is_safe
                    && self.tried.iter().all(|tried| tried != operation.name())
            });
            untried.map(|operation| operation.name()).collect()
        };
        let tried = self.tried.iter().filter_map(|tried| {
            let operation = OPERATIONS
                .iter()
                .find(|operation| operation.name() == tried);
            operation.map(|operation| vec![operation.name()])
        });
        let groups = [untried(true), untried(false)].into_iter().chain(tried);
        groups
            .filter(|group: &Vec<&str>| !group.is_empty())
            .collect()
    }

    /// Of the jobs of these operations, in their order, those that come after the one that was refused last, then the others,
    /// and that one at the end.
    pub fn in_turn<T>(
        &self,
        operations: &[&'static str],
        mut jobs: Vec<T>,
        id: impl Fn(&T) -> JobId,
    ) -> Vec<T> {
        let refused = self.jobs.iter();
        let refused = refused.filter(|(name, _)| operations.contains(&name.as_str()));
        let last = refused.map(|(_, refused)| refused).max();
        let place = last.and_then(|(_, last)| jobs.iter().position(|job| id(job) == *last));
        if let Some(place) = place {
            jobs.rotate_left(place + 1);
        }
        jobs
    }

    /// Jobs in the order in which they are tried at last: the one that was refused last, then those that were before.
    pub fn refused_first<T>(&self, mut jobs: Vec<T>, id: impl Fn(&T) -> JobId) -> Vec<T> {
        let refused = |job: JobId| {
            let numbers = self.jobs.values().filter(|(_, last)| *last == job);
            numbers.map(|(number, _)| *number).max()
        };
        jobs.sort_by_key(|job| Reverse(refused(id(job))));
        jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BILL: &str = "invoice.create";
    const CANCEL: &str = "invoice.cancel";
    const REFUND: &str = "invoice.refund";

    /// The groups, each in the order of the alphabet.
    fn order(trials: &Trials) -> Vec<Vec<&'static str>> {
        let mut order = trials.order();
        order.iter_mut().for_each(|group| group.sort_unstable());
        order
    }

    fn refused(trials: &mut Trials, operation: &str, job: i64) {
        trials.note_refused(operation, JobId(job));
        trials.note_tried(operation, JobId(job));
    }

    fn in_turn(trials: &Trials, operations: &[&'static str], jobs: &[i64]) -> Vec<i64> {
        let jobs = jobs.iter().copied().map(JobId).collect();
        let jobs = trials.in_turn(operations, jobs, |job| *job);
        jobs.into_iter().map(|job| job.0).collect()
    }

    #[test]
    fn each_operation_has_its_turn_and_the_first_is_safe_to_try() {
        let mut trials = Trials::default();
        assert_eq!(order(&trials), [vec![CANCEL, BILL], vec![REFUND]]);
        refused(&mut trials, CANCEL, 1);
        assert_eq!(order(&trials), [vec![BILL], vec![REFUND], vec![CANCEL]]);
        refused(&mut trials, BILL, 2);
        assert_eq!(order(&trials), [vec![REFUND], vec![CANCEL], vec![BILL]]);
        refused(&mut trials, REFUND, 3);
        assert_eq!(order(&trials), [vec![CANCEL], vec![BILL], vec![REFUND]]);
        refused(&mut trials, CANCEL, 1);
        assert_eq!(order(&trials), [vec![BILL], vec![REFUND], vec![CANCEL]]);
        trials.begin();
        assert_eq!(order(&trials), [vec![CANCEL, BILL], vec![REFUND]]);
    }

    #[test]
    fn what_parked_the_account_was_no_trial_and_a_trial_without_an_answer_is_none_either() {
        let mut trials = Trials::default();
        trials.note_refused(CANCEL, JobId(1));
        trials.note_tried(BILL, JobId(2));
        assert_eq!(order(&trials), [vec![CANCEL, BILL], vec![REFUND]]);
    }

    #[test]
    fn each_job_has_its_turn_and_the_one_that_was_refused_last_is_the_last() {
        let mut trials = Trials::default();
        let jobs = [4, 5, 6];
        assert_eq!(in_turn(&trials, &[BILL], &jobs), jobs);
        trials.note_refused(CANCEL, JobId(4));
        assert_eq!(in_turn(&trials, &[BILL], &jobs), jobs);
        assert_eq!(in_turn(&trials, &[BILL, CANCEL], &jobs), [5, 6, 4]);
        trials.note_refused(BILL, JobId(5));
        assert_eq!(in_turn(&trials, &[BILL, CANCEL], &jobs), [6, 4, 5]);
        assert_eq!(in_turn(&trials, &[CANCEL], &[4]), [4]);
        // It is not due any more.
        assert_eq!(in_turn(&trials, &[BILL], &[7, 8]), [7, 8]);
    }

    #[test]
    fn at_last_the_one_that_was_refused_last_is_the_first() {
        let mut trials = Trials::default();
        let at_last = |trials: &Trials, jobs: &[i64]| {
            let jobs = jobs.iter().copied().map(JobId).collect();
            let jobs = trials.refused_first(jobs, |job| *job);
            jobs.into_iter().map(|job| job.0).collect::<Vec<i64>>()
        };
        assert_eq!(at_last(&trials, &[4, 5, 6]), [4, 5, 6]);
        trials.note_refused(CANCEL, JobId(5));
        trials.note_refused(BILL, JobId(6));
        assert_eq!(at_last(&trials, &[4, 5, 6]), [6, 5, 4]);
        trials.note_refused(CANCEL, JobId(5));
        assert_eq!(at_last(&trials, &[4, 5, 6]), [5, 6, 4]);
        assert_eq!(at_last(&trials, &[4, 6]), [6, 4], "it was cancelled");
    }

    #[test]
    fn an_operation_whose_trial_was_taken_and_proves_nothing_has_its_next_turn_after_the_others() {
        let mut trials = Trials::default();
        trials.note_unproven(BILL);
        assert_eq!(order(&trials), [vec![CANCEL], vec![REFUND], vec![BILL]]);
        trials.note_unproven(REFUND);
        assert_eq!(order(&trials), [vec![CANCEL], vec![BILL], vec![REFUND]]);
    }
}
