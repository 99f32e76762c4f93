//! From the lists of a file to linked nodes. Every error names the node.

use std::collections::HashMap;

use super::Mode;
use crate::base::Datatype;
use crate::engine::classical::attributes::Attributes;

/// Trees as the file has them, nodes by index.
pub(super) struct Forest {
    pub(super) nodes: Vec<Node>,
    /// A node for each tree, in the order in which their leaves are added up.
    pub(super) roots: Vec<usize>,
    /// What leaves add: target and weight. [`Node::weights`] are ranges of it.
    pub(super) weights: Vec<(usize, f64)>,
    /// What `Mode::Member` looks in.
    pub(super) sets: Vec<Vec<f64>>,
    /// The file's thresholds have 64 bits.
    pub(super) is_double: bool,
    titles: Titles,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) weights: std::ops::Range<usize>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Leaf,
    Branch {
        mode: Mode,
        feature: usize,
        threshold: f64,
        /// Nodes.
        yes: usize,
        no: usize,
        /// Where nan goes although it compares as false.
        missing_is_yes: bool,
        set: usize,
    },
}

enum Titles {
    /// Tree and node, as the file numbers them.
    Listed(Vec<(i64, i64)>),
    /// Positions in the file's lists.
    Indexed,
}

impl Forest {
    /// How messages call a node.
    pub(super) fn title(&self, node: usize) -> String {
        match &self.titles {
            Titles::Listed(ids) => {
                let (tree, node) = ids.get(node).copied().unwrap_or_default();
                format!("node {node} of tree {tree}")
            }
            Titles::Indexed => format!("node {node}"),
        }
    }

    /// Whether every leaf's target is one of `targets`.
    pub(super) fn check_targets(&self, targets: usize) -> Result<(), String> {
        for (at, node) in self.nodes.iter().enumerate() {
            for (target, _) in &self.weights[node.weights.clone()] {
                if *target >= targets {
                    return Err(format!("{} adds to output {target} of {targets}", self.title(at)));
                }
            }
        }
        Ok(())
    }
}

/// A list of numbers, given as floats or, as a tensor, as wide as it says.
pub(super) fn numbers(attributes: &Attributes<'_>, name: &str) -> Result<(Vec<f64>, bool), String> {
    match attributes.tensor(&format!("{name}_as_tensor"))? {
        Some(tensor) => {
            let numbers = tensor.to_numbers().ok_or_else(|| format!("{name} is no list of numbers"))?;
            Ok((numbers, tensor.datatype() == Datatype::Fp64))
        }
        None => Ok((attributes.floats(name)?.into_iter().map(f64::from).collect(), false)),
    }
}

fn index(value: i64, what: &str, of: &str) -> Result<usize, String> {
    // Half of the range is left to flags.
    usize::try_from(value).ok().filter(|&index| index < 1 << 28).ok_or_else(|| format!("{of} has {what} {value}"))
}

/// Checks that a threshold can be compared with.
fn check_threshold(mode: Mode, threshold: f64, of: &str) -> Result<(), String> {
    if threshold.is_nan() && mode != Mode::Member {
        return Err(format!("{of} compares with nan"));
    }
    // Nothing is less: such a node has one way only, and no converter writes it.
    if threshold == f64::NEG_INFINITY && matches!(mode, Mode::Less | Mode::GreaterOrEqual) {
        return Err(format!("{of} compares with -inf"));
    }
    Ok(())
}

