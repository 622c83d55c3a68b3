/// A mailbox under its two names.
///
/// Users know `Projects/2026` with the namespace's separator; the storage knows `Projects.2026` in modified
/// UTF-7 with the list's separator (Maildir). OpenChange's payload carries the second pair, as observed from
/// its plugin; everything else wants the first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    /// Name in UTF-8 as users see it (Dovecot's vname).
    pub name: String,
    /// Hierarchy separator of `name`: the namespace's.
    pub separator: char,
    /// Name as the storage has it: modified UTF-7 unless the storage is set to UTF-8.
    pub storage_name: String,
    /// Hierarchy separator of `storage_name`: the mailbox list's.
    pub list_separator: char,
}

impl Mailbox {
    /// A mailbox whose two names are `name`, in modified UTF-7 for the storage.
    pub fn new(name: impl Into<String>, separator: char) -> Mailbox {
        let name = name.into();
        let storage_name = crate::openchange::mutf7::encode(&name);
        Mailbox { name, separator, storage_name, list_separator: separator }
    }

    /// A mailbox known by its storage name only, as OpenChange's payload has it. The UTF-8 name is decoded
    /// from modified UTF-7; a storage name that is not modified UTF-7 stands for itself.
    pub fn from_storage(storage_name: impl Into<String>, list_separator: char) -> Mailbox {
        let storage_name = storage_name.into();
        let name = crate::openchange::mutf7::decode(&storage_name).unwrap_or_else(|| storage_name.clone());
        Mailbox { name, separator: list_separator, storage_name, list_separator }
    }

    /// Whether this is the Inbox, whose name is case-insensitive (RFC 3501, 5.1).
    pub fn is_inbox(&self) -> bool {
        self.name.eq_ignore_ascii_case("INBOX")
    }
}
