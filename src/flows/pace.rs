//! How fast the queue may leave: bytes a second, bytes in any 24 hours, the share of fresh rows while a backlog drains,
//! and the wait after an outage. Pure: the time is an argument.
//!
//! Every budget is charged before the bytes leave. A message waits until it fits; one that is larger than the whole
//! burst leaves alone, from a full bucket. Alarms may overdraw, up to a limit, and everything else waits until the debt
//! is paid.

use std::time::Duration;

use rand::Rng;

use super::day::DayBudget;
use super::sync_settings::SyncConfig;

/// Tokens are counted in billionths of a byte, so that no rounding adds up.
const UNIT: i128 = 1_000_000_000;

/// Who asks for budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Claim {
    /// May overdraw.
    Alarm,
    /// Rows that are as new as the queue has them.
    Fresh,
    /// What gathered before.
    Backlog,
}

/// Bytes a second with a burst. In any interval of `t` seconds no more than `rate * t + burst` leaves (or one larger
/// message alone), plus the debt that alarms may make.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    bytes_per_s: u64,
    burst_bytes: u64,
    debt_bytes: u64,
    /// In [`UNIT`]s; negative in debt.
    level: i128,
    /// Since boot.
    filled_at: Duration,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(bytes_per_s: u64, burst_bytes: u64, debt_bytes: u64, now: Duration) -> Self {
        Self { bytes_per_s, burst_bytes, debt_bytes, level: i128::from(burst_bytes) * UNIT, filled_at: now }
    }

    fn full(&self) -> i128 {
        i128::from(self.burst_bytes) * UNIT
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled_at);
        let nanos = i128::try_from(passed.as_nanos()).unwrap_or(i128::MAX / 2);
        let earned = nanos.saturating_mul(i128::from(self.bytes_per_s));
        self.level = self.level.saturating_add(earned).min(self.full());
        self.filled_at = self.filled_at.max(now);
    }

    /// What the level must be before so many bytes may leave.
    fn needed(&self, claim: Claim, bytes: u64) -> i128 {
        let cost = i128::from(bytes) * UNIT;
        let debt = if claim == Claim::Alarm { i128::from(self.debt_bytes) * UNIT } else { 0 };
        (cost - debt).min(self.full())
    }

    /// How long until so many bytes may leave; zero is now.
    pub(super) fn wait(&mut self, claim: Claim, bytes: u64, now: Duration) -> Duration {
        self.fill(now);
        let missing = self.needed(claim, bytes) - self.level;
        if missing <= 0 {
            return Duration::ZERO;
        }
        let rate = i128::from(self.bytes_per_s.max(1));
        let nanos = (missing + rate - 1) / rate;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// They leave. Call it when [`wait`](Self::wait) is zero.
    pub(super) fn charge(&mut self, bytes: u64, now: Duration) {
        self.fill(now);
        self.level -= i128::from(bytes) * UNIT;
    }
}

/// Who is next when both fresh rows and a backlog wait, so that fresh rows get at least their share of the bytes.
#[derive(Debug, Clone)]
pub(super) struct Share {
    fresh_percent: u64,
    /// Positive: fresh rows are owed. In hundredths of bytes.
    owed: i128,
    /// Nobody saves up more than this.
    most: i128,
}

impl Share {
    /// `most_bytes` bounds what one side may be owed, usually one batch.
    pub(super) fn new(fresh_percent: u8, most_bytes: u64) -> Self {
        Self { fresh_percent: u64::from(fresh_percent.min(100)), owed: 0, most: i128::from(most_bytes) * 100 }
    }

    /// True if it is the turn of fresh rows. At a tie they go first: they are what somebody looks at.
    pub(super) fn fresh_first(&self) -> bool {
        self.fresh_percent > 0 && self.owed >= 0
    }

    /// So many bytes left.
    pub(super) fn charge(&mut self, claim: Claim, bytes: u64) {
        let bytes = i128::from(bytes);
        let fresh = i128::from(self.fresh_percent);
        let owed = match claim {
            Claim::Alarm => return,
            Claim::Fresh => self.owed - bytes * (100 - fresh),
            Claim::Backlog => self.owed + bytes * fresh,
        };
        self.owed = owed.clamp(-self.most, self.most);
    }
}

