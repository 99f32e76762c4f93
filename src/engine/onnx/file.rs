//! The messages of `onnx.proto` that a reader needs, by their field numbers there.

use super::wire::{Field, Reader};
use super::{Error, Limits};

/// `ModelProto`.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Model<'a> {
    /// Domain and version; the domain of ONNX itself is empty.
    pub(in crate::engine) opsets: Vec<(&'a str, i64)>,
    pub(in crate::engine) producer: &'a str,
    pub(in crate::engine) graph: Graph<'a>,
    /// Names of functions that the file brings along: an operator of these is a graph of its own.
    pub(in crate::engine) functions: usize,
    /// The nodes in all of them.
    pub(super) function_nodes: Vec<Node<'a>>,
}

/// `GraphProto`.
#[derive(Debug, Clone, Default)]
pub(in crate::engine) struct Graph<'a> {
    pub(in crate::engine) nodes: Vec<Node<'a>>,
    pub(in crate::engine) initialisers: Vec<TensorData<'a>>,
    pub(in crate::engine) inputs: Vec<Value<'a>>,
    pub(in crate::engine) outputs: Vec<Value<'a>>,
}

/// `NodeProto`.
#[derive(Debug, Clone, Default)]
pub(in crate::engine) struct Node<'a> {
    pub(in crate::engine) name: &'a str,
    pub(in crate::engine) domain: &'a str,
    pub(in crate::engine) operator: &'a str,
    pub(in crate::engine) inputs: Vec<&'a str>,
    pub(in crate::engine) outputs: Vec<&'a str>,
    /// Decoded when they are asked for: those of a tree are most of a file.
    pub(in crate::engine) attributes: Vec<(&'a str, Attribute<'a>)>,
}

/// `AttributeProto`, its value not yet decoded.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Attribute<'a>(Reader<'a>);

/// `TensorProto`, its elements not yet decoded.
#[derive(Debug, Clone)]
pub(in crate::engine) struct TensorData<'a> {
    pub(in crate::engine) name: &'a str,
    pub(in crate::engine) dims: Vec<i64>,
    pub(in crate::engine) elem_type: i64,
    pub(super) fields: Reader<'a>,
}

/// `ValueInfoProto`.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Value<'a> {
    pub(in crate::engine) name: &'a str,
    pub(in crate::engine) kind: ValueKind<'a>,
}

/// `TypeProto`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::engine) enum ValueKind<'a> {
    Tensor {
        elem_type: i64,
        /// None where the file says nothing of it, not even how many dimensions.
        dims: Option<Vec<Dim<'a>>>,
    },
    /// Of maps: what `ZipMap` makes.
    Sequence,
    Map,
    #[default]
    Unknown,
}

/// `TensorShapeProto.Dimension`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::engine) enum Dim<'a> {
    Fixed(i64),
    Named(&'a str),
    Free,
}

fn push<T>(list: &mut Vec<T>, item: T, most: usize, of: &'static str) -> Result<(), Error> {
    if list.len() >= most {
        return Err(Error::Limit { what: "a graph or node".to_owned(), most, of });
    }
    list.push(item);
    Ok(())
}

/// Calls `each` with every field of a message.
fn fields<'a>(
    mut reader: Reader<'a>,
    mut each: impl FnMut(u64, Field<'a>, &Reader<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    while let Some((number, field)) = reader.next()? {
        each(number, field, &reader)?;
    }
    Ok(())
}

