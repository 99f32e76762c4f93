//! Sketches of a window: quantiles (KLL) and the number of different values (HyperLogLog) in a few hundred bytes,
//! in the format of Apache DataSketches, whose libraries for Python, Java, C++ and Go read and merge them.
//!
//! A window is whole in memory when its sketches are made, so nothing is left to chance: the same readings give the same
//! bytes, also after a restart. The KLL image holds, of the sorted values, the middle of every 2^l neighbours with the
//! weight 2^l, which no sketch that sees its values one by one can better. Values are finite 32-bit floats.

use datasketches::common::SearchCriteria;
use datasketches::hash::value::canonical_float;
use datasketches::hll::{HllSketch, HllType, HllUnion};
use datasketches::kll::{KllFloat, KllSketch};

/// The parameter k that is written into KLL images: that of the library's default. It bounds how far whoever merges
/// them may compact, not what a window retains.
const KLL_K: u16 = 200;
/// The library's least capacity of a level.
const KLL_M: u8 = 8;
/// Positions of fields of a KLL image: <https://datasketches.apache.org>, `kll_sketch_impl.hpp`.
const KLL_FAMILY: u8 = 15;
const KLL_SORTED: u8 = 2;
const KLL_SINGLE: u8 = 4;

/// How fine sketches are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SketchConfig {
    /// Values that a window's quantile sketch retains, 8 to 200: four bytes each. The rank of a quantile is wrong by at
    /// most 1/`quantile_points`, and by half of that where the window's readings are 2^n times as many.
    pub quantile_points: usize,
    /// Logarithm of the registers that count different values, 4 to 12: 2^(n-1) bytes. The relative standard error is
    /// 0.83 / sqrt(2^n) for one window and 1.04 / sqrt(2^n) for merged ones.
    pub distinct_lg_k: u8,
}

impl Default for SketchConfig {
    fn default() -> Self {
        Self { quantile_points: 64, distinct_lg_k: 8 }
    }
}

/// Why bytes are no sketch.
#[derive(Debug, thiserror::Error)]
#[error("failed to read a {kind} sketch: {reason}")]
pub struct SketchError {
    kind: &'static str,
    reason: String,
}

fn unreadable(kind: &'static str) -> impl Fn(datasketches::error::Error) -> SketchError {
    move |error| SketchError { kind, reason: error.to_string() }
}

/// The finite values as sketches hold them; what lies beyond 32 bits becomes the largest number there is.
#[allow(clippy::cast_possible_truncation, reason = "sketches hold 32-bit floats; the error is 6e-8 of the value")]
fn narrow(values: &[f64]) -> impl Iterator<Item = f32> + '_ {
    // Adding 0 turns -0 into 0: one value, one image.
    values.iter().filter(|value| value.is_finite()).map(|&value| (value as f32).clamp(f32::MIN, f32::MAX) + 0.0)
}

/// The KLL sketch of the finite `values`, as bytes; `None` if there are none.
pub(super) fn kll(values: &[f64], points: usize) -> Option<Vec<u8>> {
    let mut sorted: Vec<f32> = narrow(values).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let (&least, &most) = (sorted.first()?, sorted.last()?);
    let n = sorted.len();
    if n == 1 {
        let mut image = vec![2, 2, KLL_FAMILY, KLL_SINGLE | KLL_SORTED];
        image.extend(KLL_K.to_le_bytes());
        image.extend([KLL_M, 0]);
        image.extend(least.to_le_bytes());
        return Some(image);
    }
    let points = points.clamp(8, usize::from(KLL_K));
    let mut top = 0;
    while n >> top > points {
        top += 1;
    }
    let levels = retained(&sorted, top);
    let held: usize = levels.iter().map(Vec::len).sum();
    let mut image = Vec::with_capacity(28 + 4 * (levels.len() + held));
    image.extend([5, 1, KLL_FAMILY, KLL_SORTED]);
    image.extend(KLL_K.to_le_bytes());
    image.extend([KLL_M, 0]);
    image.extend((n as u64).to_le_bytes());
    image.extend(KLL_K.to_le_bytes());
    image.extend([levels.len() as u8, 0]);
    let mut offset = capacity(levels.len()) - held as u32;
    for level in &levels {
        image.extend(offset.to_le_bytes());
        offset += level.len() as u32;
    }
    for value in [least, most].iter().chain(levels.iter().flatten()) {
        image.extend(value.to_le_bytes());
    }
    Some(image)
}

/// What each level holds: level l the middles of blocks of 2^l neighbours. The blocks that are smaller than the top
/// level's hold the highest values.
fn retained(sorted: &[f32], top: usize) -> Vec<Vec<f32>> {
    let mut levels = vec![Vec::new(); top + 1];
    let mut start = 0;
    for level in (0..=top).rev() {
        let weight = 1 << level;
        let mut upper = false;
        // Every level but the top one holds at most one block.
        while sorted.len() - start >= weight {
            // An even block has two middles: taking turns, so that the error has no direction.
            let middle = if upper { weight / 2 } else { (weight - 1) / 2 };
            levels[level].push(sorted[start + middle]);
            upper = !upper;
            start += weight;
        }
    }
    levels
}

