//! Sets of UIDs as JSON writes them.

use serde_json::Value;

use super::fields::number;
use super::{FieldError, Fields, shown};
use crate::event::UidSet;

/// From the field `name`, and from `uid` beside `uids`: they must agree where both stand.
pub(super) fn uids(fields: &mut Fields) -> Result<Option<UidSet>, FieldError> {
    let set = uid_set_field(fields, "uids")?;
    let Some(uid) = fields.number::<u32>("uid")? else { return Ok(set) };
    let one = uid_set(&fields.place("uid"), &uid.to_string())?;
    match set {
        Some(set) if set != one => {
            Err(fields.fault("uids", format!("{set}, but uid is {uid}: expected the same")))
        }
        _ => Ok(Some(one)),
    }
}

/// `"1:3,7"` or `[1, 2, 3, 7]`.
pub(super) fn uid_set_field(fields: &mut Fields, name: &str) -> Result<Option<UidSet>, FieldError> {
    let place = fields.place(name);
    Ok(match fields.take(name) {
        None => None,
        Some(Value::String(text)) => Some(uid_set(&place, &text)?),
        Some(Value::Array(values)) => Some(listed(&place, &values)?),
        Some(other) => {
            let problem = format!("{}: expected UIDs as \"1:3,7\" or [1,2,3,7]", shown(&other));
            return Err(FieldError::new(place, problem));
        }
    })
}

/// UIDs one by one, in their order.
pub(crate) fn listed(place: &str, values: &[Value]) -> Result<UidSet, FieldError> {
    let mut set = UidSet::new();
    for (at, value) in values.iter().enumerate() {
        let place = format!("{place}[{at}]");
        match number::<u32>(&place, value)? {
            0 => return Err(FieldError::new(place, format!("0: expected a UID from 1 to {}", u32::MAX))),
            uid => set.push(uid),
        }
    }
    bounded(place, set)
}

/// `1:3,7`, as IMAP writes it.
fn uid_set(place: &str, text: &str) -> Result<UidSet, FieldError> {
    let wrong = || {
        let text = shown(&Value::from(text));
        FieldError::new(place, format!("{text}: expected UIDs from 1 to {}, as in 1:3,7", u32::MAX))
    };
    let uid = |digits: &str| {
        let decimal = digits.bytes().all(|octet| octet.is_ascii_digit());
        digits.parse().ok().filter(|&uid: &u32| decimal && uid > 0).ok_or_else(wrong)
    };
    let mut set = UidSet::new();
    for range in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        let (first, last) = (uid(first)?, uid(last)?);
        if last < first {
            return Err(wrong());
        }
        set.push_range(first, last);
    }
    bounded(place, set)
}

fn bounded(place: &str, set: UidSet) -> Result<UidSet, FieldError> {
    match set.ranges().len() {
        ranges if ranges > UidSet::MAX_RANGES => {
            Err(FieldError::new(place, format!("{ranges} ranges: expected at most {}", UidSet::MAX_RANGES)))
        }
        _ => Ok(set),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_sets() {
        assert_eq!(uid_set("uids", "1:3,7,5").unwrap().to_string(), "1:3,7,5");
        assert!(uid_set("uids", "").unwrap().is_empty());
        for wrong in ["0", "3:1", "1:", "a", "1,,2", "+1", "4294967296", "1:*"] {
            let error = uid_set("uids", wrong).unwrap_err().to_string();
            assert!(error.starts_with(&format!("uids: {wrong:?}: expected")), "{error}");
        }
    }

    #[test]
    fn uids_one_by_one() {
        let set = listed("uids", &[1.into(), 2.into(), 7.0.into(), 3.into()]).unwrap();
        assert_eq!(set.ranges(), [(1, 2), (7, 7), (3, 3)]);
        for wrong in
            [Value::from(0), (-1).into(), 1.5.into(), 4_294_967_296_u64.into(), "x".into(), Value::Null]
        {
            let error = listed("uids", &[1.into(), wrong]).unwrap_err().to_string();
            assert!(error.starts_with("uids[1]: ") && error.contains("expected"), "{error}");
        }
    }
}
