//! What is known of a tensor before there is one.

use std::fmt;

use crate::base::{Datatype, Tensor};

/// A declared tensor: of a pipeline, or of a model in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions, outermost first; -1 is free.
    pub shape: Vec<i64>,
}

impl Port {
    /// Why `tensor` may not stand here, if that is so.
    pub fn refuses(&self, tensor: &Tensor) -> Option<String> {
        let fits = self.shape.len() == tensor.shape().len()
            && self.shape.iter().zip(tensor.shape()).all(|(&dim, &given)| dim == -1 || i64::try_from(given) == Ok(dim));
        let Self { name, datatype, shape } = self;
        if tensor.datatype() != *datatype {
            return Some(format!("{name} is {}, expected {datatype}", tensor.datatype()));
        }
        (!fits).then(|| format!("{name} has shape {:?}, expected {shape:?} (-1 is any size)", tensor.shape()))
    }
}

/// A tensor as far as it is known. None is anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) datatype: Option<Datatype>,
    pub(super) shape: Option<Vec<i64>>,
}

impl Guess {
    pub(super) fn of(datatype: Datatype, shape: impl Into<Vec<i64>>) -> Self {
        Self { datatype: Some(datatype), shape: Some(shape.into()) }
    }

    pub(super) fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// Whether both can be the same tensor.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let types = self.datatype.zip(other.datatype).is_none_or(|(a, b)| a == b);
        let dims = |a: &Vec<i64>, b: &Vec<i64>| {
            a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| a == -1 || b == -1 || a == b)
        };
        types && self.shape.as_ref().zip(other.shape.as_ref()).is_none_or(|(a, b)| dims(a, b))
    }

    /// The same with any number of rows.
    pub(super) fn with_free_rows(mut self) -> Self {
        if let Some(first) = self.shape.as_mut().and_then(|shape| shape.first_mut()) {
            *first = -1;
        }
        self
    }

    /// The same with this many rows.
    pub(super) fn with_rows(mut self, rows: i64) -> Self {
        if let Some(first) = self.shape.as_mut().and_then(|shape| shape.first_mut()) {
            *first = rows;
        }
        self
    }
}

impl From<&Port> for Guess {
    fn from(port: &Port) -> Self {
        Self::of(port.datatype, port.shape.clone())
    }
}

impl fmt::Display for Guess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.datatype {
            Some(datatype) => write!(f, "{datatype}")?,
            None => f.write_str("any type")?,
        }
        match &self.shape {
            Some(shape) => write!(f, " {shape:?}"),
            None => f.write_str(" of any shape"),
        }
    }
}

/// The place of a dimension that may be counted from the end.
pub(super) fn place(axis: i64, rank: usize) -> Result<usize, String> {
    let at = if axis < 0 { axis + i64::try_from(rank).unwrap_or(i64::MAX) } else { axis };
    usize::try_from(at)
        .ok()
        .filter(|&at| at < rank)
        .ok_or_else(|| format!("axis is {axis}, the tensor has {rank} dimensions"))
}
