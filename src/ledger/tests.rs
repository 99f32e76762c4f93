//! What holds across the files of the room: what is recorded is read, summed up, bounded and bound.

use std::path::Path;
use std::sync::Arc;

use super::{
    Action, Attempt, By, Call, Chain, Config, Cursor, Here, Ledger, OTHER, Query, Record, SCHEMA, Sums, SumsQuery,
    Usage, audit_enter, audit_entries, audit_head, audit_verify, calls, sums,
};
use crate::base::{Clock as _, Digest, ManualClock};
use crate::store::{self, Call as DiskCall, Disk, Fault, Harm, Schema, Store, Watch};

const DAY_MS: i64 = 86_400_000;

fn open(folder: &Path) -> Store {
    open_with(&store::Config::at(folder))
}

fn open_with(config: &store::Config) -> Store {
    Store::open(config, &[SCHEMA], Arc::new(ManualClock::at(1_700_000_000_000))).unwrap().0
}

async fn ledger(store: &Store, config: Config) -> Ledger {
    let ledger = Ledger::new(config);
    let resuming = ledger.clone();
    store.writer().commit(1, move |tx| resuming.resume(tx)).await.unwrap();
    ledger
}

fn record<'a>(at: i64, id: &'a str, key: &'a str) -> Record<'a> {
    Record {
        time_ms: 1_700_000_000_000 + at,
        day: 19_675,
        id,
        tenant: "acme",
        key,
        model_asked: "gpt",
        model_answered: "gpt-4o-2024",
        usage: Usage { input_tokens: Some(10), output_tokens: Some(5), ..Usage::default() },
        cost_pico: Some(1000),
        status: 200,
        ..Record::default()
    }
}

async fn read(store: &Store, query: Query) -> super::Page {
    store.reader().read(move |connection| calls(connection, &query)).await.unwrap()
}

async fn ids(store: &Store) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = read(store, Query { after, most: 7, ..Query::default() }).await;
        assert_eq!(page.damaged_blocks, 0);
        assert!(page.calls.len() <= 7);
        ids.extend(page.calls.into_iter().map(|call| call.id));
        let Some(next) = page.next else { return ids };
        assert_eq!(next.to_string().parse(), Ok(next));
        after = Some(next);
    }
}

async fn total(store: &Store) -> Sums {
    let (groups, has_more) = store.reader().read(|connection| sums(connection, &SumsQuery::default())).await.unwrap();
    assert!(!has_more && groups.len() <= 1);
    groups.first().map(|group| group.sums).unwrap_or_default()
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|at| format!("req-{at:05}")).collect()
}

#[tokio::test]
async fn what_is_only_counted_stands_in_the_sums_and_has_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let ledger = ledger(&store, Config::default()).await;
    ledger.record(&record(1, "a", "k"));
    ledger.count(&Record { status: 401, ..record(2, "b", "k") });
    ledger.flush(&store.writer(), None).await.unwrap();
    assert_eq!(ids(&store).await, ["a"]);
    let sums = total(&store).await;
    assert_eq!((sums.requests, sums.failed, sums.unrecorded), (2, 1, 1));
    assert_eq!(ledger.metrics().dropped.get(), 0, "it was not meant to have one");
}

#[tokio::test]
async fn every_record_is_read_once_newest_first_over_pages_flushes_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let names = numbered(0..700);
    let mut written = 0;
    // Few at a time make a block that goes on; many at a time fill blocks.
    for batch in [1, 1, 1, 30, 3, 264, 300, 100] {
        let store = open(folder.path());
        let ledger = ledger(&store, Config::default()).await;
        for part in names[written..written + batch].chunks(batch.div_ceil(2)) {
            part.iter().for_each(|id| ledger.record(&record(7, id, "k")));
            assert_eq!(ledger.flush(&store.writer(), None).await.unwrap(), part.len() as u64);
        }
        written += batch;
        assert_eq!(ledger.flush(&store.writer(), None).await.unwrap(), 0);
        let expected: Vec<_> = names[..written].iter().rev().cloned().collect();
        assert_eq!(ids(&store).await, expected);
        let count = total(&store).await;
        assert_eq!((count.requests, count.cost_pico), (written as u64, written as u64 * 1000));
        store.close();
    }
}

