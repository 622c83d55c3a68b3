//! The folders of one user whose ids are known, or asked for.

use std::collections::HashMap;
use std::sync::Arc;

use ocbus_wire::Mailbox;
use ocbus_wire::ropnotify::FolderId;

use super::QueryId;

/// A folder by its name, whatever its separator; the Inbox in one spelling, and the folder above the top-level ones
/// without a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FolderKey(Arc<str>);

/// Stands for the separator; no mailbox name has it.
const SEPARATOR: &str = "\0";

impl FolderKey {
    pub(super) fn of(mailbox: Option<&Mailbox>) -> FolderKey {
        FolderKey(match mailbox {
            None => "".into(),
            Some(mailbox) if mailbox.is_inbox() => "INBOX".into(),
            Some(mailbox) => mailbox.name.replace(mailbox.separator, SEPARATOR).into(),
        })
    }

    /// Whether it is the other, or below it.
    fn is_within(&self, other: &FolderKey) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with(SEPARATOR))
    }
}

/// The folder above; `None` above the top-level ones.
pub(super) fn parent(mailbox: &Mailbox) -> Option<Mailbox> {
    let (name, _) = mailbox.name.rsplit_once(mailbox.separator)?;
    let storage_name = match mailbox.storage_name.rsplit_once(mailbox.list_separator) {
        Some((above, _)) => above.to_owned(),
        // Its storage has another tree: the name that users see is the best there is.
        None => ocbus_wire::openchange::mutf7::encode(name),
    };
    Some(Mailbox { name: name.to_owned(), storage_name, ..mailbox.clone() })
}

#[derive(Debug, Default)]
pub(super) struct Folders {
    by_key: HashMap<FolderKey, Folder>,
}

#[derive(Debug, Clone, Copy)]
struct Folder {
    /// The id that it had last; kept for resyncs when it is to be asked again.
    folder: Option<FolderId>,
    state: State,
    /// The UIDVALIDITY and the order of its youngest event.
    youngest: Option<(Option<u32>, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Known,
    Asked(QueryId),
    Stale,
}

/// What is known of a folder's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    Known(FolderId),
    Asked(QueryId),
    Unknown,
}

impl Folders {
    pub(super) fn lookup(&self, key: &FolderKey) -> Lookup {
        match self.by_key.get(key) {
            Some(Folder { folder: Some(folder), state: State::Known, .. }) => Lookup::Known(*folder),
            Some(Folder { state: State::Asked(query), .. }) => Lookup::Asked(*query),
            _ => Lookup::Unknown,
        }
    }

    /// The folder is asked for. One more than `most`: another is forgotten.
    pub(super) fn asked(&mut self, key: FolderKey, query: QueryId, most: usize) {
        if !self.by_key.contains_key(&key) && self.by_key.len() >= most {
            let asked = |folder: &Folder| matches!(folder.state, State::Asked(_));
            let victim = self.by_key.iter().find(|(_, folder)| !asked(folder)).map(|(key, _)| key.clone());
            match victim {
                Some(victim) => drop(self.by_key.remove(&victim)),
                // All of them are asked for: this one is not remembered, and asked again.
                None => return,
            }
        }
        let known = self.by_key.get(&key);
        let (folder, youngest) = known.map_or((None, None), |known| (known.folder, known.youngest));
        self.by_key.insert(key, Folder { folder, state: State::Asked(query), youngest });
    }

    /// The question is answered. An answer about a folder that was renamed or deleted meanwhile is not remembered.
    pub(super) fn answered(&mut self, key: &FolderKey, query: QueryId, folder: Option<FolderId>) {
        let Some(known) = self.by_key.get_mut(key).filter(|known| known.state == State::Asked(query)) else {
            return;
        };
        match (folder, known.folder) {
            (Some(folder), _) => (known.folder, known.state) = (Some(folder), State::Known),
            (None, Some(_)) => known.state = State::Stale,
            (None, None) => drop(self.by_key.remove(key)),
        }
    }

    /// The folder, and those below it, are no longer what they were.
    pub(super) fn forget(&mut self, key: &FolderKey) {
        self.by_key.retain(|own, _| !own.is_within(key));
    }

    /// Something may have been missed: ids are asked again.
    pub(super) fn stale(&mut self, key: Option<&FolderKey>) {
        for (own, folder) in &mut self.by_key {
            if folder.state == State::Known && key.is_none_or(|key| key == own) {
                folder.state = State::Stale;
            }
        }
    }

