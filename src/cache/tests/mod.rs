//! The cache on a real store, with vectors that say what they mean.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::metrics::{Kind, Passed};
use super::{
    Answer, Cache, Config, DiskConfig, Embed, EmbedError, Hit, Meaning, Partition, Policy, Purge, SCHEMA, Scope,
    SemanticConfig, Turn, Wish, Worth, rows,
};
use crate::base::{Clock, ManualClock};
use crate::store::{self, Store};

const NOW_MS: i64 = 1_800_000_000_000;
const ANY: Wish = Wish { may_find: true, may_keep: true, only_kept: false, max_age_s: None };

struct Bench {
    store: Store,
    clock: Arc<ManualClock>,
    cache: Cache,
}

async fn open(folder: &Path, config: Config) -> Bench {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let store = Store::open(&store::Config::at(folder), &[SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap().0;
    let watch: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let cache = Cache::open(config, &store.reader(), &store.writer(), watch).await.unwrap();
    Bench { store, clock, cache }
}

impl Bench {
    /// Until what was handed to the writer is on the disk.
    async fn settle(&self) {
        self.store.writer().commit(0, |_| Ok(())).await.unwrap();
    }

    async fn rows(&self) -> i64 {
        let sql = "SELECT (SELECT count(*) FROM cache_entry) + (SELECT count(*) FROM cache_answer)
            + (SELECT count(*) FROM cache_vector)";
        self.store.reader().read(|db| Ok(db.query_row(sql, [], |row| row.get(0))?)).await.unwrap()
    }

    async fn find(&self, partition: &Partition<'_>, body: &str, policy: &Policy) -> Option<Hit> {
        let key = self.cache.key(partition, body.as_bytes(), policy)?;
        self.cache.find(&key, policy, &ANY).await
    }

    fn keep(&self, partition: &Partition<'_>, body: &str, text: &str, policy: &Policy) {
        let key = self.cache.key(partition, body.as_bytes(), policy).unwrap();
        self.cache.keep(&key, partition, &answer(text), policy, &ANY);
    }

    async fn resembling(&self, partition: &Partition<'_>, text: &str) -> (Option<Hit>, Option<Meaning>) {
        self.cache.find_meaning(partition, text, &Directions, &meanings(), &ANY).await
    }

    async fn keep_meaning(&self, partition: &Partition<'_>, text: &str, said: &str) {
        let (_, meaning) = self.resembling(partition, text).await;
        self.cache.keep_meaning(meaning.unwrap(), partition, &answer(said), &meanings(), &ANY);
        self.settle().await;
    }
}

fn in_memory() -> Config {
    Config { max_bytes: 1 << 20, ..Config::default() }
}

fn on_disk(max_bytes: u64) -> Config {
    Config { disk: DiskConfig { max_bytes }, ..Config::default() }
}

fn semantic(max_entries: usize) -> Config {
    Config { semantic: SemanticConfig { max_entries, ..SemanticConfig::default() }, ..Config::default() }
}

fn exact() -> Policy {
    Policy { exact: true, ..Policy::default() }
}

fn meanings() -> Policy {
    Policy { semantic: true, threshold: 0.9, ..Policy::default() }
}

fn answer(text: &str) -> Answer {
    Answer {
        body: Bytes::copy_from_slice(text.as_bytes()),
        content_type: "application/json".into(),
        note: Bytes::from_static(b"note"),
        worth: Worth { tokens: Some(10), cost_pico_usd: Some(5_000) },
    }
}

fn partition() -> Partition<'static> {
    Partition { tenant: "a", key: "k", route: "r", model: "m", dialect: "openai", operation: "chat", more: &[] }
}

fn body(hit: Option<Hit>) -> Option<String> {
    hit.map(|hit| String::from_utf8(hit.answer.body.to_vec()).unwrap())
}

fn purge(text: &str) -> Purge {
    serde_json::from_str(text).unwrap()
}

/// `east 10` is ten degrees off east in a plane of its own among 96 dimensions.
struct Directions;

impl Embed for Directions {
    fn name(&self) -> &str {
        "directions"
    }

    fn embed<'a>(&'a self, text: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<f32>, EmbedError>> + Send + 'a>> {
        Box::pin(async move {
            let (word, degrees) = text.split_once(' ').unwrap();
            let angle = degrees.parse::<f32>().unwrap().to_radians();
            let at = word.bytes().map(usize::from).sum::<usize>() % 48 * 2;
            let mut vector = vec![0.0; 96];
            (vector[at], vector[at + 1]) = (3.0 * angle.cos(), 3.0 * angle.sin());
            Ok(vector)
        })
    }
}

