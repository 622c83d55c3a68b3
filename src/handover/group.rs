//! A group's number, by its name.

use super::HandOverError;

/// The number of a group in /etc/group; a number stands for itself, for groups that are somewhere else.
pub(super) fn id(name: &str) -> Result<u32, HandOverError> {
    let known = std::fs::read_to_string("/etc/group").map_err(HandOverError::Groups);
    match name.parse() {
        Ok(number) => Ok(number),
        Err(_) => find(&known?, name).ok_or_else(|| HandOverError::Group(name.escape_debug().to_string())),
    }
}

/// `name:password:number:members`, a line for each.
fn find(groups: &str, name: &str) -> Option<u32> {
    let mut fields = groups.lines().map(|line| line.split(':'));
    fields.find_map(|mut fields| match fields.next() {
        Some(first) if first == name => fields.nth(1)?.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_a_number() {
        let groups = "root:x:0:\nbad line\nvmail:x:5000:dovecot,postfix\nvmailer:x:7:\n";
        assert_eq!(find(groups, "vmail"), Some(5000));
        assert_eq!(find(groups, "mail"), None);
        assert_eq!(find(groups, "bad line"), None);
        assert_eq!(id("12345").unwrap(), 12345);
        assert_eq!(id("root").unwrap(), 0);
        assert!(id("no\nsuch").unwrap_err().to_string().contains("'no\\nsuch'"));
    }
}