#[tokio::test]
async fn a_slow_gateway_writes_few_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let ledger = ledger(&store, Config::default()).await;
    for id in numbered(0..100) {
        ledger.record(&record(1, &id, "k"));
        ledger.flush(&store.writer(), None).await.unwrap();
    }
    let blocks = |connection: &rusqlite::Connection| {
        Ok(connection.query_row("SELECT count(*), sum(rows), max(bytes) FROM ledger_block", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?)
    };
    let (blocks, rows, bytes) = store.reader().read(blocks).await.unwrap();
    assert_eq!(rows, 100);
    assert!(blocks <= 3 && bytes < 4096, "{blocks} blocks, the longest has {bytes} bytes");
    assert_eq!(ids(&store).await.len(), 100);
}

#[tokio::test]
async fn a_condition_finds_what_it_names_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let ledger = ledger(&store, Config::default()).await;
    let attempts = [Attempt { candidate: "cloud", outcome: "timeout", status: None, duration_us: 9 }];
    for (at, id) in numbered(0..600).iter().enumerate() {
        let mut one = record(at as i64, id, if at % 2 == 0 { "even" } else { "odd" });
        if at % 100 == 3 {
            (one.status, one.error, one.attempts) = (504, "timeout", &attempts);
        }
        if at == 17 {
            (one.tenant, one.user, one.route, one.model_answered) = ("other", "ann", "chat", "llama");
        }
        ledger.record(&one);
    }
    ledger.flush(&store.writer(), None).await.unwrap();
    let all = Query { most: 1000, ..Query::default() };
    let found = async |query: Query| -> Vec<Call> { read(&store, query).await.calls };
    assert_eq!(found(Query { key: Some("odd".into()), ..all.clone() }).await.len(), 300);
    let failed = found(Query { failed: true, ..all.clone() }).await;
    assert_eq!((failed.len(), &*failed[5].id, &*failed[0].attempts[0].outcome), (6, "req-00003", "timeout"));
    for query in [
        Query { tenant: Some("other".into()), ..all.clone() },
        Query { user: Some("ann".into()), ..all.clone() },
        Query { route: Some("chat".into()), ..all.clone() },
        Query { model: Some("llama".into()), ..all.clone() },
        Query { id: Some("req-00017".into()), ..all.clone() },
        Query { from_ms: Some(1_700_000_000_017), to_ms: Some(1_700_000_000_017), ..all.clone() },
    ] {
        let calls = found(query.clone()).await;
        assert_eq!(calls.iter().map(|call| &*call.id).collect::<Vec<_>>(), ["req-00017"], "{query:?}");
    }
    assert_eq!(found(Query { model: Some("gpt".into()), ..all }).await.len(), 600, "as asked");
    for text in ["", "5", "-", "a-b", "1-2-3", "99999999999999999999-1"] {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
}

#[tokio::test]
async fn sums_are_told_apart_as_asked_and_the_unknown_is_counted_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let ledger = ledger(&store, Config::default()).await;
    for round in 0..3 {
        ledger.record(&record(1, "a", "k1"));
        ledger.record(&Record {
            day: 19_676,
            is_cached: true,
            saved_pico: Some(7),
            cost_pico: Some(0),
            ..record(2, "b", "k1")
        });
        let unknown = Usage { input_tokens: Some(4), estimated: true, ..Usage::default() };
        ledger.record(&Record {
            usage: unknown,
            cost_pico: None,
            status: 500,
            prompt: "greet",
            ..record(3, "c", "k2")
        });
        if round == 1 {
            ledger.flush(&store.writer(), None).await.unwrap();
        }
    }
    ledger.flush(&store.writer(), None).await.unwrap();
    let ask = async |query: SumsQuery| store.reader().read(move |connection| sums(connection, &query)).await.unwrap().0;
    let by = |day, key| By { day, key, ..By::default() };
    let groups = ask(SumsQuery { by: by(true, true), ..SumsQuery::default() }).await;
    let seen: Vec<_> = groups.iter().map(|group| (group.day, group.key.as_deref(), group.sums.requests)).collect();
    assert_eq!(seen, [(Some(19_675), Some("k1"), 3), (Some(19_675), Some("k2"), 3), (Some(19_676), Some("k1"), 3)]);
    assert_eq!(groups[0].tenant, None);
    let k2 = groups[1].sums;
    assert_eq!((k2.unknown_cost, k2.cost_pico, k2.unknown_tokens, k2.estimated, k2.failed), (3, 0, 3, 3, 3));
    assert_eq!((k2.input_tokens, k2.output_tokens), (12, 0));
    let hits = groups[2].sums;
    assert_eq!((hits.cached, hits.saved_pico, hits.unknown_cost), (3, 21, 0));
    let prompts = ask(SumsQuery { by: By { prompt: true, ..By::default() }, ..SumsQuery::default() }).await;
    assert_eq!(prompts.iter().map(|group| group.prompt.as_deref().unwrap()).collect::<Vec<_>>(), ["", "greet"]);
    let one_day = SumsQuery { first_day: Some(19_676), last_day: Some(19_676), ..SumsQuery::default() };
    assert_eq!(ask(one_day).await[0].sums.requests, 3);
    assert_eq!(ask(SumsQuery { key: Some("nobody".into()), ..SumsQuery::default() }).await, []);
}

