//! Whether a network computes each row for itself, judged by its operators before any of them is optimised.
//!
//! The first dimension of the inputs is followed through the network. It must reach every output as the first one, and on the
//! way be nothing but a row to every operator: neither summed over nor a convolution's way, and nothing may depend on how many
//! there are. What is not known here to keep rows apart is taken to mix them. Which dimensions go through an operator is what
//! tract says of it, but only of those listed here: of some it says more, such as the dimension that a softmax sums over.

use std::collections::HashMap;

use tract_onnx::prelude::{DatumType, TDim, TVec, TractResult};
use tract_onnx::tract_core::axes::Axis;
use tract_onnx::tract_core::model::{OutletId, TypedFact, TypedModel, TypedNode};
use tract_onnx::tract_core::ops::array::{Pad, Slice, TypedConcat};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::change_axes::{AxisOp, InOut};
use tract_onnx::tract_core::ops::cnn::{Conv, Deconv, MaxPool, SumPool};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::logic::Iff;
use tract_onnx::tract_core::ops::nn::{Reduce, Softmax};

/// How several rows are best computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// In one run: they may depend on each other, or nothing is gained.
    Together,
    /// Each in a run of its own: they do not depend on each other, and the kernels for sizes that are known are faster.
    FasterApart,
}

/// Judges a model whose inputs all have their first dimension free and no other.
pub(super) fn judge(model: &TypedModel) -> TractResult<Rows> {
    Ok(if gains(model)? && are_apart(model)? { Rows::FasterApart } else { Rows::Together })
}

/// Whether there are convolutions that are planned another way where all sizes are known: those over pictures, and those of
/// channels for themselves. MobileNetV2's take a fifth of the time.
fn gains(model: &TypedModel) -> TractResult<bool> {
    let order = model.eval_order()?;
    let mut convolutions = order.iter().filter_map(|&node| model.nodes[node].op_as::<Conv>());
    Ok(convolutions.any(|conv| conv.q_params.is_none() && (conv.group > 1 || conv.pool_spec.rank() > 1)))
}

/// Which dimension of a tensor is the rows; None of one that is the same whatever the rows are.
type RowAxis = Option<usize>;

fn are_apart(model: &TypedModel) -> TractResult<bool> {
    let mut known: HashMap<OutletId, RowAxis> = HashMap::new();
    let mut rows: Option<TDim> = None;
    for &input in &model.inputs {
        let first = model.outlet_fact(input)?.shape.first().cloned();
        if first.is_none() || rows.as_ref().is_some_and(|rows| first.as_ref() != Some(rows)) {
            return Ok(false);
        }
        rows = first;
        known.insert(input, Some(0));
    }
    let Some(rows) = rows else { return Ok(false) };
    for node in model.eval_order()? {
        let node = &model.nodes[node];
        if known.contains_key(&OutletId::new(node.id, 0)) {
            continue;
        }
        let (inputs, outputs) = model.node_facts(node.id)?;
        let axes: TVec<RowAxis> = node.inputs.iter().map(|input| known.get(input).copied().flatten()).collect();
        let Some(after) = after(node, &inputs, &axes, &outputs) else { return Ok(false) };
        for (slot, (axis, fact)) in after.into_iter().zip(&outputs).enumerate() {
            if !is_free_of_rows(fact, axis, &rows) {
                return Ok(false);
            }
            known.insert(OutletId::new(node.id, slot), axis);
        }
    }
    Ok(model.outputs.iter().all(|output| known.get(output) == Some(&Some(0))))
}

/// Whether only the dimension at `axis` depends on how many rows there are, and no value that is known.
fn is_free_of_rows(fact: &TypedFact, axis: RowAxis, rows: &TDim) -> bool {
    let fits = |(at, dim): (usize, &TDim)| if Some(at) == axis { dim == rows } else { dim.to_i64().is_ok() };
    let is_number =
        fact.datum_type != DatumType::TDim || fact.konst.as_ref().is_some_and(|value| value.cast_to::<i64>().is_ok());
    fact.shape.iter().enumerate().all(fits) && is_number
}

