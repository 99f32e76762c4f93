//! A forest in one list of small nodes, and the walk over it.
//!
//! Both children of a node stand side by side, so that a step is `next = link + (x > threshold)`: no branch that a processor
//! could guess wrong. All comparisons become this one: `x < t` is `x <= t'` with the next smaller float `t'`, and "greater"
//! swaps the children. A leaf's link is itself, so that several walks run in step, each hiding the others' waits for memory,
//! until none of them moves, and no longer than the deepest tree is deep.

use super::Mode;
use super::build::{Forest, Kind};
use super::finish::Aggregate;

/// The node compares. Leaves have no flag.
const BRANCH: u32 = 1 << 31;
/// nan goes to the right.
const NAN_RIGHT: u32 = 1 << 30;
/// Right is "not equal" instead of "greater".
const EQUALITY: u32 = 1 << 29;
/// Right is "not in the set" instead of "greater".
const MEMBER: u32 = 1 << 28;
/// The threshold is the float below the file's.
const BELOW: u32 = 1 << 27;
const FEATURE: u32 = BELOW - 1;

/// Walks in step.
const LANES: usize = 8;
/// Rows whose scores stay in the nearest cache while all trees add to them.
const ROWS: usize = 64;

/// A float that trees compare and add up.
pub(super) trait Number: Copy + Default + PartialOrd + PartialEq + std::ops::AddAssign + Send + Sync {
    fn of(number: f64) -> Self;
    fn to_f64(self) -> f64;
    fn to_f32(self) -> f32;
    /// The next smaller float.
    fn below(self) -> Self;
    /// A leaf's number, kept where a branch has its threshold.
    fn of_leaf(leaf: u32) -> Self;
    fn leaf(self) -> u32;
}

