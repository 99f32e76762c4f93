//! A lender and three gateways over a link that loses, repeats and reorders what they say, while both are killed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::config::LendConfig;
use super::report::BudgetReport;
use super::rows::{Key, SCHEMA, read};
use super::story::{Lend, LendParts};
use crate::base::{Clock, ManualClock, Name};
use crate::flows::address::Address;
use crate::flows::lease::{LeaseOutcome, LeaseRequest};
use crate::flows::leases::{LeaseEnds, Leases};
use crate::quota::{self, Amounts, Now, Quota, Subject};
use crate::store::{self, Store};
use crate::uplink::{CloudMessage, FakeUplink, LinkState, Message};

/// Midnight, UTC.
const MIDNIGHT_MS: i64 = 1_700_006_400_000;
const GATEWAYS: [&str; 3] = ["a", "b", "c"];
const TENANT: Subject<'static> = Subject { level: "tenant", name: "acme" };

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn config(total: u64) -> LendConfig {
    toml::from_str(&format!(
        "ask_every_s = 5\n[[budget]]\nlevel = 'tenant'\nname = 'acme'\ntokens_per_day = {total}\nlease_s = 600\n\
         gateways = ['a', 'b', 'c']"
    ))
    .unwrap()
}

fn message(topic: String, payload: Bytes) -> CloudMessage {
    CloudMessage { topic, payload, correlation: None, done: None }
}

/// A gateway: its quota, and its disk, which outlives it.
struct Site {
    store: Store,
    quota: Quota,
    leases: Leases,
    said: mpsc::Receiver<Message>,
    _asked: mpsc::Sender<CloudMessage>,
    _link: watch::Sender<LinkState>,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
    /// Admitted, and of that not on the disk, and of that lost by kills.
    admitted: u64,
    unwritten: u64,
    lost: u64,
}

fn ends(name: &str) -> (LeaseEnds, mpsc::Receiver<Message>, mpsc::Sender<CloudMessage>, watch::Sender<LinkState>) {
    let (asking, asked) = mpsc::channel(16);
    let (say, said) = mpsc::channel(64);
    let (link, up) = watch::channel(LinkState::Up);
    let topic = Address::responses(&self::name("plant"), &self::name(name));
    (LeaseEnds { asked, say, topic, per_minute: 1_000_000, link: up }, said, asking, link)
}

async fn quota_of(store: &Store, now: Now) -> Quota {
    let config: quota::Config = toml::from_str("[[limit]]\nlevel = 'tenant'\nleased = ['tokens']").unwrap();
    let quota = Quota::new(&config, now).unwrap();
    let resuming = quota.clone();
    store.writer().commit(1, move |tx| resuming.resume(tx, None, now)).await.unwrap();
    quota
}

impl Site {
    async fn new(name: &str, clock: &Arc<ManualClock>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let any_clock: Arc<dyn Clock> = clock.clone();
        let store = Store::open(&store::Config::at(folder.path()), &[quota::SCHEMA], any_clock.clone()).unwrap().0;
        let quota = quota_of(&store, Now::of(&**clock)).await;
        let (ends, said, asked, link) = ends(name);
        let leases = Leases::new(quota.clone(), store.writer(), ends, any_clock);
        let (_asked, _link, _folder, clock) = (asked, link, folder, clock.clone());
        Self { store, quota, leases, said, _asked, _link, clock, _folder, admitted: 0, unwritten: 0, lost: 0 }
    }

    /// What it had not written is gone; its disk is not.
    async fn kill(&mut self, name: &str) {
        self.lost += std::mem::take(&mut self.unwritten);
        self.quota = quota_of(&self.store, Now::of(&*self.clock)).await;
        let (ends, said, asked, link) = ends(name);
        self.leases = Leases::new(self.quota.clone(), self.store.writer(), ends, self.clock.clone());
        (self.said, self._asked, self._link) = (said, asked, link);
    }

    async fn flush(&mut self) {
        self.quota.flush(&self.store.writer()).await.unwrap();
        self.unwritten = 0;
    }

    fn spend(&mut self, tokens: u64) {
        let amounts = Amounts { tokens: Some(tokens), money: Some(0) };
        if let Ok(held) = self.quota.reserve(&[TENANT], amounts, Now::of(&*self.clock)) {
            held.settle(amounts);
            self.admitted += tokens;
            self.unwritten += tokens;
        }
    }
}

struct World {
    clock: Arc<ManualClock>,
    total: u64,
    store: Store,
    lender: Lend<FakeUplink, StdRng>,
    boxes: Vec<Site>,
    /// On their way, in both directions.
    wire: Vec<Message>,
    _folder: tempfile::TempDir,
}

