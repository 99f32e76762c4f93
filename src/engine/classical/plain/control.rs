//! Graphs within graphs: `If`, `Loop` and `Scan`. What a graph within uses of the one around it becomes inputs of the node.

use std::collections::HashSet;

use crate::base::{Shape, Tensor};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::operators::{Operator, Outputs, axis_of, room_for};
use crate::engine::classical::plan::Plan;
use crate::engine::classical::shaping::{join, pick_columns};
use crate::engine::onnx::{Graph, Node};

/// Most rounds of a loop: a file may ask for any number.
const ROUNDS_MAX: i64 = 1 << 20;

/// A node with graphs within: what computes it, and which values of the graph around it needs beside its inputs.
pub(in crate::engine::classical) struct Within<'a> {
    pub(in crate::engine::classical) operator: Operator,
    pub(in crate::engine::classical) captured: Vec<&'a str>,
}

/// The operators that [`prepare`] knows.
pub(in crate::engine::classical) const TITLES: [&str; 3] = ["If", "Loop", "Scan"];

/// Names that a graph uses and does not make.
pub(in crate::engine::classical) fn captured<'a>(graph: &Graph<'a>, into: &mut Vec<&'a str>) -> Result<(), String> {
    let mut own: HashSet<&str> = graph.initialisers.iter().map(|tensor| tensor.name).collect();
    own.extend(graph.inputs.iter().map(|value| value.name));
    own.extend(graph.nodes.iter().flat_map(|node| &node.outputs));
    let mut used: Vec<&'a str> = graph.outputs.iter().map(|value| value.name).collect();
    for node in &graph.nodes {
        used.extend(&node.inputs);
        for graph in graphs(node)? {
            captured(&graph, &mut used)?;
        }
    }
    for name in used {
        if !name.is_empty() && !own.contains(name) && !into.contains(&name) {
            into.push(name);
        }
    }
    Ok(())
}

fn graphs<'a>(node: &Node<'a>) -> Result<Vec<Graph<'a>>, String> {
    let mut all = Vec::new();
    if TITLES.contains(&node.operator) {
        for (_, attribute) in &node.attributes {
            all.extend(attribute.graphs().map_err(|error| error.to_string())?);
        }
    }
    Ok(all)
}

/// What a node uses of the graph around it beside its inputs.
pub(in crate::engine::classical) fn captured_by<'a>(node: &Node<'a>) -> Result<Vec<&'a str>, String> {
    let mut names = Vec::new();
    for graph in graphs(node)? {
        captured(&graph, &mut names)?;
    }
    Ok(names)
}

/// Prepares a node whose operator is one of [`TITLES`].
pub(in crate::engine::classical) fn prepare<'a>(
    attributes: &Attributes<'a>,
    opsets: &[(&'a str, i64)],
) -> Result<Within<'a>, String> {
    let captured = captured_by(attributes.node)?;
    let body = |name: &str| -> Result<(Plan, usize), String> {
        let graph = attributes.graph(name)?.ok_or_else(|| format!("attribute {name} is missing"))?;
        let own: Vec<&str> = graph.inputs.iter().map(|value| value.name).collect();
        let inputs: Vec<&str> = own.iter().chain(&captured).copied().collect();
        let outputs: Vec<&str> = graph.outputs.iter().map(|value| value.name).collect();
        Ok((Plan::prepare_graph(&graph, opsets, &inputs, &outputs)?, own.len()))
    };
    let count = attributes.node.inputs.len();
    let operator = match attributes.node.operator {
        "If" => either(body("then_branch")?.0, body("else_branch")?.0, count),
        "Loop" => repeat(body("body")?.0, count),
        _ => scan(attributes, body("body")?, count)?,
    };
    Ok(Within { operator, captured })
}

fn there<'a>(given: &[Option<&'a Tensor>]) -> Result<Vec<&'a Tensor>, String> {
    given.iter().map(|tensor| tensor.ok_or_else(|| "an input is missing".to_owned())).collect()
}

fn truth(tensor: &Tensor) -> Result<bool, String> {
    match tensor.as_slice::<bool>() {
        Some(&[truth]) => Ok(truth),
        _ => Err(format!("a condition is {} {:?}, expected one BOOL", tensor.datatype(), tensor.shape())),
    }
}

fn either(yes: Plan, no: Plan, count: usize) -> Operator {
    Box::new(move |inputs| {
        let (own, captured) = inputs.0.split_at(count);
        let condition = own.first().copied().flatten().ok_or_else(|| "the condition is missing".to_owned())?;
        let plan = if truth(condition)? { &yes } else { &no };
        Ok(Outputs::from_vec(plan.run(there(captured)?.into_iter())?))
    })
}

