//! Whose mailbox it is: from the `user` of a request to the cn under which subscribers register.
//!
//! Dovecot sends the login name, or with `user_from_metadata` whatever stands in the mailbox's METADATA (`12@3`:
//! user 12 in context 3). In order: the table, the patterns, then the rule for all others.

use std::collections::BTreeMap;
use std::str::FromStr;

use ocbus_resolver::{Cn, CnError};
use serde::Deserialize;

/// `[users]`: how a request's user becomes a cn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsersSettings {
    /// What of a login name is the cn, as the plugin's `openchange_cn`.
    pub cn: CnRule,
    /// Users with a cn of their own: `"12@3" = "bob"`. Looked at first; ASCII case counts for nothing.
    #[serde(deserialize_with = "table")]
    pub table: BTreeMap<String, String>,
    /// Users that are rewritten: the first pattern that fits the whole user counts.
    pub patterns: Vec<Pattern>,
}

/// What of a login name is the cn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CnRule {
    /// What stands before the `@`.
    #[default]
    Username,
    /// All of it.
    Email,
}

/// `user = "{id:digits}@{context:digits}"`, `cn = "user{id}-{context}"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawPattern")]
pub struct Pattern {
    user: Vec<Part>,
    cn: Vec<Part>,
    /// Both as written.
    text: (String, String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPattern {
    user: String,
    cn: String,
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name { name: String, digits: bool },
}

/// Why a pattern is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// A brace without its partner, or something else than a name in it.
    #[error(
        "'{0}': expected names in braces, as {{user}} or {{user:digits}}, of ASCII letters, digits and '_'"
    )]
    Braces(String),
    /// Nothing says where the first ends.
    #[error("'{0}': two names side by side: expected text between them, as in {{user}}@{{domain}}")]
    Adjacent(String),
    /// A name twice in `user`.
    #[error("'{pattern}': {{{name}}} twice: expected each name once")]
    Twice {
        /// The pattern.
        pattern: String,
        /// The name.
        name: String,
    },
    /// A name in `cn` that is not in `user`.
    #[error("cn '{pattern}': {{{name}}} is not in the pattern's user")]
    NoSuchName {
        /// The template.
        pattern: String,
        /// The name.
        name: String,
    },
    /// Every user would become the same.
    #[error("cn '{0}': expected at least one name in braces; one user's cn belongs into users.table")]
    Constant(String),
}

impl UsersSettings {
    /// The cn of a request's user.
    ///
    /// # Errors
    /// When no subscriber can have registered under what comes out (it is empty, has spaces, ...).
    pub fn cn(&self, user: &str) -> Result<Cn, CnError> {
        if let Some(cn) = self.table.get(&user.to_ascii_lowercase()) {
            return Cn::new(cn);
        }
        if let Some(cn) = self.patterns.iter().find_map(|pattern| pattern.rewrite(user)) {
            return Cn::new(&cn);
        }
        match self.cn {
            CnRule::Email => Cn::new(user),
            CnRule::Username => Cn::new(user.split('@').next().unwrap_or(user)),
        }
    }
}

impl Pattern {
    fn new(user: &str, cn: &str) -> Result<Pattern, PatternError> {
        let text = (user.to_owned(), cn.to_owned());
        let pattern = Pattern { user: parts(user)?, cn: parts(cn)?, text };
        let mut names: Vec<&str> = Vec::new();
        for name in pattern.user.iter().filter_map(Part::name) {
            if names.contains(&name) {
                return Err(PatternError::Twice { pattern: user.to_owned(), name: name.to_owned() });
            }
            names.push(name);
        }
        let is_name = |part: &Part| part.name().is_some();
        if pattern.user.windows(2).any(|pair| pair.iter().all(is_name)) {
            return Err(PatternError::Adjacent(user.to_owned()));
        }
        if let Some(name) = pattern.cn.iter().filter_map(Part::name).find(|name| !names.contains(name)) {
            return Err(PatternError::NoSuchName { pattern: cn.to_owned(), name: name.to_owned() });
        }
        match pattern.cn.iter().any(is_name) {
            true => Ok(pattern),
            false => Err(PatternError::Constant(cn.to_owned())),
        }
    }

    /// What becomes of a user that fits; `None` for one that does not.
    fn rewrite(&self, user: &str) -> Option<String> {
        let mut rest = user;
        let mut values: Vec<(&str, &str)> = Vec::new();
        let mut parts = self.user.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Text(text) => rest = rest.strip_prefix(text.as_str())?,
                Part::Name { name, digits } => {
                    // Up to the first place where the text behind it stands.
                    let end = match parts.peek() {
                        Some(Part::Text(text)) => rest.find(text.as_str())?,
                        _ => rest.len(),
                    };
                    let (value, behind) = rest.split_at_checked(end)?;
                    let fits =
                        !value.is_empty() && (!digits || value.bytes().all(|octet| octet.is_ascii_digit()));
                    if !fits {
                        return None;
                    }
                    values.push((name, value));
                    rest = behind;
                }
            }
        }
        if !rest.is_empty() {
            return None;
        }
        let value = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Name { name, .. } => values
                .iter()
                .find(|(known, _)| known == name)
                .map_or_else(String::new, |(_, value)| (*value).to_owned()),
        };
        Some(self.cn.iter().map(value).collect())
    }

    /// The pattern and its template, as written.
    pub fn text(&self) -> (&str, &str) {
        (&self.text.0, &self.text.1)
    }
}