#[tokio::test]
async fn too_many_names_of_a_day_are_summed_up_together() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let ledger = ledger(&store, Config { sums_a_day: 3, ..Config::default() }).await;
    let names = numbered(0..10);
    for _ in 0..2 {
        names.iter().for_each(|name| ledger.record(&record(1, "a", name)));
    }
    ledger.record(&Record { day: 19_676, ..record(1, "a", &names[9]) });
    ledger.flush(&store.writer(), None).await.unwrap();
    let query = SumsQuery { by: By { key: true, ..By::default() }, ..SumsQuery::default() };
    let groups = store.reader().read(move |connection| sums(connection, &query)).await.unwrap().0;
    let seen: Vec<_> = groups.iter().map(|group| (group.key.as_deref().unwrap(), group.sums.requests)).collect();
    assert_eq!(seen, [(OTHER, 14), ("req-00000", 2), ("req-00001", 2), ("req-00002", 2), ("req-00009", 1)]);
}

#[tokio::test]
async fn the_oldest_records_and_sums_go_at_the_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let config = Config { keep_rows: 600, keep_sums: 100, ..Config::default() };
    let ledger = ledger(&store, config).await;
    for (at, id) in numbered(0..2000).iter().enumerate() {
        ledger.record(&Record { day: at as i32 / 10, ..record(1, id, "k") });
        if at % 100 == 99 {
            ledger.flush(&store.writer(), None).await.unwrap();
        }
    }
    let kept = ids(&store).await;
    assert!((400..=600).contains(&kept.len()), "{}", kept.len());
    assert_eq!((&*kept[0], kept.last().unwrap()), ("req-01999", &format!("req-{:05}", 2000 - kept.len())));
    let query = SumsQuery { by: By { day: true, ..By::default() }, ..SumsQuery::default() };
    let days = store.reader().read(move |connection| sums(connection, &query)).await.unwrap().0;
    assert_eq!((days.len(), days[0].day), (100, Some(100)));
    store.close();
    // A restart knows how much there is.
    let store = open(folder.path());
    let ledger = ledger_of(&store, Config { keep_rows: 100, ..Config::default() }).await;
    ledger.record(&record(1, "new", "k"));
    ledger.flush(&store.writer(), None).await.unwrap();
    assert!(ids(&store).await.len() <= 101);
}

async fn ledger_of(store: &Store, config: Config) -> Ledger {
    ledger(store, config).await
}

#[tokio::test]
async fn records_go_by_age_only_under_a_clock_that_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let ledger = ledger(&store, Config { keep_days: Some(2), ..Config::default() }).await;
    for (at, id) in numbered(0..5).iter().enumerate() {
        // Blocks of one record each: a long text seals them.
        let long = "x".repeat(256);
        let attempts = vec![Attempt { candidate: &long, outcome: &long[1..], ..Attempt::default() }; 16];
        let texts: Vec<_> = (0..16).map(|at| long[..240 - at].to_owned()).collect();
        let attempts: Vec<_> =
            attempts.iter().zip(&texts).map(|(attempt, text)| Attempt { candidate: text, ..*attempt }).collect();
        ledger.record(&Record { attempts: &attempts, ..record(at as i64 * DAY_MS, id, "k") });
        ledger.flush(&store.writer(), None).await.unwrap();
    }
    assert_eq!(ids(&store).await.len(), 5);
    ledger.record(&record(4 * DAY_MS, "last", "k"));
    ledger.flush(&store.writer(), Some(1_700_000_000_000 + 4 * DAY_MS)).await.unwrap();
    assert_eq!(ids(&store).await, ["last", "req-00004", "req-00003", "req-00002"]);
}