/// A model that is away, or that answers nonsense.
struct Broken(Option<Vec<f32>>);

impl Embed for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    fn embed<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<f32>, EmbedError>> + Send + 'a>> {
        Box::pin(async move { self.0.clone().ok_or_else(|| EmbedError("the model is away".to_owned())) })
    }
}

#[tokio::test]
async fn the_same_request_is_answered_from_memory_until_its_time_is_over() {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let cache = Cache::in_memory(in_memory(), Arc::<ManualClock>::clone(&clock));
    let policy = Policy { ttl_s: 10, ..exact() };
    let key = |body: &str| cache.key(&partition(), body.as_bytes(), &policy).unwrap();
    let one = key(r#"{"model":"m","n":1}"#);
    assert_eq!(cache.find(&one, &policy, &ANY).await, None);
    cache.keep(&one, &partition(), &answer("yes"), &policy, &ANY);
    clock.advance(Duration::from_secs(9));
    let hit = cache.find(&key(r#"{ "n":1, "model":"m" }"#), &policy, &ANY).await.unwrap();
    assert_eq!((hit.answer, hit.age_ms, hit.similarity), (answer("yes"), 9000, None));
    assert_eq!(cache.find(&key(r#"{"model":"m","n":2}"#), &policy, &ANY).await, None);
    assert_eq!((cache.metrics().hit_count(Kind::Exact), cache.metrics().saved_tokens(Kind::Exact)), (1, 10));
    clock.advance(Duration::from_secs(1));
    assert_eq!(cache.find(&one, &policy, &ANY).await, None);
}

#[tokio::test]
async fn nobody_is_answered_from_behind_a_wall() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: 1 << 20, ..on_disk(1 << 20) };
    let bench = open(folder.path(), config).await;
    bench.keep(&partition(), "{}", "mine", &exact());
    bench.settle().await;
    for other in [
        Partition { tenant: "b", ..partition() },
        Partition { key: "l", ..partition() },
        Partition { route: "s", ..partition() },
        Partition { model: "n", ..partition() },
        Partition { dialect: "anthropic", ..partition() },
        Partition { operation: "embed", ..partition() },
        Partition { more: &[b"x"], ..partition() },
    ] {
        assert_eq!(bench.find(&other, "{}", &exact()).await, None, "{other:?}");
    }
    let shared = Policy { scope: Scope::Tenant, ..exact() };
    assert_eq!(bench.find(&partition(), "{}", &shared).await, None, "what was not shared is not found by sharing");
    bench.keep(&partition(), "{}", "ours", &shared);
    let colleague = Partition { key: "l", ..partition() };
    assert_eq!(body(bench.find(&colleague, "{}", &shared).await).unwrap(), "ours");
    assert_eq!(bench.find(&Partition { tenant: "b", ..partition() }, "{}", &shared).await, None);
}

#[tokio::test]
async fn a_cache_that_is_off_does_nothing_and_takes_no_memory() {
    let cache = Cache::in_memory(Config::default(), Arc::new(ManualClock::at(NOW_MS)));
    assert!(!cache.is_on(&exact()) && !cache.is_on(&meanings()) && !cache.is_on(&Policy::default()));
    assert_eq!(cache.key(&partition(), b"{}", &exact()), None);
    assert!(cache.exact.is_none() && cache.disk.is_none() && cache.semantic.is_none());
    let on = Cache::in_memory(in_memory(), Arc::new(ManualClock::at(NOW_MS)));
    assert!(on.is_on(&exact()) && !on.is_on(&Policy::default()));
    assert_eq!(on.key(&partition(), b"{}", &Policy::default()), None);
    assert!(on.find_meaning(&partition(), "east 0", &Directions, &meanings(), &ANY).await.1.is_none());
}

#[test]
fn the_first_policy_that_names_a_route_counts() {
    let text = "max_bytes = 1000\n[[policy]]\nroutes = [\"chat\", \"code\"]\nttl_s = 5\n[[policy]]\nroutes = [\"chat\"]\nttl_s = 6";
    let cache = |text: &str| Cache::in_memory(toml::from_str(text).unwrap(), Arc::new(ManualClock::at(NOW_MS)));
    let some = cache(text);
    assert_eq!((some.policy("chat").ttl_s, some.policy("code").ttl_s), (5, 5));
    assert_eq!(some.policy("other"), &Policy::OFF);
    let all = cache(&format!("{text}\n[[policy]]\nttl_s = 7"));
    assert_eq!((all.policy("chat").ttl_s, all.policy("other").ttl_s), (5, 7));
}

#[tokio::test]
async fn what_is_too_large_or_ambiguous_passes_by_and_is_counted() {
    let config = Config { max_answer_bytes: 100, max_request_bytes: 50, ..in_memory() };
    let cache = Cache::in_memory(config, Arc::new(ManualClock::at(NOW_MS)));
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(50));
    assert_eq!(cache.key(&partition(), large.as_bytes(), &exact()), None);
    assert_eq!(cache.key(&partition(), br#"{"a":1,"a":2}"#, &exact()), None);
    let key = cache.key(&partition(), b"{}", &exact()).unwrap();
    cache.keep(&key, &partition(), &answer(&"x".repeat(100)), &exact(), &ANY);
    assert_eq!(cache.find(&key, &exact(), &ANY).await, None);
    for passed in [Passed::LargeRequest, Passed::Abnormal, Passed::LargeAnswer] {
        assert_eq!(cache.metrics().passed_count(passed), 1, "{passed:?}");
    }
}

#[tokio::test]
async fn a_caller_may_want_no_kept_answer_and_not_to_be_kept() {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let cache = Cache::in_memory(in_memory(), Arc::<ManualClock>::clone(&clock));
    let key = cache.key(&partition(), b"{}", &exact()).unwrap();
    cache.keep(&key, &partition(), &answer("a"), &exact(), &Wish::read("no-store"));
    assert_eq!(cache.find(&key, &exact(), &ANY).await, None);
    cache.keep(&key, &partition(), &answer("a"), &exact(), &Wish::read("no-cache"));
    clock.advance(Duration::from_secs(5));
    assert_eq!(cache.find(&key, &exact(), &Wish::read("no-cache")).await, None);
    assert_eq!(cache.find(&key, &exact(), &Wish::read("max-age=4")).await, None);
    assert!(cache.find(&key, &exact(), &Wish::read("max-age=5")).await.is_some());
}

#[tokio::test]
async fn requests_that_are_the_same_ask_once() {
    let cache = Cache::in_memory(Config::default(), Arc::new(ManualClock::at(NOW_MS)));
    let policy = Policy { single_flight: true, ..Policy::default() };
    assert!(cache.is_on(&policy));
    let key = |body: &str| cache.key(&partition(), body.as_bytes(), &policy).unwrap();
    let Turn::Lead(leader) = cache.join(&key(r#"{"a":1,"b":2}"#), &policy) else { panic!("it does not lead") };
    let Turn::Follow(follower) = cache.join(&key(r#"{"b":2,"a":1}"#), &policy) else { panic!("it does not follow") };
    assert!(matches!(cache.join(&key(r#"{"a":1}"#), &policy), Turn::Lead(_)));
    assert!(matches!(cache.join(&key(r#"{"a":1,"b":2}"#), &exact()), Turn::Alone));
    leader.land(&answer("yes"));
    assert_eq!(follower.answer().await, Ok(answer("yes")));
}

#[tokio::test]
async fn what_is_on_the_disk_is_there_after_a_restart_and_gone_after_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), on_disk(1 << 20)).await;
    bench.keep(&partition(), "{}", "old", &exact());
    bench.keep(&partition(), "{}", "at the same time", &exact());
    bench.settle().await;
    assert_eq!(body(bench.find(&partition(), "{}", &exact()).await).unwrap(), "old");
    bench.keep(&partition(), "{}", "new", &exact());
    bench.settle().await;
    assert_eq!(bench.rows().await, 2, "one answer a request");
    bench.store.close();
    let bench = open(folder.path(), on_disk(1 << 20)).await;
    let hit = bench.find(&partition(), "{}", &exact()).await.unwrap();
    assert_eq!((hit.answer, hit.age_ms), (answer("new"), 0));
    bench.clock.set_wall_ms(NOW_MS - 120_000);
    assert_eq!(bench.find(&partition(), "{}", &exact()).await, None, "it comes from the future");
    bench.clock.set_wall_ms(NOW_MS + 3_600_000);
    assert_eq!(bench.find(&partition(), "{}", &exact()).await, None);
}

#[tokio::test]
async fn on_the_disk_the_oldest_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), on_disk(4096)).await;
    let text = "x".repeat(1000);
    for no in 0..6 {
        bench.keep(&partition(), &format!("{{\"n\":{no}}}"), &text, &exact());
        bench.settle().await;
    }
    for no in 0..6 {
        let is_there = bench.find(&partition(), &format!("{{\"n\":{no}}}"), &exact()).await.is_some();
        assert_eq!(is_there, no >= 3, "{no}");
    }
    assert_eq!((bench.rows().await, bench.cache.metrics().evicted_count(Kind::Disk)), (6, 3));
    bench.store.close();
    // With less room, or none, the next start takes what is too much away.
    let bench = open(folder.path(), on_disk(2048)).await;
    assert_eq!(bench.rows().await, 2);
    bench.store.close();
    assert_eq!(open(folder.path(), in_memory()).await.rows().await, 0);
}

#[tokio::test]
async fn a_row_that_is_not_what_was_written_is_a_miss_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), on_disk(1 << 20)).await;
    bench.keep(&partition(), "{}", "yes", &exact());
    bench.store.writer().commit(0, rows::spoil).await.unwrap();
    assert_eq!(bench.find(&partition(), "{}", &exact()).await, None);
    bench.settle().await;
    assert_eq!((bench.rows().await, bench.cache.metrics().unreadable_count(Kind::Disk)), (0, 1));
}

#[tokio::test]
async fn what_means_the_same_is_found_within_the_threshold() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), semantic(100)).await;
    bench.keep_meaning(&partition(), "east 10", "ten").await;
    bench.keep_meaning(&partition(), "east 50", "fifty").await;
    bench.keep_meaning(&partition(), "west 20", "elsewhere").await;
    let (hit, _) = bench.resembling(&partition(), "east 20").await;
    let hit = hit.unwrap();
    assert!((hit.similarity.unwrap() - 10_f32.to_radians().cos()).abs() < 1e-5);
    assert_eq!(hit.answer, answer("ten"));
    assert_eq!(body(bench.resembling(&partition(), "east 45").await.0).unwrap(), "fifty");
    // 30 degrees are 0.87.
    assert_eq!(bench.resembling(&partition(), "east 80").await.0, None);
    assert_eq!(bench.resembling(&partition(), "north 10").await.0, None);
    bench.store.close();
    let bench = open(folder.path(), semantic(100)).await;
    assert_eq!(body(bench.resembling(&partition(), "east 11").await.0).unwrap(), "ten");
}

#[tokio::test]
async fn a_meaning_is_never_found_from_another_partition_or_with_another_model() {
    struct Renamed;
    impl Embed for Renamed {
        fn name(&self) -> &str {
            "directions-2"
        }
        fn embed<'a>(
            &'a self,
            text: &'a str,
        ) -> Pin<Box<dyn Future<Output = Result<Vec<f32>, EmbedError>> + Send + 'a>> {
            Directions.embed(text)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), semantic(100)).await;
    bench.keep_meaning(&partition(), "east 0", "mine").await;
    for other in [
        Partition { tenant: "b", ..partition() },
        Partition { key: "l", ..partition() },
        Partition { model: "n", ..partition() },
        Partition { more: &[b"another system prompt"], ..partition() },
    ] {
        assert_eq!(bench.resembling(&other, "east 0").await.0, None, "{other:?}");
    }
    let (hit, _) = bench.cache.find_meaning(&partition(), "east 0", &Renamed, &meanings(), &ANY).await;
    assert_eq!(hit, None);
    assert!(bench.resembling(&partition(), "east 0").await.0.is_some());
}

#[tokio::test]
async fn a_model_that_fails_or_answers_nonsense_is_a_miss_that_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), semantic(100)).await;
    for (vector, passed) in [
        (None, Passed::Embed),
        (Some(vec![]), Passed::Vector),
        (Some(vec![f32::NAN; 96]), Passed::Vector),
        (Some(vec![0.0; 96]), Passed::Vector),
    ] {
        let before = bench.cache.metrics().passed_count(passed);
        let found = bench.cache.find_meaning(&partition(), "east 0", &Broken(vector), &meanings(), &ANY).await;
        assert!(found.0.is_none() && found.1.is_none());
        assert_eq!(bench.cache.metrics().passed_count(passed), before + 1);
    }
}

