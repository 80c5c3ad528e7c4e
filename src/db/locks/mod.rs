//! What is locked, and who holds it: a row that a statement waits for, or one that every claim or check passes over, so
//! that nobody would know.

mod entry;
mod holders;
mod in_the_way;
mod jobs;
mod mirrors;
mod unnamed;
mod waiting;

pub use entry::{holder, is_of_others};
pub use holders::{Blocker, Holder, Prepared, Session};
pub use in_the_way::{InTheWay, in_the_way, kept_accounts, of_tables};
pub use jobs::{Locked, LockedJob, among, due_jobs, free_jobs, held, open_transactions};
pub use mirrors::{LockedMirror, due_mirrors};
pub(super) use waiting::awaited_by;
