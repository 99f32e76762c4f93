//! Maps for what every request looks up.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// A map that hashes a short name with less work than the standard library's. Seeded at random like that one, but not
/// made to withstand somebody who sees how long each look-up takes: for maps whose size is bounded.
pub type Map<K, V> = HashMap<K, V, RandomState>;

/// Likewise, a set.
pub type Set<K> = HashSet<K, RandomState>;

/// What they are seeded with.
pub type MapState = RandomState;