#[tokio::test]
async fn while_the_disk_refuses_records_wait_then_are_dropped_and_the_sums_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    let disk = store::Config { disk: Disk::watched(&watch).unwrap(), ..store::Config::at(folder.path()) };
    let store = open_with(&disk);
    let ledger = ledger(&store, Config { waiting_rows: 400, ..Config::default() }).await;
    let names = numbered(0..500);
    for (at, id) in names.iter().enumerate() {
        if at == 100 || at == 450 {
            watch.faults.order(Fault { call: DiskCall::Write, harm: Harm::Full, nth: 1, lasting: false });
            ledger.flush(&store.writer(), None).await.unwrap_err();
        }
        ledger.record(&record(1, id, "k"));
    }
    assert_eq!(ledger.metrics().dropped_records(), 100);
    assert_eq!(ids(&store).await, [""; 0]);
    assert_eq!(ledger.flush(&store.writer(), None).await.unwrap(), 400);
    let expected: Vec<_> = names[..400].iter().rev().cloned().collect();
    assert_eq!(ids(&store).await, expected, "each once, in order");
    let sums = total(&store).await;
    assert_eq!((sums.requests, sums.unrecorded), (500, 100));
    ledger.record(&record(1, "again", "k"));
    ledger.flush(&store.writer(), None).await.unwrap();
    assert_eq!(ids(&store).await[0], "again");
}

#[tokio::test]
async fn the_keeper_writes_by_itself_and_a_dropped_one_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let ledger = ledger(&store, Config { flush_ms: 10, ..Config::default() }).await;
    let (writer, clock) = (store.writer(), ManualClock::at(1_700_000_000_000));
    let names = numbered(0..900);
    // The keeper is dropped wherever it stands, ten times.
    for part in names.chunks(90) {
        part.iter().for_each(|id| ledger.record(&record(1, id, "k")));
        let first = part[0].clone();
        tokio::select! {
            () = ledger.keep(&writer, &clock) => unreachable!("the store is open"),
            () = async { while !ids(&store).await.contains(&first) { tokio::task::yield_now().await } } => {}
        }
        part.iter().for_each(|id| ledger.record(&record(2, id, "again")));
        tokio::select! {
            biased;
            _ = ledger.flush(&writer, None) => {}
            () = tokio::task::yield_now() => {}
        }
    }
    ledger.flush(&writer, None).await.unwrap();
    let mut all = ids(&store).await;
    all.sort();
    let mut expected: Vec<_> = names.iter().chain(&names).cloned().collect();
    expected.sort();
    assert_eq!(all, expected);
    assert_eq!(total(&store).await.requests, 1800);
}

#[tokio::test]
async fn a_damaged_block_is_left_out_and_a_damaged_sum_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let ledger = ledger(&store, Config::default()).await;
    numbered(0..512).iter().for_each(|id| ledger.record(&record(1, id, "k")));
    ledger.flush(&store.writer(), None).await.unwrap();
    let spoil = |tx: &store::Tx<'_>| {
        tx.execute("UPDATE ledger_block SET body = zeroblob(10) WHERE no = 1", [])?;
        tx.execute("UPDATE ledger_sum SET requests = 'many'", []).map(drop)
    };
    store.writer().commit(1, spoil).await.unwrap();
    let page = read(&store, Query { most: 1000, ..Query::default() }).await;
    assert_eq!((page.calls.len(), page.damaged_blocks), (256, 1));
    assert_eq!(total(&store).await, Sums::default());
    ledger.record(&record(1, "new", "k"));
    ledger.flush(&store.writer(), None).await.unwrap();
    assert_eq!(total(&store).await.requests, 1);
}

