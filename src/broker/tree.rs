//! Topic filters as a tree of levels: finding who wants a topic costs its depth, not the number of filters.

use std::collections::HashMap;

/// A tree whose filters each hold one `L`.
pub(super) struct Tree<L> {
    root: Node<L>,
}

struct Node<L> {
    children: HashMap<Box<str>, Node<L>>,
    plus: Option<Box<Node<L>>>,
    /// What the filter ending here holds.
    here: Option<Box<L>>,
    /// What the filter ending in `#` below here holds.
    below: Option<Box<L>>,
}

impl<L> Default for Node<L> {
    fn default() -> Self {
        Self { children: HashMap::new(), plus: None, here: None, below: None }
    }
}

impl<L> Default for Tree<L> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<L: Default> Tree<L> {
    /// What `filter` holds, made if it is new.
    pub(super) fn entry(&mut self, filter: &str) -> &mut L {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            node = match level {
                "#" => return node.below.get_or_insert_default(),
                "+" => node.plus.get_or_insert_default(),
                _ => {
                    if !node.children.contains_key(level) {
                        node.children.insert(level.into(), Node::default());
                    }
                    node.children.get_mut(level).expect("inserted above")
                }
            };
        }
        node.here.get_or_insert_default()
    }

    /// Changes what `filter` holds; when `change` returns true, it is removed together with empty branches.
    pub(super) fn change(&mut self, filter: &str, change: impl FnOnce(&mut L) -> bool) {
        self.root.change(&mut filter.split('/'), change);
    }

    /// Calls `found` with what every filter matching `topic` holds.
    pub(super) fn visit<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a L)) {
        let system = topic.starts_with('$');
        self.root.visit(Some(topic), system, found);
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

impl<L> Node<L> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.plus.is_none() && self.here.is_none() && self.below.is_none()
    }

    fn change<'f>(&mut self, levels: &mut impl Iterator<Item = &'f str>, change: impl FnOnce(&mut L) -> bool) {
        let slot = match levels.next() {
            None => &mut self.here,
            Some("#") => &mut self.below,
            Some("+") => {
                if let Some(plus) = &mut self.plus {
                    plus.change(levels, change);
                    if plus.is_empty() {
                        self.plus = None;
                    }
                }
                return;
            }
            Some(level) => {
                if let Some(child) = self.children.get_mut(level) {
                    child.change(levels, change);
                    if child.is_empty() {
                        self.children.remove(level);
                    }
                }
                return;
            }
        };
        if slot.as_mut().is_some_and(|held| change(held)) {
            *slot = None;
        }
    }

    fn visit<'a>(&'a self, rest: Option<&str>, system: bool, found: &mut impl FnMut(&'a L)) {
        // A wildcard at the first level does not see topics that start with `$`.
        if let Some(held) = self.below.as_ref().filter(|_| !system) {
            found(held);
        }
        let Some(rest) = rest else {
            if let Some(held) = &self.here {
                found(held);
            }
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = self.children.get(level) {
            child.visit(rest, false, found);
        }
        if let Some(plus) = self.plus.as_ref().filter(|_| !system) {
            plus.visit(rest, false, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::topic::Filter;

    fn found(tree: &Tree<Vec<String>>, topic: &str) -> Vec<String> {
        let mut found = Vec::new();
        tree.visit(topic, &mut |held| found.extend(held.iter().cloned()));
        found.sort();
        found
    }

    #[test]
    fn a_removed_filter_leaves_no_branches() {
        let mut tree = Tree::<Vec<String>>::default();
        for filter in ["a/b/c", "a/+/c", "a/#", "#"] {
            tree.entry(filter).push(filter.to_owned());
        }
        assert_eq!(found(&tree, "a/b/c"), ["#", "a/#", "a/+/c", "a/b/c"]);
        for filter in ["a/b/c", "a/+/c", "a/#", "#", "never/there"] {
            tree.change(filter, |_| true);
        }
        assert!(tree.is_empty());
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_matching_one_by_one_finds(
            filters in prop::collection::btree_set("(\\$|[ab+]|)(/([ab+]|)){0,3}(/#)?", 1..20),
            topics in prop::collection::vec("(\\$|[ab]|)(/([ab]|)){0,4}", 1..10),
        ) {
            let filters: Vec<String> = filters.into_iter().filter(|filter| Filter::parse(filter).is_some()).collect();
            let mut tree = Tree::<Vec<String>>::default();
            for filter in &filters {
                tree.entry(filter).push(filter.clone());
            }
            for topic in &topics {
                let mut expected: Vec<String> =
                    filters.iter().filter(|filter| Filter::parse(filter).unwrap().matches(topic)).cloned().collect();
                expected.sort();
                prop_assert_eq!(found(&tree, topic), expected);
            }
        }
    }
}