/// Everything that decides when a message may leave.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    bucket: Option<Bucket>,
    pub(super) day: Option<DayBudget>,
    pub(super) share: Share,
    /// Since boot: nothing but alarms leaves before. A fleet that lost the same broker does not drain in one instant.
    quiet_until: Duration,
    spread_percent: u32,
    spread_most: Duration,
}

impl Pace {
    /// Without the day's budget, which the disk knows.
    pub(super) fn new(config: &SyncConfig, now: Duration) -> Self {
        let bucket = config.bytes_per_s.map(|rate| Bucket::new(rate, config.burst(), config.alarm_debt_bytes, now));
        let most = u64::try_from(config.batch_bytes).unwrap_or(u64::MAX);
        Self {
            bucket,
            day: None,
            share: Share::new(config.live_share_percent, most),
            quiet_until: Duration::ZERO,
            spread_percent: config.spread_percent,
            spread_most: Duration::from_millis(config.spread_most_ms),
        }
    }

    /// The link is back after `outage`. Draws a wait of at most `spread_percent` of the outage; an earlier and longer
    /// wait stands, so that a link that comes and goes does not shorten it.
    pub(super) fn back_after(&mut self, outage: Duration, now: Duration, rng: &mut impl Rng) -> Duration {
        let window = outage.saturating_mul(self.spread_percent) / 100;
        let wait = window.min(self.spread_most).mul_f64(rng.random_range(0.0..=1.0));
        self.quiet_until = self.quiet_until.max(now + wait);
        self.quiet_until.saturating_sub(now)
    }

    /// How long before rows of this claim may be read at all; zero is now.
    pub(super) fn quiet(&self, claim: Claim, now: Duration) -> Duration {
        if claim == Claim::Alarm { Duration::ZERO } else { self.quiet_until.saturating_sub(now) }
    }

