//! Writing JSON straight into bytes: an object or array closes itself when it goes out of scope.

use serde_json::value::RawValue;

/// An object that is being written.
pub(crate) struct Object<'w> {
    out: &'w mut Vec<u8>,
    first: bool,
}

/// An array that is being written.
pub(crate) struct Array<'w> {
    out: &'w mut Vec<u8>,
    first: bool,
}

/// `text` as a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes every write");
}

/// `number` in decimal.
pub(crate) fn number(out: &mut Vec<u8>, number: u64) {
    serde_json::to_writer(out, &number).expect("a vector takes every write");
}

impl<'w> Object<'w> {
    /// Opens an object at the end of `out`.
    pub(crate) fn new(out: &'w mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Writes a key; the value is written to the bytes by the caller.
    pub(crate) fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        string(self.out, key);
        self.out.push(b':');
        self.out
    }

    pub(crate) fn raw(&mut self, key: &str, value: &RawValue) {
        self.json(key, value.get());
    }

    /// A value that is JSON already.
    pub(crate) fn json(&mut self, key: &str, value: &str) {
        self.key(key).extend_from_slice(value.as_bytes());
    }

    pub(crate) fn raw_if(&mut self, key: &str, value: Option<&RawValue>) {
        if let Some(value) = value {
            self.raw(key, value);
        }
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        string(self.key(key), value);
    }

    /// A string whose text is escaped already.
    pub(crate) fn escaped(&mut self, key: &str, inner: &str) {
        let out = self.key(key);
        out.push(b'"');
        out.extend_from_slice(inner.as_bytes());
        out.push(b'"');
    }

    pub(crate) fn number(&mut self, key: &str, value: u64) {
        number(self.key(key), value);
    }

    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.json(key, if value { "true" } else { "false" });
    }

    pub(crate) fn null(&mut self, key: &str) {
        self.json(key, "null");
    }

    pub(crate) fn object(&mut self, key: &str) -> Object<'_> {
        Object::new(self.key(key))
    }

    pub(crate) fn array(&mut self, key: &str) -> Array<'_> {
        Array::new(self.key(key))
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        self.out.push(b'}');
    }
}

impl<'w> Array<'w> {
    /// Opens an array at the end of `out`.
    pub(crate) fn new(out: &'w mut Vec<u8>) -> Self {
        out.push(b'[');
        Self { out, first: true }
    }

    /// Begins an element; its value is written to the bytes by the caller.
    pub(crate) fn element(&mut self) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out
    }

    pub(crate) fn raw(&mut self, value: &RawValue) {
        self.element().extend_from_slice(value.get().as_bytes());
    }

    pub(crate) fn text(&mut self, value: &str) {
        string(self.element(), value);
    }

    pub(crate) fn object(&mut self) -> Object<'_> {
        Object::new(self.element())
    }
}

impl Drop for Array<'_> {
    fn drop(&mut self) {
        self.out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_is_closed_in_order() {
        let mut out = Vec::new();
        {
            let mut object = Object::new(&mut out);
            object.text("a\"b", "c\n");
            {
                let mut list = object.array("list");
                list.object().number("n", 7);
                list.text("x");
                drop(list.object());
            }
            object.escaped("e", r"\u00e9");
            object.flag("f", true);
            object.null("z");
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"a\"b":"c\n","list":[{"n":7},"x",{}],"e":"\u00e9","f":true,"z":null}"#
        );
    }
}
