//! include/ocbus.h is what cbindgen makes of the sources.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;

#[test]
fn the_header_is_that_of_the_sources() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let mut header = Vec::new();
    cbindgen::generate_with_config(folder, config).unwrap().write(&mut header);
    let header = String::from_utf8(header).unwrap();
    let path = folder.join("include/ocbus.h");
    if std::env::var_os("OCBUS_WRITE_HEADER").is_some() {
        std::fs::write(&path, &header).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == header,
        "include/ocbus.h is stale: OCBUS_WRITE_HEADER=1 cargo test -p libocbus --test header"
    );
}

#[test]
fn the_version_script_names_the_functions_of_the_header() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let words = |text: &str, end: &str| -> Vec<String> {
        let is_name = |character: char| character == '_' || character.is_ascii_alphanumeric();
        let mut found: Vec<String> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with(['*', '/']))
            .filter_map(|line| line.split(end).next().filter(|before| before.len() < line.len()))
            .filter_map(|before| before.rsplit(|character| !is_name(character)).next())
            .filter(|word| word.starts_with("ocbus_"))
            .map(str::to_owned)
            .collect();
        found.sort();
        found
    };
    let exported = words(&read("ocbus.map"), ";");
    assert!(exported.len() > 30, "{exported:?}");
    assert_eq!(exported, words(&read("include/ocbus.h"), "("));
}
