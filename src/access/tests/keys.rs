//! Keys and tenants on a real store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use rand::SeedableRng as _;

use crate::access::{
    Access, Denied, How, KeyChange, KeyInfo, KeyOrder, KeyState, Keys, KeysError, NewKey, SCHEMA, new_key, rows,
};
use crate::base::{Clock, ManualClock, Name};
use crate::store::{self, Call, Disk, Fault, Harm, Store, Watch};

const NOW_MS: i64 = 1_800_000_000_000;
const HOUR_MS: i64 = 3_600_000;

struct Gateway {
    store: Store,
    clock: Arc<ManualClock>,
    keys: Arc<Keys>,
    access: Access,
}

async fn open_with(config: &store::Config, text: &str) -> Gateway {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let store = Store::open(config, &[SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap().0;
    let access = Access::new(&toml::from_str(text).unwrap()).unwrap();
    let watch: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let keys = Arc::new(Keys::open(&store.reader(), store.writer(), watch, access.tenants()).await.unwrap());
    let access = access.with_keys(Arc::clone(&keys));
    Gateway { store, clock, keys, access }
}

async fn open(folder: &Path) -> Gateway {
    open_with(&store::Config::at(folder), "").await
}

fn fresh(seed: u64) -> NewKey {
    new_key(&mut rand::rngs::StdRng::seed_from_u64(seed))
}

fn order(text: &str) -> KeyOrder {
    serde_json::from_str(text).unwrap()
}

fn change(text: &str) -> KeyChange {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_key_made_at_run_time_opens_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let key = fresh(1);
    assert_eq!(gateway.access.bearer(&key.text).unwrap_err(), Denied::Key);
    let text = r#"{"name": "chat", "team": "line-4", "user": "zoë", "models": ["qwen*"], "routes": ["edge"]}"#;
    let info = gateway.keys.create(order(text), &key).await.unwrap();
    assert_eq!((info.state, info.created_ms, info.last_used_ms), (KeyState::Active, NOW_MS, None));
    let check = |access: &Access| {
        let caller = access.bearer(&key.text).unwrap();
        assert_eq!((caller.name(), caller.key_id(), caller.label()), (&*info.id, Some(&*info.id), "chat"));
        assert_eq!((caller.tenant(), caller.team(), caller.user()), ("default", Some("line-4"), Some("zoë")));
        assert!(caller.may_use_model("qwen2.5") && !caller.may_use_model("gpt-4o"));
        assert!(caller.may_use_route("edge") && !caller.may_use_route("cloud"));
        assert!(!caller.is_operator() && !caller.may_publish("a") && !caller.may_subscribe("a"));
    };
    check(&gateway.access);
    assert_eq!(gateway.access.password("chat", key.text.as_bytes()).unwrap().how(), How::Password);
    assert!(gateway.access.password(&info.id, key.text.as_bytes()).is_ok());
    assert_eq!(gateway.access.password("other", key.text.as_bytes()).unwrap_err(), Denied::Key);
    gateway.store.close();
    check(&open(folder.path()).await.access);
}

#[tokio::test]
async fn neither_the_file_nor_a_listing_holds_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let key = fresh(1);
    let info = gateway.keys.create(order(r#"{"name": "chat"}"#), &key).await.unwrap();
    assert_eq!(info.ends_with, key.text[47..]);
    let told = format!("{info:?} {}", serde_json::to_string(&info).unwrap());
    assert!(!told.contains(&key.text[3..40]) && !told.contains(&key.sha256.to_string()));
    gateway.store.close();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(memchr::memmem::find(&bytes, &key.text.as_bytes()[3..40]).is_none());
    }
}

#[tokio::test]
async fn both_texts_open_while_a_key_changes_and_only_the_new_one_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let (first, second, third) = (fresh(1), fresh(2), fresh(3));
    let id = gateway.keys.create(order(r#"{"name": "chat"}"#), &first).await.unwrap().id;
    let info = gateway.keys.rotate(&id, &second, HOUR_MS).await.unwrap();
    assert_eq!((info.rotated_ms, info.old_until_ms), (Some(NOW_MS), Some(NOW_MS + HOUR_MS)));
    let who = |key: &NewKey| gateway.access.bearer(&key.text).map(|caller| caller.name().to_owned());
    assert_eq!((who(&first), who(&second)), (Ok(id.clone()), Ok(id.clone())), "one caller, whichever text it has");
    gateway.clock.advance(Duration::from_millis(HOUR_MS as u64 - 1));
    assert!(who(&first).is_ok());
    gateway.clock.advance(Duration::from_millis(1));
    assert_eq!((who(&first), who(&second)), (Err(Denied::Expired), Ok(id.clone())));
    gateway.keys.rotate(&id, &third, 0).await.unwrap();
    assert_eq!((who(&first), who(&second), who(&third)), (Err(Denied::Key), Err(Denied::Key), Ok(id.clone())));
    assert!(matches!(gateway.keys.rotate(&id, &third, 0).await, Err(KeysError::Reused)));
    assert!(matches!(gateway.keys.rotate(&id, &first, -1).await, Err(KeysError::Overlap(-1))));
    assert!(matches!(gateway.keys.rotate(&id, &first, 90 * 24 * HOUR_MS + 1).await, Err(KeysError::Overlap(_))));
    assert!(matches!(gateway.keys.rotate("key-0", &first, 0).await, Err(KeysError::Unknown(_))));
}

#[tokio::test]
async fn a_key_opens_from_its_beginning_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let key = fresh(1);
    let (from, until) = (NOW_MS + HOUR_MS, NOW_MS + 2 * HOUR_MS);
    let text = format!(r#"{{"name": "chat", "not_before_ms": {from}, "expires_ms": {until}}}"#);
    let id = gateway.keys.create(order(&text), &key).await.unwrap().id;
    let state = || gateway.keys.info(&id).unwrap().state;
    let opens = || gateway.access.bearer(&key.text).map(drop);
    assert_eq!((opens(), state()), (Err(Denied::NotYet), KeyState::NotYet));
    gateway.clock.set_wall_ms(from);
    assert_eq!((opens(), state()), (Ok(()), KeyState::Active));
    gateway.clock.set_wall_ms(until);
    assert_eq!((opens(), state()), (Err(Denied::Expired), KeyState::Expired));
    gateway.keys.change(&id, change(r#"{"team": "line-4"}"#)).await.unwrap();
    assert_eq!(opens(), Err(Denied::Expired), "another change does not move the end");
    let past = change(r#"{"expires_ms": 5}"#);
    assert!(matches!(gateway.keys.change(&id, past).await, Err(KeysError::Times { .. })));
    gateway.keys.change(&id, change(r#"{"expires_ms": null}"#)).await.unwrap();
    assert_eq!(opens(), Ok(()), "an end can be moved");
}

#[tokio::test]
async fn times_that_would_never_open_or_are_in_another_unit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    for text in [
        format!(r#"{{"name": "a", "expires_ms": {NOW_MS}}}"#),
        format!(r#"{{"name": "a", "expires_ms": {0}, "not_before_ms": {0}}}"#, NOW_MS + 5),
        r#"{"name": "a", "expires_ms": 1800000000}"#.to_owned(),
    ] {
        assert!(matches!(gateway.keys.create(order(&text), &fresh(1)).await, Err(KeysError::Times { .. })), "{text}");
    }
    for text in [
        r#"{"name": "a", "expires_ms": 1800000000000000}"#,
        r#"{"name": "a", "expires_ms": 9223372036854775807}"#,
        r#"{"name": "a", "not_before_ms": -1}"#,
    ] {
        assert!(matches!(gateway.keys.create(order(text), &fresh(1)).await, Err(KeysError::Unit)), "{text}");
    }
    assert_eq!(gateway.keys.list(None, None, 10), []);
}

#[tokio::test]
async fn a_revoked_key_stays_shut_through_changes_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let (key, other) = (fresh(1), fresh(2));
    let id = gateway.keys.create(order(r#"{"name": "chat"}"#), &key).await.unwrap().id;
    gateway.keys.rotate(&id, &other, HOUR_MS).await.unwrap();
    assert!(matches!(gateway.keys.remove(&id).await, Err(KeysError::NotRevoked(_))));
    let info = gateway.keys.revoke(&id).await.unwrap();
    assert_eq!((info.state, info.revoked_ms), (KeyState::Revoked, Some(NOW_MS)));
    gateway.clock.advance(Duration::from_secs(1));
    assert_eq!(gateway.keys.revoke(&id).await.unwrap().revoked_ms, Some(NOW_MS), "the first time counts");
    assert!(matches!(gateway.keys.rotate(&id, &fresh(3), 0).await, Err(KeysError::Revoked(_))));
    assert!(matches!(gateway.keys.change(&id, change(r#"{"role": "operator"}"#)).await, Err(KeysError::Revoked(_))));
    assert!(matches!(gateway.keys.revoke("key-0").await, Err(KeysError::Unknown(_))));
    let shut = |access: &Access| {
        for key in [&key, &other] {
            assert_eq!(access.bearer(&key.text).unwrap_err(), Denied::Revoked);
        }
    };
    shut(&gateway.access);
    gateway.store.close();
    let gateway = open(folder.path()).await;
    shut(&gateway.access);
    gateway.keys.create(order(r#"{"name": "chat"}"#), &fresh(4)).await.unwrap();
    gateway.keys.remove(&id).await.unwrap();
    assert_eq!(gateway.access.bearer(&key.text).unwrap_err(), Denied::Key);
    assert!(matches!(gateway.keys.info(&id), Err(KeysError::Unknown(_))));
    assert_eq!(gateway.keys.list(None, None, 10).len(), 1);
}

#[tokio::test]
async fn a_disk_that_fails_shuts_a_revoked_key_out_and_says_what_a_restart_does() {
    let folder = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    let config = store::Config { disk: Disk::watched(&watch).unwrap(), ..store::Config::at(folder.path()) };
    let gateway = open_with(&config, "").await;
    let key = fresh(1);
    let id = gateway.keys.create(order(r#"{"name": "chat"}"#), &key).await.unwrap().id;
    watch.faults.order(Fault { call: Call::Sync, harm: Harm::Io, nth: 1, lasting: true });
    let lost = fresh(2);
    assert!(matches!(gateway.keys.create(order(r#"{"name": "b"}"#), &lost).await, Err(KeysError::Store(_))));
    assert_eq!(gateway.access.bearer(&lost.text).unwrap_err(), Denied::Key, "it is not on the disk");
    assert!(matches!(gateway.keys.revoke(&id).await, Err(KeysError::Unwritten { .. })));
    assert_eq!(gateway.access.bearer(&key.text).unwrap_err(), Denied::Revoked);
    // An edit that gets through later does not open it again.
    watch.faults.withdraw();
    gateway.keys.change(&id, change(r#"{"team": "line-4"}"#)).await.unwrap();
    assert_eq!(gateway.access.bearer(&key.text).unwrap_err(), Denied::Revoked);
    assert_eq!(gateway.keys.metrics().refused_edits.get(), 2);
}

#[tokio::test]
async fn a_row_that_is_not_what_was_written_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let (bad, good) = (fresh(1), fresh(2));
    let id: Arc<str> = gateway.keys.create(order(r#"{"name": "a"}"#), &bad).await.unwrap().id.into();
    gateway.keys.create(order(r#"{"name": "b"}"#), &good).await.unwrap();
    gateway.store.writer().commit(0, move |tx| rows::spoil(tx, &id)).await.unwrap();
    gateway.store.close();
    let gateway = open(folder.path()).await;
    assert_eq!(gateway.access.bearer(&bad.text).unwrap_err(), Denied::Key);
    assert!(gateway.access.bearer(&good.text).is_ok());
    assert_eq!(gateway.keys.metrics().unreadable.get(), 1);
}

#[tokio::test]
async fn names_are_one_a_tenant_and_texts_are_never_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    gateway.keys.create(order(r#"{"name": "a"}"#), &fresh(1)).await.unwrap();
    let taken = gateway.keys.create(order(r#"{"name": "a"}"#), &fresh(2)).await;
    assert!(matches!(taken, Err(KeysError::Taken { .. })));
    assert!(matches!(gateway.keys.create(order(r#"{"name": "b"}"#), &fresh(1)).await, Err(KeysError::Reused)));
    let nowhere = gateway.keys.create(order(r#"{"name": "a", "tenant": "plant-2"}"#), &fresh(2)).await;
    assert!(nowhere.unwrap_err().to_string().contains("plant-2"));
    gateway.keys.create_tenant(Name::new("plant-2").unwrap()).await.unwrap();
    gateway.keys.create(order(r#"{"name": "a", "tenant": "plant-2"}"#), &fresh(2)).await.unwrap();
    assert_eq!(gateway.access.bearer(&fresh(2).text).unwrap().tenant(), "plant-2");
    let many = format!(r#"{{"name": "c", "models": [{}]}}"#, vec!["\"x\""; 65].join(","));
    assert!(matches!(gateway.keys.create(order(&many), &fresh(3)).await, Err(KeysError::Patterns(65))));
}

#[tokio::test]
async fn a_suspended_tenant_is_out_with_its_keys_and_its_identities() {
    let folder = tempfile::tempdir().unwrap();
    let (own, key) = (fresh(1), fresh(2));
    let text = format!("[[identity]]\nname = \"p\"\nkey_sha256 = \"{}\"\ntenant = \"plant-2\"", own.sha256);
    let config = store::Config::at(folder.path());
    let gateway = open_with(&config, &text).await;
    let plant = Name::new("plant-2").unwrap();
    gateway.keys.create(order(r#"{"name": "a", "tenant": "plant-2"}"#), &key).await.unwrap();
    let opens = |access: &Access| (access.bearer(&own.text).map(drop), access.bearer(&key.text).map(drop));
    assert_eq!(opens(&gateway.access), (Ok(()), Ok(())));
    gateway.keys.suspend_tenant(&plant, true).await.unwrap();
    assert_eq!(opens(&gateway.access), (Err(Denied::Suspended), Err(Denied::Suspended)));
    assert_eq!(gateway.keys.list(Some("plant-2"), None, 10)[0].state, KeyState::Suspended);
    gateway.store.close();
    let gateway = open_with(&config, &text).await;
    assert_eq!(opens(&gateway.access), (Err(Denied::Suspended), Err(Denied::Suspended)));
    gateway.keys.suspend_tenant(&plant, false).await.unwrap();
    assert_eq!(opens(&gateway.access), (Ok(()), Ok(())));
    for name in ["default", "plant-2"] {
        let kept = gateway.keys.remove_tenant(&Name::new(name).unwrap()).await;
        assert!(matches!(kept, Err(KeysError::TenantKept(_))), "{name}");
    }
    let kept = gateway.keys.suspend_tenant(&Name::new("default").unwrap(), true).await;
    assert!(matches!(kept, Err(KeysError::TenantKept(_))));
}

#[tokio::test]
async fn a_tenant_goes_only_without_keys() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let plant = Name::new("plant-2").unwrap();
    gateway.keys.create_tenant(plant.clone()).await.unwrap();
    let again = gateway.keys.create_tenant(plant.clone()).await;
    assert!(matches!(again, Err(KeysError::TenantThere(_))));
    let id = gateway.keys.create(order(r#"{"name": "a", "tenant": "plant-2"}"#), &fresh(1)).await.unwrap().id;
    assert!(matches!(gateway.keys.remove_tenant(&plant).await, Err(KeysError::TenantInUse { keys: 1, .. })));
    gateway.keys.revoke(&id).await.unwrap();
    gateway.keys.remove(&id).await.unwrap();
    gateway.keys.remove_tenant(&plant).await.unwrap();
    assert!(gateway.keys.tenants().iter().map(|tenant| tenant.name.as_str()).eq(["default"]));
    let gone = gateway.keys.create(order(r#"{"name": "a", "tenant": "plant-2"}"#), &fresh(2)).await;
    assert!(matches!(gone, Err(KeysError::Tenant(_))));
}

#[tokio::test]
async fn the_last_use_is_kept_to_the_minute_and_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let key = fresh(1);
    let id = gateway.keys.create(order(r#"{"name": "a"}"#), &key).await.unwrap().id;
    assert_eq!(gateway.keys.save_used().await.unwrap(), 0);
    let used = |gateway: &Gateway| gateway.keys.info(&id).unwrap().last_used_ms;
    gateway.access.bearer(&key.text).unwrap();
    gateway.clock.advance(Duration::from_secs(59));
    gateway.access.bearer(&key.text).unwrap();
    assert_eq!(used(&gateway), Some(NOW_MS));
    gateway.clock.advance(Duration::from_secs(1));
    gateway.access.bearer(&key.text).unwrap();
    assert_eq!(used(&gateway), Some(NOW_MS + 60_000));
    assert_eq!(gateway.keys.save_used().await.unwrap(), 1);
    assert_eq!(gateway.keys.save_used().await.unwrap(), 0, "nothing is written twice");
    gateway.keys.rotate(&id, &fresh(2), 0).await.unwrap();
    assert_eq!(used(&gateway), Some(NOW_MS + 60_000), "an edit does not forget it");
    gateway.store.close();
    assert_eq!(used(&open(folder.path()).await), Some(NOW_MS + 60_000));
}

#[tokio::test]
async fn a_listing_goes_page_by_page_in_order_and_by_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    gateway.keys.create_tenant(Name::new("plant-2").unwrap()).await.unwrap();
    for no in 0..5 {
        let tenant = if no % 2 == 0 { "default" } else { "plant-2" };
        let text = format!(r#"{{"name": "k{no}", "tenant": "{tenant}"}}"#);
        gateway.keys.create(order(&text), &fresh(no)).await.unwrap();
    }
    let names = |keys: &[KeyInfo]| keys.iter().map(|key| key.name.to_string()).collect::<Vec<_>>();
    let page = gateway.keys.list(None, None, 2);
    assert_eq!(names(&page), ["k0", "k1"]);
    assert_eq!(names(&gateway.keys.list(None, Some(&page[1].id), 9)), ["k2", "k3", "k4"]);
    assert_eq!(names(&gateway.keys.list(Some("plant-2"), None, 9)), ["k1", "k3"]);
    assert_eq!(gateway.keys.list(None, Some("key-0"), 9), []);
    assert_eq!(gateway.keys.list(Some("nobody"), None, 9), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rotating_under_load_turns_nobody_away_who_has_a_good_text() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let id = gateway.keys.create(order(r#"{"name": "a"}"#), &fresh(0)).await.unwrap().id;
    let access = Arc::new(gateway.access);
    // The text that is known to be current. Whoever has begun with one is waited for before the next but one.
    let (tell, told) = tokio::sync::watch::channel((0, fresh(0).text));
    let seen: Arc<[AtomicU64; 4]> = Arc::default();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..4 {
        let (access, told, seen) = (Arc::clone(&access), told.clone(), Arc::clone(&seen));
        callers.spawn(async move {
            while told.has_changed().is_ok() {
                let (no, text) = told.borrow().clone();
                access.bearer(&text).unwrap();
                seen[caller].store(no, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        });
    }
    for no in 1..=30 {
        while seen.iter().any(|seen| seen.load(Ordering::SeqCst) + 1 < no) {
            assert!(callers.try_join_next().is_none(), "a caller was turned away");
            tokio::task::yield_now().await;
        }
        gateway.keys.rotate(&id, &fresh(no), HOUR_MS).await.unwrap();
        tell.send_replace((no, fresh(no).text));
    }
    drop(tell);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    assert_eq!(access.bearer(&fresh(28).text).unwrap_err(), Denied::Key, "two texts back nothing opens");
}

#[tokio::test]
async fn edits_at_once_do_not_lose_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let id = gateway.keys.create(order(r#"{"name": "a"}"#), &fresh(1)).await.unwrap().id;
    let (keys, second, third) = (&gateway.keys, fresh(2), fresh(3));
    let (one, two, three, four) = tokio::join!(
        keys.change(&id, change(r#"{"team": "line-4"}"#)),
        keys.change(&id, change(r#"{"models": ["a"]}"#)),
        keys.rotate(&id, &second, 0),
        keys.create(order(r#"{"name": "a"}"#), &third),
    );
    one.and(two).and(three).unwrap();
    assert!(matches!(four, Err(KeysError::Taken { .. })));
    let info = keys.info(&id).unwrap();
    assert_eq!(
        (info.team.unwrap().as_str(), info.models.len(), info.ends_with),
        ("line-4", 1, fresh(2).text[47..].to_owned())
    );
}

#[tokio::test]
async fn an_edit_whose_caller_has_gone_counts_in_memory_as_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let key = fresh(1);
    {
        let mut create = std::pin::pin!(gateway.keys.create(order(r#"{"name": "a"}"#), &key));
        // The first step queues the work; then it is dropped.
        let mut context = Context::from_waker(Waker::noop());
        assert!(create.as_mut().poll(&mut context).is_pending());
    }
    gateway.store.writer().commit(0, |_| Ok(())).await.unwrap();
    assert!(gateway.access.bearer(&key.text).is_ok());
}

#[tokio::test]
async fn keys_of_a_file_that_was_set_aside_open_again_and_revoked_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    let (good, bad) = (fresh(1), fresh(2));
    let plant = Name::new("plant-2").unwrap();
    gateway.keys.create_tenant(plant.clone()).await.unwrap();
    let text = r#"{"name": "a", "tenant": "plant-2", "models": ["qwen*"]}"#;
    let id = gateway.keys.create(order(text), &good).await.unwrap().id;
    let revoked = gateway.keys.create(order(r#"{"name": "b"}"#), &bad).await.unwrap().id;
    gateway.keys.revoke(&revoked).await.unwrap();
    gateway.store.reader().distrust("a test");
    gateway.store.close();

    let gateway = open(folder.path()).await;
    let wrecks = gateway.store.wrecks();
    assert_eq!(wrecks.len(), 1);
    assert_eq!(gateway.access.bearer(&good.text).unwrap_err(), Denied::Key);
    assert_eq!(gateway.keys.take_over(&wrecks).await.unwrap(), 2);
    let caller = gateway.access.bearer(&good.text).unwrap();
    assert_eq!((caller.name(), caller.tenant(), caller.may_use_model("gpt-4o")), (&*id, "plant-2", false));
    assert_eq!(gateway.access.bearer(&bad.text).unwrap_err(), Denied::Revoked);
    assert_eq!(gateway.keys.take_over(&wrecks).await.unwrap(), 0, "only once");
    gateway.keys.revoke(&id).await.unwrap();
    gateway.keys.remove(&id).await.unwrap();
    gateway.keys.remove(&revoked).await.unwrap();
    gateway.store.close();

    let gateway = open(folder.path()).await;
    assert_eq!(gateway.keys.take_over(&gateway.store.wrecks()).await.unwrap(), 0, "what was removed stays away");
    assert_eq!(gateway.access.bearer(&good.text).unwrap_err(), Denied::Key);
}

#[tokio::test]
async fn a_file_that_is_no_database_any_more_gives_no_keys_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = open(folder.path()).await;
    gateway.keys.create(order(r#"{"name": "a"}"#), &fresh(1)).await.unwrap();
    gateway.store.reader().distrust("a test");
    gateway.store.close();
    let gateway = open(folder.path()).await;
    let wrecks = gateway.store.wrecks();
    assert_eq!(gateway.keys.take_over(&[]).await.unwrap(), 0);
    let length = std::fs::metadata(&wrecks[0].path).unwrap().len();
    let file = std::fs::File::options().write(true).open(&wrecks[0].path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0x5a; usize::try_from(length).unwrap()], 0).unwrap();
    assert_eq!(gateway.keys.take_over(&wrecks).await.unwrap(), 0);
    gateway.keys.create(order(r#"{"name": "a"}"#), &fresh(2)).await.unwrap();
    assert!(gateway.access.bearer(&fresh(2).text).is_ok());
}