/// Values that the library's sketch with so many levels has room for: the top level k, each below two thirds of the one
/// above, rounded, at least m.
fn capacity(levels: usize) -> u32 {
    let at_depth = |depth: u32| {
        let doubled = (u64::from(KLL_K) << (depth + 1)) / 3_u64.pow(depth);
        u32::try_from(doubled.div_ceil(2)).unwrap_or(u32::MAX).max(u32::from(KLL_M))
    };
    (0..levels as u32).map(at_depth).sum()
}

/// The HyperLogLog sketch of the finite `values` in their order, as bytes; `None` if there are none.
pub(super) fn hll(values: &[f64], lg_k: u8) -> Option<Vec<u8>> {
    let mut sketch = HllSketch::new(lg_k.clamp(4, 12), HllType::Hll4).expect("4 to 12 is within the library's range");
    for &value in values.iter().filter(|value| value.is_finite()) {
        sketch.update(canonical_float::from_f64(value));
    }
    (!sketch.is_empty()).then(|| sketch.serialize())
}

/// Quantiles, as read from one or more windows' sketches. For whoever receives summaries: merging may toss coins,
/// which the gateway itself never does.
#[derive(Debug, Clone)]
pub struct Quantiles(KllSketch<KllFloat<f32>>);

impl Quantiles {
    /// Reads a KLL image of floats.
    pub fn read(bytes: &[u8]) -> Result<Self, SketchError> {
        KllSketch::deserialize(bytes).map(Self).map_err(unreadable("quantile"))
    }

    /// Takes another window in.
    pub fn merge(&mut self, other: &Self) -> Result<(), SketchError> {
        self.0.merge(&other.0).map_err(unreadable("quantile"))
    }

    /// Values that it stands for.
    pub fn count(&self) -> u64 {
        self.0.n()
    }

    /// The value below which a `rank` of 0 to 1 of all values lies; `None` for another rank.
    pub fn quantile(&self, rank: f64) -> Option<f64> {
        let value = self.0.quantile(rank, SearchCriteria::Inclusive).ok()??;
        Some(f64::from(value.into_inner()))
    }

    /// As bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.serialize()
    }
}

/// The number of different values, as read from one or more windows' sketches.
#[derive(Debug, Clone)]
pub struct Distinct(HllUnion);

impl Distinct {
    /// Reads a HyperLogLog image.
    pub fn read(bytes: &[u8]) -> Result<Self, SketchError> {
        let sketch = HllSketch::deserialize(bytes).map_err(unreadable("distinct"))?;
        let mut union = HllUnion::new(sketch.lg_config_k()).map_err(unreadable("distinct"))?;
        union.update(&sketch);
        Ok(Self(union))
    }

    /// Takes another window in.
    pub fn merge(&mut self, other: &Self) {
        self.0.update(&other.0.to_sketch(HllType::Hll4));
    }

    /// How many different values there were, about.
    pub fn estimate(&self) -> f64 {
        self.0.estimate()
    }

    /// As bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.to_sketch(HllType::Hll4).serialize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The largest distance between a quantile's rank and the rank that its value really has.
    fn rank_error(sketch: &Quantiles, values: &[f64]) -> f64 {
        let mut sorted: Vec<f64> = narrow(values).map(f64::from).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let n = sorted.len() as f64;
        (1..100)
            .map(|percent| {
                let rank = f64::from(percent) / 100.0;
                let value = sketch.quantile(rank).unwrap();
                let below = sorted.partition_point(|&other| other < value) as f64 / n;
                let up_to = sorted.partition_point(|&other| other <= value) as f64 / n;
                (below - rank).max(rank - up_to).max(0.0)
            })
            .fold(0.0, f64::max)
    }

    /// Values without a pattern, the same in every run.
    fn noise(seed: u64, n: usize) -> Vec<f64> {
        use rand::{Rng as _, SeedableRng as _};
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        (0..n).map(|_| rng.random::<f64>() * 100.0).collect()
    }

    #[test]
    fn a_default_window_costs_little_and_its_quantiles_are_within_a_point() {
        let config = SketchConfig::default();
        let values = noise(1, 2048);
        let image = kll(&values, config.quantile_points).unwrap();
        assert_eq!(image.len(), 20 + 6 * 4 + 8 + 64 * 4);
        let sketch = Quantiles::read(&image).unwrap();
        assert_eq!(sketch.count(), 2048);
        let error = rank_error(&sketch, &values);
        assert!(error <= 0.5 / 64.0 + 1e-9, "{error}");
        let image = hll(&values, config.distinct_lg_k).unwrap();
        assert!(image.len() < 200, "{} bytes", image.len());
        let estimate = Distinct::read(&image).unwrap().estimate();
        assert!((estimate / 2048.0 - 1.0).abs() < 0.16, "{estimate} of 2048");
    }

