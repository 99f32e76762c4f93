//! Readings to windows, by count or by time, tumbling or sliding.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::config::{Config, WindowTime};
use super::error::Error;
use super::ring::Ring;
use super::sample::{Note, Notes, Reading};

/// Most windows in time that may hold the same reading.
const MAX_OVERLAP: u64 = 64;
/// Most values (readings times fields) that a window may hold.
const MAX_VALUES: usize = 1_048_576;

/// Gathers the readings of one stream. The memory is allocated once.
#[derive(Debug, Clone)]
pub struct Window {
    kind: Kind,
    time: WindowTime,
    ring: Ring,
    fell_out: u64,
}

#[derive(Debug, Clone)]
enum Kind {
    Count {
        size: usize,
        step: usize,
        /// Readings until the next window is ready.
        wanted: usize,
    },
    Time {
        size_ms: i64,
        step_ms: i64,
        /// The newest window time; late readings count as this.
        newest_ms: Option<i64>,
        /// Start of the oldest window that has not been given out.
        next_ms: Option<i64>,
        /// Readings held since the clock was last set; older ones are in another reckoning.
        reckoned: usize,
    },
}

/// What a [`Window`] knows beyond its newest readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowState {
    wanted: Option<usize>,
    next_ms: Option<i64>,
    newest_ms: Option<i64>,
}

/// Windows that became ready; each borrows the readings.
#[derive(Debug)]
pub struct Ready<'a> {
    ring: &'a Ring,
    windows: Windows,
}

#[derive(Debug)]
enum Windows {
    Count(Option<usize>),
    Time { next_ms: i64, until_ms: i64, size_ms: i64, step_ms: i64, readings: Range<usize> },
}

/// One ready window: slices of the readings, oldest first.
#[derive(Debug, Clone)]
pub struct View<'a> {
    ring: &'a Ring,
    range: Range<usize>,
    /// Bounds of a window in time: start included, end not; ms since 1970.
    pub bounds_ms: Option<(i64, i64)>,
}

