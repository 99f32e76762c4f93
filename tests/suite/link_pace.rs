//! The uplink's pace in virtual time: how many bytes leave when, who goes first, and how a fleet comes back.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use forebay::base::{BootId, Clock, ClockState};
use forebay::flows::{Arrival, Batch, Limits, Metered, Sync, SyncConfig, SyncMetrics};
use forebay::outbox::{Class, StreamHandle};
use forebay::store::{self, Reader};
use forebay::uplink::{Answer, LinkState, Lost, Message, Ticket, Uplink};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::chaos::Chaos;
use crate::fleet::{Collector, Gateway, Running, brisk, trusting};
use crate::mosquitto::Mosquitto;

/// Tokio's paused time: it passes when everybody waits.
#[derive(Debug, Clone)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }

    fn since_boot(&self) -> Duration {
        self.0.elapsed()
    }

    fn boot(&self) -> BootId {
        BootId([1; 16])
    }

    fn state(&self) -> ClockState {
        ClockState::Ntp
    }
}

type Sent = Arc<Mutex<Vec<(Duration, Message)>>>;

/// Takes everything at once and notes when; gone while `up` is false.
struct Line {
    clock: VirtualClock,
    sent: Sent,
    answers: VecDeque<Ticket>,
    up: watch::Receiver<bool>,
    state: watch::Sender<LinkState>,
}

impl Line {
    fn new(clock: &VirtualClock, up: watch::Receiver<bool>) -> Self {
        let (sent, answers) = (Sent::default(), VecDeque::new());
        Self { clock: clock.clone(), sent, answers, up, state: watch::Sender::new(LinkState::Up) }
    }
}

impl Uplink for Line {
    fn window(&self) -> usize {
        4
    }

    fn max_payload_bytes(&self, _topic: &str) -> usize {
        128 * 1024
    }

    async fn connect(&mut self) -> Result<(), Lost> {
        if *self.up.borrow() { Ok(()) } else { Err(Lost { reason: "the line is down".to_owned() }) }
    }

    fn submit(&mut self, ticket: Ticket, message: Message) -> Result<(), Lost> {
        self.sent.lock().unwrap().push((self.clock.since_boot(), message));
        self.answers.push_back(ticket);
        Ok(())
    }

    async fn answer(&mut self) -> Result<(Ticket, Answer), Lost> {
        if let Some(ticket) = self.answers.pop_front() {
            return Ok((ticket, Answer::Acknowledged));
        }
        while self.up.changed().await.is_ok() {
            if !*self.up.borrow_and_update() {
                return Err(Lost { reason: "the line went down".to_owned() });
            }
        }
        std::future::pending().await
    }

    async fn close(&mut self) {
        self.answers.clear();
    }

    fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }
}

/// A gateway in virtual time over a line of its own.
struct Site {
    gateway: Gateway,
    clock: VirtualClock,
    sent: Sent,
    up: watch::Sender<bool>,
    metered: watch::Sender<bool>,
}

impl Site {
    fn open(folder: &tempfile::TempDir, clock: &VirtualClock) -> Self {
        let gateway = Gateway::open(folder.path(), "press-7");
        let (up, metered) = (watch::Sender::new(true), watch::Sender::new(false));
        Self { gateway, clock: clock.clone(), sent: Sent::default(), up, metered }
    }

    fn start(&self, config: SyncConfig, seed: u64) -> Running<SyncMetrics> {
        let mut line = Line::new(&self.clock, self.up.subscribe());
        line.sent = self.sent.clone();
        let (outbox, writer) = (self.gateway.outbox.clone(), self.gateway.store.writer());
        let (clock, rng) = (Arc::new(self.clock.clone()), StdRng::seed_from_u64(seed));
        let sync = Sync::new(outbox, writer, line, self.gateway.name.clone(), clock, config, rng);
        Running::start(sync.metered_by(self.metered.subscribe()))
    }

    fn sizes(&self) -> Vec<(Duration, u64)> {
        let sent = self.sent.lock().unwrap();
        sent.iter().map(|(at, message)| (*at, (message.payload.len() + message.topic.len()) as u64)).collect()
    }

    fn batches(&self) -> Vec<(Duration, Batch)> {
        let sent = self.sent.lock().unwrap();
        let decode = |message: &Message| Batch::decode(&message.payload, &Limits::default()).unwrap().batch;
        sent.iter().map(|(at, message)| (*at, decode(message))).collect()
    }

    /// When each row left first, by class and number.
    fn left_at(&self) -> HashMap<(String, u64), Duration> {
        let mut left = HashMap::new();
        for (at, batch) in self.batches() {
            for row in batch.rows {
                left.entry((batch.class.to_string(), row.seq.0)).or_insert(at);
            }
        }
        left
    }
}

