//! The decisions of a publisher, shared by the plugin's blocking one and the async one: which endpoints get
//! which octets ([`plan()`]), and what the outcome of a send means for the user's records ([`judge`],
//! [`Verdicts`]). No I/O.

mod plan;
mod verdict;

pub use plan::{Options, Payload, Plan, Send, Skipped, Target, plan};
pub use verdict::{Outcome, Verdict, Verdicts, judge};