#[tokio::test]
async fn what_models_of_this_box_took_is_summed_up_and_the_unknown_counted_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let ledger = ledger(&store, Config::default()).await;
    let here = |cpu_us, energy_uwh| Some(Here { cpu_us, energy_uwh });
    for here in [None, here(Some(1500), Some(20)), here(Some(500), None), here(None, None)] {
        ledger.record(&Record { here, ..record(1, "a", "k") });
    }
    ledger.flush(&store.writer(), None).await.unwrap();
    let sums = total(&store).await;
    assert_eq!((sums.requests, sums.cpu_us, sums.unknown_cpu), (4, 2000, 1));
    assert_eq!((sums.energy_uwh, sums.unknown_energy), (20, 2));
    let calls = read(&store, Query { most: 10, ..Query::default() }).await.calls;
    let told: Vec<_> = calls.iter().map(|call| (call.here.cpu_us, call.here.energy_uwh)).collect();
    assert_eq!(told, [(None, None), (Some(500), None), (Some(1500), Some(20)), (None, None)]);
}

/// The tables as they were before anybody noted what models of this box took.
const BEFORE: Schema = Schema { room: SCHEMA.room, steps: SCHEMA.steps.split_at(1).0, read_at_start: &[] };

#[tokio::test]
async fn sums_of_the_release_before_go_on_and_what_they_took_of_this_box_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let store = Store::open(&store::Config::at(folder.path()), &[BEFORE], clock).unwrap().0;
    let old = |tx: &store::Tx<'_>| {
        for (key, crc) in [
            (
                "k",
                "row_crc('ledger_sum', 19675, 'acme', 'k', 'gpt-4o-2024', '', 7, 1, 2, 0, 70, 35, 0, 0, 0, 0, 9000, 0, 5)",
            ),
            ("bad", "1"),
        ] {
            tx.execute(&format!("INSERT INTO ledger_sum VALUES (19675, 'acme', '{key}', 'gpt-4o-2024', '', 7, 1, 2, 0, 70, 35, 0, 0, 0, 0, 9000, 0, 5, {crc})"), [])?;
        }
        Ok(())
    };
    store.writer().commit(1, old).await.unwrap();
    store.close();
    let store = open(folder.path());
    let before = total(&store).await;
    assert_eq!((before.requests, before.cost_pico, before.saved_pico), (7, 9000, 5), "the damaged row stays out");
    assert_eq!((before.cpu_us, before.unknown_cpu, before.energy_uwh, before.unknown_energy), (0, 7, 0, 7));
    let ledger = ledger(&store, Config::default()).await;
    ledger.record(&Record { here: Some(Here { cpu_us: Some(4), energy_uwh: Some(2) }), ..record(1, "new", "k") });
    ledger.flush(&store.writer(), None).await.unwrap();
    let after = total(&store).await;
    assert_eq!((after.requests, after.cpu_us, after.unknown_cpu, after.energy_uwh), (8, 4, 7, 2));
}

#[test]
fn sums_never_overflow_and_never_turn() {
    let mut sums = Sums { cost_pico: u64::MAX, requests: 3, ..Sums::default() };
    sums.add(&Sums { cost_pico: u64::MAX, requests: 4, ..Sums::default() });
    assert_eq!((sums.cost_pico, sums.requests), (i64::MAX.cast_unsigned(), 7));
}

const ACTION: Action<'static> =
    Action { actor: "ops", action: "key.create", target: "k1", detail: "{\"role\":\"app\"}" };

async fn enter(store: &Store, count: usize, keep: u64) {
    let stamp = ManualClock::at(1_700_000_000_000).stamp();
    for _ in 0..count {
        store.writer().commit(1, move |tx| audit_enter(tx, stamp, &ACTION, keep)).await.unwrap();
    }
}

async fn look(store: &Store, known: Option<super::Head>) -> Chain {
    store.reader().read(move |connection| audit_verify(connection, known)).await.unwrap()
}