    /// Whether no event of the folder was younger: the processes of a mail server do not tell in the order in which they
    /// change a mailbox, and counts that are older than what was told already are wrong.
    pub(super) fn is_youngest(&mut self, key: &FolderKey, uid_validity: Option<u32>, order: u64) -> bool {
        let Some(folder) = self.by_key.get_mut(key) else { return false };
        let older = |(of, last): (Option<u32>, u64)| of == uid_validity && last > order;
        if folder.youngest.is_some_and(older) {
            return false;
        }
        folder.youngest = Some((uid_validity, order));
        true
    }

    /// Whether there is an id, old as it may be.
    pub(super) fn has_id(&self, key: &FolderKey) -> bool {
        self.by_key.get(key).is_some_and(|folder| folder.folder.is_some())
    }

    /// All ids that are known.
    pub(super) fn ids(&self) -> Vec<FolderId> {
        self.by_key.values().filter_map(|folder| folder.folder).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> FolderKey {
        FolderKey::of(Some(&Mailbox::new(name, '/')))
    }

    #[test]
    fn a_folder_is_the_same_whatever_its_separator() {
        assert_eq!(key("Projects/2026"), FolderKey::of(Some(&Mailbox::from_storage("Projects.2026", '.'))));
        assert_eq!(key("inbox"), key("INBOX"));
        assert_ne!(key("Projects"), FolderKey::of(None));
        assert!(key("A/B").is_within(&key("A")) && !key("AB").is_within(&key("A")));
    }

    #[test]
    fn the_folder_above_has_both_names() {
        let mut mailbox = Mailbox::new("Ä/B/C", '/');
        mailbox.storage_name = "&AMQ-.B.C".to_owned();
        mailbox.list_separator = '.';
        let above = parent(&mailbox).unwrap();
        assert_eq!((above.name.as_str(), above.storage_name.as_str()), ("Ä/B", "&AMQ-.B"));
        assert_eq!(parent(&Mailbox::new("Top", '/')), None);
    }

    #[test]
    fn only_so_many_are_remembered_and_those_asked_for_stay() {
        let mut folders = Folders::default();
        let query = QueryId::from_u64(1);
        folders.asked(key("a"), query, 2);
        folders.asked(key("b"), query, 2);
        folders.answered(&key("a"), query, Some(FolderId::from_u64(1)));
        folders.asked(key("c"), query, 2);
        assert_eq!(folders.lookup(&key("a")), Lookup::Unknown, "forgotten");
        folders.asked(key("d"), query, 2);
        assert_eq!(folders.lookup(&key("b")), Lookup::Asked(query));
        assert_eq!(folders.lookup(&key("d")), Lookup::Unknown, "no place");
    }

    #[test]
    fn the_youngest_event_of_a_folder_is_known() {
        let mut folders = Folders::default();
        assert!(!folders.is_youngest(&key("a"), Some(1), 5), "nobody knows");
        folders.asked(key("a"), QueryId::from_u64(1), 9);
        assert!(folders.is_youngest(&key("a"), Some(1), 5));
        folders.answered(&key("a"), QueryId::from_u64(1), Some(FolderId::from_u64(1)));
        folders.asked(key("a"), QueryId::from_u64(2), 9);
        assert!(!folders.is_youngest(&key("a"), Some(1), 4));
        assert!(folders.is_youngest(&key("a"), Some(1), 5), "of the same commit");
        assert!(folders.is_youngest(&key("a"), Some(2), 1), "the mailbox was made anew");
    }

    #[test]
    fn an_answer_about_a_folder_that_was_forgotten_meanwhile_is_not_remembered() {
        let mut folders = Folders::default();
        let (first, second) = (QueryId::from_u64(1), QueryId::from_u64(2));
        folders.asked(key("a/x"), first, 9);
        folders.forget(&key("a"));
        folders.answered(&key("a/x"), first, Some(FolderId::from_u64(1)));
        assert_eq!(folders.lookup(&key("a/x")), Lookup::Unknown);
        folders.asked(key("a/x"), second, 9);
        folders.answered(&key("a/x"), first, Some(FolderId::from_u64(1)));
        assert_eq!(folders.lookup(&key("a/x")), Lookup::Asked(second));
        folders.answered(&key("a/x"), second, Some(FolderId::from_u64(2)));
        folders.stale(None);
        assert_eq!(
            (folders.lookup(&key("a/x")), folders.ids()),
            (Lookup::Unknown, vec![FolderId::from_u64(2)])
        );
    }
}
