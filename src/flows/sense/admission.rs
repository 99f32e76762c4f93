//! How much of the queue to the cloud a payload may take.

use super::commit::Committed;
use crate::outbox::{Admission, Class, ClassFull, Wanted};
use crate::signal::Sample;

/// A record without its values: keys, numbers, words.
const RECORD_BYTES: usize = 320;
/// A source's identity at its longest.
const ID_BYTES: usize = 64;
/// One value as CBOR.
const VALUE_BYTES: usize = 9;
/// A summary without its fields, a model's word included.
const SUMMARY_BYTES: usize = 1536;
/// The parts of a field's summary that have no setting.
const FIELD_BYTES: usize = 256;
/// Bytes of a value that a quantile sketch retains.
const POINT_BYTES: usize = 4;

impl Committed {
    /// Asks the queue for room for everything that these samples may become. More is asked for than is used: the promise
    /// lasts only until the commit.
    pub(super) fn admit(&self, samples: &[Sample]) -> Result<Admission, ClassFull> {
        let fields = self.config.signal.fields().len();

        let record = RECORD_BYTES + ID_BYTES + VALUE_BYTES * fields + self.model.as_ref().map_or(0, String::len);
        let summary = &self.config.summary;
        let points = usize::try_from(summary.quantile_points).unwrap_or(usize::MAX / 8 / POINT_BYTES);
        let sketches = 2 * POINT_BYTES * points + (1 << summary.distinct_lg_k);
        let windows = samples.len() / usize::try_from(summary.readings.max(1)).unwrap_or(usize::MAX) + 1;
        let rows = |class, rows, body_bytes| Wanted { class, rows, body_bytes };
        self.outbox.admit(&[
            rows(Class::Alarm, samples.len(), record),
            rows(Class::Verdict, if self.verdicts.is_some() { samples.len() } else { 0 }, record),
            rows(
                Class::Summary,
                if summary.readings > 0 { windows } else { 0 },
                SUMMARY_BYTES + 2 * POINT_BYTES * points + fields * (FIELD_BYTES + sketches),
            ),
        ])
    }
}