impl Part {
    fn name(&self) -> Option<&str> {
        match self {
            Part::Text(_) => None,
            Part::Name { name, .. } => Some(name),
        }
    }
}

impl TryFrom<RawPattern> for Pattern {
    type Error = PatternError;

    fn try_from(raw: RawPattern) -> Result<Pattern, PatternError> {
        Pattern::new(&raw.user, &raw.cn)
    }
}

impl FromStr for CnRule {
    type Err = String;

    fn from_str(text: &str) -> Result<CnRule, String> {
        match text {
            "username" => Ok(CnRule::Username),
            "email" => Ok(CnRule::Email),
            other => Err(format!("'{}': expected username or email", other.escape_debug())),
        }
    }
}

fn parts(text: &str) -> Result<Vec<Part>, PatternError> {
    let wrong = || PatternError::Braces(text.to_owned());
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (literal, behind) = match rest.find(['{', '}']) {
            Some(at) => rest.split_at_checked(at).ok_or_else(wrong)?,
            None => (rest, ""),
        };
        if !literal.is_empty() {
            parts.push(Part::Text(literal.to_owned()));
        }
        if behind.is_empty() {
            break;
        }
        let (inner, behind) = behind.strip_prefix('{').and_then(|b| b.split_once('}')).ok_or_else(wrong)?;
        let (name, digits) = match inner.split_once(':') {
            None => (inner, false),
            Some((name, "digits")) => (name, true),
            Some(_) => return Err(wrong()),
        };
        if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_') {
            return Err(wrong());
        }
        parts.push(Part::Name { name: name.to_owned(), digits });
        rest = behind;
    }
    Ok(parts)
}

fn table<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let table = BTreeMap::<String, String>::deserialize(deserializer)?;
    for (user, cn) in &table {
        Cn::new(cn).map_err(|error| {
            serde::de::Error::custom(format_args!(
                "'{}' = '{}': {error}",
                user.escape_debug(),
                cn.escape_debug()
            ))
        })?;
    }
    Ok(table.into_iter().map(|(user, cn)| (user.to_ascii_lowercase(), cn)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(toml: &str) -> UsersSettings {
        toml::from_str(toml).unwrap()
    }

    fn cn(users: &UsersSettings, user: &str) -> String {
        users.cn(user).unwrap().to_string()
    }

    #[test]
    fn the_rule_for_login_names() {
        let (username, email) = (users(""), users("cn = 'email'"));
        assert_eq!(cn(&username, "Bob@Example.org"), "bob");
        assert_eq!(cn(&username, "bob"), "bob");
        assert_eq!(cn(&email, "Bob@Example.org"), "bob@example.org");
        assert!(username.cn("@example.org").is_err(), "nothing before the @");
        assert!(email.cn("bob smith").is_err(), "memcached's keys have no spaces");
    }

    #[test]
    fn table_first_then_patterns_then_the_rule() {
        let users = users(
            "cn = 'email'\n[table]\n'12@3' = 'alice'\n'Carol@X' = 'caroline'\n\
             [[patterns]]\nuser = '{id:digits}@{context:digits}'\ncn = 'u{id}.{context}'\n\
             [[patterns]]\nuser = '{name}@{host}.intern'\ncn = '{name}@{host}.example.org'\n",
        );
        assert_eq!(cn(&users, "12@3"), "alice");
        assert_eq!(cn(&users, "carol@x"), "caroline");
        assert_eq!(cn(&users, "13@3"), "u13.3");
        assert_eq!(cn(&users, "bob@mail.intern"), "bob@mail.example.org");
        for other in ["13@", "@3", "13@3x", "x13@3", "bob@example.org", "bob@.intern2"] {
            assert_eq!(cn(&users, other), other, "fits no pattern");
        }
    }

    #[test]
    fn wrong_patterns_are_named() {
        for (user, wrong, why) in [
            ("{a", "{a}", "braces"),
            ("a}", "x", "braces"),
            ("{a:hex}", "{a}", "braces"),
            ("{}", "x", "braces"),
            ("{a}{b}", "{a}", "side by side"),
            ("{a}@{a}", "{a}", "twice"),
            ("{a}", "{b}", "{b} is not in"),
            ("{a}", "everybody", "users.table"),
        ] {
            let error = Pattern::new(user, wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{user} -> {wrong}: {error}");
        }
        let error = toml::from_str::<UsersSettings>("[table]\n'12@3' = 'two words'").unwrap_err().to_string();
        assert!(error.contains("two words"), "{error}");
    }
}