/// The form of versions 1 and 3: a line of lists, nodes by tree and number, leaves among them. `of` is `class` or `target`.
pub(super) fn listed(attributes: &Attributes<'_>, of: &str) -> Result<Forest, String> {
    let trees = attributes.wholes("nodes_treeids")?;
    let list = |name: &str| -> Result<Vec<i64>, String> {
        let list = attributes.wholes(name)?;
        same_length(name, list.len(), trees.len()).map(|()| list)
    };
    let (ids, features) = (list("nodes_nodeids")?, list("nodes_featureids")?);
    let (yes, no) = (list("nodes_truenodeids")?, list("nodes_falsenodeids")?);
    let modes = attributes.texts("nodes_modes")?;
    let (values, is_double) = numbers(attributes, "nodes_values")?;
    same_length("nodes_modes", modes.len(), trees.len())?;
    same_length("nodes_values", values.len(), trees.len())?;
    let missing = attributes.wholes("nodes_missing_value_tracks_true")?;
    if !missing.is_empty() {
        same_length("nodes_missing_value_tracks_true", missing.len(), trees.len())?;
    }
    let titles: Vec<(i64, i64)> = trees.iter().copied().zip(ids.iter().copied()).collect();
    let mut by_title: HashMap<(i64, i64), usize> = HashMap::with_capacity(titles.len());
    let mut roots = Vec::new();
    for (at, title) in titles.iter().enumerate() {
        if by_title.insert(*title, at).is_some() {
            return Err(format!("node {} of tree {} is there twice", title.1, title.0));
        }
        // The first node of a tree is its root.
        if at == 0 || trees[at - 1] != trees[at] {
            roots.push(at);
        }
    }
    let (weights, mut ranges) = leaf_weights(attributes, of, &by_title)?;
    let mut nodes = Vec::with_capacity(trees.len());
    for at in 0..trees.len() {
        let title = || format!("node {} of tree {}", ids[at], trees[at]);
        let range = ranges.remove(&at).unwrap_or(0..0);
        let kind = match modes[at] {
            b"LEAF" => Kind::Leaf,
            mode => {
                let mode = mode_named(mode)
                    .ok_or_else(|| format!("{} has the unknown mode {:?}", title(), String::from_utf8_lossy(mode)))?;
                check_threshold(mode, values[at], &title())?;
                let child = |id: i64, what: &str| {
                    let found = by_title.get(&(trees[at], id)).copied();
                    found.ok_or_else(|| format!("{} has node {id} as its {what} node, which is not there", title()))
                };
                Kind::Branch {
                    mode,
                    feature: index(features[at], "feature", &title())?,
                    threshold: values[at],
                    yes: child(yes[at], "true")?,
                    no: child(no[at], "false")?,
                    missing_is_yes: missing.get(at).is_some_and(|&tracks| tracks != 0),
                    set: 0,
                }
            }
        };
        nodes.push(Node { kind, weights: range });
    }
    Ok(Forest { nodes, roots, weights, sets: Vec::new(), is_double, titles: Titles::Listed(titles) })
}

type Ranges = HashMap<usize, std::ops::Range<usize>>;

/// Weights of leaves, those of one node side by side in the file's order.
fn leaf_weights(
    attributes: &Attributes<'_>,
    of: &str,
    by_title: &HashMap<(i64, i64), usize>,
) -> Result<(Vec<(usize, f64)>, Ranges), String> {
    let (trees, ids) = (attributes.wholes(&format!("{of}_treeids"))?, attributes.wholes(&format!("{of}_nodeids"))?);
    let (targets, weights) =
        (attributes.wholes(&format!("{of}_ids"))?, numbers(attributes, &format!("{of}_weights"))?.0);
    for (name, length) in [("nodeids", ids.len()), ("ids", targets.len()), ("weights", weights.len())] {
        same_length(&format!("{of}_{name}"), length, trees.len())?;
    }
    let mut placed = Vec::with_capacity(trees.len());
    for at in 0..trees.len() {
        let title = || format!("node {} of tree {}", ids[at], trees[at]);
        let node = by_title.get(&(trees[at], ids[at])).copied();
        let node = node.ok_or_else(|| format!("a weight belongs to {}, which is not there", title()))?;
        placed.push((node, index(targets[at], "output", &title())?, weights[at]));
    }
    placed.sort_by_key(|(node, ..)| *node);
    let mut ranges = Ranges::new();
    for (at, (node, ..)) in placed.iter().enumerate() {
        ranges.entry(*node).or_insert(at..at).end = at + 1;
    }
    Ok((placed.into_iter().map(|(_, target, weight)| (target, weight)).collect(), ranges))
}

fn same_length(name: &str, given: usize, expected: usize) -> Result<(), String> {
    if given == expected { Ok(()) } else { Err(format!("{name} has {given} entries, expected {expected}")) }
}

fn mode_named(name: &[u8]) -> Option<Mode> {
    Some(match name {
        b"BRANCH_LEQ" => Mode::LessOrEqual,
        b"BRANCH_LT" => Mode::Less,
        b"BRANCH_GTE" => Mode::GreaterOrEqual,
        b"BRANCH_GT" => Mode::Greater,
        b"BRANCH_EQ" => Mode::Equal,
        b"BRANCH_NEQ" => Mode::NotEqual,
        _ => return None,
    })
}

