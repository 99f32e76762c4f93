//! A graph as steps in order, and their computation.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::attributes::Attributes;
use super::operators::{self, Inputs, Operator};
use super::plain::control;
use crate::base::Tensor;
use crate::engine::onnx::{Graph, Model, Node, decode};

/// A prepared graph. Values live in numbered places, of which one is filled once.
pub(super) struct Plan {
    /// Constants, by place.
    constants: Vec<Option<Tensor>>,
    steps: Vec<Step>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

struct Step {
    /// How messages call the node.
    title: String,
    operator: Operator,
    /// None for an optional input that is left out.
    inputs: SmallVec<[Option<usize>; 4]>,
    outputs: SmallVec<[Option<usize>; 2]>,
    /// Places that nothing needs afterwards.
    spent: SmallVec<[usize; 2]>,
}

/// Places by name.
#[derive(Default)]
struct Places<'a> {
    by_name: HashMap<&'a str, usize>,
    count: usize,
}

impl<'a> Places<'a> {
    fn add(&mut self, name: &'a str) -> Result<usize, String> {
        let place = self.count;
        self.count += 1;
        match self.by_name.insert(name, place) {
            None => Ok(place),
            Some(_) => Err(format!("{name} is made twice")),
        }
    }
}

impl Plan {
    /// Prepares `model` for `inputs` and the computation of `outputs`. The error says which node is at fault.
    pub(super) fn prepare(model: &Model<'_>, inputs: &[&str], outputs: &[&str]) -> Result<Self, String> {
        let known = |name: &&str| {
            let value = model.graph.inputs.iter().find(|value| value.name == *name);
            value.map(|value| value.name).ok_or_else(|| format!("the file has no input {name}"))
        };
        let inputs = inputs.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        Self::prepare_graph(&model.graph, &model.opsets, &inputs, outputs)
    }

