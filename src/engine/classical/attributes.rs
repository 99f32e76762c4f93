//! A node's attributes by name, with their defaults.

use crate::base::Tensor;
use crate::engine::onnx::{Attribute, Graph, Node, decode};

pub(super) struct Attributes<'a> {
    pub(super) node: &'a Node<'a>,
    /// Version of the node's operator set.
    pub(super) opset: i64,
}

impl<'a> Attributes<'a> {
    fn find(&self, name: &str) -> Option<Attribute<'a>> {
        self.node.attributes.iter().find(|(given, _)| *given == name).map(|(_, attribute)| *attribute)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn one<T>(
        &self,
        name: &str,
        read: impl Fn(Attribute<'a>) -> Result<Option<T>, crate::engine::onnx::Error>,
    ) -> Result<Option<T>, String> {
        let Some(attribute) = self.find(name) else { return Ok(None) };
        read(attribute).map_err(|error| format!("attribute {name}: {error}"))
    }

    fn list<T>(
        &self,
        name: &str,
        read: impl Fn(Attribute<'a>) -> Result<Vec<T>, crate::engine::onnx::Error>,
    ) -> Result<Vec<T>, String> {
        let Some(attribute) = self.find(name) else { return Ok(Vec::new()) };
        read(attribute).map_err(|error| format!("attribute {name}: {error}"))
    }

    pub(super) fn whole(&self, name: &str, default: i64) -> Result<i64, String> {
        Ok(self.one(name, Attribute::whole)?.unwrap_or(default))
    }

    pub(super) fn float(&self, name: &str, default: f32) -> Result<f32, String> {
        Ok(self.one(name, Attribute::float)?.unwrap_or(default))
    }

    pub(super) fn text(&self, name: &str, default: &'a str) -> Result<&'a str, String> {
        Ok(self.one(name, Attribute::text)?.unwrap_or(default))
    }

    /// Empty where it is left out.
    pub(super) fn floats(&self, name: &str) -> Result<Vec<f32>, String> {
        self.list(name, Attribute::floats)
    }

    /// Empty where it is left out.
    pub(super) fn wholes(&self, name: &str) -> Result<Vec<i64>, String> {
        self.list(name, Attribute::wholes)
    }

    /// Empty where it is left out.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&'a [u8]>, String> {
        self.list(name, Attribute::texts)
    }

    /// A graph within.
    pub(super) fn graph(&self, name: &str) -> Result<Option<Graph<'a>>, String> {
        let graphs = self.list(name, Attribute::graphs)?;
        Ok(graphs.into_iter().next())
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Option<Tensor>, String> {
        let data = self.one(name, Attribute::tensor)?;
        data.map(|data| decode(&data).map_err(|error| format!("attribute {name}: {error}"))).transpose()
    }
}