#[tokio::test]
async fn by_meaning_the_oldest_make_room_and_old_age_takes_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), semantic(2)).await;
    for degrees in [0, 40, 80] {
        bench.keep_meaning(&partition(), &format!("east {degrees}"), &degrees.to_string()).await;
    }
    assert_eq!(bench.rows().await, 6);
    assert_eq!(bench.resembling(&partition(), "east 0").await.0, None);
    assert_eq!(body(bench.resembling(&partition(), "east 40").await.0).unwrap(), "40");
    bench.clock.advance(Duration::from_secs(3600));
    assert_eq!(bench.resembling(&partition(), "east 40").await.0, None);
    bench.store.close();
    let clock = Arc::new(ManualClock::at(NOW_MS + 3_600_000));
    let store = Store::open(&store::Config::at(folder.path()), &[SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap().0;
    let cache = Cache::open(semantic(2), &store.reader(), &store.writer(), clock.clone()).await.unwrap();
    assert_eq!(Bench { store, clock, cache }.rows().await, 0, "a start takes away what is past its time");
}

#[tokio::test]
async fn many_vectors_are_told_apart_by_their_bits_and_then_in_full() {
    /// Vectors from a generator that is seeded by the text.
    struct Seeded;
    impl Embed for Seeded {
        fn name(&self) -> &str {
            "seeded"
        }
        fn embed<'a>(
            &'a self,
            text: &'a str,
        ) -> Pin<Box<dyn Future<Output = Result<Vec<f32>, EmbedError>> + Send + 'a>> {
            use rand::{Rng as _, SeedableRng as _};
            Box::pin(async move {
                let (seed, noise) = text.split_once(' ').unwrap();
                let mut rng = rand::rngs::StdRng::seed_from_u64(seed.parse().unwrap());
                let mut other = rand::rngs::StdRng::seed_from_u64(7777);
                let noise: f32 = noise.parse().unwrap();
                Ok((0..384).map(|_| rng.random_range(-1.0..1.0) + noise * other.random_range(-1.0..1.0)).collect())
            })
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), semantic(1000)).await;
    let find = async |text: &str| bench.cache.find_meaning(&partition(), text, &Seeded, &meanings(), &ANY).await;
    for seed in 0..200 {
        let (hit, meaning) = find(&format!("{seed} 0")).await;
        assert_eq!(hit, None);
        bench.cache.keep_meaning(meaning.unwrap(), &partition(), &answer(&seed.to_string()), &meanings(), &ANY);
    }
    bench.settle().await;
    for seed in 0..200 {
        assert_eq!(body(find(&format!("{seed} 0.3")).await.0).unwrap(), seed.to_string());
    }
}

