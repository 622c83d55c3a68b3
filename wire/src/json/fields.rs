use serde_json::{Map, Value};

use super::FieldError;

/// The most characters of a wrong value that an error shows.
const MAX_SHOWN: usize = 60;

/// A JSON object read field by field, so that a fault names its field and what would be right.
///
/// A field that was read is gone; `null` is the same as no field.
#[derive(Debug)]
pub struct Fields {
    /// Where the object stands: `events[0].`, or nothing.
    path: String,
    fields: Map<String, Value>,
}

impl Fields {
    /// The object that a text is.
    pub fn parse(text: &str) -> Result<Fields, FieldError> {
        Fields::parse_at(String::new(), text)
    }

    /// The object that a text is, which stands at `path` of a larger one (`events[0].`).
    pub(super) fn parse_at(path: String, text: &str) -> Result<Fields, FieldError> {
        match serde_json::from_str(text) {
            Ok(value) => Fields::of(path, value),
            Err(error) => Err(FieldError::new(place_of(&path), error.to_string())),
        }
    }

    pub(crate) fn of(path: String, value: Value) -> Result<Fields, FieldError> {
        match value {
            Value::Object(fields) => Ok(Fields { path, fields }),
            other => Err(FieldError::new(place_of(&path), format!("{}: expected an object", shown(&other)))),
        }
    }

    /// The name of a field with where it stands.
    pub fn place(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// A fault of the field `name`.
    pub fn fault(&self, name: &str, problem: impl Into<String>) -> FieldError {
        FieldError::new(self.place(name), problem)
    }

    /// The fields that stand there unread and say something.
    pub fn names(&self) -> Vec<String> {
        self.fields.iter().filter(|(_, value)| !is_nothing(value)).map(|(name, _)| name.clone()).collect()
    }

    /// Reads a field as it is.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// Reads past fields that say nothing here.
    pub fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.fields.remove(*name);
        }
    }

    /// A text.
    pub fn string(&mut self, name: &str) -> Result<Option<String>, FieldError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.fault(name, format!("{}: expected a string", shown(&other)))),
        }
    }

    /// An array of texts.
    pub fn strings(&mut self, name: &str) -> Result<Vec<String>, FieldError> {
        let place = self.place(name);
        let text = |(at, value)| match value {
            Value::String(text) => Ok(text),
            other => Err(FieldError::new(
                format!("{place}[{at}]"),
                format!("{}: expected a string", shown(&other)),
            )),
        };
        self.array(name)?.into_iter().enumerate().map(text).collect()
    }

    /// An array of anything.
    pub fn array(&mut self, name: &str) -> Result<Vec<Value>, FieldError> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(self.fault(name, format!("{}: expected an array", shown(&other)))),
        }
    }

    /// An array of objects.
    pub fn objects(&mut self, name: &str) -> Result<Vec<Fields>, FieldError> {
        let place = self.place(name);
        let object = |(at, value)| Fields::of(format!("{place}[{at}]."), value);
        self.array(name)?.into_iter().enumerate().map(object).collect()
    }

    /// A number from 0 to the largest of its type.
    pub fn number<T: Unsigned>(&mut self, name: &str) -> Result<Option<T>, FieldError> {
        let place = self.place(name);
        self.take(name).map(|value| number(&place, &value)).transpose()
    }

    /// True or false.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, FieldError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.fault(name, format!("{}: expected true or false", shown(&other)))),
        }
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// Whether a field is this text.
    pub fn is(&self, name: &str, text: &str) -> bool {
        self.fields.get(name).is_some_and(|value| value == text)
    }

    /// One character.
    pub fn character(&mut self, name: &str) -> Result<Option<char>, FieldError> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(Some(character)),
            _ => Err(self.fault(name, format!("{text:?}: expected one character"))),
        }
    }

    /// What a reader that needs the field says without it.
    pub fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T, FieldError> {
        value.ok_or_else(|| self.fault(name, "missing"))
    }

    /// All fields must have been read: whoever misspells one shall know. `known` are those there are.
    pub fn finish(self, known: &[&str]) -> Result<(), FieldError> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(name) => {
                let problem = format!("unknown field: expected {}", known.join(", "));
                Err(self.fault(&name.escape_debug().to_string(), problem))
            }
        }
    }
}

/// Where an object stands, in an error.
fn place_of(path: &str) -> &str {
    if path.is_empty() { "JSON" } else { path.trim_end_matches('.') }
}

/// The unsigned numbers that a field can be.
pub trait Unsigned: TryFrom<u64> {
    /// The largest.
    const MAX: u64;
}

impl Unsigned for u8 {
    const MAX: u64 = u8::MAX as u64;
}

impl Unsigned for u16 {
    const MAX: u64 = u16::MAX as u64;
}

impl Unsigned for u32 {
    const MAX: u64 = u32::MAX as u64;
}

impl Unsigned for u64 {
    const MAX: u64 = u64::MAX;
}

/// The number that a value at `place` is: in decimal, or as the string `0x...`, in which OpenChange's wide ones
/// are written. `7.0` is 7: Lua's numbers come so.
pub fn number<T: Unsigned>(place: &str, value: &Value) -> Result<T, FieldError> {
    let number = match value {
        Value::String(text) => {
            let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
            // from_str_radix would take a sign.
            digits
                .filter(|digits| !digits.starts_with('+'))
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        }
        value => value.as_u64().or_else(|| value.as_f64().and_then(whole)),
    };
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        let (shown, max) = (shown(value), T::MAX);
        FieldError::new(place, format!("{shown}: expected 0 to {max} (or \"0x0\" to \"0x{max:x}\")"))
    })
}

/// A float that is a whole number, up to where floats can tell all of those (2^53).
fn whole(float: f64) -> Option<u64> {
    const LAST: f64 = 9_007_199_254_740_992.0;
    if !(0.0..=LAST).contains(&float) || float.fract() != 0.0 {
        return None;
    }
    // It is whole and in range: nothing is cut off.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some(float as u64)
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// A value in an error: its beginning.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