/// Where the rows are behind an operator. None if it may mix them.
fn after(node: &TypedNode, inputs: &[&TypedFact], axes: &[RowAxis], outputs: &[&TypedFact]) -> Option<TVec<RowAxis>> {
    let Some((slot, axis)) = axes.iter().enumerate().find_map(|(slot, axis)| Some((slot, (*axis)?))) else {
        return Some(outputs.iter().map(|_| None).collect());
    };
    let pool = node.op_as::<MaxPool>().map(|pool| &pool.pool_spec);
    if let Some(pool) = pool.or_else(|| node.op_as::<SumPool>().map(|pool| &pool.pool_spec)) {
        let shape = pool.data_format.shape(&*inputs.first()?.shape).ok()?;
        return (shape.n_axis() == Some(axis)).then(|| outputs.iter().map(|_| Some(axis)).collect());
    }
    if let Some(softmax) = node.op_as::<Softmax>() {
        return (!softmax.axes.contains(&axis)).then(|| outputs.iter().map(|_| Some(axis)).collect());
    }
    if !says_what_it_does(node) {
        return None;
    }
    let mapping = node.op.axes_mapping(inputs, outputs).ok()?;
    let through: &Axis = mapping.axis((InOut::In(slot), axis)).ok()?;
    for (slot, fact) in inputs.iter().enumerate() {
        let places = &through.inputs[slot];
        let fits = match axes[slot] {
            Some(axis) => places.as_slice() == [axis],
            // One that is the same for every row.
            None => places.iter().all(|&place| fact.shape[place] == TDim::from(1)),
        };
        if !fits {
            return None;
        }
    }
    let place = |slot: usize| match through.outputs[slot].as_slice() {
        &[place] => Some(Some(place)),
        _ => None,
    };
    (0..outputs.len()).map(place).collect()
}

/// Whether a dimension that goes through this operator is one over which nothing is moved and nothing is summed.
fn says_what_it_does(node: &TypedNode) -> bool {
    node.op_is::<ElementWiseOp>()
        || node.op_is::<TypedBinOp>()
        || node.op_is::<Iff>()
        || node.op_is::<Cast>()
        || node.op_is::<AxisOp>()
        || node.op_is::<Conv>()
        || node.op_is::<Deconv>()
        || node.op_is::<EinSum>()
        || node.op_is::<Reduce>()
        || node.op_is::<TypedConcat>()
        || node.op_is::<Pad>()
        || node.op_as::<Slice>().is_some_and(|slice| slice.start.to_i64().is_ok())
}

#[cfg(test)]
mod tests {
    use crate::base::{Datatype, Name, Tensor};
    use crate::engine::onnx::fixture::{Given, Message, model, plain_node, value};
    use crate::engine::spec::{LoadSpec, NamedTensor, TensorSpec};
    use crate::engine::tract::{Tract, TractSession};
    use crate::engine::{Engine as _, Session as _};

    /// A node with the names of its attributes' types, which tract reads and other readers guess.
    fn op(operator: &str, inputs: &[&str], output: &str, given: &[(&str, Given)]) -> Message {
        let typed = given.iter().fold(plain_node(operator, inputs, &[output], &[]), |node, (name, value)| {
            let (number, kind) = match value {
                Given::Whole(_) => (3, 2),
                Given::Wholes(_) => (8, 7),
                Given::Message(5, _) => (5, 4),
                other => panic!("{other:?}"),
            };
            let attribute = Message::default().text(1, name).whole(20, kind);
            node.message(
                5,
                match value {
                    Given::Whole(value) => attribute.whole(number, *value),
                    Given::Wholes(values) => values.iter().fold(attribute, |all, value| all.whole(number, *value)),
                    Given::Message(_, message) => attribute.message(number, message.clone()),
                    _ => attribute,
                },
            )
        });
        typed.text(3, &format!("{operator}-{output}"))
    }

    fn wholes(name: &'static str, values: &[i64]) -> (&'static str, Given) {
        (name, Given::Wholes(values.to_vec()))
    }

    /// Weights, or wholes for shapes and axes.
    fn constant(name: &str, elem_type: i64, dims: &[i64], bytes: &[u8]) -> Message {
        let tensor = dims.iter().fold(Message::default(), |tensor, &dim| tensor.whole(1, dim));
        op("Constant", &[], name, &[("value", Given::Message(5, tensor.whole(2, elem_type).bytes(9, bytes)))])
    }

