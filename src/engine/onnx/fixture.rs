//! ONNX files for tests of this room, written field by field.

use crate::base::Datatype;

/// A message's bytes.
#[derive(Debug, Clone, Default)]
pub(in crate::engine) struct Message(pub(in crate::engine) Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(in crate::engine) fn whole(mut self, number: u64, value: i64) -> Self {
        self.varint(number << 3);
        self.varint(value.cast_unsigned());
        self
    }

    pub(in crate::engine) fn bytes(mut self, number: u64, value: &[u8]) -> Self {
        self.varint(number << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    #[allow(clippy::needless_pass_by_value, reason = "messages are built from the inside out")]
    pub(in crate::engine) fn message(self, number: u64, value: Self) -> Self {
        self.bytes(number, &value.0)
    }

    pub(in crate::engine) fn text(self, number: u64, value: &str) -> Self {
        self.bytes(number, value.as_bytes())
    }
}

/// An attribute's value.
#[derive(Debug, Clone)]
pub(in crate::engine) enum Given {
    Whole(i64),
    Text(&'static str),
    Wholes(Vec<i64>),
    Floats(Vec<f32>),
    Texts(Vec<&'static str>),
    Message(u64, Message),
}

/// A node of `ai.onnx.ml`, called by its operator.
pub(in crate::engine) fn node(operator: &str, inputs: &[&str], outputs: &[&str], given: &[(&str, Given)]) -> Message {
    plain_node(operator, inputs, outputs, given).text(7, "ai.onnx.ml")
}

/// A node of ONNX's own set, called by its operator.
pub(in crate::engine) fn plain_node(
    operator: &str,
    inputs: &[&str],
    outputs: &[&str],
    given: &[(&str, Given)],
) -> Message {
    let mut node = Message::default().text(3, operator).text(4, operator);
    for input in inputs {
        node = node.text(1, input);
    }
    for output in outputs {
        node = node.text(2, output);
    }
    for (name, value) in given {
        let mut attribute = Message::default().text(1, name);
        match value {
            Given::Whole(value) => attribute = attribute.whole(3, *value),
            Given::Text(value) => attribute = attribute.text(4, value),
            Given::Wholes(values) => {
                for value in values {
                    attribute = attribute.whole(8, *value);
                }
            }
            Given::Floats(values) => {
                let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                attribute = attribute.bytes(7, &packed);
            }
            Given::Texts(values) => {
                for value in values {
                    attribute = attribute.text(9, value);
                }
            }
            Given::Message(number, value) => attribute = attribute.message(*number, value.clone()),
        }
        node = node.message(5, attribute);
    }
    node
}

/// An input or output; dimensions below 0 are called `batch`.
pub(in crate::engine) fn value(name: &str, datatype: Datatype, dims: &[i64]) -> Message {
    let elem_type = (0..32).find(|&number| super::elem_datatype(number) == Some(datatype)).unwrap();
    let mut shape = Message::default();
    for &dim in dims {
        let dim = if dim < 0 { Message::default().text(2, "batch") } else { Message::default().whole(1, dim) };
        shape = shape.message(1, dim);
    }
    let tensor = Message::default().whole(1, elem_type).message(2, shape);
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

/// A file with these nodes.
pub(in crate::engine) fn model(nodes: Vec<Message>, inputs: Vec<Message>, outputs: Vec<Message>) -> Vec<u8> {
    let mut graph = Message::default();
    for node in nodes {
        graph = graph.message(1, node);
    }
    for input in inputs {
        graph = graph.message(11, input);
    }
    for output in outputs {
        graph = graph.message(12, output);
    }
    let opset = |domain: &str, version| Message::default().text(1, domain).whole(2, version);
    let file = Message::default().whole(1, 10).text(2, "a test").message(7, graph);
    file.message(8, opset("ai.onnx.ml", 3)).message(8, opset("", 20)).0
}