impl Window {
    /// An empty window.
    ///
    /// # Errors
    /// [`Error::Setting`]: both or neither kind of size as it should not be, steps beyond the size, too much memory.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let settings = &config.window;
        let problem = |key: &str, problem: &str| Err(Error::setting(format!("window.{key}"), problem));
        let fields = config.fields().len();
        let (kind, capacity) = match (settings.size, settings.size_ms) {
            (Some(_), Some(_)) => return problem("size", "set either `size` or `size_ms`"),
            (size, None) => {
                if settings.step_ms.is_some() {
                    return problem("step_ms", "needs `size_ms`");
                }
                if size.is_none() && settings.step.is_some() {
                    return problem("step", "needs `size`");
                }
                let size = size.unwrap_or(1);
                let step = settings.step.unwrap_or(size);
                if size == 0 {
                    return problem("size", "a window holds at least one reading");
                }
                if !(1..=size).contains(&step) {
                    return problem("step", "expected 1 to `size`");
                }
                (Kind::Count { size, step, wanted: size }, size)
            }
            (None, Some(size_ms)) => {
                if settings.step.is_some() {
                    return problem("step", "needs `size`");
                }
                let step_ms = settings.step_ms.unwrap_or(size_ms);
                // A year bounds the arithmetic on times.
                if !(1..=31_536_000_000).contains(&size_ms) {
                    return problem("size_ms", "expected 1 ms to one year");
                }
                if !(1..=size_ms).contains(&step_ms) {
                    return problem("step_ms", "expected 1 to `size_ms`");
                }
                if size_ms.div_ceil(step_ms) > MAX_OVERLAP {
                    return problem("step_ms", "at most 64 windows may overlap");
                }
                if settings.max_readings == 0 {
                    return problem("max_readings", "a window holds at least one reading");
                }
                let (size_ms, step_ms) = (size_ms as i64, step_ms as i64);
                let kind = Kind::Time { size_ms, step_ms, newest_ms: None, next_ms: None, reckoned: 0 };
                // One more: the reading that closes a window is not part of it.
                (kind, settings.max_readings.saturating_add(1))
            }
        };
        if capacity.saturating_mul(fields) > MAX_VALUES {
            let key = if settings.size.is_some() { "size" } else { "max_readings" };
            return problem(key, "a window holds at most 1048576 values");
        }
        Ok(Self { kind, time: settings.time, ring: Ring::new(fields, capacity), fell_out: 0 })
    }

    /// How many of the newest readings [`restore`](Self::restore) needs.
    pub fn capacity(&self) -> usize {
        match self.kind {
            Kind::Count { size, .. } => size,
            Kind::Time { .. } => self.ring.capacity(),
        }
    }

    /// Readings held now.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// True before the first reading.
    pub fn is_empty(&self) -> bool {
        self.ring.len() == 0
    }

    /// Readings that fell out of windows in time because `max_readings` was reached, since start.
    pub fn fell_out(&self) -> u64 {
        self.fell_out
    }

    /// Takes one reading and gives out the windows it completes, oldest first: by count at most one, which holds the
    /// reading; by time those that end at or before the reading's time, which do not hold it. Windows in time without
    /// readings are left out. A late reading counts as the newest time. Where a clock was set back (the source's by
    /// [`Note::ClockStep`], this machine's by more than a window), the unfinished windows are given out and time
    /// starts anew.
    pub fn push(&mut self, reading: &Reading) -> Ready<'_> {
        let time_ms = self.window_time(reading);
        let was_set = self.clock_was_set(reading);
        match &mut self.kind {
            Kind::Count { step, wanted, .. } => {
                self.ring.push(time_ms, reading);
                *wanted -= 1;
                let ready = (*wanted == 0).then(|| {
                    *wanted = *step;
                    self.ring.len()
                });
                Ready { ring: &self.ring, windows: Windows::Count(ready) }
            }
            Kind::Time { size_ms, step_ms, newest_ms, next_ms, reckoned } => {
                let (size_ms, step_ms) = (*size_ms, *step_ms);
                let now_ms = if was_set { time_ms } else { time_ms.max(newest_ms.unwrap_or(time_ms)) };
                let first_ms = next_ms.unwrap_or_else(|| first_start(now_ms, size_ms, step_ms));
                let capacity = self.ring.capacity();
                if *reckoned == capacity && self.ring.times()[self.ring.all()][0] >= first_ms {
                    self.fell_out += 1;
                }
                self.ring.push(now_ms, reading);
                let readings = self.ring.range(1, (*reckoned).min(capacity - 1));
                // Skips empty stretches of any length at once.
                let open_ms = first_start(now_ms, size_ms, step_ms);
                *newest_ms = Some(now_ms);
                *next_ms = Some(if was_set { open_ms } else { open_ms.max(first_ms) });
                *reckoned = if was_set { 1 } else { (*reckoned + 1).min(capacity) };
                let until_ms = if was_set { i64::MAX } else { now_ms };
                let windows = Windows::Time { next_ms: first_ms, until_ms, size_ms, step_ms, readings };
                Ready { ring: &self.ring, windows }
            }
        }
    }

    fn window_time(&self, reading: &Reading) -> i64 {
        match self.time {
            WindowTime::Source => reading.time_ms,
            WindowTime::Arrival => reading.arrival_ms,
        }
    }

    fn clock_was_set(&self, reading: &Reading) -> bool {
        match (self.time, &self.kind) {
            (WindowTime::Source, _) => reading.notes.contains(Note::ClockStep),
            (WindowTime::Arrival, &Kind::Time { size_ms, newest_ms: Some(newest_ms), .. }) => {
                newest_ms.saturating_sub(reading.arrival_ms) > size_ms
            }
            _ => false,
        }
    }

    /// Gives out windows in time that end at or before `now_ms` though no reading came to close them. `now_ms` is in the
    /// window's own time: the source's clock if that rules. Later readings count as `now_ms` at least. Does nothing
    /// for windows by count.
    pub fn advance(&mut self, now_ms: i64) -> Ready<'_> {
        match &mut self.kind {
            Kind::Time { size_ms, step_ms, newest_ms: Some(newest_ms), next_ms: Some(next_ms), reckoned }
                if now_ms > *newest_ms =>
            {
                let (size_ms, step_ms, first_ms) = (*size_ms, *step_ms, *next_ms);
                *newest_ms = now_ms;
                *next_ms = first_ms.max(first_start(now_ms, size_ms, step_ms));
                let readings = self.ring.range(0, *reckoned);
                let windows = Windows::Time { next_ms: first_ms, until_ms: now_ms, size_ms, step_ms, readings };
                Ready { ring: &self.ring, windows }
            }
            _ => Ready { ring: &self.ring, windows: Windows::Count(None) },
        }
    }

    /// All readings held, as a window of its own: for pages and for a partial window at the end.
    pub fn view(&self) -> View<'_> {
        View { ring: &self.ring, range: self.ring.all(), bounds_ms: None }
    }

    /// What must be kept, beside the newest [`capacity`](Self::capacity) readings, to go on after a restart.
    pub fn save(&self) -> WindowState {
        match self.kind {
            Kind::Count { wanted, .. } => WindowState { wanted: Some(wanted), next_ms: None, newest_ms: None },
            Kind::Time { next_ms, newest_ms, .. } => WindowState { wanted: None, next_ms, newest_ms },
        }
    }

    /// Goes on from a saved state and the newest readings, oldest first; windows that were given out are not given out
    /// again. A state that does not fit (the settings changed) only fills the memory: windows by count begin anew.
    pub fn restore(&mut self, state: WindowState, readings: impl IntoIterator<Item = Reading>) {
        self.ring.clear();
        if let Kind::Time { newest_ms, next_ms, reckoned, .. } = &mut self.kind {
            (*newest_ms, *next_ms, *reckoned) = (None, None, 0);
        }
        for reading in readings {
            // By count nothing is given out here: the state says when the next window is due.
            if let Kind::Count { wanted, .. } = &mut self.kind {
                *wanted = usize::MAX;
            }
            self.push(&reading);
        }
        let held = self.ring.len();
        match &mut self.kind {
            Kind::Count { size, step, wanted } => {
                *wanted = match state.wanted {
                    // With fewer readings than promised the window waits until it is full.
                    Some(saved) if (1..=*size).contains(&saved) => saved.max(size.saturating_sub(held)),
                    _ => (*step).max(size.saturating_sub(held)),
                };
            }
            Kind::Time { newest_ms, next_ms, .. } => {
                *newest_ms = state.newest_ms.or(*newest_ms);
                *next_ms = state.next_ms.or(*next_ms);
            }
        }
    }
}

