//! A model file in outline: what goes in, what comes out, which operators are between.

use std::collections::BTreeMap;

use super::file::Dim;
use super::{Error, Graph, Limits, Model, Value, ValueKind};
use crate::base::Datatype;
use crate::engine::error::Error as EngineError;
use crate::engine::spec::{LoadSpec, TensorSpec};

/// What an ONNX file says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// What wrote it.
    pub producer: String,
    /// Domain and version; the domain of ONNX itself is empty.
    pub opsets: Vec<(String, i64)>,
    /// What goes in; initialisers that are listed among the inputs are none.
    pub inputs: Vec<Port>,
    /// What comes out.
    pub outputs: Vec<Port>,
    /// `domain.Operator` (without a domain for ONNX's own) and how often, graphs within included.
    pub operators: BTreeMap<String, usize>,
    /// The file brings functions along, which are operators of its own.
    pub has_functions: bool,
}

/// An input or output as the file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// None where the file does not say, and for a type that the protocol does not know.
    pub datatype: Option<Datatype>,
    /// None where the file does not say how many.
    pub dimensions: Option<Vec<Dimension>>,
    /// Labels with probabilities instead of a tensor, as `ZipMap` makes them.
    pub is_map: bool,
}

/// A dimension as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// A size.
    Fixed(usize),
    /// Any size, the same wherever the name stands.
    Named(String),
    /// Any size.
    Free,
}

/// The protocol's word for a `TensorProto.DataType`.
pub(in crate::engine) fn elem_datatype(elem_type: i64) -> Option<Datatype> {
    Some(match elem_type {
        1 => Datatype::Fp32,
        2 => Datatype::Uint8,
        3 => Datatype::Int8,
        4 => Datatype::Uint16,
        5 => Datatype::Int16,
        6 => Datatype::Int32,
        7 => Datatype::Int64,
        8 => Datatype::Bytes,
        9 => Datatype::Bool,
        10 => Datatype::Fp16,
        11 => Datatype::Fp64,
        12 => Datatype::Uint32,
        13 => Datatype::Uint64,
        _ => return None,
    })
}

impl Outline {
    /// Reads the outline of a file.
    pub fn of(bytes: &[u8]) -> Result<Self, Error> {
        let model = Model::read(bytes)?;
        let graph = &model.graph;
        let mut operators = BTreeMap::new();
        count(graph, &mut operators, &mut 0, 0)?;
        let functions = Graph { nodes: model.function_nodes, ..Graph::default() };
        count(&functions, &mut BTreeMap::new(), &mut 0, 0)?;
        let is_input = |value: &&Value<'_>| !graph.initialisers.iter().any(|tensor| tensor.name == value.name);
        Ok(Self {
            producer: model.producer.to_owned(),
            opsets: model.opsets.iter().map(|&(domain, version)| (domain.to_owned(), version)).collect(),
            inputs: graph.inputs.iter().filter(is_input).map(Port::of).collect(),
            outputs: graph.outputs.iter().map(Port::of).collect(),
            operators,
            has_functions: model.functions > 0,
        })
    }
}

/// The inputs and outputs of a file, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Every input.
    pub inputs: Vec<TensorSpec>,
    /// Every output.
    pub outputs: Vec<TensorSpec>,
}

impl Outline {
    /// Whether there are operators that go on for as long as a value says.
    pub fn has_loops(&self) -> bool {
        self.operators.keys().any(|title| matches!(title.rsplit('.').next(), Some("Loop" | "Scan")))
    }

    /// Inputs and outputs as a declaration. The error names the one of which the file does not say enough.
    pub fn signature(&self) -> Result<Signature, String> {
        let all = |kind, ports: &[Port]| ports.iter().map(|port| port.declared(kind)).collect::<Result<Vec<_>, _>>();
        Ok(Signature { inputs: all("input", &self.inputs)?, outputs: all("output", &self.outputs)? })
    }
}

