//! The database in trouble, under load: nothing is lost, nothing happens twice, and it is said.

mod cut;
mod down;
mod pooler;
mod recovery;
