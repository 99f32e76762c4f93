//! What the outbox counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::batch::GapReason;
use super::stream::Class;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    class: &'static str,
}

type Counters = Family<Label, Counter>;
type Gauges = Family<Label, Gauge>;

/// Counters of one outbox. Clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) appended: Counter,
    pub(super) deleted: Counter,
    pub(super) rows: Gauge,
    pub(super) burned: Counter,
    pub(super) packed: Counter,
    corrupt: Counter,
    pub(super) salvaged: Counter,
    pub(super) quarantined: Counter,
    class_rows: Gauges,
    class_bytes: Gauges,
    class_limit_bytes: Gauges,
    evicted: Counters,
    summarised: Counters,
    expired: Counters,
    refused: Counters,
    blocked: Counters,
}

impl Default for Metrics {
    fn default() -> Self {
        // Every class from the start: a counter that appears with its first loss has no rate.
        let counters = || {
            let family = Counters::default();
            for class in Class::ALL {
                drop(family.get_or_create(&label(class)));
            }
            family
        };
        Self {
            appended: Counter::default(),
            deleted: Counter::default(),
            rows: Gauge::default(),
            burned: Counter::default(),
            packed: Counter::default(),
            corrupt: Counter::default(),
            salvaged: Counter::default(),
            quarantined: Counter::default(),
            class_rows: Family::default(),
            class_bytes: Family::default(),
            class_limit_bytes: Family::default(),
            evicted: counters(),
            summarised: counters(),
            expired: counters(),
            refused: counters(),
            blocked: counters(),
        }
    }
}

fn label(class: Class) -> Label {
    Label { class: class.as_str() }
}

impl Metrics {
    /// Adds every metric of this room to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("outbox_appended_rows", "Rows committed to the queue", self.appended.clone());
        registry.register("outbox_deleted_rows", "Rows deleted after an acknowledgement", self.deleted.clone());
        registry.register("outbox_rows", "Rows waiting for the cloud", self.rows.clone());
        registry.register("outbox_burned_numbers", "Numbers burned by failed commits", self.burned.clone());
        registry.register("outbox_packed_rows", "Rows that went into blocks", self.packed.clone());
        registry.register("outbox_corrupt_rows", "Rows lost to a wrong checksum", self.corrupt.clone());
        let help = "Rows brought back from files that were set aside";
        registry.register("outbox_salvaged_rows", help, self.salvaged.clone());
        let help = "Numbers of files that were set aside for which no row was found";
        registry.register("outbox_quarantined_numbers", help, self.quarantined.clone());
        for (name, help, family) in [
            ("outbox_class_rows", "Rows waiting, by class", &self.class_rows),
            ("outbox_class_bytes", "Bytes of the file that they take, by class", &self.class_bytes),
            ("outbox_class_limit_bytes", "Most bytes that the class may take now", &self.class_limit_bytes),
        ] {
            registry.register(name, help, family.clone());
        }
        for (name, help, family) in [
            ("outbox_evicted_rows", "Oldest rows that went at the limit", &self.evicted),
            ("outbox_summarised_rows", "Oldest rows that became a summary at the limit", &self.summarised),
            ("outbox_expired_rows", "Rows that waited too long", &self.expired),
            ("outbox_refused_rows", "New rows that were not kept at the limit", &self.refused),
            ("outbox_blocked_payloads", "Payloads not acknowledged because a class is full", &self.blocked),
        ] {
            registry.register(name, help, family.clone());
        }
    }

    pub(super) fn class(&self, class: Class, rows: u64, bytes: u64, limit_bytes: u64) {
        let label = label(class);
        for (family, value) in
            [(&self.class_rows, rows), (&self.class_bytes, bytes), (&self.class_limit_bytes, limit_bytes)]
        {
            family.get_or_create(&label).set(value.cast_signed());
        }
    }

    /// Rows that entered the ledger.
    pub(super) fn lost(&self, class: Class, reason: GapReason, count: u64) {
        let family = match reason {
            GapReason::Evicted => &self.evicted,
            GapReason::Summarised => &self.summarised,
            GapReason::Expired => &self.expired,
            GapReason::RefusedNewest => &self.refused,
            GapReason::Corrupt => {
                self.corrupt.inc_by(count);
                return;
            }
            // Numbers that were nobody's are counted as burned, unsendable rows by the sender.
            GapReason::Restart | GapReason::Rollback | GapReason::Unsendable | GapReason::Quarantined => return,
        };
        family.get_or_create(&label(class)).inc_by(count);
    }

    pub(super) fn blocked(&self, class: Class) {
        self.blocked.get_or_create(&label(class)).inc();
    }
}