/// Rows that do not compress, of 200 bytes.
fn noise(rows: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let row = |_| {
        let mut body = vec![0; 200];
        rng.fill_bytes(&mut body);
        body
    };
    (0..rows).map(row).collect()
}

/// Time passes when the test says so: a blocking task that waits keeps tokio from moving it while the disk works.
struct Pacer {
    _waits: std::sync::mpsc::Sender<()>,
}

impl Pacer {
    fn hold() -> Self {
        let (waits, waiting) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || waiting.recv());
        Self { _waits: waits }
    }

    /// Everybody does what there is to do: after each round no read is under way any more, and whoever waited for one has run.
    async fn settle(&self, sites: &[&Site]) {
        // Of many, each is waited for once: whoever is behind is waited for with the next step. One goes through the
        // reads that lead from an appended row to an answer: what there is, what is picked, what is left.
        for _ in 0..if sites.len() > 1 { 1 } else { 6 } {
            for site in sites {
                all_readers_are_idle(&site.gateway.store.reader()).await;
            }
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn pass(&self, sites: &[&Site], by: Duration, step: Duration) {
        let mut passed = Duration::ZERO;
        while passed < by {
            self.settle(sites).await;
            tokio::time::advance(step).await;
            passed += step;
        }
        self.settle(sites).await;
    }

    async fn until(&self, site: &Site, what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if done() {
                return;
            }
            self.pass(&[site], TENTH, TENTH).await;
        }
        panic!("never: {what}");
    }
}

/// Holds every connection of the pool at the same time, which only works when nobody else does.
async fn all_readers_are_idle(reader: &Reader) {
    let readers = store::Config::default().readers;
    let all = Arc::new(Barrier::new(readers));
    let holds = (0..readers).map(|_| {
        let all = all.clone();
        reader.read(move |_| {
            all.wait();
            Ok(())
        })
    });
    for held in futures_util::future::join_all(holds).await {
        held.unwrap();
    }
}

const TENTH: Duration = Duration::from_millis(100);

fn clock() -> (VirtualClock, Pacer) {
    (VirtualClock(Instant::now()), Pacer::hold())
}

/// Batches of up to 64 KiB, as in the field.
fn paced() -> SyncConfig {
    SyncConfig { batch_rows: 500, batch_bytes: 65_536, linger_ms: 200, ..trusting() }
}

#[tokio::test(start_paused = true)]
async fn no_interval_carries_more_than_the_rate_and_the_burst_and_the_rate_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, pacer) = clock();
    let site = Site::open(&folder, &clock);
    site.gateway.append(site.gateway.stream(Class::Raw, "press"), noise(10_000, 1)).await;
    let sync = site.start(SyncConfig { bytes_per_s: Some(20_000), burst_bytes: Some(40_000), ..paced() }, 1);
    pacer.until(&site, "everything is acknowledged", || sync.metrics.rows.get() == 10_000).await;
    sync.stop().await;
    let sizes = site.sizes();
    for start in 0..sizes.len() {
        let mut sum = 0;
        for (at, bytes) in &sizes[start..] {
            sum += bytes;
            let most = 40_000.0 + 20_000.0 * (*at - sizes[start].0).as_secs_f64();
            assert!(sum as f64 <= most + 1.0, "{sum} bytes in {:?}", *at - sizes[start].0);
        }
    }
    let (all, took) = (sizes.iter().map(|(_, bytes)| bytes).sum::<u64>(), sizes.last().unwrap().0 - sizes[0].0);
    let used = (all - 40_000) as f64 / 20_000.0 / took.as_secs_f64();
    eprintln!("{all} bytes in {took:?}: {:.1} % of the rate", used * 100.0);
    assert!(used > 0.95, "{used} of the rate was used");
}

