//! YAML as a tree that knows its lines: what other gateways' configuration files need of it.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle};

/// Largest file in bytes.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// Collections within collections.
const DEPTH_MAX: usize = 64;
/// Entries of all mappings together, merged ones (`<<`) each time.
const ENTRIES_MAX: usize = 200_000;

/// What is wrong with a text, and at which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) line: usize,
    pub(super) what: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for Malformed {}

/// A value and the line on which it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// A value. What an alias repeats is shared, so that a small file is a small tree.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A scalar; quoted ones are texts whatever they look like.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Rc<Node>>),
    /// In the order of the file, merged entries first, so that of two equal keys the last one counts.
    Map(Vec<(String, Rc<Node>)>),
}

impl Node {
    /// The first document of `text`.
    pub(super) fn parse(text: &str) -> Result<Rc<Self>, Malformed> {
        if text.len() > BYTES_MAX {
            return Err(Malformed {
                line: 1,
                what: format!("the file has {} bytes, the most is {BYTES_MAX}", text.len()),
            });
        }
        Builder::default().build(text)
    }

    /// The value of a mapping's key.
    pub(super) fn at(&self, key: &str) -> Option<&Rc<Self>> {
        self.entries().iter().rev().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// A mapping's entries; of anything else none.
    pub(super) fn entries(&self) -> &[(String, Rc<Self>)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// A list's items; of anything else none.
    pub(super) fn items(&self) -> &[Rc<Self>] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Scalar { text, .. } = &self.value { Some(text) } else { None }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, quoted: false } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// As PyYAML reads it: also `True` and `yes`.
    pub(super) fn truth(&self) -> Option<bool> {
        let Value::Scalar { text, quoted: false } = &self.value else { return None };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    /// A number, `80_000` and numbers in quotes included.
    pub(super) fn number(&self) -> Option<f64> {
        let text = self.text()?.replace('_', "");
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }
}

/// A collection that is not closed yet.
enum Open {
    List(Vec<Rc<Node>>),
    Map(Vec<(String, Rc<Node>)>, Option<String>),
}

#[derive(Default)]
struct Builder {
    open: Vec<(Open, usize, usize)>,
    anchors: HashMap<usize, Rc<Node>>,
    entries: usize,
    root: Option<Rc<Node>>,
}

impl Builder {
    fn build(mut self, text: &str) -> Result<Rc<Node>, Malformed> {
        let options = granit_parser::options! {
            flow_nesting_limit: DEPTH_MAX,
            block_nesting_limit: DEPTH_MAX,
        };
        for next in Parser::new_from_str_with_options(text, options) {
            let (event, span) =
                next.map_err(|error| Malformed { line: error.marker().line(), what: error.to_string() })?;
            let line = span.start.line();
            match event {
                Event::Scalar(text, style, anchor, _) => {
                    let quoted = style != ScalarStyle::Plain;
                    self.put(Node { line, value: Value::Scalar { text: text.into_owned(), quoted } }, anchor)?;
                }
                Event::SequenceStart(_, anchor, _) => self.begin(Open::List(Vec::new()), anchor, line)?,
                Event::MappingStart(_, anchor, _) => self.begin(Open::Map(Vec::new(), None), anchor, line)?,
                Event::SequenceEnd | Event::MappingEnd => self.end()?,
                Event::Alias(anchor) => {
                    // An alias of what is still open would be a ring.
                    let what = "an alias stands within what it repeats".to_owned();
                    let node = self.anchors.get(&anchor).cloned().ok_or(Malformed { line, what })?;
                    self.add(node, line)?;
                }
                Event::DocumentEnd => break,
                _ => {}
            }
        }
        self.root.ok_or(Malformed { line: 1, what: "the file is empty".to_owned() })
    }

    fn begin(&mut self, open: Open, anchor: usize, line: usize) -> Result<(), Malformed> {
        if let Some((Open::Map(_, None), _, _)) = self.open.last() {
            return Err(Malformed { line, what: "a key must be a text".to_owned() });
        }
        self.open.push((open, anchor, line));
        Ok(())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        let Some((open, anchor, line)) = self.open.pop() else { return Ok(()) };
        let value = match open {
            Open::List(items) => Value::List(items),
            Open::Map(entries, _) => Value::Map(self.merged(entries, line)?),
        };
        self.put(Node { line, value }, anchor)
    }

    /// With what `<<` brings in first.
    fn merged(&mut self, entries: Vec<(String, Rc<Node>)>, line: usize) -> Result<Vec<(String, Rc<Node>)>, Malformed> {
        let mut merged = Vec::new();
        for (_, node) in entries.iter().filter(|(key, _)| key == "<<") {
            merged.extend_from_slice(node.entries());
            // The first of a list counts most, so it comes last.
            node.items().iter().rev().for_each(|item| merged.extend_from_slice(item.entries()));
        }
        self.entries += merged.len() + entries.len();
        if self.entries > ENTRIES_MAX {
            return Err(Malformed {
                line,
                what: format!("the file has over {ENTRIES_MAX} entries, merged ones included"),
            });
        }
        merged.extend(entries.into_iter().filter(|(key, _)| key != "<<"));
        Ok(merged)
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Malformed> {
        let line = node.line;
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.add(node, line)
    }

    fn add(&mut self, node: Rc<Node>, line: usize) -> Result<(), Malformed> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((Open::List(items), _, _)) => items.push(node),
            Some((Open::Map(entries, key), _, _)) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => match &node.value {
                    Value::Scalar { text, .. } => *key = Some(text.clone()),
                    Value::List(_) | Value::Map(_) => {
                        return Err(Malformed { line, what: "a key must be a text".to_owned() });
                    }
                },
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Rc<Node> {
        Node::parse(text).unwrap()
    }

    #[test]
    fn a_tree_knows_its_values_and_its_lines() {
        let root = parse("a: 1\nb:\n  - x: 'yes'\n    y: yes\n  - 80_000\nc:\nd: {e: [1.5e-6, \"2\"]}\n");
        assert_eq!(root.at("a").unwrap().number(), Some(1.0));
        let first = &root.at("b").unwrap().items()[0];
        assert_eq!((first.line, first.at("x").unwrap().truth(), first.at("y").unwrap().truth()), (3, None, Some(true)));
        assert_eq!(root.at("b").unwrap().items()[1].number(), Some(80_000.0));
        assert!(root.at("c").unwrap().is_null());
        let numbers = root.at("d").unwrap().at("e").unwrap();
        assert_eq!(numbers.items().iter().map(|item| item.number().unwrap()).collect::<Vec<_>>(), [1.5e-6, 2.0]);
        assert!(root.at("z").is_none());
    }

    #[test]
    fn merged_keys_are_there_and_a_key_of_ones_own_goes_first() {
        let root = parse(
            "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\nboth:\n  <<: [*base, *more]\n  a: 9\none:\n  b: 7\n  <<: *base\n",
        );
        let number = |map: &str, key: &str| root.at(map).unwrap().at(key).unwrap().number().unwrap();
        assert_eq!([number("both", "a"), number("both", "b"), number("both", "c")], [9.0, 2.0, 4.0]);
        assert_eq!([number("one", "a"), number("one", "b")], [1.0, 7.0]);
    }

    #[test]
    fn hostile_texts_are_refused_with_a_line() {
        let laughs: String =
            (1..40).map(|at| format!("l{at}: &l{at} [{}]\n", format!("*l{},", at - 1).repeat(9))).collect();
        parse(&format!("l0: &l0 [x]\n{laughs}"));
        let merges: String = (1..40).map(|at| format!("m{at}: &m{at}\n  <<: [*m{0}, *m{0}]\n", at - 1)).collect();
        let deep = "[".repeat(100_000);
        let cases = [
            "",
            "a: [1",
            "a: *nobody",
            "a: &a [*a]",
            "? [x]\n: y",
            "? {x: y}\n: y",
            &deep,
            &format!("m0: &m0 {{a: 1, b: 2}}\n{merges}"),
            &"x".repeat(BYTES_MAX + 1),
        ];
        for text in cases {
            let error = Node::parse(text).unwrap_err();
            assert!(error.line >= 1 && !error.what.is_empty(), "{error}");
        }
    }

    #[test]
    fn only_the_first_document_counts() {
        assert_eq!(parse("a: 1\n---\na: 2\n").at("a").unwrap().number(), Some(1.0));
    }
}
