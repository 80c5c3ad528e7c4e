//! The database in trouble, under load: nothing is lost, nothing happens twice, and it is said.

mod cut;
mod down;
mod durability;
mod full;
mod hints;
mod history;
mod one_row;
mod pooler;
mod read_only;
mod recovery;
mod refusals;
mod settings;