#[tokio::test(start_paused = true)]
async fn fresh_rows_are_current_while_ten_thousand_rows_drain_and_alarms_overtake_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, pacer) = clock();
    let site = Site::open(&folder, &clock);
    let (raw, alarm) = (site.gateway.stream(Class::Raw, "press"), site.gateway.stream(Class::Alarm, "press"));
    site.gateway.append(raw, noise(10_000, 1)).await;
    let config = SyncConfig { bytes_per_s: Some(20_000), live_share_percent: 30, ..paced() };
    let sync = site.start(config, 1);
    let (mut next, mut appended) = (HashMap::from([("raw", 10_001_u64), ("alarm", 1)]), Vec::new());
    let mut put = async |stream: StreamHandle, class: &'static str, rows: usize| {
        let at = site.clock.since_boot();
        site.gateway.append(stream, noise(rows, at.as_nanos() as u64)).await;
        let seq = next.get_mut(class).unwrap();
        appended.extend((*seq..*seq + rows as u64).map(|seq| (class, seq, at)));
        *seq += rows as u64;
    };
    for second in 0..90 {
        put(raw, "raw", 5).await;
        if second % 15 == 7 {
            put(alarm, "alarm", 1).await;
        }
        pacer.pass(&[&site], 10 * TENTH, TENTH).await;
    }
    let drained_meanwhile = site.left_at().keys().filter(|(class, seq)| class == "raw" && *seq <= 10_000).count();
    pacer.until(&site, "everything is acknowledged", || sync.metrics.rows.get() == 10_000 + 450 + 6).await;
    let overtaking = sync.metrics.overtaking.get();
    sync.stop().await;
    let left = site.left_at();
    let mut late: HashMap<&str, Vec<Duration>> = HashMap::new();
    for (class, seq, at) in appended {
        late.entry(class).or_default().push(left[&(class.to_owned(), seq)].saturating_sub(at));
    }
    let worst = |class: &str| *late[class].iter().max().unwrap();
    eprintln!(
        "fresh rows wait {:?} at most, alarms {:?}; {overtaking} batches overtook; {drained_meanwhile} old rows left in 90 s",
        worst("raw"),
        worst("alarm"),
    );
    // 5 s earn one batch of the backlog, which may be in the way.
    assert!(worst("raw") < Duration::from_secs(6), "{:?}", worst("raw"));
    // The backlog's own batches leave seconds apart: an alarm that waited for one would wait longer than this.
    assert!(worst("alarm") < Duration::from_secs(1), "{:?}", worst("alarm"));
    assert!(drained_meanwhile > 5_000, "the backlog gets the rest: {drained_meanwhile} rows");
    assert_eq!(left.len(), 10_456, "each row once");
    nothing_is_missing_meanwhile(&site).await;
    assert!(site.batches().iter().all(|(_, batch)| batch.gaps.is_empty()));
}

/// A receiver that is asked again and again while the drain goes on.
async fn nothing_is_missing_meanwhile(site: &Site) {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::open(folder.path());
    let messages: Vec<_> = site.sent.lock().unwrap().iter().map(|(_, message)| message.clone()).collect();
    let mut to_come = 0;
    for (at, message) in messages.into_iter().enumerate() {
        let arrival = Arrival::read(message.topic, message.payload, collector.inbox.config());
        let Arrival::Batch { address, batch, .. } = arrival else { panic!("{arrival:?}") };
        let inbox = collector.inbox.clone();
        collector.store.writer().commit(0, move |tx| inbox.apply(tx, &address.gateway, &batch)).await.unwrap();
        if at % 16 == 0 {
            let report = collector.report().await;
            assert_eq!(report.missing(), 0, "after {at} messages");
            to_come = to_come.max(report.series.iter().map(|series| series.to_come).sum::<u64>());
        }
    }
    let report = collector.report().await;
    assert_eq!((report.received(), report.missing()), (10_456, 0));
    assert!(report.series.iter().all(|series| series.to_come == 0), "{report:?}");
    assert!(to_come > 5_000, "at some time most was still to come: {to_come}");
}

#[tokio::test(start_paused = true)]
async fn a_days_budget_holds_over_kills_and_restarts_and_is_used() {
    const BUDGET: u64 = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let (clock, pacer) = clock();
    let site = Site::open(&folder, &clock);
    site.gateway.append(site.gateway.stream(Class::Raw, "press"), noise(10_000, 1)).await;
    let hour = Duration::from_secs(3600);
    let config = SyncConfig { bytes_per_day: Some(BUDGET), live_share_percent: 0, ..paced() };
    for run in 0..20 {
        let sync = site.start(config.clone(), run);
        for _ in 0..6 {
            // The budget's row is on the disk when this commit is.
            site.gateway.store.writer().commit(0, |_| Ok(())).await.unwrap();
            pacer.pass(&[&site], hour / 6, hour / 6).await;
        }
        if run % 2 == 0 {
            sync.kill().await;
        } else {
            sync.stop().await;
        }
        tokio::time::advance(hour).await;
    }
    let sizes = site.sizes();
    for (from, _) in &sizes {
        let day = sizes.iter().filter(|(at, _)| (*from..*from + 24 * hour).contains(at));
        let sum: u64 = day.map(|(_, bytes)| bytes).sum();
        assert!(sum <= BUDGET, "{sum} bytes in the day from {from:?} on");
    }
    let all: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
    eprintln!("{all} bytes in 40 hours over 20 runs, half of them killed");
    // A kill burns a block of 64 KiB and a batch at most.
    assert!(all > BUDGET * 12 / 10, "{all}");
}