macro_rules! number {
    ($type:ty, $bits:ty) => {
        impl Number for $type {
            fn of(number: f64) -> Self {
                number as Self
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn to_f32(self) -> f32 {
                self as f32
            }
            fn below(self) -> Self {
                self.next_down()
            }
            fn of_leaf(leaf: u32) -> Self {
                Self::from_bits(<$bits>::from(leaf))
            }
            fn leaf(self) -> u32 {
                self.to_bits() as u32
            }
        }
    };
}

number!(f32, u32);
number!(f64, u64);

#[derive(Debug, Clone, Copy, Default)]
struct Node<T> {
    /// Of a leaf its weight, or its number if leaves have several.
    threshold: T,
    /// The left child, the right one behind it; of a leaf itself.
    link: u32,
    /// The feature and flags.
    flags: u32,
}

/// What leaves add.
#[derive(Debug, Clone, Default)]
enum Leaves<T> {
    /// One weight to one target, which stands in the node.
    #[default]
    Single,
    /// A weight to every target, a line of them for each leaf.
    Dense { weights: Vec<T>, targets: usize },
    /// Any: `starts` has one entry more than there are leaves.
    Listed { starts: Vec<u32>, weights: Vec<(u32, T)>, targets: usize },
}

#[derive(Debug, Clone, Default)]
pub(super) struct Flat<T> {
    nodes: Vec<Node<T>>,
    roots: Vec<u32>,
    /// Of each tree, steps from its root to its farthest leaf.
    depths: Vec<u32>,
    leaves: Leaves<T>,
    sets: Vec<Vec<T>>,
    /// A node has a way of its own for nan.
    knows_nan: bool,
    /// A node compares for equality or membership.
    knows_equality: bool,
    /// A feature that is compared, and how a message calls its node; the largest one.
    widest: Option<(usize, String)>,
}

impl<T: Number> Flat<T> {
    /// Lays the trees out, level by level. Each node may be reached once.
    pub(super) fn of(forest: &Forest, targets: usize) -> Result<Self, String> {
        forest.check_targets(targets)?;
        let mut flat = Self { leaves: Leaves::of(forest, targets), ..Self::default() };
        flat.sets = forest.sets.iter().map(|set| set.iter().map(|&member| T::of(member)).collect()).collect();
        let mut reached = vec![false; forest.nodes.len()];
        let mut queue = std::collections::VecDeque::new();
        let mut leaves = 0_u32;
        for &root in &forest.roots {
            let place = flat.reserve(1);
            flat.roots.push(place);
            queue.push_back((root, place, 0));
            let mut deepest = 0;
            while let Some((at, place, depth)) = queue.pop_front() {
                deepest = depth;
                if std::mem::replace(&mut reached[at], true) {
                    return Err(format!("{} is reached twice", forest.title(at)));
                }
                let node = match forest.nodes[at].kind {
                    Kind::Leaf => {
                        let own = &forest.weights[forest.nodes[at].weights.clone()];
                        let weight = flat.leaves.add(own, leaves);
                        leaves += 1;
                        Node { threshold: weight, link: place, flags: 0 }
                    }
                    Kind::Branch { mode, feature, threshold, yes, no, missing_is_yes, set } => {
                        let link = flat.reserve(2);
                        let yes_is_right = matches!(mode, Mode::Greater | Mode::GreaterOrEqual | Mode::NotEqual);
                        let (left, right) = if yes_is_right { (no, yes) } else { (yes, no) };
                        queue.push_back((left, link, depth + 1));
                        queue.push_back((right, link + 1, depth + 1));
                        // nan compares as false, but is not equal to anything.
                        let nan_is_yes = missing_is_yes || mode == Mode::NotEqual;
                        if flat.widest.as_ref().is_none_or(|(widest, _)| feature > *widest) {
                            flat.widest = Some((feature, forest.title(at)));
                        }
                        flat.branch(mode, feature, threshold, nan_is_yes == yes_is_right, set, link, &forest.title(at))?
                    }
                };
                flat.nodes[place as usize] = node;
            }
            flat.depths.push(deepest);
        }
        Ok(flat)
    }

    fn reserve(&mut self, nodes: usize) -> u32 {
        let place = self.nodes.len();
        self.nodes.resize(place + nodes, Node::default());
        // A file of 4 GiB could not fill them.
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a node")]
    fn branch(
        &mut self,
        mode: Mode,
        feature: usize,
        threshold: f64,
        nan_is_right: bool,
        set: usize,
        link: u32,
        title: &str,
    ) -> Result<Node<T>, String> {
        let feature = u32::try_from(feature).ok().filter(|feature| *feature <= FEATURE);
        let mut flags = BRANCH | feature.ok_or_else(|| format!("{title} has a feature over {FEATURE}"))?;
        let mut threshold = T::of(threshold);
        match mode {
            Mode::Less | Mode::GreaterOrEqual => {
                threshold = threshold.below();
                flags |= BELOW;
            }
            Mode::Equal | Mode::NotEqual => {
                flags |= EQUALITY;
                self.knows_equality = true;
            }
            Mode::Member => {
                flags |= MEMBER;
                threshold = T::of_leaf(u32::try_from(set).unwrap_or(u32::MAX));
                self.knows_equality = true;
            }
            Mode::LessOrEqual | Mode::Greater => {}
        }
        if nan_is_right {
            flags |= NAN_RIGHT;
            self.knows_nan = true;
        }
        Ok(Node { threshold, link, flags })
    }

    /// Columns that a row's sums have.
    fn columns(&self) -> usize {
        match self.leaves {
            Leaves::Single => 1,
            Leaves::Dense { targets, .. } | Leaves::Listed { targets, .. } => targets,
        }
    }

    /// What all trees say of `rows` rows with `width` features each: one column, or one a target.
    pub(super) fn run(&self, x: &[T], rows: usize, width: usize, aggregate: Aggregate) -> Result<Vec<T>, String> {
        let columns = self.columns();
        super::room_for(&[rows, columns])?;
        let mut sums = vec![aggregate.start(); rows * columns];
        if rows == 0 {
            return Ok(sums);
        }
        match &self.widest {
            Some((feature, title)) if *feature >= width => {
                return Err(format!("{title} compares feature {feature}, its input has {width}"));
            }
            // Leaves look at a feature too, and ignore it.
            _ if width == 0 => return Err("its input has no features".to_owned()),
            _ => {}
        }
        let has_nan = self.knows_nan && x.iter().any(|element| element.partial_cmp(element).is_none());
        match (has_nan, self.knows_equality) {
            (false, false) => self.add::<false, false>(x, width, aggregate, &mut sums),
            (true, false) => self.add::<true, false>(x, width, aggregate, &mut sums),
            // The form for nan is right without it, too.
            (_, true) => self.add::<true, true>(x, width, aggregate, &mut sums),
        }
        Ok(sums)
    }

    fn add<const NAN: bool, const EQUAL: bool>(&self, x: &[T], width: usize, aggregate: Aggregate, sums: &mut [T]) {
        let columns = self.columns();
        for (x, sums) in x.chunks(ROWS * width).zip(sums.chunks_mut(ROWS * columns)) {
            let rows = x.len() / width;
            // Whole groups of rows go through each tree together; the rest go through groups of trees, one by one.
            let together = rows - rows % LANES;
            if together > 0 {
                for (&root, &depth) in self.roots.iter().zip(&self.depths) {
                    for row in (0..together).step_by(LANES) {
                        let starts = std::array::from_fn(|k| (row + k) * width);
                        let leaves = self.walk::<NAN, EQUAL>([root; LANES], depth, x, starts);
                        for (k, leaf) in leaves.into_iter().enumerate() {
                            self.leaf(leaf, aggregate, &mut sums[(row + k) * columns..(row + k + 1) * columns]);
                        }
                    }
                }
            }
            for row in together..rows {
                let sums = &mut sums[row * columns..(row + 1) * columns];
                let starts = [row * width; LANES];
                let deepest = |depths: &[u32]| depths.iter().copied().max().unwrap_or(0);
                let (groups, rest) = self.roots.as_chunks::<LANES>();
                let (depths, rest_depths) = self.depths.as_chunks::<LANES>();
                for (roots, depths) in groups.iter().zip(depths) {
                    for leaf in self.walk::<NAN, EQUAL>(*roots, deepest(depths), x, starts) {
                        self.leaf(leaf, aggregate, sums);
                    }
                }
                if let Some(&last) = rest.last() {
                    let mut roots = [last; LANES];
                    roots[..rest.len()].copy_from_slice(rest);
                    for leaf in &self.walk::<NAN, EQUAL>(roots, deepest(rest_depths), x, starts)[..rest.len()] {
                        self.leaf(*leaf, aggregate, sums);
                    }
                }
            }
        }
    }

    /// The leaves that the walks end at, at most `depth` steps away; `starts` are where each one's features begin.
    #[inline(always)]
    fn walk<const NAN: bool, const EQUAL: bool>(
        &self,
        mut at: [u32; LANES],
        depth: u32,
        x: &[T],
        starts: [usize; LANES],
    ) -> [u32; LANES] {
        let all = |at: &mut [u32; LANES]| {
            for (at, start) in at.iter_mut().zip(starts) {
                *at = self.step::<NAN, EQUAL>(*at, x, start);
            }
        };
        let mut left = depth;
        // Trees that were grown out have few leaves as deep as the deepest.
        while left > 4 {
            (0..3).for_each(|_| all(&mut at));
            let before = at;
            all(&mut at);
            if at == before {
                return at;
            }
            left -= 4;
        }
        (0..left).for_each(|_| all(&mut at));
        at
    }

    #[inline(always)]
    fn step<const NAN: bool, const EQUAL: bool>(&self, at: u32, x: &[T], start: usize) -> u32 {
        let node = &self.nodes[at as usize];
        let x = x[start + (node.flags & FEATURE) as usize];
        let mut right = x > node.threshold;
        if EQUAL && node.flags & EQUALITY != 0 {
            right = x != node.threshold;
        } else if EQUAL && node.flags & MEMBER != 0 {
            right = !self.sets[node.threshold.leaf() as usize].contains(&x);
        }
        if NAN {
            let is_nan = x.partial_cmp(&x).is_none();
            right = (right & !is_nan) | (is_nan & (node.flags & NAN_RIGHT != 0));
        }
        node.link + (u32::from(right) & (node.flags >> 31))
    }

    #[inline(always)]
    fn leaf(&self, leaf: u32, aggregate: Aggregate, sums: &mut [T]) {
        let own = self.nodes[leaf as usize].threshold;
        match &self.leaves {
            Leaves::Single => aggregate.add(&mut sums[0], own),
            Leaves::Dense { weights, targets } => {
                let start = own.leaf() as usize * targets;
                for (sum, &weight) in sums.iter_mut().zip(&weights[start..start + targets]) {
                    aggregate.add(sum, weight);
                }
            }
            Leaves::Listed { starts, weights, .. } => {
                let leaf = own.leaf() as usize;
                for &(target, weight) in &weights[starts[leaf] as usize..starts[leaf + 1] as usize] {
                    aggregate.add(&mut sums[target as usize], weight);
                }
            }
        }
    }
}

impl Flat<f32> {
    /// The same trees for inputs of 64 bits, which are compared with the file's thresholds and not with rounded inputs.
    pub(super) fn widened(&self) -> Flat<f64> {
        let is_single = matches!(self.leaves, Leaves::Single);
        let threshold = |node: &Node<f32>| match node.flags {
            flags if flags & BELOW != 0 => f64::from(node.threshold.next_up()).next_down(),
            0 if !is_single => f64::of_leaf(node.threshold.leaf()),
            flags if flags & MEMBER != 0 => f64::of_leaf(node.threshold.leaf()),
            _ => f64::from(node.threshold),
        };
        let node = |node: &Node<f32>| Node { threshold: threshold(node), link: node.link, flags: node.flags };
        Flat {
            nodes: self.nodes.iter().map(node).collect(),
            roots: self.roots.clone(),
            depths: self.depths.clone(),
            leaves: self.leaves.widened(),
            sets: self.sets.iter().map(|set| set.iter().copied().map(f64::from).collect()).collect(),
            knows_nan: self.knows_nan,
            knows_equality: self.knows_equality,
            widest: self.widest.clone(),
        }
    }
}

impl Leaves<f32> {
    fn widened(&self) -> Leaves<f64> {
        match self {
            Self::Single => Leaves::Single,
            Self::Dense { weights, targets } => {
                Leaves::Dense { weights: weights.iter().copied().map(f64::from).collect(), targets: *targets }
            }
            Self::Listed { starts, weights, targets } => Leaves::Listed {
                starts: starts.clone(),
                weights: weights.iter().map(|&(target, weight)| (target, f64::from(weight))).collect(),
                targets: *targets,
            },
        }
    }
}

impl<T: Number> Leaves<T> {
    /// The smallest form that holds what the forest's leaves add.
    fn of(forest: &Forest, targets: usize) -> Self {
        let leaves = || forest.nodes.iter().filter(|node| matches!(node.kind, Kind::Leaf));
        let only = forest.only_target(targets);
        if only.is_some() && leaves().all(|leaf| leaf.weights.len() <= 1) {
            return Self::Single;
        }
        let is_dense = leaves().all(|leaf| {
            let own = &forest.weights[leaf.weights.clone()];
            own.len() == targets && own.iter().enumerate().all(|(at, (target, _))| at == *target)
        });
        if is_dense {
            Self::Dense { weights: Vec::with_capacity(forest.weights.len()), targets }
        } else {
            Self::Listed { starts: vec![0], weights: Vec::with_capacity(forest.weights.len()), targets }
        }
    }

    /// Takes leaf number `leaf` and says what its node keeps.
    fn add(&mut self, own: &[(usize, f64)], leaf: u32) -> T {
        match self {
            Self::Single => return T::of(own.first().map_or(0.0, |(_, weight)| *weight)),
            Self::Dense { weights, .. } => weights.extend(own.iter().map(|(_, weight)| T::of(*weight))),
            Self::Listed { starts, weights, .. } => {
                weights.extend(own.iter().map(|&(target, weight)| (target as u32, T::of(weight))));
                starts.push(weights.len() as u32);
            }
        }
        T::of_leaf(leaf)
    }
}
