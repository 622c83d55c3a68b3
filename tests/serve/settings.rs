//! The settings, their file in packaging/ and their table in docs/ say the same.

use std::collections::BTreeSet;
use std::path::Path;

use ocbus::gateway::Settings;

const FILE: &str = include_str!("../../packaging/ocbus.toml");
const TABLE: &str = include_str!("../../docs/settings.md");

/// The file with its settings switched on: those with defaults, and with the examples too if wanted.
fn switched_on(examples: bool) -> String {
    let mut lines = Vec::new();
    let mut example = false;
    for line in FILE.lines() {
        example = match line {
            "" => false,
            line if line.starts_with("# Example: ") => true,
            line if line.starts_with("# ") => {
                example && lines.last().is_some_and(|last: &&str| last.starts_with('#'))
            }
            _ => example,
        };
        let setting = line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' '));
        lines.push(match setting {
            Some(setting) if examples || !example => setting,
            _ => line,
        });
    }
    lines.join("\n")
}

fn parse(text: &str) -> Settings {
    Settings::parse(text, Path::new("packaging/ocbus.toml")).unwrap_or_else(|error| panic!("{error}"))
}

/// `http.listen` and the like, as they stand in a file.
fn keys(text: &str) -> BTreeSet<String> {
    fn walk(prefix: &str, value: &toml::Value, keys: &mut BTreeSet<String>) {
        match value {
            // Any user may stand in it.
            toml::Value::Table(_) if prefix == "users.table" => drop(keys.insert(prefix.to_owned())),
            toml::Value::Table(table) => {
                let dot = if prefix.is_empty() { "" } else { "." };
                table.iter().for_each(|(key, value)| walk(&format!("{prefix}{dot}{key}"), value, keys));
            }
            toml::Value::Array(values) if values.iter().any(toml::Value::is_table) => {
                values.iter().for_each(|value| walk(prefix, value, keys));
            }
            _ => drop(keys.insert(prefix.to_owned())),
        }
    }
    let mut all = BTreeSet::new();
    walk("", &toml::Value::Table(text.parse().unwrap()), &mut all);
    all
}

/// What a section takes, as its error for an unknown key tells it.
fn known(section: &str) -> BTreeSet<String> {
    let text = format!("{section}nonsense = 1");
    let error = Settings::parse(&text, Path::new("x")).unwrap_err().to_string();
    let (_, list) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}"));
    list.split(", ").map(|key| format!("{section}{}", key.trim_matches('\''))).collect()
}

#[test]
fn the_file_has_the_defaults_as_it_is_and_switched_on() {
    assert_eq!(parse(FILE), Settings::default());
    assert_eq!(parse(&switched_on(false)), Settings::default());
}

#[test]
fn the_file_with_its_examples_has_every_key() {
    let text = switched_on(true);
    let settings = parse(&text);
    assert_eq!(settings.http.credentials.len(), 2);
    assert!(
        settings.http.tls.is_some() && !settings.users.table.is_empty() && settings.users.patterns.len() == 1
    );
    let there = keys(&text);
    let sections =
        ["", "http.", "users.", "publisher.", "outbox.", "handover.", "embedded.", "registration."];
    let wanted: BTreeSet<String> = sections.iter().flat_map(|section| known(section)).collect();
    for key in wanted {
        let found = there.iter().any(|one| *one == key || one.starts_with(&format!("{key}.")));
        // One place of a secret is enough.
        let file = there.contains(&format!("{}_file", key.trim_end_matches("_env")));
        assert!(found || file, "{key} is not in packaging/ocbus.toml: {there:?}");
    }
}

#[test]
fn the_table_has_every_key_and_no_other() {
    let heading = TABLE.find("## The daemon").expect("a section for the daemon");
    let section = &TABLE[heading..];
    let section = &section[..section[3..].find("\n## ").map_or(section.len(), |end| end + 3)];
    let told: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .flat_map(|line| {
            line.split(" |").next().unwrap().trim_end_matches(" **R**").split("`, `").collect::<Vec<_>>()
        })
        .map(|key| key.trim_matches('`').to_owned())
        .collect();
    let mut there = keys(&switched_on(true));
    // The other two places of a secret.
    for key in ["password", "bearer"] {
        there.extend(["", "_file", "_env"].map(|place| format!("http.credentials.{key}{place}")));
    }
    for key in ["api_key", "password"] {
        there.extend(["", "_file", "_env"].map(|place| format!("registration.{key}{place}")));
    }
    assert_eq!(told, there);
}