fn count(graph: &Graph<'_>, into: &mut BTreeMap<String, usize>, nodes: &mut usize, depth: usize) -> Result<(), Error> {
    let over = |most, of| Error::Limit { what: "the model".to_owned(), most, of };
    if depth > Limits::DEPTH {
        return Err(over(Limits::DEPTH, "graphs within each other"));
    }
    for node in &graph.nodes {
        *nodes += 1;
        if *nodes > Limits::NODES {
            return Err(over(Limits::NODES, "nodes"));
        }
        *into.entry(node.title()).or_default() += 1;
        // A constant is a weight, and may claim to lie in another file.
        if node.operator == "Constant" {
            for (_, attribute) in &node.attributes {
                attribute.tensor()?;
            }
        }
        // Only these hold graphs; the attributes of a tree are long and are not read here.
        if matches!(node.operator, "If" | "Loop" | "Scan" | "SequenceMap") {
            for (_, attribute) in &node.attributes {
                for inner in attribute.graphs()? {
                    count(&inner, into, nodes, depth + 1)?;
                }
            }
        }
    }
    Ok(())
}

impl Port {
    fn of(value: &Value<'_>) -> Self {
        let (datatype, dimensions) = match &value.kind {
            ValueKind::Tensor { elem_type, dims } => {
                let dimension = |dim: &Dim<'_>| match dim {
                    Dim::Fixed(size) => usize::try_from(*size).map_or(Dimension::Free, Dimension::Fixed),
                    Dim::Named(name) => Dimension::Named((*name).to_owned()),
                    Dim::Free => Dimension::Free,
                };
                (elem_datatype(*elem_type), dims.as_ref().map(|dims| dims.iter().map(dimension).collect()))
            }
            _ => (None, None),
        };
        let is_map = matches!(value.kind, ValueKind::Sequence | ValueKind::Map);
        Self { name: value.name.to_owned(), datatype, dimensions, is_map }
    }

    /// Dimensions as the protocol writes them: -1 for any size. None where the file does not say how many.
    pub fn shape(&self) -> Option<Vec<i64>> {
        let size = |dimension: &Dimension| match dimension {
            Dimension::Fixed(size) => i64::try_from(*size).unwrap_or(-1),
            Dimension::Named(_) | Dimension::Free => -1,
        };
        Some(self.dimensions.as_ref()?.iter().map(size).collect())
    }

    fn declared(&self, kind: &str) -> Result<TensorSpec, String> {
        let spec = |datatype, shape| TensorSpec { name: self.name.as_str().into(), datatype, shape };
        if self.is_map {
            // A map's tensor has a row a row, a column a class.
            return Ok(spec(Datatype::Fp32, vec![-1, -1]));
        }
        let lacks = |what: &str| format!("the file does not say {what} of {kind} {}; declare it", self.name);
        let datatype = self.datatype.ok_or_else(|| lacks("an element type that the protocol has"))?;
        Ok(spec(datatype, self.shape().ok_or_else(|| lacks("how many dimensions"))?))
    }

    fn fits(&self, declared: &TensorSpec) -> bool {
        self.shape().is_none_or(|own| {
            own.len() == declared.shape.len()
                && own.iter().zip(&declared.shape).all(|(&own, &declared)| own == -1 || own == declared)
        })
    }
}