    /// The same for a graph of a model with these operator sets. One that lies within another gets what it uses of that
    /// one as inputs behind its own.
    pub(super) fn prepare_graph<'a>(
        graph: &Graph<'a>,
        opsets: &[(&'a str, i64)],
        inputs: &[&'a str],
        outputs: &[&str],
    ) -> Result<Self, String> {
        let opset = |domain: &str| opsets.iter().find(|(given, _)| *given == domain).map_or(1, |(_, v)| *v);
        let mut places = Places::default();
        let mut constants: Vec<Option<Tensor>> = Vec::new();
        for tensor in &graph.initialisers {
            // An initialiser that is an input is its default value.
            if !inputs.contains(&tensor.name) {
                places.add(tensor.name)?;
                constants.push(Some(decode(tensor).map_err(|error| error.to_string())?));
            }
        }
        let mut plan = Self { constants: Vec::new(), steps: Vec::new(), inputs: Vec::new(), outputs: Vec::new() };
        for name in inputs {
            plan.inputs.push(places.add(name)?);
            constants.push(None);
        }
        for at in in_order(&graph.nodes, &places)? {
            let node = &graph.nodes[at];
            let title = title(node, at);
            let failed = |what: String| format!("{title}: {what}");
            let attributes = Attributes { node, opset: opset(node.domain) };
            let (operator, captured) = if node.domain.is_empty() && control::TITLES.contains(&node.operator) {
                let within = control::prepare(&attributes, opsets).map_err(failed)?;
                (within.operator, within.captured)
            } else {
                (operators::build(&attributes).map_err(failed)?, Vec::new())
            };
            let place = |name: &&str| if name.is_empty() { None } else { places.by_name.get(name).copied() };
            let from: SmallVec<_> = node.inputs.iter().chain(&captured).map(place).collect();
            let mut to = SmallVec::new();
            for name in &node.outputs {
                to.push(if name.is_empty() { None } else { Some(places.add(name)?) });
            }
            constants.resize(places.count, None);
            let step = Step { title, operator, inputs: from, outputs: to, spent: SmallVec::new() };
            let is_constant = step.inputs.iter().flatten().all(|&place| constants[place].is_some());
            if is_constant {
                step.run(&mut constants, &[])?;
            } else {
                plan.steps.push(step);
            }
        }
        for name in outputs {
            let place = places.by_name.get(name).ok_or_else(|| format!("no node makes output {name}"))?;
            plan.outputs.push(*place);
        }
        plan.constants = constants;
        plan.drop_unused();
        Ok(plan)
    }

    /// How many outputs it computes.
    pub(super) fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Leaves out steps that no wanted output needs, and notes where a value is needed for the last time.
    fn drop_unused(&mut self) {
        let mut needed = vec![false; self.constants.len()];
        for &place in &self.outputs {
            needed[place] = true;
        }
        let mut kept = Vec::with_capacity(self.steps.len());
        for mut step in std::mem::take(&mut self.steps).into_iter().rev() {
            if !step.outputs.iter().flatten().any(|&place| needed[place]) {
                continue;
            }
            for &place in step.inputs.iter().flatten() {
                // From the end: the first to need it is the last to use it.
                if !needed[place] && self.constants[place].is_none() {
                    step.spent.push(place);
                }
                needed[place] = true;
            }
            kept.push(step);
        }
        kept.reverse();
        self.steps = kept;
        for (place, constant) in self.constants.iter_mut().enumerate() {
            if !needed[place] {
                *constant = None;
            }
        }
    }

    /// Computes the outputs. The error says which node is at fault.
    pub(super) fn run<'a>(&self, inputs: impl Iterator<Item = &'a Tensor>) -> Result<Vec<Tensor>, String> {
        let mut values: SmallVec<[Option<Tensor>; 16]> = SmallVec::new();
        values.resize(self.constants.len(), None);
        for (&place, input) in self.inputs.iter().zip(inputs) {
            values[place] = Some(input.clone());
        }
        for step in &self.steps {
            step.run(&mut values, &self.constants)?;
            for &place in &step.spent {
                values[place] = None;
            }
        }
        let value = |&place: &usize| values[place].clone().or_else(|| self.constants[place].clone());
        self.outputs.iter().map(|place| value(place).ok_or_else(|| "an output was not computed".to_owned())).collect()
    }
}

impl Step {
    /// Fills the places of its outputs in `values`; inputs are there or among the constants.
    fn run(&self, values: &mut [Option<Tensor>], constants: &[Option<Tensor>]) -> Result<(), String> {
        let failed = |what: String| format!("{}: {what}", self.title);
        let made = {
            let mut inputs: SmallVec<[Option<&Tensor>; 4]> = SmallVec::new();
            for place in &self.inputs {
                inputs.push(match place {
                    None => None,
                    Some(place) => {
                        let value = values[*place].as_ref().or_else(|| constants.get(*place)?.as_ref());
                        Some(value.ok_or_else(|| failed("an input was not computed".to_owned()))?)
                    }
                });
            }
            (self.operator)(Inputs(&inputs)).map_err(failed)?
        };
        if made.len() < self.outputs.len() {
            return Err(failed(format!("it has {} outputs, the file wants {}", made.len(), self.outputs.len())));
        }
        for (place, tensor) in self.outputs.iter().zip(made) {
            if let Some(place) = place {
                values[*place] = Some(tensor);
            }
        }
        Ok(())
    }
}

/// How messages call a node.
fn title(node: &Node<'_>, at: usize) -> String {
    if node.name.is_empty() {
        format!("node {at} ({})", node.title())
    } else {
        format!("node {} ({})", node.name, node.title())
    }
}

/// The nodes so that each comes behind what it needs; an error names one of a cycle.
fn in_order(nodes: &[Node<'_>], known: &Places<'_>) -> Result<Vec<usize>, String> {
    let mut made_by = HashMap::new();
    for (at, node) in nodes.iter().enumerate() {
        for name in node.outputs.iter().filter(|name| !name.is_empty()) {
            if made_by.insert(*name, at).is_some() || known.by_name.contains_key(name) {
                return Err(format!("{}: {name} is made twice", title(node, at)));
            }
        }
    }
    let mut waits_for = vec![0_usize; nodes.len()];
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        let captured = control::captured_by(node).map_err(|what| format!("{}: {what}", title(node, at)))?;
        let used = node.inputs.iter().chain(&captured);
        for name in used.filter(|name| !name.is_empty() && !known.by_name.contains_key(**name)) {
            let maker =
                *made_by.get(name).ok_or_else(|| format!("{}: nothing makes its input {name}", title(node, at)))?;
            needed_by[maker].push(at);
            waits_for[at] += 1;
        }
    }
    let mut ready: Vec<usize> = (0..nodes.len()).rev().filter(|&at| waits_for[at] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(at) = ready.pop() {
        order.push(at);
        for &next in needed_by[at].iter().rev() {
            waits_for[next] -= 1;
            if waits_for[next] == 0 {
                ready.push(next);
            }
        }
    }
    match waits_for.iter().position(|&count| count > 0) {
        None => Ok(order),
        Some(at) => Err(format!("{}: it needs its own output", title(&nodes[at], at))),
    }
}