fn repeat(body: Plan, count: usize) -> Operator {
    Box::new(move |inputs| {
        let (own, captured) = inputs.0.split_at(count);
        let most = own.first().copied().flatten().map(crate::engine::classical::cast::wholes).transpose()?;
        let most = most.and_then(|most| most.first().copied());
        let mut goes_on = match own.get(1).copied().flatten() {
            None => Tensor::new([], vec![true]).map_err(|error| error.to_string())?,
            Some(condition) => condition.clone(),
        };
        let captured = there(captured)?;
        let mut carried: Vec<Tensor> = there(own.get(2..).unwrap_or_default())?.into_iter().cloned().collect();
        let mut collected: Vec<Vec<Tensor>> = Vec::new();
        let mut round = 0;
        while truth(&goes_on)? && most.is_none_or(|most| round < most) {
            if round == ROUNDS_MAX {
                return Err(format!("a loop of more than {ROUNDS_MAX} rounds"));
            }
            let number = Tensor::new([], vec![round]).map_err(|error| error.to_string())?;
            let given = [&number, &goes_on].into_iter().chain(&carried).chain(captured.iter().copied());
            let mut made = body.run(given)?.into_iter();
            goes_on = made.next().ok_or_else(|| "the body has no output".to_owned())?;
            carried = made.by_ref().take(carried.len()).collect();
            collect(&mut collected, made)?;
            round += 1;
        }
        if collected.is_empty() && body.outputs() > 1 + carried.len() {
            return Err("a loop without a round whose outputs would have no shape".to_owned());
        }
        let mut outputs = Outputs::from_vec(carried);
        for rows in &collected {
            outputs.push(stacked(rows, 0)?);
        }
        Ok(outputs)
    })
}

/// Puts what a round made behind what the rounds before made.
fn collect(into: &mut Vec<Vec<Tensor>>, made: impl Iterator<Item = Tensor>) -> Result<(), String> {
    for (at, tensor) in made.enumerate() {
        if into.len() == at {
            into.push(Vec::new());
        }
        into[at].push(tensor);
        let elements = into[at].iter().map(Tensor::elements).sum();
        room_for(&[elements])?;
    }
    Ok(())
}

/// Tensors of one shape as rows of a new dimension.
fn stacked(rows: &[Tensor], axis: i64) -> Result<Tensor, String> {
    let first = rows.first().ok_or_else(|| "nothing to put together".to_owned())?;
    let axis = axis_of(axis, first.shape().len() + 1)?;
    let mut shape = Shape::from_slice(first.shape());
    shape.insert(axis, 1);
    let rows = rows.iter().map(|row| row.clone().reshaped(&shape).map_err(|error| error.to_string()));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    join(&rows.iter().collect::<Vec<_>>(), axis as i64)
}

fn scan(attributes: &Attributes<'_>, (body, own): (Plan, usize), count: usize) -> Result<Operator, String> {
    if attributes.opset < 9 {
        return Err("a scan of operator set 8".to_owned());
    }
    let scanned = attributes.whole("num_scan_inputs", 0)?;
    let scanned = usize::try_from(scanned).ok().filter(|&scanned| (1..=own).contains(&scanned) && own == count);
    let scanned = scanned.ok_or_else(|| format!("num_scan_inputs of {count} inputs for a body with {own}"))?;
    let states = own - scanned;
    let given = body.outputs().checked_sub(states).ok_or_else(|| "a body with fewer outputs than states".to_owned())?;
    let list = |name: &str, count: usize| -> Result<Vec<i64>, String> {
        let list = attributes.wholes(name)?;
        match list.len() {
            0 => Ok(vec![0; count]),
            length if length == count => Ok(list),
            _ => Err(format!("attribute {name} is {list:?}, expected {count} numbers")),
        }
    };
    let (axes, turned) = (list("scan_input_axes", scanned)?, list("scan_input_directions", scanned)?);
    let (axes_out, turned_out) = (list("scan_output_axes", given)?, list("scan_output_directions", given)?);
    Ok(Box::new(move |inputs| {
        let (given, captured) = inputs.0.split_at(count);
        let (given, captured) = (there(given)?, there(captured)?);
        let (state, sequences) = given.split_at(states);
        let mut carried: Vec<Tensor> = state.iter().map(|&tensor| tensor.clone()).collect();
        let axes = sequences.iter().zip(&axes).map(|(x, &axis)| axis_of(axis, x.shape().len()));
        let axes = axes.collect::<Result<Vec<_>, _>>()?;
        let length = |(x, &axis): (&&Tensor, &usize)| x.shape().get(axis).copied();
        let lengths: Vec<_> = sequences.iter().zip(&axes).map(length).collect();
        let rounds = lengths.first().copied().flatten().ok_or_else(|| "nothing to scan".to_owned())?;
        if lengths.iter().any(|&length| length != Some(rounds)) || rounds as i64 > ROUNDS_MAX {
            return Err(format!("scans inputs of {lengths:?} elements"));
        }
        let mut collected: Vec<Vec<Tensor>> = Vec::new();
        for round in 0..rounds {
            let element = |((x, &axis), &turned): ((&&Tensor, &usize), &i64)| {
                let at = if turned == 1 { rounds - 1 - round } else { round };
                let mut shape = Shape::from_slice(x.shape());
                shape.remove(axis);
                let (outer, inner) = (x.shape()[..axis].iter().product(), x.shape()[axis + 1..].iter().product());
                pick_columns(x, &shape, outer, rounds, inner, &[at])
            };
            let elements = sequences.iter().zip(&axes).zip(&turned).map(element).collect::<Result<Vec<_>, _>>()?;
            let mut made = body.run(carried.iter().chain(&elements).chain(captured.iter().copied()))?.into_iter();
            carried = made.by_ref().take(states).collect();
            collect(&mut collected, made)?;
        }
        let mut outputs = Outputs::from_vec(carried);
        for ((rows, &axis), &turned) in collected.iter_mut().zip(&axes_out).zip(&turned_out) {
            if turned == 1 {
                rows.reverse();
            }
            outputs.push(stacked(rows, axis)?);
        }
        Ok(outputs)
    }))
}
