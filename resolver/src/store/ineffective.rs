use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::config::Config;

/// More different options than there are would mean that their values differ; nobody wants to read that.
const MOST: usize = 64;

/// Tells the options that change nothing here, each once a process. (The plugin, which has no tracing, does it by itself.)
pub(super) fn tell(config: &Config) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    for option in config.ineffective() {
        if told.len() < MOST && told.insert(option.clone()) {
            tracing::info!(event = "option_without_effect", option, "accepted; it changes nothing in ocbus");
        }
    }
}