/// The form of version 5: branches and leaves in lists of their own, children by position.
pub(super) fn indexed(attributes: &Attributes<'_>) -> Result<Forest, String> {
    const MODES: [Mode; 7] =
        [Mode::LessOrEqual, Mode::Less, Mode::GreaterOrEqual, Mode::Greater, Mode::Equal, Mode::NotEqual, Mode::Member];
    let tensor = |name: &str| -> Result<_, String> {
        let tensor = attributes.tensor(name)?.ok_or_else(|| format!("{name} is missing"))?;
        let numbers = tensor.to_numbers().ok_or_else(|| format!("{name} is no list of numbers"))?;
        Ok((numbers, tensor.datatype() == Datatype::Fp64))
    };
    let (splits, is_double) = tensor("nodes_splits")?;
    let count = splits.len();
    let list = |name: &str| -> Result<Vec<i64>, String> {
        let list = attributes.wholes(name)?;
        same_length(name, list.len(), count).map(|()| list)
    };
    let (features, modes) = (list("nodes_featureids")?, tensor("nodes_modes")?.0);
    same_length("nodes_modes", modes.len(), count)?;
    let children = [
        (list("nodes_truenodeids")?, list("nodes_trueleafs")?),
        (list("nodes_falsenodeids")?, list("nodes_falseleafs")?),
    ];
    let missing = attributes.wholes("nodes_missing_value_tracks_true")?;
    let (targets, leaf_weights) = (attributes.wholes("leaf_targetids")?, tensor("leaf_weights")?.0);
    same_length("leaf_weights", leaf_weights.len(), targets.len())?;
    let members = attributes.tensor("membership_values")?.and_then(|tensor| tensor.to_numbers()).unwrap_or_default();
    let mut sets = members.split(|value| value.is_nan());
    let mut weights = Vec::with_capacity(targets.len());
    for (at, (&target, weight)) in targets.iter().zip(leaf_weights).enumerate() {
        weights.push((index(target, "output", &format!("leaf {at}"))?, weight));
    }
    let mut nodes = Vec::with_capacity(count);
    let mut leaves = Vec::new();
    let mut used_sets = Vec::new();
    for at in 0..count {
        let title = format!("node {at}");
        let mode = MODES.iter().enumerate().find(|(number, _)| modes[at] == *number as f64).map(|(_, mode)| *mode);
        let mode = mode.ok_or_else(|| format!("{title} has the unknown mode {}", modes[at]))?;
        check_threshold(mode, splits[at], &title)?;
        let set = used_sets.len();
        if mode == Mode::Member {
            let members = sets.next().filter(|set| !set.is_empty());
            used_sets.push(members.ok_or_else(|| format!("{title} has no members"))?.to_vec());
        }
        let mut ways = [0, 0];
        for (way, (ids, are_leaves)) in ways.iter_mut().zip(&children) {
            let child = index(ids[at], "the child", &title)?;
            let most = if are_leaves[at] != 0 { weights.len() } else { count };
            if child >= most {
                return Err(format!("{title} has child {child} of {most}"));
            }
            *way = child;
            if are_leaves[at] != 0 {
                // Leaves stand behind the branches, one for each that leads there.
                *way = count + leaves.len();
                leaves.push(Node { kind: Kind::Leaf, weights: child..child + 1 });
            }
        }
        let kind = Kind::Branch {
            mode,
            feature: index(features[at], "feature", &title)?,
            threshold: splits[at],
            yes: ways[0],
            no: ways[1],
            missing_is_yes: missing.get(at).is_some_and(|&tracks| tracks != 0),
            set,
        };
        nodes.push(Node { kind, weights: 0..0 });
    }
    nodes.append(&mut leaves);
    let mut roots = Vec::new();
    for root in attributes.wholes("tree_roots")? {
        let root = index(root, "the root", "tree_roots")?;
        roots.push(if root < count { root } else { return Err(format!("tree_roots has node {root} of {count}")) });
    }
    Ok(Forest { nodes, roots, weights, sets: used_sets, is_double, titles: Titles::Indexed })
}
