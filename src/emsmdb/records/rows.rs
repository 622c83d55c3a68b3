//! Which rows may be given to a client. Whoever appends a row knows a table as `subscription:` had it some time ago; by
//! the time it is fetched the client may have set other columns, or opened something else under the same handle. A row
//! does not say for which columns it was made. No I/O, no clock.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use crate::emsmdb::engine::{OpenHandle, TableView};

/// How long rows may come that were made for what a record said before. Whoever makes them may ask three questions for
/// each, of a minute at most (`query_timeout`).
const STALE: Duration = Duration::from_secs(200);

/// Released handles that are remembered. Of more, the rows of all tables are taken for old ones for a while.
const MAX_GONE: usize = 1_024;

/// What others know of the tables of a session, or knew a short time ago.
#[derive(Debug, Default)]
pub(super) struct Rows {
    known: HashMap<u32, Known>,
    none_until: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    /// What the record says. `None`: nothing any more.
    table: Option<u64>,
    /// It said something else before: rows may have been made for that.
    good_from: Option<Instant>,
}

/// Of what a record says of a table, what a row depends on.
fn number(view: &TableView) -> u64 {
    let mut hasher = DefaultHasher::new();
    (view.kind, view.folder.as_u64(), &view.columns).hash(&mut hasher);
    hasher.finish()
}

impl Rows {
    /// Takes note of what others can read from now on. `again`: memcached was away, and what others made before may
    /// come only now.
    pub(super) fn written(&mut self, open: &[OpenHandle], again: bool, now: Instant) {
        let later = now + STALE;
        let listening =
            |of: &OpenHandle| Some((of.handle, number(of.table.as_ref().filter(|table| table.listens)?)));
        let mut tables: HashMap<u32, u64> = open.iter().filter_map(listening).collect();
        self.known.retain(|handle, known| {
            let table = tables.remove(handle);
            if known.table != table {
                (known.table, known.good_from) = (table, Some(later));
            } else if again && known.good_from.is_some() {
                known.good_from = Some(later);
            }
            known.table.is_some() || known.good_from.is_some_and(|good_from| now < good_from)
        });
        for (handle, table) in tables {
            self.known.insert(handle, Known { table: Some(table), good_from: None });
        }
        let gone = self.known.values().filter(|known| known.table.is_none()).count();
        if gone > MAX_GONE {
            self.known.retain(|_, known| known.table.is_some());
            self.none_until = Some(later);
        }
    }

    /// Whether a row that waits for a table was made for the table as it is now.
    pub(super) fn are_good(&self, handle: u32, view: &TableView, now: Instant) -> bool {
        let known = self.known.get(&handle).filter(|known| known.table == Some(number(view)));
        let past = |until: Option<Instant>| until.is_none_or(|until| until <= now);
        past(self.none_until) && known.is_some_and(|known| past(known.good_from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emsmdb::engine::TableKind;
    use ocbus_wire::ropnotify::FolderId;

    fn view(columns: &[u32]) -> TableView {
        let folder = FolderId::from_u64(1);
        TableView { kind: TableKind::Contents, folder, columns: columns.into(), listens: true }
    }

    fn open(handle: u32, columns: &[u32]) -> OpenHandle {
        OpenHandle { handle, logon_id: 0, table: Some(view(columns)) }
    }

    #[test]
    fn rows_are_good_for_the_columns_that_the_record_has_had_for_a_while() {
        let (mut rows, now) = (Rows::default(), Instant::now());
        assert!(!rows.are_good(7, &view(&[1]), now), "nobody can know of it");
        rows.written(&[open(7, &[1])], true, now);
        assert!(rows.are_good(7, &view(&[1]), now), "nothing was there before");
        assert!(!rows.are_good(7, &view(&[2]), now), "set, and not written yet");
        rows.written(&[open(7, &[2])], false, now);
        assert!(!rows.are_good(7, &view(&[2]), now), "others may not have read it yet");
        assert!(rows.are_good(7, &view(&[2]), now + STALE));
        // memcached was away: what was made before may have waited for it.
        rows.written(&[open(7, &[2])], true, now + STALE);
        assert!(!rows.are_good(7, &view(&[2]), now + STALE));
        assert!(rows.are_good(7, &view(&[2]), now + 2 * STALE));
    }

    #[test]
    fn a_handle_that_is_used_again_is_another_table() {
        let (mut rows, now) = (Rows::default(), Instant::now());
        rows.written(&[open(7, &[1])], false, now);
        rows.written(&[], false, now);
        rows.written(&[open(7, &[1])], false, now);
        assert!(!rows.are_good(7, &view(&[1]), now));
        rows.written(&[], false, now);
        // Long ago: as if it had never been.
        rows.written(&[], false, now + STALE);
        assert!(rows.known.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut rows, now) = (Rows::default(), Instant::now());
        for handle in 0..=u32::try_from(MAX_GONE + 1).unwrap() {
            rows.written(&[open(handle, &[1])], false, now);
        }
        rows.written(&[open(7, &[2])], false, now);
        assert!(rows.known.len() <= MAX_GONE + 1, "{}", rows.known.len());
        assert!(!rows.are_good(7, &view(&[2]), now), "when in doubt");
        assert!(rows.are_good(7, &view(&[2]), now + STALE));
    }
}