#[tokio::test(start_paused = true)]
async fn over_a_metered_link_only_some_classes_leave_and_the_others_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, pacer) = clock();
    let site = Site::open(&folder, &clock);
    site.metered.send_replace(true);
    for class in Class::ALL {
        site.gateway.append(site.gateway.stream(class, "press"), noise(100, 1)).await;
    }
    let sync = site.start(SyncConfig { metered: Metered::Auto, ..paced() }, 1);
    pacer.until(&site, "alarms and summaries are acknowledged", || sync.metrics.rows.get() == 200).await;
    site.gateway.append(site.gateway.stream(Class::Verdict, "press"), noise(1_000, 2)).await;
    pacer.pass(&[&site], Duration::from_secs(600), Duration::from_secs(10)).await;
    let classes = || site.batches().iter().map(|(_, batch)| batch.class.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(classes(), BTreeSet::from(["alarm".to_owned(), "summary".to_owned()]));
    assert_eq!(sync.metrics.link.get(), 2, "metered");
    site.metered.send_replace(false);
    pacer.until(&site, "the rest is acknowledged", || sync.metrics.rows.get() == 1_400).await;
    assert_eq!(sync.metrics.link.get(), 3, "up");
    assert_eq!(site.left_at().len(), 1_400);
    sync.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fleet_of_200_that_comes_back_at_once_spreads_its_drain_and_not_its_alarms() {
    let (clock, pacer) = clock();
    let folders: Vec<_> = (0..200).map(|_| tempfile::tempdir().unwrap()).collect();
    let sites: Vec<_> = folders.iter().map(|folder| Site::open(folder, &clock)).collect();
    let config = SyncConfig { retry_most_ms: 1_000, spread_percent: 10, spread_most_ms: 300_000, ..paced() };
    let all: Vec<&Site> = sites.iter().collect();
    let flows: Vec<_> = sites.iter().zip(0..).map(|(site, seed)| site.start(config.clone(), seed)).collect();
    pacer.pass(&all, 10 * TENTH, 5 * TENTH).await;
    for site in &sites {
        site.up.send_replace(false);
    }
    pacer.pass(&all, Duration::from_secs(1800), Duration::from_secs(200)).await;
    for site in &sites {
        for class in [Class::Raw, Class::Alarm] {
            site.gateway.append(site.gateway.stream(class, "press"), noise(10, 1)).await;
        }
    }
    let back = clock.since_boot();
    for site in &sites {
        site.up.send_replace(true);
    }
    pacer.pass(&all, Duration::from_secs(200), Duration::from_secs(2)).await;
    let (mut drains, mut alarms) = ([0; 10], Duration::ZERO);
    for site in &sites {
        let batches = site.batches();
        let first = |class: &str| batches.iter().find(|(_, batch)| batch.class.as_str() == class).unwrap().0 - back;
        alarms = alarms.max(first("alarm"));
        // A tenth of half an hour.
        drains[((first("raw").as_secs_f64() / 18.2) as usize).min(9)] += 1;
    }
    eprintln!("first batches in tenths of three minutes: {drains:?}; the last alarm after {alarms:?}");
    assert!(drains.iter().all(|count| (6..=40).contains(count)), "{drains:?}");
    assert!(alarms <= Duration::from_secs(8), "{alarms:?}");
    for flow in flows {
        flow.stop().await;
    }
}

#[tokio::test]
async fn a_line_that_is_cut_again_and_again_is_degraded_steadily() {
    let broker = Mosquitto::start("");
    let chaos = Chaos::before(broker.port()).await;
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::open(folder.path(), "press-7");
    let sync = gateway.flow_to(chaos.port(), brisk());
    let mut link = sync.link();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let noting = tokio::spawn(async move {
        loop {
            let word = match &*link.borrow_and_update() {
                LinkState::Up => "up",
                LinkState::Metered => "metered",
                LinkState::Degraded { .. } => "degraded",
                LinkState::Down { .. } => "down",
            };
            noted.lock().unwrap().push(word);
            if link.changed().await.is_err() {
                return;
            }
        }
    });
    let running = Running::start(sync);
    for round in 1..=10 {
        while chaos.connections() < round || running.metrics.link.get() == 0 {
            tokio::task::yield_now().await;
        }
        chaos.cut();
        while chaos.connections() < round + 1 {
            tokio::task::yield_now().await;
        }
    }
    running.stop().await;
    noting.await.unwrap();
    let mut seen = seen.lock().unwrap().clone();
    seen.dedup();
    assert!(seen.starts_with(&["down", "up"]), "{seen:?}");
    assert!(seen.len() <= 6 && seen.contains(&"degraded"), "ten cuts, and the state hardly moves: {seen:?}");
}