#[tokio::test]
async fn an_entry_that_is_changed_removed_or_put_in_breaks_the_chain() {
    let spoils = [
        ("UPDATE ledger_audit SET actor = 'nobody' WHERE no = 3", 3),
        ("UPDATE ledger_audit SET time_ms = time_ms + 1 WHERE no = 1", 1),
        ("UPDATE ledger_audit SET action = 'key.creat', target = 'ek1' WHERE no = 2", 2),
        ("UPDATE ledger_audit SET detail = x'00' WHERE no = 2", 2),
        ("UPDATE ledger_audit SET hash = zeroblob(32) WHERE no = 5", 5),
        ("UPDATE ledger_audit SET hash = NULL || 'x' WHERE no = 0", 0),
        ("DELETE FROM ledger_audit WHERE no = 3", 4),
        ("UPDATE ledger_audit SET no = 9 WHERE no = 5", 9),
        (
            "INSERT INTO ledger_audit SELECT 6, time_ms, clock, actor, action, target, detail, before, hash FROM ledger_audit WHERE no = 5",
            6,
        ),
    ];
    for (sql, broken) in spoils {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        assert_eq!(look(&store, None).await, Chain::Whole { entries: 0, head: None });
        enter(&store, 5, 100).await;
        let head = store.reader().read(audit_head).await.unwrap();
        assert_eq!(look(&store, head).await, Chain::Whole { entries: 5, head });
        store.writer().commit(1, move |tx| tx.execute(sql, []).map(drop)).await.unwrap();
        match look(&store, None).await {
            Chain::Broken { no } => assert_eq!(no, broken, "{sql}"),
            whole @ Chain::Whole { .. } => assert_eq!(broken, 0, "{sql}: {whole:?}"),
        }
    }
}

#[tokio::test]
async fn a_head_that_was_told_before_shows_a_chain_that_was_cut_or_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    enter(&store, 5, 100).await;
    let head = store.reader().read(audit_head).await.unwrap().unwrap();
    store.writer().commit(1, |tx| tx.execute("DELETE FROM ledger_audit WHERE no = 5", []).map(drop)).await.unwrap();
    assert!(matches!(look(&store, None).await, Chain::Whole { entries: 4, .. }));
    assert_eq!(look(&store, Some(head)).await, Chain::Broken { no: 5 });
    enter(&store, 2, 100).await;
    assert!(matches!(look(&store, Some(head)).await, Chain::Whole { entries: 6, .. }), "the same action again");
    let forged = super::Head { no: 4, hash: Digest::of(b"another history") };
    assert_eq!(look(&store, Some(forged)).await, Chain::Broken { no: 4 });
}

#[tokio::test]
async fn the_oldest_entries_go_and_the_chain_holds_from_where_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    enter(&store, 30, 10).await;
    assert!(matches!(look(&store, None).await, Chain::Whole { entries: 10, .. }));
    let entries = store.reader().read(|connection| audit_entries(connection, None, 3)).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.no).collect::<Vec<_>>(), [30, 29, 28]);
    assert_eq!((&*entries[0].actor, &*entries[0].detail, &*entries[0].clock), ("ops", ACTION.detail, "ntp"));
    let next = store.reader().read(|connection| audit_entries(connection, Some(28), 1000)).await.unwrap();
    assert_eq!((next.len(), next[0].no), (7, 27));
    let long = "ß".repeat(10_000);
    let stamp = ManualClock::at(5).stamp();
    let cut = move |tx: &store::Tx<'_>| {
        audit_enter(tx, stamp, &Action { actor: &long, action: &long, target: &long, detail: &long }, 10)
    };
    store.writer().commit(1, cut).await.unwrap();
    let entry = store.reader().read(|connection| audit_entries(connection, None, 1)).await.unwrap().remove(0);
    assert_eq!((entry.actor.len(), entry.detail.len()), (256, 4096));
    assert!(matches!(look(&store, None).await, Chain::Whole { entries: 10, .. }));
}

#[test]
fn limits_that_make_no_ledger_are_refused() {
    let read = |text: &str| -> Config { toml::from_str(text).unwrap() };
    assert!(Config::default().check().is_ok() && read("keep_rows = 0").check().is_ok());
    for (text, key) in [
        ("keep_bytes = 5", "keep_bytes"),
        ("keep_days = 0", "keep_days"),
        ("flush_ms = 0", "flush_ms"),
        ("waiting_rows = 1", "waiting_rows"),
        ("sums_a_day = 0", "sums_a_day"),
        ("keep_audit = 1", "keep_audit"),
        ("keep_sums = 1", "keep_sums"),
    ] {
        assert_eq!(read(text).check().unwrap_err().0, key);
    }
    assert!(toml::from_str::<Config>("keep = 1").is_err());
}