/// Start of the oldest window that a reading at `time_ms` belongs to.
fn first_start(time_ms: i64, size_ms: i64, step_ms: i64) -> i64 {
    // The smallest multiple of the step above time - size.
    let past = time_ms.saturating_sub(size_ms);
    past.div_euclid(step_ms).saturating_add(1).saturating_mul(step_ms)
}

impl<'a> Iterator for Ready<'a> {
    type Item = View<'a>;

    fn next(&mut self) -> Option<View<'a>> {
        let ring = self.ring;
        match &mut self.windows {
            Windows::Count(ready) => {
                let length = ready.take()?;
                Some(View { ring, range: ring.range(0, length), bounds_ms: None })
            }
            Windows::Time { next_ms, until_ms, size_ms, step_ms, readings } => loop {
                let start_ms = *next_ms;
                let end_ms = start_ms.saturating_add(*size_ms);
                if end_ms > *until_ms || readings.start == readings.end {
                    return None;
                }
                let times = &ring.times()[readings.clone()];
                // Times never step back within a reckoning, so both ends are found by halving.
                let from = times.partition_point(|&time_ms| time_ms < start_ms);
                let to = times.partition_point(|&time_ms| time_ms < end_ms);
                let range = readings.start + from..readings.start + to;
                *next_ms = start_ms.saturating_add(*step_ms);
                if from == times.len() || end_ms == i64::MAX {
                    // Nothing is held beyond this point.
                    readings.start = readings.end;
                } else if range.is_empty() {
                    *next_ms = (*next_ms).max(first_start(times[from], *size_ms, *step_ms));
                }
                if !range.is_empty() {
                    return Some(View { ring, range, bounds_ms: Some((start_ms, end_ms)) });
                }
            },
        }
    }
}

impl<'a> View<'a> {
    /// Readings in the window, at least one.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// True only for the view of a stream without readings.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Number of fields.
    pub fn fields(&self) -> usize {
        self.ring.fields()
    }