#[tokio::test]
async fn a_purge_takes_what_it_names_everywhere_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: 1 << 20, semantic: semantic(100).semantic, ..on_disk(1 << 20) };
    let bench = open(folder.path(), config).await;
    let other = Partition { tenant: "b", model: "n", ..partition() };
    for partition in [&partition(), &other] {
        bench.keep(partition, "{}", "yes", &exact());
        bench.keep_meaning(partition, "east 0", "yes").await;
    }
    assert_eq!(bench.cache.purge(&purge(r#"{"tenant":"nobody"}"#)).await.unwrap(), 0);
    assert_eq!(bench.cache.purge(&purge(r#"{"older_than_s":1}"#)).await.unwrap(), 0);
    assert_eq!(bench.cache.purge(&purge(r#"{"tenant":"a"}"#)).await.unwrap(), 3, "memory, disk, meaning");
    assert_eq!(bench.find(&partition(), "{}", &exact()).await, None);
    assert_eq!(bench.resembling(&partition(), "east 0").await.0, None);
    assert!(bench.find(&other, "{}", &exact()).await.is_some());
    assert!(bench.resembling(&other, "east 0").await.0.is_some());
    bench.clock.advance(Duration::from_secs(5));
    assert_eq!(bench.cache.purge(&purge(r#"{"older_than_s":5,"model":"n"}"#)).await.unwrap(), 3);
    assert_eq!(bench.rows().await, 0);
}

#[tokio::test]
async fn a_disk_without_room_keeps_nothing_and_answers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(NOW_MS));
    // Full with a few dozen pages.
    let small = store::Config {
        max_bytes: 400 << 10,
        restart_bytes: 128 << 10,
        checkpoint_bytes: 64 << 10,
        max_log_bytes: 2 << 20,
        reserve_bytes: 64 << 10,
        ..store::Config::at(folder.path())
    };
    let store = Store::open(&small, &[SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap().0;
    let config = Config { max_bytes: 1 << 20, ..on_disk(1 << 30) };
    let cache = Cache::open(config, &store.reader(), &store.writer(), clock.clone()).await.unwrap();
    let bench = Bench { store, clock, cache };
    let text = "x".repeat(50_000);
    for no in 0..10 {
        bench.keep(&partition(), &format!("{{\"n\":{no}}}"), &text, &exact());
        let _ = bench.store.writer().commit(0, |_| Ok(())).await;
    }
    assert!(bench.cache.metrics().passed_count(Passed::Disk) > 0);
    for no in 0..10 {
        assert!(bench.find(&partition(), &format!("{{\"n\":{no}}}"), &exact()).await.is_some(), "memory has it");
    }
}
