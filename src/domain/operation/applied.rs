//! How far the gateway is with what was asked.

use crate::domain::object::Object;

/// What a successful answer says was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object it was done to, as the answer shows it.
    pub seen: Object,
    /// Whether that ends the job.
    pub progress: Progress,
}

/// How far the gateway is with what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Done: the job succeeded.
    Done,
    /// Accepted and under way: follow it.
    UnderWay,
    /// Nothing of it is to be seen: the object is as it was before.
    NotStarted,
    /// It ended without being done; the object's error code says why.
    Failed,
}
