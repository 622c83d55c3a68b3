//! The command; see the next commits.
fn main() {}