    /// A field's values, oldest first.
    pub fn values(&self, field: usize) -> &'a [f64] {
        &self.ring.column(field)[self.range.clone()]
    }

    /// Window times, oldest first; ms since 1970. Late readings stand at the time that was newest when they came.
    pub fn times_ms(&self) -> &'a [i64] {
        &self.ring.times()[self.range.clone()]
    }

    /// What was noticed about each reading.
    pub fn notes(&self) -> &'a [Notes] {
        &self.ring.notes()[self.range.clone()]
    }

    /// Readings whose values are clamped, held, out of range or not finite.
    pub fn flagged(&self) -> usize {
        self.notes().iter().filter(|notes| notes.taints_values()).count()
    }

    /// Samples that are missing inside the window by the expected rate: gaps that end at a reading of it.
    pub fn missing(&self) -> u64 {
        self.ring.missing()[self.range.clone()].iter().fold(0, |sum, &missing| sum.saturating_add(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::sample::Values;
    use proptest::prelude::*;

    fn window(settings: &str) -> Window {
        Window::new(&toml::from_str(&format!("[window]\n{settings}")).unwrap()).unwrap()
    }

    fn reading(time_ms: i64) -> Reading {
        let values = Values::from_slice(&[time_ms as f64]);
        Reading { time_ms, arrival_ms: time_ms, values, notes: Notes::NONE, gap: None }
    }

    fn set_back(time_ms: i64) -> Reading {
        let mut reading = reading(time_ms);
        reading.notes.insert(Note::ClockStep);
        reading
    }

    fn push(window: &mut Window, time_ms: i64) -> Vec<Vec<f64>> {
        window.push(&reading(time_ms)).map(|view| view.values(0).to_vec()).collect()
    }

    fn all(window: &mut Window, times: impl IntoIterator<Item = i64>) -> Vec<Vec<f64>> {
        times.into_iter().flat_map(|time_ms| push(window, time_ms)).collect()
    }

    #[test]
    fn tumbling_windows_by_count_hold_each_reading_once() {
        assert_eq!(all(&mut window("size=3"), 0..8), [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
    }

    #[test]
    fn sliding_windows_by_count_come_every_step() {
        assert_eq!(all(&mut window("size=3\nstep=1"), 0..5), [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]);
        assert_eq!(all(&mut window("size=3\nstep=2"), 0..6), [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]);
        assert_eq!(all(&mut window(""), 0..2), [[0.0], [1.0]], "no size: each reading by itself");
    }

    #[test]
    fn tumbling_windows_in_time_close_when_a_later_reading_comes() {
        let mut window = window("size_ms=10");
        assert_eq!(all(&mut window, [3, 7, 9]), Vec::<Vec<f64>>::new());
        assert_eq!(push(&mut window, 10), [[3.0, 7.0, 9.0]]);
        assert_eq!(push(&mut window, 10_000_000_000_000), [[10.0]], "empty windows are skipped at once");
        assert_eq!(push(&mut window, 10_000_000_000_010), [[10_000_000_000_000.0]]);
    }

    #[test]
    fn sliding_windows_in_time_overlap() {
        let mut window = window("size_ms=10\nstep_ms=5");
        assert_eq!(push(&mut window, 1).len(), 0);
        assert_eq!(push(&mut window, 6), [[1.0]], "[-5, 5)");
        assert_eq!(push(&mut window, 11), [[1.0, 6.0]], "[0, 10)");
        assert_eq!(push(&mut window, 40), [vec![6.0, 11.0], vec![11.0]], "[5, 15) and [10, 20)");
    }

    #[test]
    fn bounds_are_the_windows_own_and_not_the_readings() {
        let mut window = window("size_ms=10\nstep_ms=5");
        push(&mut window, 6);
        let bounds: Vec<_> = window.push(&reading(100)).map(|view| view.bounds_ms.unwrap()).collect();
        assert_eq!(bounds, [(0, 10), (5, 15)]);
        let mut before_1970 = self::window("size_ms=10");
        push(&mut before_1970, -3);
        assert_eq!(before_1970.push(&reading(0)).next().unwrap().bounds_ms, Some((-10, 0)));
    }

    #[test]
    fn a_late_reading_counts_in_the_window_that_is_open() {
        let mut window = window("size_ms=10");
        all(&mut window, [1, 12]);
        assert_eq!(push(&mut window, 8).len(), 0);
        assert_eq!(push(&mut window, 20), [[12.0, 8.0]]);
    }

    #[test]
    fn a_clock_that_was_set_back_closes_what_was_open_and_starts_anew() {
        let mut window = window("size_ms=10");
        all(&mut window, [1_000_001, 1_000_002]);
        let closed: Vec<_> = window.push(&set_back(5)).map(|view| view.values(0).to_vec()).collect();
        assert_eq!(closed, [[1_000_001.0, 1_000_002.0]]);
        assert_eq!(push(&mut window, 10), [[5.0]]);
        let mut arrival = self::window("size_ms=10\ntime='arrival'");
        all(&mut arrival, [1_000_001, 1_000_002]);
        assert_eq!(push(&mut arrival, 5), [[1_000_001.0, 1_000_002.0]]);
        assert_eq!(push(&mut arrival, 10), [[5.0]]);
    }

    #[test]
    fn time_passing_closes_a_window_without_a_reading() {
        let mut window = window("size_ms=10");
        push(&mut window, 1);
        assert_eq!(window.advance(9).count(), 0);
        let closed: Vec<_> = window.advance(10).map(|view| view.values(0).to_vec()).collect();
        assert_eq!(closed, [[1.0]]);
        assert_eq!(window.advance(50).count(), 0, "not twice");
        assert_eq!(push(&mut window, 61).len(), 0);
    }

    #[test]
    fn readings_beyond_the_memory_fall_out_and_are_counted() {
        let mut window = window("size_ms=100\nmax_readings=3");
        all(&mut window, [1, 2, 3, 4, 5]);
        assert_eq!(push(&mut window, 100), [[3.0, 4.0, 5.0]]);
        assert_eq!(window.fell_out(), 2);
    }

    #[test]
    fn arrival_time_may_rule() {
        let mut window = window("size_ms=10\ntime='arrival'");
        window.push(&Reading { arrival_ms: 5, ..reading(1_000_000) });
        assert_eq!(window.push(&Reading { arrival_ms: 10, ..reading(0) }).count(), 1);
    }

    #[test]
    fn absurd_times_do_not_overflow_or_spin() {
        for settings in ["size_ms=31536000000\nstep_ms=500000000", "size_ms=1", "size_ms=64\nstep_ms=1"] {
            let mut window = window(settings);
            for time_ms in [0, i64::MAX, i64::MIN, i64::MAX - 1, 5, i64::MIN + 1, i64::MAX] {
                assert!(window.push(&reading(time_ms)).count() <= 640);
                assert!(window.push(&set_back(time_ms)).count() <= 640);
                let _ = window.advance(i64::MAX).count();
            }
        }
    }

    proptest! {
        #[test]
        fn windows_by_count_are_what_slicing_gives(size in 1_usize..12, step_back in 0_usize..12, total in 0_i64..60) {
            let step = size - step_back.min(size - 1);
            let found = all(&mut window(&format!("size={size}\nstep={step}")), 0..total);
            let values: Vec<f64> = (0..total).map(|at| at as f64).collect();
            let expected: Vec<Vec<f64>> = values.windows(size).step_by(step).map(<[f64]>::to_vec).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn windows_in_time_are_what_a_filter_gives(
            mut times in proptest::collection::vec(-200_i64..200, 1..50), size in 1_i64..60, parts in 1_i64..6,
        ) {
            times.sort_unstable();
            let step = (size / parts).max(1);
            let mut window = window(&format!("size_ms={size}\nstep_ms={step}"));
            let mut found = all(&mut window, times.iter().copied());
            found.extend(window.advance(1000).map(|view| view.values(0).to_vec()));
            let mut expected = Vec::new();
            for start in (-400..1000).filter(|start| start % step == 0) {
                let inside: Vec<f64> =
                    times.iter().filter(|&&at| (start..start + size).contains(&at)).map(|&at| at as f64).collect();
                if !inside.is_empty() {
                    expected.push(inside);
                }
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_window_restored_anywhere_gives_out_the_same(
            steps in proptest::collection::vec((-3_i64..12, 0..20), 1..60), cut in 0_usize..60, kind in 0..4,
        ) {
            let settings = ["size=7\nstep=3", "size=5", "size_ms=20", "size_ms=20\nstep_ms=5"][kind as usize];
            let mut whole = window(settings);
            let mut part = window(settings);
            let mut kept: Vec<Reading> = Vec::new();
            let mut time_ms = 0;
            for (at, (step, chance)) in steps.into_iter().enumerate() {
                if at == cut {
                    let bytes = serde_json::to_vec(&part.save()).unwrap();
                    let from = kept.len().saturating_sub(part.capacity());
                    part = window(settings);
                    part.restore(serde_json::from_slice(&bytes).unwrap(), kept[from..].iter().cloned());
                }
                time_ms += step;
                if chance == 0 {
                    time_ms -= 1000;
                }
                let next = if chance == 0 { set_back(time_ms) } else { reading(time_ms) };
                let expected: Vec<_> = whole.push(&next).map(|view| view.values(0).to_vec()).collect();
                let found: Vec<_> = part.push(&next).map(|view| view.values(0).to_vec()).collect();
                prop_assert_eq!(expected, found);
                kept.push(next);
            }
        }
    }
}
