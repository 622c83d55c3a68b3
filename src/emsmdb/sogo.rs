//! SOGo's URIs of folders and messages, under which OpenChange's indexing database has their ids.
//!
//! `sogo://USER:USER@mail/`, `folderNAME/` for each part of the folder's storage name, the message's name. Behind
//! `mail/` a space is `_SP_`, `_` is `_U_` and `@` is `_A_`; an `@` in USER is `%40`. The storage name is the one that
//! Dovecot's plugin tells: modified UTF-7, which stays as it is.

use ocbus_wire::Mailbox;

/// The URI of a folder; `None` is the one above the top-level folders.
pub fn folder_uri(user: &str, mailbox: Option<&Mailbox>) -> String {
    let user = user.replace('@', "%40");
    let mut uri = format!("sogo://{user}:{user}@mail/");
    if let Some(mailbox) = mailbox {
        // As in the new-mail payload: no name means the Inbox.
        let name = if mailbox.storage_name.is_empty() { "INBOX" } else { &mailbox.storage_name };
        for part in name.split(mailbox.list_separator) {
            uri.push_str("folder");
            escape(part, &mut uri);
            uri.push('/');
        }
    }
    uri
}

/// The URI of a message in the folder with this URI. `name` is the one that the event has; otherwise it is made of the
/// UID: `7.eml`.
pub fn message_uri(folder_uri: &str, uid: Option<u32>, name: Option<&str>) -> String {
    let mut uri = folder_uri.to_owned();
    match (name, uid) {
        (Some(name), _) => escape(name, &mut uri),
        (None, Some(uid)) => uri.push_str(&format!("{uid}.eml")),
        (None, None) => {}
    }
    uri
}

fn escape(part: &str, uri: &mut String) {
    for character in part.chars() {
        match character {
            ' ' => uri.push_str("_SP_"),
            '_' => uri.push_str("_U_"),
            '@' => uri.push_str("_A_"),
            other => uri.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(user: &str, storage_name: &str, separator: char) -> String {
        folder_uri(user, Some(&Mailbox::from_storage(storage_name, separator)))
    }

    #[test]
    fn each_part_of_a_folder_has_its_own_prefix() {
        assert_eq!(uri("bob", "INBOX", '/'), "sogo://bob:bob@mail/folderINBOX/");
        assert_eq!(uri("bob", "", '/'), "sogo://bob:bob@mail/folderINBOX/");
        assert_eq!(uri("bob", "Projects.2026", '.'), "sogo://bob:bob@mail/folderProjects/folder2026/");
        assert_eq!(uri("bob", "Projects.2026", '/'), "sogo://bob:bob@mail/folderProjects.2026/");
        assert_eq!(folder_uri("bob", None), "sogo://bob:bob@mail/");
    }

    #[test]
    fn what_sogo_escapes_is_escaped_behind_mail_only() {
        assert_eq!(
            uri("a_b@example.org", "My mails_@x", '/'),
            "sogo://a_b%40example.org:a_b%40example.org@mail/folderMy_SP_mails_U__A_x/"
        );
        // An escape in the name is not taken for ours.
        assert_eq!(uri("bob", "a_SP_b", '/'), "sogo://bob:bob@mail/foldera_U_SP_U_b/");
    }

    #[test]
    fn modified_utf7_stays_as_the_storage_has_it() {
        let mailbox = Mailbox::new("Entwürfe", '/');
        assert_eq!(folder_uri("bob", Some(&mailbox)), "sogo://bob:bob@mail/folderEntw&APw-rfe/");
    }

    #[test]
    fn a_message_is_named_by_its_uid_or_by_its_name() {
        let folder = uri("bob", "INBOX", '/');
        assert_eq!(message_uri(&folder, Some(7), None), "sogo://bob:bob@mail/folderINBOX/7.eml");
        assert_eq!(
            message_uri(&folder, Some(7), Some("8 a.eml")),
            "sogo://bob:bob@mail/folderINBOX/8_SP_a.eml"
        );
        assert_eq!(message_uri(&folder, None, None), folder);
    }
}
