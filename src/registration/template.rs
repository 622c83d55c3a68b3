//! Texts with `{user}` in them.

use std::fmt;
use std::str::FromStr;

use ocbus_resolver::Cn;
use serde::{Deserialize, Deserializer};

/// What a template becomes must fit a line of IMAP.
const MAX_OCTETS: usize = 512;

/// A text in which `{user}` is a user's cn, `{local}` what stands before its `@`, and `{domain}` what stands behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// The text for a user.
    pub fn of(&self, cn: &Cn) -> String {
        let cn = cn.as_str();
        let (local, domain) = cn.split_once('@').unwrap_or((cn, ""));
        // One pass: a user may be called `{domain}`.
        let mut text = String::with_capacity(self.0.len() + cn.len());
        let mut rest = self.0.as_str();
        while let Some((literal, behind)) = rest.split_once('{') {
            text.push_str(literal);
            let Some((name, behind)) = behind.split_once('}') else { break };
            text.push_str(match name {
                "user" => cn,
                "local" => local,
                _ => domain,
            });
            rest = behind;
        }
        text.push_str(rest);
        text
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Template, String> {
        let wrong = |why: &str| Err(format!("'{}': {why}", text.escape_debug()));
        if text.is_empty()
            || text.len() > MAX_OCTETS
            || !text.bytes().all(|octet| matches!(octet, b' '..=b'~'))
        {
            return wrong("expected 1 to 512 octets of ASCII without control characters");
        }
        let mut rest = text;
        let mut names = 0;
        while let Some(at) = rest.find(['{', '}']) {
            let behind = rest.get(at..).unwrap_or_default();
            let name = behind.strip_prefix('{').and_then(|behind| behind.split_once('}'));
            let Some((name @ ("user" | "local" | "domain"), behind)) = name else {
                return wrong("expected {user}, {local} or {domain} in braces and no other braces");
            };
            names += u32::from(name != "domain");
            rest = behind;
        }
        match names {
            0 => wrong("expected {user} or {local} in it: it would be the same for all users"),
            _ => Ok(Template(text.to_owned())),
        }
    }
}

impl Default for Template {
    fn default() -> Template {
        Template("{user}".to_owned())
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_stand_where_the_braces_are() {
        let of =
            |template: &str, user: &str| template.parse::<Template>().unwrap().of(&Cn::new(user).unwrap());
        assert_eq!(of("user={user}", "bob@example.org"), "user=bob@example.org");
        assert_eq!(of("{local}+{domain};{user}", "bob@x"), "bob+x;bob@x");
        assert_eq!(of("{user}@example.org", "bob"), "bob@example.org");
        assert_eq!(of("{local}-{domain}", "{domain}"), "{domain}-");
    }

    #[test]
    fn wrong_templates_are_told() {
        for (text, why) in [
            ("", "1 to 512"),
            ("user=é{user}", "ASCII"),
            ("{user}\n", "ASCII"),
            ("user={name}", "{user}, {local} or {domain}"),
            ("{user", "{user}, {local} or {domain}"),
            ("}{user}", "{user}, {local} or {domain}"),
            ("user=bob", "same for all users"),
            ("{domain}", "same for all users"),
        ] {
            let error = text.parse::<Template>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