impl<'a> Model<'a> {
    /// Reads a file, in time and memory proportional to its length.
    pub(in crate::engine) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut model = Self {
            opsets: Vec::new(),
            producer: "",
            graph: Graph::default(),
            functions: 0,
            function_nodes: Vec::new(),
        };
        let mut graph = None;
        fields(Reader::new(bytes), |number, field, within| {
            match number {
                2 => model.producer = field.message(within)?.text()?,
                7 => graph = Some(field.message(within)?),
                8 => {
                    let (mut domain, mut version) = ("", 0);
                    fields(field.message(within)?, |number, field, within| {
                        match number {
                            1 => domain = field.message(within)?.text()?,
                            2 => version = field.whole(within)?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    let domain = if domain == "ai.onnx" { "" } else { domain };
                    push(&mut model.opsets, (domain, version), Limits::PER_NODE, "operator sets")?;
                }
                25 => {
                    model.functions += 1;
                    fields(field.message(within)?, |number, field, within| match number {
                        7 => {
                            push(&mut model.function_nodes, Node::read(field.message(within)?)?, Limits::NODES, "nodes")
                        }
                        _ => Ok(()),
                    })?;
                }
                _ => {}
            }
            Ok(())
        })?;
        model.graph = Graph::read(graph.ok_or(Error::NoGraph)?)?;
        Ok(model)
    }
}

impl<'a> Graph<'a> {
    fn read(reader: Reader<'a>) -> Result<Self, Error> {
        let mut graph = Self::default();
        fields(reader, |number, field, within| {
            match number {
                1 => push(&mut graph.nodes, Node::read(field.message(within)?)?, Limits::NODES, "nodes")?,
                5 => {
                    let tensor = TensorData::read(field.message(within)?)?;
                    push(&mut graph.initialisers, tensor, Limits::VALUES, "initialisers")?;
                }
                11 => push(&mut graph.inputs, Value::read(field.message(within)?)?, Limits::VALUES, "inputs")?,
                // Weights that are mostly 0: nobody here computes them, and they may lie elsewhere like others.
                15 => fields(field.message(within)?, |number, field, within| match number {
                    1 | 2 => TensorData::read(field.message(within)?).map(|_| ()),
                    _ => Ok(()),
                })?,
                12 => push(&mut graph.outputs, Value::read(field.message(within)?)?, Limits::VALUES, "outputs")?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(graph)
    }
}

impl<'a> Node<'a> {
    fn read(reader: Reader<'a>) -> Result<Self, Error> {
        let mut node = Self::default();
        fields(reader, |number, field, within| {
            let most = Limits::PER_NODE;
            match number {
                1 => push(&mut node.inputs, field.message(within)?.text()?, most, "inputs")?,
                2 => push(&mut node.outputs, field.message(within)?.text()?, most, "outputs")?,
                3 => node.name = field.message(within)?.text()?,
                4 => node.operator = field.message(within)?.text()?,
                5 => {
                    let attribute = field.message(within)?;
                    let mut name = "";
                    fields(attribute, |number, field, within| {
                        if number == 1 {
                            name = field.message(within)?.text()?;
                        }
                        Ok(())
                    })?;
                    push(&mut node.attributes, (name, Attribute(attribute)), most, "attributes")?;
                }
                7 => node.domain = field.message(within)?.text()?,
                _ => {}
            }
            Ok(())
        })?;
        if node.domain == "ai.onnx" {
            node.domain = "";
        }
        Ok(node)
    }

    /// `domain.Operator`, without a domain for ONNX's own.
    pub(in crate::engine) fn title(&self) -> String {
        if self.domain.is_empty() { self.operator.to_owned() } else { format!("{}.{}", self.domain, self.operator) }
    }
}

impl<'a> Attribute<'a> {
    fn last<T>(
        self,
        number: u64,
        read: impl Fn(Field<'a>, &Reader<'a>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let mut last = None;
        fields(self.0, |given, field, within| {
            if given == number {
                last = Some(read(field, within)?);
            }
            Ok(())
        })?;
        Ok(last)
    }

    pub(in crate::engine) fn float(self) -> Result<Option<f32>, Error> {
        self.last(2, Field::float)
    }

    pub(in crate::engine) fn whole(self) -> Result<Option<i64>, Error> {
        self.last(3, Field::whole)
    }

    pub(in crate::engine) fn text(self) -> Result<Option<&'a str>, Error> {
        self.last(4, |field, within| field.message(within)?.text())
    }

    pub(in crate::engine) fn tensor(self) -> Result<Option<TensorData<'a>>, Error> {
        self.last(5, |field, within| TensorData::read(field.message(within)?))
    }

    pub(in crate::engine) fn floats(self) -> Result<Vec<f32>, Error> {
        let mut values = Vec::new();
        fields(self.0, |number, field, within| if number == 7 { field.floats(within, &mut values) } else { Ok(()) })?;
        Ok(values)
    }

    pub(in crate::engine) fn wholes(self) -> Result<Vec<i64>, Error> {
        let mut values = Vec::new();
        fields(self.0, |number, field, within| if number == 8 { field.wholes(within, &mut values) } else { Ok(()) })?;
        Ok(values)
    }

    pub(in crate::engine) fn texts(self) -> Result<Vec<&'a [u8]>, Error> {
        let mut values = Vec::new();
        fields(self.0, |number, field, within| {
            if number == 9 {
                values.push(field.message(within)?.bytes());
            }
            Ok(())
        })?;
        Ok(values)
    }

    /// Graphs within, such as a loop's body.
    pub(in crate::engine) fn graphs(self) -> Result<Vec<Graph<'a>>, Error> {
        let mut graphs = Vec::new();
        fields(self.0, |number, field, within| {
            if number == 6 || number == 11 {
                graphs.push(Graph::read(field.message(within)?)?);
            }
            Ok(())
        })?;
        Ok(graphs)
    }
}

impl<'a> TensorData<'a> {
    fn read(reader: Reader<'a>) -> Result<Self, Error> {
        let mut tensor = Self { name: "", dims: Vec::new(), elem_type: 0, fields: reader };
        let mut elsewhere = false;
        let mut location = "";
        fields(reader, |number, field, within| {
            match number {
                1 => field.wholes(within, &mut tensor.dims)?,
                2 => tensor.elem_type = field.whole(within)?,
                8 => tensor.name = field.message(within)?.text()?,
                13 => {
                    let (mut key, mut value) = ("", "");
                    fields(field.message(within)?, |number, field, within| {
                        match number {
                            1 => key = field.message(within)?.text()?,
                            2 => value = field.message(within)?.text()?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    if key == "location" {
                        location = value;
                    }
                }
                14 => elsewhere = field.whole(within)? == 1,
                _ => {}
            }
            Ok(())
        })?;
        if elsewhere || !location.is_empty() {
            return Err(Error::External { tensor: tensor.name.to_owned(), location: location.to_owned() });
        }
        if tensor.dims.len() > Limits::RANK {
            let what = format!("tensor {}", tensor.name);
            return Err(Error::Limit { what, most: Limits::RANK, of: "dimensions" });
        }
        Ok(tensor)
    }
}

impl<'a> Value<'a> {
    fn read(reader: Reader<'a>) -> Result<Self, Error> {
        let mut value = Self { name: "", kind: ValueKind::default() };
        fields(reader, |number, field, within| {
            match number {
                1 => value.name = field.message(within)?.text()?,
                2 => value.kind = ValueKind::read(field.message(within)?)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(value)
    }
}

impl<'a> ValueKind<'a> {
    fn read(reader: Reader<'a>) -> Result<Self, Error> {
        let mut kind = Self::Unknown;
        fields(reader, |number, field, within| {
            match number {
                1 => {
                    let (mut elem_type, mut dims) = (0, None);
                    fields(field.message(within)?, |number, field, within| {
                        match number {
                            1 => elem_type = field.whole(within)?,
                            2 => dims = Some(Dim::read_all(field.message(within)?)?),
                            _ => {}
                        }
                        Ok(())
                    })?;
                    kind = Self::Tensor { elem_type, dims };
                }
                4 => kind = Self::Sequence,
                5 => kind = Self::Map,
                _ => {}
            }
            Ok(())
        })?;
        Ok(kind)
    }
}

impl<'a> Dim<'a> {
    fn read_all(reader: Reader<'a>) -> Result<Vec<Self>, Error> {
        let mut dims = Vec::new();
        fields(reader, |number, field, within| {
            if number != 1 {
                return Ok(());
            }
            let mut dim = Self::Free;
            fields(field.message(within)?, |number, field, within| {
                match number {
                    1 => dim = Self::Fixed(field.whole(within)?),
                    2 => {
                        let name = field.message(within)?.text()?;
                        dim = if name.is_empty() { Self::Free } else { Self::Named(name) };
                    }
                    _ => {}
                }
                Ok(())
            })?;
            push(&mut dims, dim, Limits::RANK, "dimensions")
        })?;
        Ok(dims)
    }
}
