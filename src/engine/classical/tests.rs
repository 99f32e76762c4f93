//! Hostile and odd files. That sound ones compute what they should is for `tests/suite/classical.rs`.

use std::sync::Arc;

use super::Classical;
use crate::base::{Datatype, Name, Tensor};
use crate::engine::onnx::fixture::{Given, Message, model, node, value};
use crate::engine::session::{Engine, Session};
use crate::engine::spec::{LoadSpec, NamedTensor, TensorSpec};

fn spec(nodes: Vec<Message>) -> LoadSpec {
    let port =
        |name: &str, shape: &[i64]| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec() };
    let bytes = model(nodes, vec![value("x", Datatype::Fp32, &[-1, -1])], vec![value("y", Datatype::Fp32, &[-1, 1])]);
    LoadSpec {
        inputs: vec![port("x", &[-1, -1])],
        outputs: vec![port("y", &[-1, 1])],
        allow_non_finite: true,
        ..LoadSpec::new(Name::new("hostile").unwrap(), 1, "onnx", bytes)
    }
}

fn refused(nodes: Vec<Message>) -> String {
    let spec = spec(nodes);
    Classical.suits(&spec).unwrap();
    Classical.load(&spec).err().expect("a refusal").to_string()
}

/// A stump: one comparison, two leaves; `change` may spoil its lists.
fn stump(change: impl Fn(&mut Vec<(&'static str, Given)>)) -> Message {
    let wholes = |list: &[i64]| Given::Wholes(list.to_vec());
    let mut given = vec![
        ("nodes_treeids", wholes(&[0, 0, 0])),
        ("nodes_nodeids", wholes(&[0, 1, 2])),
        ("nodes_featureids", wholes(&[1, 0, 0])),
        ("nodes_modes", Given::Texts(vec!["BRANCH_LEQ", "LEAF", "LEAF"])),
        ("nodes_values", Given::Floats(vec![0.5, 0.0, 0.0])),
        ("nodes_truenodeids", wholes(&[1, 0, 0])),
        ("nodes_falsenodeids", wholes(&[2, 0, 0])),
        ("target_treeids", wholes(&[0, 0])),
        ("target_nodeids", wholes(&[1, 2])),
        ("target_ids", wholes(&[0, 0])),
        ("target_weights", Given::Floats(vec![-1.0, 1.0])),
        ("n_targets", Given::Whole(1)),
    ];
    change(&mut given);
    node("TreeEnsembleRegressor", &["x"], &["y"], &given)
}

fn with(name: &'static str, value: &Given) -> Vec<Message> {
    vec![stump(|given| {
        given.retain(|(known, _)| *known != name);
        given.push((name, value.clone()));
    })]
}

fn run(session: &dyn Session, shape: [usize; 2], data: &[f32]) -> Result<Vec<f32>, String> {
    let x = NamedTensor::new("x", Tensor::new(shape, data.to_vec()).unwrap());
    let outputs = session.run(&[x]).map_err(|error| error.to_string())?;
    Ok(outputs[0].tensor.as_slice::<f32>().unwrap().to_vec())
}

#[test]
fn a_stump_splits_at_its_threshold_and_sends_nan_to_the_false_side() {
    let session = Classical.load(&spec(vec![stump(|_| {})])).unwrap();
    let x = [9.0, 0.5, 9.0, 0.500_001, 9.0, f32::NAN, 9.0, f32::NEG_INFINITY];
    assert_eq!(run(session.as_ref(), [4, 2], &x).unwrap(), [-1.0, 1.0, 1.0, -1.0]);
    assert_eq!(run(session.as_ref(), [0, 2], &[]).unwrap(), [] as [f32; 0]);
    let error = run(session.as_ref(), [2, 1], &[0.0, 0.0]).unwrap_err();
    assert!(error.contains("TreeEnsembleRegressor (ai.onnx.ml.TreeEnsembleRegressor): node 0 of tree 0 compares feature 1, its input has 1"), "{error}");
}

#[test]
fn lists_that_are_no_trees_are_refused_with_the_node() {
    let wholes = |list: &[i64]| Given::Wholes(list.to_vec());
    let floats = |list: &[f32]| Given::Floats(list.to_vec());
    let texts = |list: &[&'static str]| Given::Texts(list.to_vec());
    let leaves = ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"];
    let cycle = stump(|given| {
        given[3].1 = Given::Texts(leaves.to_vec());
        given[5].1 = Given::Wholes(vec![1, 0, 0]);
        given[6].1 = Given::Wholes(vec![2, 2, 0]);
    });
    assert!(refused(vec![cycle]).contains("of tree 0 is reached twice"));
    for (name, value, expected) in [
        ("nodes_falsenodeids", wholes(&[0, 0, 0]), "node 0 of tree 0 is reached twice"),
        ("nodes_truenodeids", wholes(&[7, 0, 0]), "node 0 of tree 0 has node 7 as its true node, which is not there"),
        ("nodes_truenodeids", wholes(&[-1, 0, 0]), "node 0 of tree 0 has node -1 as its true node"),
        ("nodes_values", floats(&[f32::NAN, 0.0, 0.0]), "node 0 of tree 0 compares with nan"),
        ("nodes_nodeids", wholes(&[0, 1, 1]), "node 1 of tree 0 is there twice"),
        ("nodes_featureids", wholes(&[-5, 0, 0]), "node 0 of tree 0 has feature -5"),
        ("nodes_featureids", wholes(&[i64::MAX, 0, 0]), "node 0 of tree 0 has feature 9223372036854775807"),
        (
            "nodes_modes",
            texts(&["BRANCH_MAYBE", "LEAF", "LEAF"]),
            "node 0 of tree 0 has the unknown mode \"BRANCH_MAYBE\"",
        ),
        ("nodes_modes", texts(&["LEAF"]), "nodes_modes has 1 entries, expected 3"),
        ("nodes_treeids", wholes(&[0, 0, 1]), "a weight belongs to node 2 of tree 0, which is not there"),
        ("target_nodeids", wholes(&[1, 9]), "a weight belongs to node 9 of tree 0, which is not there"),
        ("target_ids", wholes(&[0, 3]), "node 2 of tree 0 adds to output 3 of 1"),
        ("target_ids", wholes(&[0, 1 << 40]), "node 2 of tree 0 has output 1099511627776"),
        ("target_weights", floats(&[1.0]), "target_weights has 1 entries, expected 2"),
        ("n_targets", Given::Whole(1_000_000_000), "n_targets is 1000000000, expected 1 to 65536"),
        ("n_targets", Given::Whole(-1), "n_targets is -1"),
        ("post_transform", Given::Text("CUBE"), "post_transform \"CUBE\" is none of ONNX's"),
        ("base_values", floats(&[1.0, 2.0]), "base_values has 2 entries for 1 outputs"),
    ] {
        let error = refused(with(name, &value));
        assert!(error.contains("TreeEnsembleRegressor") && error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn a_depth_of_a_hundred_thousand_is_walked_without_a_stack() {
    const DEPTH: i64 = 100_000;
    let ids: Vec<i64> = (0..=2 * DEPTH).collect();
    let inner = |id: &i64| id % 2 == 0 && *id < 2 * DEPTH;
    let chain =
        |of: &dyn Fn(i64) -> i64| Given::Wholes(ids.iter().map(|&id| if inner(&id) { of(id) } else { 0 }).collect());
    let nodes = stump(|given| {
        given[0].1 = Given::Wholes(vec![0; ids.len()]);
        given[1].1 = Given::Wholes(ids.clone());
        given[2].1 = Given::Wholes(vec![0; ids.len()]);
        given[3].1 = Given::Texts(ids.iter().map(|id| if inner(id) { "BRANCH_LEQ" } else { "LEAF" }).collect());
        given[4].1 = Given::Floats(ids.iter().map(|&id| id as f32).collect());
        given[5].1 = chain(&|id| id + 1);
        given[6].1 = chain(&|id| id + 2);
        given[7].1 = Given::Wholes(vec![0, 0]);
        given[8].1 = Given::Wholes(vec![1, 2 * DEPTH]);
    });
    let session = Classical.load(&spec(vec![nodes])).unwrap();
    assert_eq!(run(session.as_ref(), [2, 1], &[-1.0, 1e9]).unwrap(), [-1.0, 1.0]);
}

#[test]
fn graphs_that_cannot_be_put_in_order_are_refused_with_the_node() {
    let link = |from: &str, to: &str| {
        node("Scaler", &[from], &[to], &[("offset", Given::Floats(vec![0.0])), ("scale", Given::Floats(vec![1.0]))])
    };
    assert!(
        refused(vec![link("b", "a"), link("a", "b"), link("x", "y")])
            .contains("node Scaler (ai.onnx.ml.Scaler): it needs its own output")
    );
    assert!(refused(vec![link("nowhere", "y")]).contains("nothing makes its input nowhere"));
    assert!(refused(vec![link("x", "y"), link("x", "y")]).contains("y is made twice"));
    assert!(refused(vec![link("x", "x")]).contains("x is made twice"));
    assert!(refused(vec![link("x", "z")]).contains("no node makes output y"));
}

#[test]
fn operators_choose_before_anything_is_loaded() {
    let foreign = spec(vec![node("GraphTransformer", &["x"], &["y"], &[])]);
    assert_eq!(Classical.suits(&foreign).unwrap_err(), "it has no ai.onnx.ml.GraphTransformer");
    let mut torn = spec(vec![stump(|_| {})]);
    torn.bytes = Arc::from(&torn.bytes[..torn.bytes.len() / 2]);
    assert!(Classical.suits(&torn).unwrap_err().contains("a field longer than the rest"));
}

#[test]
fn every_prefix_of_a_forest_is_refused_or_loads_and_never_panics() {
    let whole = spec(vec![stump(|_| {})]);
    for length in 0..whole.bytes.len() {
        let part = LoadSpec { bytes: Arc::from(&whole.bytes[..length]), ..whole.clone() };
        drop(Classical.load(&part));
    }
}

#[test]
fn any_changed_byte_is_refused_or_loads_and_never_panics() {
    let whole = spec(vec![stump(|_| {})]);
    let x = NamedTensor::new("x", Tensor::new([9, 2], vec![0.25_f32; 18]).unwrap());
    for at in 0..whole.bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.bytes.to_vec();
            bytes[at] ^= change;
            let changed = LoadSpec { bytes: Arc::from(bytes), ..whole.clone() };
            if let Ok(session) = Classical.load(&changed) {
                drop(session.run(std::slice::from_ref(&x)));
            }
        }
    }
}
