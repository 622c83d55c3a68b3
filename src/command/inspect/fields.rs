//! JSON objects read field by field, so that a fault names its field and what would be right.

use serde_json::{Map, Value};

/// The fields of one object that have not been read yet. `null` is the same as no field.
#[derive(Debug)]
pub(super) struct Fields {
    /// Where the object stands: `events[0].`, or nothing.
    path: String,
    fields: Map<String, Value>,
}

impl Fields {
    /// The object that a text is.
    pub(super) fn parse(text: &str) -> Result<Fields, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("JSON: {error}"))?;
        Fields::of(String::new(), value)
    }

    fn of(path: String, value: Value) -> Result<Fields, String> {
        match value {
            Value::Object(fields) => Ok(Fields { path, fields }),
            other => {
                let at = if path.is_empty() { "JSON" } else { path.trim_end_matches('.') };
                Err(format!("{at}: {}: expected an object", shown(&other)))
            }
        }
    }

    /// The name of a field with where it stands.
    pub(super) fn place(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// The fields that stand there unread and say something.
    pub(super) fn names(&self) -> Vec<String> {
        self.fields.iter().filter(|(_, value)| !is_nothing(value)).map(|(name, _)| name.clone()).collect()
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// Reads past fields that say nothing here.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.fields.remove(*name);
        }
    }

    pub(super) fn string(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{}: {}: expected a string", self.place(name), shown(&other))),
        }
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(format!("{}: {}: expected true or false", self.place(name), shown(&other))),
        }
    }

    /// Whether a field is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// Whether a field is this text.
    pub(super) fn is(&self, name: &str, text: &str) -> bool {
        self.fields.get(name).is_some_and(|value| value == text)
    }

    pub(super) fn strings(&mut self, name: &str) -> Result<Vec<String>, String> {
        let place = self.place(name);
        let text = |(at, value)| match value {
            Value::String(text) => Ok(text),
            other => Err(format!("{place}[{at}]: {}: expected a string", shown(&other))),
        };
        self.array(name)?.into_iter().enumerate().map(text).collect()
    }

    pub(super) fn array(&mut self, name: &str) -> Result<Vec<Value>, String> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(format!("{}: {}: expected an array", self.place(name), shown(&other))),
        }
    }

    /// An array of objects.
    pub(super) fn objects(&mut self, name: &str) -> Result<Vec<Fields>, String> {
        let place = self.place(name);
        let object = |(at, value)| Fields::of(format!("{place}[{at}]."), value);
        self.array(name)?.into_iter().enumerate().map(object).collect()
    }

    /// A number from 0 to the largest of its type.
    pub(super) fn number<T: Bounded>(&mut self, name: &str) -> Result<Option<T>, String> {
        let place = self.place(name);
        self.take(name).map(|value| number(&place, &value)).transpose()
    }

    /// One character.
    pub(super) fn character(&mut self, name: &str) -> Result<Option<char>, String> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(Some(character)),
            _ => Err(format!("{}: {text:?}: expected one character", self.place(name))),
        }
    }

    /// What a reader that needs the field says without it.
    pub(super) fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T, String> {
        value.ok_or_else(|| format!("{}: missing", self.place(name)))
    }

    /// All fields must have been read: whoever misspells one shall know. `known` are those there are.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), String> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(name) => {
                let name = name.escape_debug();
                Err(format!("{}{name}: unknown field: expected {}", self.path, known.join(", ")))
            }
        }
    }
}

/// Unsigned numbers.
pub(super) trait Bounded: TryFrom<u64> {
    const MAX: u64;
}

impl Bounded for u8 {
    const MAX: u64 = u8::MAX as u64;
}

impl Bounded for u16 {
    const MAX: u64 = u16::MAX as u64;
}

impl Bounded for u32 {
    const MAX: u64 = u32::MAX as u64;
}

impl Bounded for u64 {
    const MAX: u64 = u64::MAX;
}

/// A number, in decimal or as the string `0x...`, in which the test cases write wide ones.
pub(super) fn number<T: Bounded>(place: &str, value: &Value) -> Result<T, String> {
    let number = match value {
        Value::String(text) => {
            let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
            // from_str_radix would take a sign.
            digits
                .filter(|digits| !digits.starts_with('+'))
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        }
        value => value.as_u64(),
    };
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        format!("{place}: {}: expected 0 to {} (or \"0x0\" to \"0x{:x}\")", shown(value), T::MAX, T::MAX)
    })
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// A value in an error: its beginning.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
