//! Reading JSON without building it: the members of an object and the elements of an array stay the bytes they are.
//!
//! A translation copies what it does not change, so a string goes from one body into the other as it was escaped.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Error;

/// A JSON value as it was written.
pub(crate) type Raw<'a> = &'a RawValue;

/// The members of an object, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members<'a>(Vec<(Cow<'a, str>, Raw<'a>)>);

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(Keys)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(Cow<'de, str>, Raw<'de>)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some(Key(key)) = map.next_key()? {
                    members.push((key, map.next_value()?));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object).map(Self)
    }
}

impl<'a> Members<'a> {
    /// The members of the object that `text` is.
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, serde_json::Error> {
        read(text)
    }

    /// The members of a value of the request; `field` names it where it is no object.
    pub(crate) fn of(raw: Raw<'a>, field: &str) -> Result<Self, Error> {
        serde_json::from_str(raw.get()).map_err(|_| Error::field(field, "must be an object"))
    }

    /// The members of a value, none if it is no object.
    pub(crate) fn lenient(raw: Raw<'a>) -> Self {
        serde_json::from_str(raw.get()).unwrap_or_default()
    }

    /// The last member of that name. `null` is as good as absent.
    pub(crate) fn get(&self, name: &str) -> Option<Raw<'a>> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, raw)| *raw).filter(|raw| raw.get() != "null")
    }

    /// Whether there is a member of that name, be it `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// The member of that name as a string, if it is one.
    pub(crate) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).and_then(text)
    }

    /// All members, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Raw<'a>)> {
        self.0.iter().map(|(key, raw)| (key.as_ref(), *raw))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A body or frame as `T`. serde would take an array for a struct as well; here only an object is one.
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Option<T> {
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') {
        return None;
    }
    read(text).ok()
}

/// Looks at the whole text once for whether it is UTF-8, and not again at each string in it.
fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, serde_json::Error> {
    serde_json::from_str(std::str::from_utf8(text).map_err(serde::de::Error::custom)?)
}

/// What sort of value it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Object,
    Array,
    Text,
    Number,
    Flag,
    Null,
}

/// The sort of a value, by its first byte.
pub(crate) fn sort(raw: Raw<'_>) -> Sort {
    match raw.get().as_bytes().first() {
        Some(b'{') => Sort::Object,
        Some(b'[') => Sort::Array,
        Some(b'"') => Sort::Text,
        Some(b't' | b'f') => Sort::Flag,
        Some(b'n') | None => Sort::Null,
        Some(_) => Sort::Number,
    }
}

/// A string without its escapes; `None` if it is no string or its escapes are half a character.
pub(crate) fn text(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    let inner = inner(raw)?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw.get()).ok().map(Cow::Owned)
}

/// What is between the quotes of a string, as it was escaped.
pub(crate) fn inner(raw: Raw<'_>) -> Option<&str> {
    raw.get().strip_prefix('"')?.strip_suffix('"')
}

/// What stands between the quotes of a string without its escapes; none, if half a character is in it.
pub(crate) fn unescaped(inner: &str) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(&format!("\"{inner}\"")).ok().map(Cow::Owned)
}

/// Whether it is a string with something in it.
pub(crate) fn says_something(raw: Raw<'_>) -> bool {
    inner(raw).is_some_and(|inner| !inner.is_empty())
}

/// The elements of an array of the request.
pub(crate) fn elements<'a>(raw: Raw<'a>, field: &str) -> Result<Vec<Raw<'a>>, Error> {
    serde_json::from_str(raw.get()).map_err(|_| Error::field(field, "must be an array"))
}

/// The elements of an array, none if it is no array.
pub(crate) fn lenient_elements(raw: Raw<'_>) -> Vec<Raw<'_>> {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

/// A whole number that is not negative; `5.0` is one.
pub(crate) fn whole(raw: Raw<'_>) -> Option<u64> {
    let text = raw.get();
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        // Above 2^53 neighbours cannot be told apart any more.
        (number >= 0.0 && number.fract() == 0.0 && number <= 9_007_199_254_740_992.0).then_some(number as u64)
    })
}

/// `true` or `false`.
pub(crate) fn flag(raw: Raw<'_>) -> Option<bool> {
    match raw.get() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_their_bytes() {
        let members = Members::parse(br#"{"b": 1.50, "a":{"x" : [1, 2]},"a":null}"#).unwrap();
        let seen: Vec<_> = members.iter().map(|(key, raw)| (key, raw.get())).collect();
        assert_eq!(seen, [("b", "1.50"), ("a", r#"{"x" : [1, 2]}"#), ("a", "null")]);
        assert!(members.get("a").is_none(), "the last one counts, and null is absent");
    }

    #[test]
    fn a_string_without_escapes_is_borrowed() {
        let members = Members::parse(br#"{"a":"plain","b":"line\nbreak","c":"\ud800"}"#).unwrap();
        assert!(matches!(members.text("a"), Some(Cow::Borrowed("plain"))));
        assert_eq!(members.text("b").unwrap(), "line\nbreak");
        assert!(members.text("c").is_none(), "half a character is no text");
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        let number = |text: &str| whole(&RawValue::from_string(text.to_owned()).unwrap());
        assert_eq!(number("7"), Some(7));
        assert_eq!(number("5.0"), Some(5));
        assert_eq!(number("1e3"), Some(1000));
        assert_eq!(number("18446744073709551615"), Some(u64::MAX));
        assert_eq!(number("-1"), None);
        assert_eq!(number("5.5"), None);
        assert_eq!(number("1e300"), None);
        assert_eq!(number("\"5\""), None);
    }
}