/// Whether the declaration agrees with the file: every input with its type and shape, and outputs that the file has. A
/// fixed dimension may be declared where the file leaves it free, not the other way round. An output's shape is not
/// compared: exporters write too much freedom and too little there, and what comes out is checked.
pub(in crate::engine) fn check_declared(spec: &LoadSpec, outline: &Outline) -> Result<(), EngineError> {
    let differs = |what: String, expected: String, given: String| {
        Err(EngineError::Declared { model: spec.title(), what, expected, given })
    };
    let names = |ports: &[Port]| ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>().join(", ");
    let declared = |specs: &[TensorSpec]| specs.iter().map(|port| port.name.to_string()).collect::<Vec<_>>().join(", ");
    for (kind, specs, ports) in [("input", &spec.inputs, &outline.inputs), ("output", &spec.outputs, &outline.outputs)]
    {
        let is_short = kind == "input" && specs.len() != ports.len();
        for spec in specs {
            let Some(port) = ports.iter().find(|port| *port.name == *spec.name) else {
                return differs(format!("{kind}s"), declared(specs), names(ports));
            };
            let given = if port.is_map { Some(Datatype::Fp32) } else { port.datatype };
            if let Some(given) = given.filter(|&given| given != spec.datatype) {
                let given = format!("{given} in the file");
                return differs(format!("datatype of {kind} {}", spec.name), spec.datatype.to_string(), given);
            }
            if kind == "input" && !port.fits(spec) {
                let given = format!("{:?} in the file", port.shape().unwrap_or_default());
                return differs(format!("shape of input {}", spec.name), format!("{:?}", spec.shape), given);
            }
        }
        if is_short {
            return differs(format!("{kind}s"), declared(specs), names(ports));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::onnx::fixture::{Given, Message, model, node, plain_node, value};

    fn scaled(extra: Vec<Message>) -> Vec<u8> {
        let mut nodes = vec![node("Scaler", &["x"], &["y"], &[("offset", Given::Floats(vec![1.0]))])];
        nodes.extend(extra);
        model(nodes, vec![value("x", Datatype::Fp32, &[-1, 3])], vec![value("y", Datatype::Fp32, &[-1, 3])])
    }

    #[test]
    fn a_file_says_what_goes_in_what_comes_out_and_what_is_between() {
        let outline = Outline::of(&scaled(Vec::new())).unwrap();
        assert_eq!(outline.producer, "a test");
        assert_eq!(outline.opsets, [("ai.onnx.ml".to_owned(), 3), (String::new(), 20)]);
        assert_eq!(outline.operators.into_iter().collect::<Vec<_>>(), [("ai.onnx.ml.Scaler".to_owned(), 1)]);
        let [input] = outline.inputs.as_slice() else { panic!("one input") };
        assert_eq!(
            (input.name.as_str(), input.datatype, input.shape()),
            ("x", Some(Datatype::Fp32), Some(vec![-1, 3]))
        );
        assert_eq!(input.dimensions.as_ref().unwrap()[0], Dimension::Named("batch".to_owned()));
    }

    #[test]
    fn every_prefix_of_a_file_is_refused_or_read_and_never_panics() {
        let whole = scaled(Vec::new());
        for length in 0..whole.len() {
            drop(Outline::of(&whole[..length]));
        }
        assert_eq!(Outline::of(&[]).unwrap_err(), Error::NoGraph);
        assert_eq!(
            Outline::of(b"weights").unwrap_err().to_string(),
            "the file is no ONNX model: an unknown kind of field at byte 1"
        );
    }

    #[test]
    fn graphs_within_graphs_have_an_end() {
        let mut inner = Message::default().message(1, node("Loop", &["x"], &["y"], &[]));
        for _ in 0..40 {
            let holder = node("Loop", &["x"], &["y"], &[("body", Given::Message(6, inner))]);
            inner = Message::default().message(1, holder);
        }
        let deep = Message::default().message(7, inner).0;
        assert_eq!(Outline::of(&deep).unwrap_err().to_string(), "the model has over 16 graphs within each other");
    }

    #[test]
    fn weights_in_another_file_are_refused_with_its_name() {
        let location = Message::default().text(1, "location").text(2, "../../etc/passwd");
        let tensor = Message::default().text(8, "w").whole(2, 1).message(13, location).whole(14, 1);
        let graph = Message::default().message(5, tensor.clone());
        let says = "the weights of w lie in another file (../../etc/passwd); save the model as one file";
        let error = |file: Message| Outline::of(&file.0).unwrap_err().to_string();
        assert_eq!(error(Message::default().message(7, graph)), says);
        // As a constant, in a function, and as a weight that is mostly 0.
        let constant = plain_node("Constant", &[], &["y"], &[("value", Given::Message(5, tensor.clone()))]);
        let empty = || Message::default().message(7, Message::default().text(2, "empty"));
        assert_eq!(error(Message::default().message(7, Message::default().message(1, constant.clone()))), says);
        assert_eq!(error(empty().message(25, Message::default().text(1, "f").message(7, constant))), says);
        let sparse = Message::default().message(15, Message::default().message(1, tensor));
        assert_eq!(error(Message::default().message(7, sparse)), says);
    }
}