fn parts(
    uplink: FakeUplink,
    config: &LendConfig,
    known: Vec<(Key, Book)>,
    store: &Store,
    clock: &Arc<ManualClock>,
    seed: u64,
) -> LendParts<FakeUplink, StdRng> {
    let (calendar, budgets) = config.budgets().unwrap();
    LendParts {
        uplink,
        tenant: name("plant"),
        calendar,
        budgets,
        known,
        is_lost: false,
        ask_every: Duration::from_secs(config.ask_every_s),
        writer: store.writer(),
        clock: clock.clone(),
        rng: StdRng::seed_from_u64(seed),
    }
}

async fn lender(store: &Store, clock: &Arc<ManualClock>, total: u64, seed: u64) -> Lend<FakeUplink, StdRng> {
    let books = store.reader().read(read).await.unwrap();
    Lend::new(parts(FakeUplink::new(64, 4096), &config(total), books, store, clock, seed))
}

impl World {
    async fn new(total: u64) -> Self {
        let clock = Arc::new(ManualClock::at(MIDNIGHT_MS + 1));
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&store::Config::at(folder.path()), &[SCHEMA], clock.clone()).unwrap().0;
        let lender = lender(&store, &clock, total, 1).await;
        let mut boxes = Vec::new();
        for name in GATEWAYS {
            boxes.push(Site::new(name, &clock).await);
        }
        Self { clock, total, store, lender, boxes, wire: Vec::new(), _folder: folder }
    }

    /// The lender looks at everything; `lends`: it gives new leases, too.
    async fn lend(&mut self, lends: bool) {
        if lends {
            self.lender.lend_all(0);
        }
        if self.lender.write(false).await {
            self.lender.ask();
        }
        self.wire.extend(self.lender.waiting.drain(..));
    }

    /// One message arrives, wherever it was sent to.
    async fn deliver(&mut self, message: Message) {
        let at = GATEWAYS.iter().position(|name| message.topic.split('/').nth(3) == Some(name)).unwrap();
        let gateway = name(GATEWAYS[at]);
        if message.topic == Address::requests(&name("plant"), &gateway) {
            let answer = self.boxes[at].leases.answer(&message.payload).await;
            self.boxes[at].unwritten = 0;
            let topic = Address::responses(&name("plant"), &gateway);
            self.wire.push(Message { topic, payload: Bytes::from(serde_json::to_vec(&answer).unwrap()) });
        } else {
            self.lender.hear(&self::message(message.topic, message.payload));
        }
    }

    async fn look(&mut self, at: usize) {
        self.boxes[at].leases.look().await;
        while let Ok(message) = self.boxes[at].said.try_recv() {
            self.boxes[at].unwritten = 0;
            self.wire.push(message);
        }
    }

    async fn kill_lender(&mut self, seed: u64) {
        self.lender = lender(&self.store, &self.clock, self.total, seed).await;
    }

    fn report(&self) -> BudgetReport {
        let key = ("tenant".to_owned(), "acme".to_owned(), quota::Unit::Tokens);
        BudgetReport::of(key, &self.lender.entries[0].book)
    }

    fn admitted(&self) -> u64 {
        self.boxes.iter().map(|one| one.admitted).sum()
    }

    fn lost(&self) -> u64 {
        self.boxes.iter().map(|one| one.lost).sum()
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Spend { at, tokens } => self.boxes[at].spend(tokens),
            Step::Lend => self.lend(true).await,
            Step::Look { at } => self.look(at).await,
            Step::Wait { ms } => self.clock.advance(Duration::from_millis(ms)),
            Step::Flush { at } => self.boxes[at].flush().await,
            Step::KillGateway { at } => self.boxes[at].kill(GATEWAYS[at]).await,
            Step::KillLender { seed } => self.kill_lender(seed).await,
            _ if self.wire.is_empty() => {}
            Step::Deliver { which } => {
                let message = self.wire.swap_remove(which % self.wire.len());
                self.deliver(message).await;
            }
            Step::Repeat { which } => {
                let message = self.wire[which % self.wire.len()].clone();
                self.deliver(message).await;
            }
            Step::Lose { which } => drop(self.wire.swap_remove(which % self.wire.len())),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Spend { at: usize, tokens: u64 },
    Lend,
    Look { at: usize },
    Deliver { which: usize },
    Repeat { which: usize },
    Lose { which: usize },
    Wait { ms: u64 },
    Flush { at: usize },
    KillGateway { at: usize },
    KillLender { seed: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..GATEWAYS.len();
    prop_oneof![
        8 => (at(), 1_u64..60).prop_map(|(at, tokens)| Step::Spend { at, tokens }),
        6 => Just(Step::Lend),
        2 => at().prop_map(|at| Step::Look { at }),
        10 => any::<usize>().prop_map(|which| Step::Deliver { which }),
        2 => any::<usize>().prop_map(|which| Step::Repeat { which }),
        2 => any::<usize>().prop_map(|which| Step::Lose { which }),
        4 => (1_u64..300_000).prop_map(|ms| Step::Wait { ms }),
        1 => at().prop_map(|at| Step::Flush { at }),
        1 => at().prop_map(|at| Step::KillGateway { at }),
        1 => any::<u64>().prop_map(|seed| Step::KillLender { seed }),
    ]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gateways_never_admit_more_than_the_budget_and_everything_is_accounted_for(
        total in 0_u64..1500,
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        runtime().block_on(async {
            let mut world = World::new(total).await;
            for step in &steps {
                world.step(step).await;
                let (admitted, lost) = (world.admitted(), world.lost());
                assert!(admitted <= total + lost, "{admitted} of {total}, and kills lost {lost}");
            }
            // The link is good again, nobody spends, and nothing new is lent: everything is told in the end.
            world.lender.entries[0].budget.config.gateways.clear();
            for _ in 0..8 {
                world.clock.advance(Duration::from_secs(700));
                world.lend(false).await;
                for _ in 0..64 {
                    let Some(message) = world.wire.pop() else { break };
                    world.deliver(message).await;
                    world.lend(false).await;
                }
            }
            let (report, admitted, lost) = (world.report(), world.admitted(), world.lost());
            assert!(report.gateways.iter().all(|one| one.leases.is_empty() && one.forgotten.is_empty()), "{report:?}");
            assert_eq!((report.used, report.lent, report.used + report.left), (admitted - lost, 0, total), "{report:?}");
        });
    }
}

async fn until_quiet(world: &mut World) {
    for _ in 0..64 {
        world.lend(true).await;
        if world.wire.is_empty() {
            return;
        }
        for message in std::mem::take(&mut world.wire) {
            world.deliver(message).await;
        }
    }
    panic!("they never stop talking: {:?}", world.wire);
}

#[test]
fn a_gateway_that_was_away_gives_its_rest_back_and_another_spends_it() {
    runtime().block_on(async {
        let mut world = World::new(1000).await;
        until_quiet(&mut world).await;
        let report = world.report();
        assert!(report.gateways.iter().all(|one| one.leases.len() == 1 && one.leases[0].taken), "{report:?}");
        // The first one is cut off with its part, the others spend what they get.
        let part = report.gateways[0].leases[0].amount;
        world.boxes[0].spend(1);
        for _ in 0..400 {
            (1..3).for_each(|at| world.boxes[at].spend(3));
            world.clock.advance(Duration::from_secs(2));
            for at in 1..3 {
                world.look(at).await;
            }
            world.lend(true).await;
            for message in std::mem::take(&mut world.wire) {
                if message.topic.split('/').nth(3) != Some("a") {
                    world.deliver(message).await;
                }
            }
        }
        let spent = world.admitted() - 1;
        assert!(spent <= 1000 - part && spent > 1000 - part - 30, "{spent} of {part} {:?}", world.report());
        world.boxes[0].spend(1);
        assert_eq!(world.boxes[0].admitted, 1, "its lease is over");
        // It comes back, and says so by itself.
        world.look(0).await;
        until_quiet(&mut world).await;
        for _ in 0..200 {
            (1..3).for_each(|at| world.boxes[at].spend(1));
            world.clock.advance(Duration::from_secs(2));
            world.look(1).await;
            world.look(2).await;
            until_quiet(&mut world).await;
        }
        assert!(world.admitted() > spent + part / 2, "{} {:?}", world.admitted(), world.report());
        assert!(world.admitted() <= 1000);
    });
}

#[test]
fn what_a_gateway_has_forgotten_counts_as_used_and_it_gets_another_part() {
    runtime().block_on(async {
        let mut world = World::new(1000).await;
        until_quiet(&mut world).await;
        let part = world.report().gateways[1].leases[0].clone();
        // Its disk is gone, and everything on it.
        world.boxes[1] = Site::new("b", &world.clock).await;
        world.clock.advance(Duration::from_secs(6));
        until_quiet(&mut world).await;
        let report = world.report();
        assert_eq!(report.gateways[1].forgotten[0].number, part.number, "{report:?}");
        assert!(report.gateways[1].leases[0].number > part.number && report.gateways[1].leases[0].taken, "{report:?}");
        assert_eq!(report.total, report.lent + report.left + report.used);
    });
}

#[test]
fn a_lease_lasts_longer_while_the_link_is_there_and_each_day_begins_a_new_pool() {
    runtime().block_on(async {
        let mut world = World::new(900).await;
        let number = |world: &World| world.report().gateways[0].leases[0].number;
        until_quiet(&mut world).await;
        let first = number(&world);
        for _ in 0..20 {
            world.boxes[0].spend(1);
            world.clock.advance(Duration::from_secs(200));
            until_quiet(&mut world).await;
            assert_eq!(number(&world), first, "the same lease, with another end");
        }
        assert_eq!(world.boxes[0].admitted, 20, "no gap");
        let to_midnight = MIDNIGHT_MS + 86_400_000 - world.clock.wall_ms();
        world.clock.advance(Duration::from_millis(to_midnight.unsigned_abs() + 1));
        until_quiet(&mut world).await;
        let report = world.report();
        assert!(number(&world) > first, "{report:?}");
        assert_eq!((report.used, report.total), (0, 900), "{report:?}");
    });
}

#[test]
fn a_gateway_whose_clock_is_ahead_takes_nothing_and_costs_nothing() {
    runtime().block_on(async {
        let mut world = World::new(900).await;
        let ahead = Arc::new(ManualClock::at(MIDNIGHT_MS + 3_600_000));
        world.boxes[2] = Site::new("c", &ahead).await;
        for _ in 0..6 {
            world.lend(true).await;
            for message in std::mem::take(&mut world.wire) {
                world.deliver(message).await;
            }
        }
        let report = world.report();
        assert!(report.gateways[..2].iter().all(|one| one.leases.len() == 1), "{report:?}");
        let out: u64 = report.gateways.iter().flat_map(|one| &one.leases).map(|lease| lease.amount).sum();
        assert_eq!((report.used, report.left + out), (0, 900), "{report:?}");
    });
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_before_it_is_on_the_disk_and_a_lender_that_was_killed_says_the_same_again() {
    let clock = Arc::new(ManualClock::at(MIDNIGHT_MS + 1));
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&store::Config::at(folder.path()), &[SCHEMA], clock.clone()).unwrap().0;
    let mut said = Vec::new();
    for seed in 0..2 {
        let uplink = FakeUplink::new(64, 4096);
        let taken = uplink.taken();
        let books = store.reader().read(read).await.unwrap();
        let flow = Lend::new(parts(uplink, &config(900), books, &store, &clock, seed));
        let stop = CancellationToken::new();
        let running = tokio::spawn(flow.run(stop.clone()));
        while taken.lock().unwrap().len() < 3 {
            tokio::task::yield_now().await;
        }
        let books = store.reader().read(read).await.unwrap();
        let known = serde_json::to_string(&books[0].1).unwrap();
        let questions: Vec<LeaseRequest> =
            taken.lock().unwrap().iter().map(|one| serde_json::from_slice(&one.payload).unwrap()).collect();
        for question in &questions {
            let lent = question.lend.unwrap();
            assert!(known.contains(&format!("\"number\":{},", lent.number)), "{known}");
        }
        said.push(questions.iter().map(|question| question.lend.unwrap()).collect::<Vec<_>>());
        // Not stopped: what it had in memory is gone.
        running.abort();
    }
    assert_eq!(said[0], said[1]);
}

#[test]
fn a_name_without_a_leased_limit_is_refused_with_what_would_be_right() {
    runtime().block_on(async {
        let mut world = World::new(900).await;
        let question = br#"{"v":1,"id":"x","what":"lease","level":"tenant","name":"acme","unit":"money"}"#;
        let answer = world.boxes[0].leases.answer(question).await;
        assert_eq!((answer.id.as_str(), answer.outcome), ("x", LeaseOutcome::Refused));
        assert!(answer.reason.unwrap().contains("add leased = [\"money\"]"));
        for (payload, expected) in [
            (&br#"{"v":1,"id":"x","what":"lease","level":"tenant"}"#[..], "cannot be read"),
            (br#"{"v":2,"id":"x","what":"lease","level":"tenant","name":"acme","unit":"tokens"}"#, "version 1"),
        ] {
            let answer = world.boxes[0].leases.answer(payload).await;
            assert!(answer.reason.unwrap().contains(expected));
        }
        // A lender that asks for nothing hears what is known.
        until_quiet(&mut world).await;
        let question = br#"{"v":1,"id":"y","what":"lease","level":"tenant","name":"acme","unit":"tokens"}"#;
        let answer = world.boxes[0].leases.answer(question).await;
        assert_eq!((answer.outcome, answer.reports.len()), (LeaseOutcome::Told, 1));
    });
}