    #[test]
    fn eight_windows_merge_into_one_that_is_still_exact_to_a_point() {
        let windows: Vec<Vec<f64>> = (0..8).map(|seed| noise(seed, 2048)).collect();
        let read = |window: &Vec<f64>| Quantiles::read(&kll(window, 64).unwrap()).unwrap();
        let mut merged = read(&windows[0]);
        windows[1..].iter().for_each(|window| merged.merge(&read(window)).unwrap());
        let all = windows.concat();
        let error = rank_error(&merged, &all);
        assert!(error < 0.015, "{error}");
        let mut different = Distinct::read(&hll(&windows[0], 8).unwrap()).unwrap();
        windows[1..].iter().for_each(|window| different.merge(&Distinct::read(&hll(window, 8).unwrap()).unwrap()));
        let estimate = different.estimate();
        assert!((estimate / all.len() as f64 - 1.0).abs() < 0.2, "{estimate} of {}", all.len());
    }

    #[test]
    fn a_window_without_a_finite_value_has_no_sketch() {
        for values in [&[][..], &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]] {
            assert_eq!((kll(values, 64), hll(values, 8)), (None, None));
        }
        Quantiles::read(b"").unwrap_err();
        Distinct::read(b"\x01").unwrap_err();
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -1e3..1e3,
            1 => any::<f64>(),
            1 => proptest::sample::select(vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 5e-324]),
        ]
    }

    proptest! {
        #[test]
        fn every_window_reads_back_whole_and_within_its_bound(
            values in proptest::collection::vec(any_value(), 0..3000),
            points in 8_usize..200,
        ) {
            let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
            let Some(image) = kll(&values, points) else {
                prop_assert!(finite.is_empty());
                return Ok(());
            };
            let same = kll(&finite, points);
            prop_assert_eq!(same.as_ref(), Some(&image), "NaN and infinities leave no trace");
            let sketch = Quantiles::read(&image).unwrap();
            prop_assert_eq!(sketch.count(), finite.len() as u64);
            prop_assert_eq!(sketch.bytes(), image);
            let ends = [sketch.quantile(0.0), sketch.quantile(1.0)];
            let narrow: Vec<f64> = narrow(&finite).map(f64::from).collect();
            let expected = [narrow.iter().copied().reduce(f64::min), narrow.iter().copied().reduce(f64::max)];
            prop_assert_eq!(ends, expected);
            prop_assert!(ends.iter().flatten().all(|end| end.is_finite()));
            let error = rank_error(&sketch, &finite);
            prop_assert!(error <= 1.0 / points as f64 + 1e-9, "{error} with {points} points of {}", finite.len());
        }

        #[test]
        fn windows_merge_in_any_order(
            windows in proptest::collection::vec(proptest::collection::vec(any_value(), 1..400), 1..9),
            order in any::<u64>(),
        ) {
            use rand::{SeedableRng as _, seq::SliceRandom as _};
            let all: Vec<f64> = windows.concat().into_iter().filter(|value| value.is_finite()).collect();
            let merge = |windows: &[Vec<f64>]| {
                let mut quantiles: Option<Quantiles> = None;
                let mut distinct: Option<Distinct> = None;
                for window in windows {
                    let (Some(kll), Some(hll)) = (kll(window, 64), hll(window, 8)) else { continue };
                    let (kll, hll) = (Quantiles::read(&kll).unwrap(), Distinct::read(&hll).unwrap());
                    match &mut quantiles {
                        Some(merged) => merged.merge(&kll).unwrap(),
                        None => quantiles = Some(kll),
                    }
                    match &mut distinct {
                        Some(merged) => merged.merge(&hll),
                        None => distinct = Some(hll),
                    }
                }
                (quantiles, distinct)
            };
            let mut shuffled = windows.clone();
            shuffled.shuffle(&mut rand::rngs::StdRng::seed_from_u64(order));
            for (quantiles, distinct) in [merge(&windows), merge(&shuffled)] {
                let (Some(quantiles), Some(distinct)) = (quantiles, distinct) else {
                    prop_assert!(all.is_empty());
                    continue;
                };
                prop_assert_eq!(quantiles.count(), all.len() as u64);
                let error = rank_error(&quantiles, &all);
                prop_assert!(error <= 0.05, "{error} over {} values", all.len());
                let mut different: Vec<u64> = all.iter().map(|value| (value + 0.0).to_bits()).collect();
                different.sort_unstable();
                different.dedup();
                let ratio = distinct.estimate() / different.len() as f64;
                prop_assert!((0.6..1.5).contains(&ratio), "{ratio}");
            }
        }
    }
}
