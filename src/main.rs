//! apipayd
fn main() {}