    /// How long until a message of so many bytes may leave: by the second's budget and by the day's. Zero is now.
    pub(super) fn waits(&mut self, claim: Claim, bytes: u64, now: Duration) -> (Duration, Duration) {
        let by_second = self.bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.wait(claim, bytes, now));
        let by_day = self.day.as_mut().map_or(Duration::ZERO, |day| day.wait(claim, bytes, now));
        (by_second, by_day)
    }

    /// It leaves.
    pub(super) fn charge(&mut self, claim: Claim, bytes: u64, now: Duration) {
        if let Some(bucket) = &mut self.bucket {
            bucket.charge(bytes, now);
        }
        if let Some(day) = &mut self.day {
            day.charge(claim, bytes, now);
        }
        self.share.charge(claim, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_message_larger_than_the_burst_leaves_alone_and_is_paid_for() {
        let mut bucket = Bucket::new(100, 1000, 0, seconds(0));
        assert_eq!(bucket.wait(Claim::Backlog, 5000, seconds(0)), Duration::ZERO);
        bucket.charge(5000, seconds(0));
        assert_eq!(bucket.wait(Claim::Backlog, 100, seconds(0)), seconds(41));
        assert_eq!(bucket.wait(Claim::Backlog, 5000, seconds(0)), seconds(50), "only from a full bucket");
    }

    #[test]
    fn alarms_overdraw_up_to_their_limit_and_the_others_wait_until_it_is_paid() {
        let mut bucket = Bucket::new(100, 1000, 500, seconds(0));
        bucket.charge(1000, seconds(0));
        assert_eq!(bucket.wait(Claim::Alarm, 500, seconds(0)), Duration::ZERO);
        bucket.charge(500, seconds(0));
        assert_eq!(bucket.wait(Claim::Alarm, 100, seconds(0)), seconds(1));
        assert_eq!(bucket.wait(Claim::Fresh, 100, seconds(0)), seconds(6));
    }

    #[test]
    fn fresh_rows_get_their_share_and_nobody_saves_up() {
        let mut share = Share::new(25, 1000);
        let (mut fresh, mut backlog) = (0_u64, 0_u64);
        for _ in 0..4000 {
            if share.fresh_first() {
                share.charge(Claim::Fresh, 100);
                fresh += 100;
            } else {
                share.charge(Claim::Backlog, 300);
                backlog += 300;
            }
        }
        assert!((24..=26).contains(&(fresh * 100 / (fresh + backlog))), "{fresh} of {}", fresh + backlog);
        for _ in 0..1000 {
            share.charge(Claim::Backlog, 1000);
        }
        let mut at_once = 0;
        while share.fresh_first() {
            share.charge(Claim::Fresh, 100);
            at_once += 100;
        }
        assert!(at_once <= 1500, "{at_once} bytes at once after a long time without fresh rows");
        assert!(!Share::new(0, 1000).fresh_first(), "no share: the oldest first");
    }

    #[test]
    fn the_wait_after_an_outage_grows_with_it_and_a_flap_does_not_shorten_it() {
        let config = SyncConfig { spread_percent: 10, spread_most_ms: 300_000, ..SyncConfig::default() };
        let mut rng = StdRng::seed_from_u64(1);
        for (outage_s, most_s) in [(0, 0), (600, 60), (3_600, 300), (86_400, 300)] {
            let mut longest = Duration::ZERO;
            for _ in 0..500 {
                let mut pace = Pace::new(&config, seconds(0));
                let wait = pace.back_after(seconds(outage_s), seconds(0), &mut rng);
                assert!(wait <= seconds(most_s), "{wait:?} after {outage_s} s");
                assert_eq!(pace.quiet(Claim::Backlog, seconds(0)), wait);
                assert_eq!(pace.quiet(Claim::Alarm, seconds(0)), Duration::ZERO);
                longest = longest.max(wait);
            }
            assert!(longest >= seconds(most_s).mul_f64(0.9), "{longest:?} after {outage_s} s");
        }
        let mut pace = Pace::new(&config, seconds(0));
        let wait = pace.back_after(seconds(3_600), seconds(0), &mut rng);
        pace.back_after(Duration::from_millis(5), seconds(0), &mut rng);
        assert_eq!(pace.quiet(Claim::Backlog, seconds(0)), wait);
    }

    #[derive(Debug, Clone)]
    struct Ask {
        after_ms: u64,
        bytes: u64,
        alarm: bool,
    }

    fn asks() -> impl Strategy<Value = Vec<Ask>> {
        let ask = (0_u64..3_000, 1_u64..4_000, proptest::bool::weighted(0.1))
            .prop_map(|(after_ms, bytes, alarm)| Ask { after_ms, bytes, alarm });
        proptest::collection::vec(ask, 1..120)
    }

    proptest! {
        /// Senders that ask at any time and go as soon as they may, against the sum of every interval.
        #[test]
        fn no_interval_ever_carries_more_than_the_rate_and_the_burst(
            asks in asks(), rate in 1_u64..3_000, burst in 1_u64..6_000, debt in 0_u64..3_000, hasty: bool,
        ) {
            let mut bucket = Bucket::new(rate, burst, debt, Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut sent: Vec<(Duration, u64)> = Vec::new();
            let (mut largest, mut alarms) = (0, false);
            for Ask { after_ms, bytes, alarm } in asks {
                now += Duration::from_millis(if hasty { 0 } else { after_ms });
                let claim = if alarm { Claim::Alarm } else { Claim::Backlog };
                now += bucket.wait(claim, bytes, now);
                prop_assert_eq!(bucket.wait(claim, bytes, now), Duration::ZERO, "the wait is enough");
                bucket.charge(bytes, now);
                sent.push((now, bytes));
                (largest, alarms) = (largest.max(bytes), alarms | alarm);
            }
            let most = u128::from(burst.max(largest) + if alarms { debt } else { 0 });
            for start in 0..sent.len() {
                let mut sum = 0_u128;
                for &(at, bytes) in &sent[start..] {
                    sum += u128::from(bytes);
                    let earned = u128::from(rate) * (at - sent[start].0).as_nanos() / 1_000_000_000;
                    prop_assert!(sum <= most + earned + 1, "{sum} bytes in {:?}", at - sent[start].0);
                }
            }
        }
    }
}