    fn weights(name: &str, dims: &[i64], values: impl Fn(usize) -> f32) -> Message {
        let count = usize::try_from(dims.iter().product::<i64>()).unwrap();
        let bytes: Vec<u8> = (0..count).flat_map(|at| values(at).to_le_bytes()).collect();
        constant(name, 1, dims, &bytes)
    }

    fn indices(name: &str, values: &[i64]) -> Message {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        constant(name, 7, &[i64::try_from(values.len()).unwrap()], &bytes)
    }

    fn uneven(at: usize) -> f32 {
        ((at * 37 + 11) % 23) as f32 / 23.0 - 0.4
    }

    /// Only the middle of three by three.
    fn middle(at: usize) -> f32 {
        if at % 9 == 4 { 1.0 } else { 0.0 }
    }

    /// A depthwise convolution of four channels.
    fn depthwise(from: &str, to: &str, values: fn(usize) -> f32) -> Vec<Message> {
        let group = ("group", Given::Whole(4));
        let w = format!("{to}.w");
        let conv =
            op("Conv", &[from, &w], to, &[group, wholes("pads", &[1, 1, 1, 1]), wholes("kernel_shape", &[3, 3])]);
        vec![weights(&w, &[4, 1, 3, 3], values), conv]
    }

    fn load(nodes: Vec<Message>, x: &[i64], y: &[i64]) -> TractSession {
        let port = |name: &str, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        };
        let file = model(nodes, vec![value("x", Datatype::Fp32, x)], vec![value("y", Datatype::Fp32, y)]);
        let spec = LoadSpec {
            inputs: vec![port("x", x)],
            outputs: vec![port("y", y)],
            ..LoadSpec::new(Name::new("press").unwrap(), 1, "onnx", file)
        };
        assert!(Tract.suits(&spec).is_ok());
        Tract::open(&spec).unwrap()
    }

    fn is_apart(session: &TractSession) -> bool {
        session.any.is_none()
    }

    fn run(session: &TractSession, shape: &[usize]) -> Tensor {
        let x = Tensor::new(shape, (0..shape.iter().product()).map(uneven).collect::<Vec<f32>>()).unwrap();
        session.run(&[NamedTensor::new("x", x)]).unwrap().remove(0).tensor
    }

    #[test]
    fn pictures_in_a_depthwise_network_are_computed_one_by_one_and_answered_together() {
        let mut nodes = depthwise("x", "a", uneven);
        nodes.extend([
            op("Relu", &["a"], "b", &[]),
            op("MaxPool", &["b"], "c", &[wholes("kernel_shape", &[2, 2]), wholes("strides", &[2, 2])]),
            op("GlobalAveragePool", &["c"], "d", &[]),
            op("Flatten", &["d"], "e", &[("axis", Given::Whole(1))]),
            weights("w", &[4, 3], uneven),
            op("MatMul", &["e", "w"], "f", &[]),
            op("Softmax", &["f"], "y", &[("axis", Given::Whole(1))]),
        ]);
        let session = load(nodes, &[-1, 4, 6, 6], &[-1, 3]);
        assert!(is_apart(&session));
        let (five, one) = (run(&session, &[5, 4, 6, 6]), run(&session, &[1, 4, 6, 6]));
        assert_eq!(five.shape(), [5, 3]);
        assert_eq!(five.row(0).unwrap().bytes(), one.bytes());
        let sums: Vec<f32> = five.as_slice::<f32>().unwrap().chunks(3).map(|row| row.iter().sum()).collect();
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6), "{sums:?}");
        assert_ne!(five.row(1), five.row(2));
    }

    /// The first dimension is time: it becomes a picture's height, and a convolution goes over it.
    fn over_time(values: fn(usize) -> f32) -> TractSession {
        let mut nodes = vec![
            indices("front", &[0]),
            op("Transpose", &["x"], "a", &[wholes("perm", &[1, 0, 2])]),
            op("Unsqueeze", &["a", "front"], "b", &[]),
        ];
        nodes.extend(depthwise("b", "c", values));
        nodes.extend([
            op("Squeeze", &["c", "front"], "d", &[]),
            op("Transpose", &["d"], "y", &[wholes("perm", &[1, 0, 2])]),
        ]);
        load(nodes, &[-1, 4, 5], &[-1, 4, 5])
    }

    #[test]
    fn a_first_dimension_that_is_time_is_never_taken_for_rows() {
        let session = over_time(uneven);
        assert!(!is_apart(&session));
        let (three, one) = (run(&session, &[3, 4, 5]), run(&session, &[1, 4, 5]));
        // The second step is seen by the first.
        assert_ne!(three.row(0).unwrap().bytes(), one.bytes());
    }

    #[test]
    fn time_is_not_taken_for_rows_either_where_this_weights_numbers_would_agree() {
        let session = over_time(middle);
        assert!(!is_apart(&session));
        let (three, one) = (run(&session, &[3, 4, 5]), run(&session, &[1, 4, 5]));
        assert_eq!(three.row(0).unwrap().bytes(), one.bytes());
    }

    #[test]
    fn rows_that_are_summed_over_compared_counted_or_shifted_are_computed_together() {
        let with = |nodes: Vec<Message>| {
            let mut all = depthwise("x", "a", uneven);
            all.extend(nodes);
            load(all, &[-1, 4, 3, 3], &[-1, 4, 3, 3])
        };
        let first = ("axis", Given::Whole(0));
        assert!(is_apart(&with(vec![op("Softmax", &["a"], "y", &[("axis", Given::Whole(1))])])));
        for (what, nodes) in [
            ("a softmax over the rows", vec![op("Softmax", &["a"], "y", &[first])]),
            (
                "the rows' mean",
                vec![
                    indices("rows", &[0]),
                    op("ReduceMean", &["a", "rows"], "b", &[]),
                    op("Sub", &["a", "b"], "y", &[]),
                ],
            ),
            ("a sum up to the row", vec![constant("rows", 7, &[], &[0; 8]), op("CumSum", &["a", "rows"], "y", &[])]),
            (
                "how many there are",
                vec![
                    indices("front", &[0]),
                    op("Shape", &["a"], "b", &[]),
                    op("Gather", &["b", "front"], "c", &[]),
                    op("Cast", &["c"], "d", &[("to", Given::Whole(1))]),
                    op("Div", &["a", "d"], "y", &[]),
                ],
            ),
            (
                "rows that were two dimensions",
                vec![
                    indices("flat", &[-1, 2, 3, 3]),
                    indices("back", &[-1, 4, 3, 3]),
                    op("Reshape", &["a", "flat"], "b", &[]),
                    op("Softmax", &["b"], "c", &[("axis", Given::Whole(1))]),
                    op("Transpose", &["c"], "d", &[wholes("perm", &[1, 0, 2, 3])]),
                    op("Reshape", &["d", "back"], "y", &[]),
                ],
            ),
        ] {
            let session = with(nodes);
            assert!(!is_apart(&session), "{what}");
            assert_eq!(run(&session, &[3, 4, 3, 3]).shape(), [3, 4, 3, 3], "{what}");
        }
    }

    #[test]
    fn networks_that_gain_nothing_are_computed_together() {
        let nodes = vec![weights("w", &[3, 2], uneven), op("MatMul", &["x", "w"], "y", &[])];
        let session = load(nodes, &[-1, 3], &[-1, 2]);
        assert!(!is_apart(&session));
        assert_eq!(run(&session, &[4, 3]).shape(), [4, 2]);
    }

    #[test]
    fn plans_whose_numbers_differ_do_not_agree() {
        let times = |factor: f32| {
            let nodes = vec![weights("w", &[3, 2], |at| uneven(at) * factor), op("MatMul", &["x", "w"], "y", &[])];
            load(nodes, &[-1, 3], &[-1, 2])
        };
        let x = TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: vec![-1, 3] };
        let spec = LoadSpec { inputs: vec![x], ..LoadSpec::new(Name::new("press").unwrap(), 1, "onnx", Vec::new()) };
        let session = times(1.0);
        assert!(session.agrees_by_row(&spec));
        // As if the engine had planned one row and several to different ends.
        assert!(!TractSession { one: times(1.01).one, ..session }.agrees_by_row(&spec));
    }
}
