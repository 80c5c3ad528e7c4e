//! The jobs of one request in this worker's hands, and the quota that was taken for it.

use super::job::{Job, Role};
use crate::db::claim::Granted;
use crate::db::clock::SteadySecond;
use crate::domain::group::Group;
use crate::worker::clock::Moment;
use crate::worker::room::Room;

/// What goes to the gateway in one request.
pub struct Sending {
    /// The jobs.
    pub jobs: Group<Job>,
    /// The second whose quota was taken for the request.
    pub taken: SteadySecond,
}

impl Sending {
    /// Takes what was claimed in hand; the claim was asked for at this moment. `None` when the database has forgotten that
    /// this daemon has one of the jobs already (see [`Job::take`]): then nothing of it is sent.
    pub fn take(room: &Room, granted: Granted, claimed_at: Moment, role: Role) -> Option<Sending> {
        let Granted { claims, taken } = granted;
        let jobs = claims.into_iter();
        let jobs: Option<Vec<Job>> = jobs
            .map(|claim| Job::take(room, claim, claimed_at, role))
            .collect();
        let jobs = Group::of_rest(jobs?)?;
        Some(Sending { jobs, taken })
    }
}
