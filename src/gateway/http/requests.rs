//! How many requests to which path were answered how. Paths are those of the routes, so that there is a bounded number.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::state::Gateway;

/// A request to a path that is none of ours.
const ELSEWHERE: &str = "other";

/// By path, by status.
#[derive(Debug, Default)]
pub(super) struct Requests(Mutex<BTreeMap<String, BTreeMap<u16, u64>>>);

impl Requests {
    fn add(&self, path: &str, status: u16) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !paths.contains_key(path) {
            paths.insert(path.to_owned(), BTreeMap::new());
        }
        if let Some(statuses) = paths.get_mut(path) {
            *statuses.entry(status).or_default() += 1;
        }
    }

    /// Path, status, requests.
    pub(super) fn all(&self) -> Vec<(String, u16, u64)> {
        let paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let each = |(path, statuses): (&String, &BTreeMap<u16, u64>)| {
            let path = path.clone();
            statuses.iter().map(move |(status, count)| (path.clone(), *status, *count)).collect::<Vec<_>>()
        };
        paths.iter().flat_map(each).collect()
    }
}

pub(super) async fn count(
    State(gateway): State<Gateway>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let path = path.as_ref().map_or(ELSEWHERE, MatchedPath::as_str);
    gateway.requests().add(path, response.status().as_u16());
    response
}
