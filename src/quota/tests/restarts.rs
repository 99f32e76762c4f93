//! What a restart, a failing disk or a new file leaves of the budgets.

use std::path::Path;
use std::sync::Arc;

use super::{DAY_MS, NOON_MS, at, config, key, standing, takes, try_it};
use crate::base::ManualClock;
use crate::quota::{Lease, LeaseError, Now, Quota, Resumed, SCHEMA, Span, Subject, Unit, Why, remembered};
use crate::store::{self, Call, Disk, Fault, Harm, Store, Watch};

fn open(folder: &Path) -> Store {
    open_with(&store::Config::at(folder))
}

fn open_with(config: &store::Config) -> Store {
    Store::open(config, &[SCHEMA], Arc::new(ManualClock::at(NOON_MS))).unwrap().0
}

const KEPT: &str = "[[limit]]\nlevel = 'key'\ntokens_per_day = 1000\nusd_per_month = 1\nrequests_per_minute = 5";

async fn resumed(store: &Store, text: &str, now: Now) -> (Quota, Resumed) {
    let quota = Quota::new(&config(text), now).unwrap();
    let resuming = quota.clone();
    let outcome = store.writer().commit(100, move |tx| resuming.resume(tx, None, now)).await.unwrap();
    (quota, outcome)
}

#[tokio::test]
async fn budgets_go_on_after_a_restart_and_what_was_under_way_is_charged() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (quota, found) = resumed(&store, KEPT, at(0)).await;
    assert_eq!(found, Resumed::default());
    try_it(&quota, &[key("a")], takes(100, 50), 0).unwrap().settle(takes(90, 40));
    let under_way = try_it(&quota, &[key("a")], takes(200, 7), 0).unwrap();
    assert_eq!(quota.flush(&store.writer()).await.unwrap(), 1);
    assert_eq!(quota.flush(&store.writer()).await.unwrap(), 0, "nothing has changed");
    std::mem::forget(under_way);
    store.close();
    let store = open(folder.path());
    let (quota, found) = resumed(&store, KEPT, at(1)).await;
    assert_eq!(found, Resumed { budgets: 2, charged: 2, bad_rows: 0 });
    let day = standing(&quota, "key", "a", Unit::Tokens, Span::Day, 1);
    assert_eq!((day.spent, day.held, day.left), (290, 0, 710));
    assert_eq!(standing(&quota, "key", "a", Unit::Money, Span::Month, 1).spent, 47);
    assert_eq!(try_it(&quota, &[key("a")], takes(711, 0), 1).unwrap_err().left, 710);
    // The next day, after one more restart, only the month goes on.
    quota.flush(&store.writer()).await.unwrap();
    store.close();
    let store = open(folder.path());
    let (quota, _) = resumed(&store, KEPT, at(DAY_MS)).await;
    assert_eq!(standing(&quota, "key", "a", Unit::Tokens, Span::Day, DAY_MS).spent, 0);
    assert_eq!(standing(&quota, "key", "a", Unit::Money, Span::Month, DAY_MS).spent, 47);
}

#[tokio::test]
async fn a_restart_under_a_clock_that_was_ahead_gives_no_budget_twice() {
    let folder = tempfile::tempdir().unwrap();
    for (ms, spend, expected) in [(0, 60, 60), (300 * DAY_MS, 30, 30), (0, 5, 95)] {
        let store = open(folder.path());
        let (quota, _) = resumed(&store, KEPT, at(ms)).await;
        try_it(&quota, &[key("a")], takes(spend, 0), ms).unwrap().settle(takes(spend, 0));
        assert_eq!(standing(&quota, "key", "a", Unit::Tokens, Span::Day, ms).spent, expected);
        quota.flush(&store.writer()).await.unwrap();
        store.close();
    }
    let store = open(folder.path());
    let (quota, _) = resumed(&store, KEPT, at(300 * DAY_MS)).await;
    assert_eq!(standing(&quota, "key", "a", Unit::Tokens, Span::Day, 300 * DAY_MS).spent, 0, "it was counted once");
}

#[tokio::test]
async fn what_a_failed_commit_did_not_write_is_written_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    let disk = store::Config { disk: Disk::watched(&watch).unwrap(), ..store::Config::at(folder.path()) };
    let store = open_with(&disk);
    let (quota, _) = resumed(&store, KEPT, at(0)).await;
    try_it(&quota, &[key("a")], takes(5, 0), 0).unwrap().settle(takes(5, 0));
    watch.faults.order(Fault { call: Call::Write, harm: Harm::Full, nth: 1, lasting: false });
    quota.flush(&store.writer()).await.unwrap_err();
    try_it(&quota, &[key("b")], takes(6, 0), 0).unwrap().settle(takes(6, 0));
    assert_eq!(quota.flush(&store.writer()).await.unwrap(), 2);
    store.close();
    let store = open(folder.path());
    let (quota, _) = resumed(&store, KEPT, at(0)).await;
    let spent = |name| standing(&quota, "key", name, Unit::Tokens, Span::Day, 0).spent;
    assert_eq!((spent("a"), spent("b")), (5, 6));
}

#[tokio::test]
async fn a_row_that_the_disk_changed_is_removed_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (quota, _) = resumed(&store, KEPT, at(0)).await;
    for name in ["a", "b"] {
        try_it(&quota, &[key(name)], takes(5, 0), 0).unwrap().settle(takes(5, 0));
    }
    quota.flush(&store.writer()).await.unwrap();
    let spoil = |tx: &store::Tx<'_>| {
        tx.execute("UPDATE quota_spent SET spent = 'none' WHERE name = 'a' AND span = 'day'", []).map(drop)
    };
    store.writer().commit(1, spoil).await.unwrap();
    let (quota, found) = resumed(&store, KEPT, at(0)).await;
    assert_eq!(found.bad_rows, 1);
    assert_eq!(standing(&quota, "key", "b", Unit::Tokens, Span::Day, 0).spent, 5);
    assert_eq!(standing(&quota, "key", "a", Unit::Tokens, Span::Day, 0).spent, 0);
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "tests spoil files on purpose")]
async fn a_new_file_takes_over_what_the_wreck_says_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (quota, _) = resumed(&store, KEPT, at(0)).await;
    try_it(&quota, &[key("a")], takes(5, 0), 0).unwrap().settle(takes(5, 0));
    quota.flush(&store.writer()).await.unwrap();
    store.close();
    std::fs::write(folder.path().join("forebay.db.corrupt"), b"").unwrap();
    let store = open(folder.path());
    let before = remembered(&store.wrecks()[0].connect().unwrap()).unwrap();
    for budgets in [2, 2] {
        let quota = Quota::new(&config(KEPT), at(0)).unwrap();
        let (resuming, before) = (quota.clone(), before.clone());
        let found = store.writer().commit(1, move |tx| resuming.resume(tx, Some(&before), at(0))).await.unwrap();
        assert_eq!(found.budgets, budgets);
        assert_eq!(standing(&quota, "key", "a", Unit::Tokens, Span::Day, 0).spent, 5);
    }
}

#[tokio::test]
async fn a_lease_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[[limit]]\nlevel = 'tenant'\nleased = ['tokens']";
    let tenant = [Subject::new("tenant", "acme")];
    let store = open(folder.path());
    let (quota, _) = resumed(&store, text, at(0)).await;
    let lease = Lease {
        number: 4,
        level: "tenant".into(),
        name: "acme".into(),
        unit: Unit::Tokens,
        amount: 100,
        ends_ms: at(5000).wall_ms,
    };
    quota.grant(&lease, at(0)).unwrap();
    try_it(&quota, &tenant, takes(30, 0), 0).unwrap().settle(takes(30, 0));
    quota.flush(&store.writer()).await.unwrap();
    let (quota, found) = resumed(&store, text, at(10)).await;
    assert_eq!(found.budgets, 1);
    assert_eq!(quota.grant(&lease, at(10)), Err(LeaseError::Old(4)));
    assert_eq!(try_it(&quota, &tenant, takes(71, 0), 10).unwrap_err().left, 70);
    try_it(&quota, &tenant, takes(70, 0), 10).unwrap().settle(takes(70, 0));
    assert_eq!(try_it(&quota, &tenant, takes(1, 0), 5000).unwrap_err().why, Why::NoLease);
    assert_eq!(quota.lease_reports(at(5000)).iter().map(|report| report.used).collect::<Vec<_>>(), [100]);
}

#[tokio::test]
async fn the_last_word_on_a_lease_outlives_a_restart_and_what_came_after_it_counts_in_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[[limit]]\nlevel = 'tenant'\nleased = ['tokens']";
    let tenant = [Subject::new("tenant", "acme")];
    let store = open(folder.path());
    let (quota, _) = resumed(&store, text, at(0)).await;
    let lease = |number, ends_ms| Lease {
        number,
        level: "tenant".into(),
        name: "acme".into(),
        unit: Unit::Tokens,
        amount: 100,
        ends_ms: at(ends_ms).wall_ms,
    };
    let reports = |quota: &Quota, ms| {
        let reports = quota.close_leases(at(ms));
        reports.iter().map(|report| (report.number, report.used, report.is_final)).collect::<Vec<_>>()
    };
    quota.grant(&lease(4, 1000), at(0)).unwrap();
    try_it(&quota, &tenant, takes(30, 0), 0).unwrap().settle(takes(30, 0));
    let reserves_nothing = try_it(&quota, &tenant, takes(0, 0), 0).unwrap();
    assert_eq!(reports(&quota, 1000), [(4, 30, true)]);
    quota.flush(&store.writer()).await.unwrap();
    // Told, and then killed. Its owner, who has not heard it yet, makes it last longer.
    let (quota, _) = resumed(&store, text, at(1001)).await;
    assert!(!quota.extend(&lease(4, 9000), at(1001)), "nothing is spent of what was given back");
    assert_eq!(try_it(&quota, &tenant, takes(1, 0), 1002).unwrap_err().why, Why::NoLease);
    drop(reserves_nothing);

    let late = try_it(&quota, &tenant, takes(0, 0), 1003).unwrap();
    late.settle(takes(7, 0));
    quota.flush(&store.writer()).await.unwrap();
    let (quota, _) = resumed(&store, text, at(1004)).await;
    assert_eq!(reports(&quota, 1004), [(4, 30, true)], "what was said is said again");
    quota.grant(&lease(5, 9000), at(1005)).unwrap();
    assert_eq!(reports(&quota, 1006), [(4, 30, true), (5, 7, false)]);
    quota.flush(&store.writer()).await.unwrap();
    let (quota, _) = resumed(&store, text, at(1007)).await;
    assert_eq!(reports(&quota, 1007), [(4, 30, true), (5, 7, false)], "once it is the one before, too");
}

#[tokio::test]
async fn the_keeper_writes_by_itself_and_idle_names_are_forgotten_with_their_rows() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let text = "max_subjects = 2\nflush_ms = 10\n[[limit]]\nlevel = 'key'\ntokens_per_day = 1000";
    let (quota, _) = resumed(&store, text, at(0)).await;
    let count = |connection: &rusqlite::Connection| {
        Ok(connection.query_row("SELECT count(*), max(name) FROM quota_spent", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?))
        })?)
    };
    let until = async |rows: i64, last: &str| {
        while store.reader().read(count).await.unwrap() != (rows, Some(last.to_owned())) {
            tokio::task::yield_now().await;
        }
    };
    let writer = store.writer();
    let story = async {
        for name in ["a", "b"] {
            try_it(&quota, &[key(name)], takes(900, 0), 0).unwrap().settle(takes(900, 0));
        }
        until(2, "b").await;
        // The next day both have spent nothing; one of the two rows of each goes with its name.
        try_it(&quota, &[key("c")], takes(5, 0), DAY_MS).unwrap().settle(takes(5, 0));
        until(1, "c").await;
    };
    tokio::select! {
        () = quota.keep(&writer) => unreachable!("the store is open"),
        () = story => {}
    }
}

#[tokio::test]
async fn a_month_of_ever_new_names_takes_no_more_room_than_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let text = "max_subjects = 150\n[[limit]]\nlevel = 'user'\ntokens_per_day = 100\nrequests_per_minute = 5";
    let (quota, _) = resumed(&store, text, at(0)).await;
    for day in 0..30 {
        for user in 0..100 {
            let (name, ms) = (format!("user-{day}-{user}"), day * DAY_MS + user * 60_000);
            let held = try_it(&quota, &[Subject::new("user", &name)], takes(90, 0), ms).unwrap();
            held.settle(takes(60, 0));
        }
        quota.flush(&store.writer()).await.unwrap();
    }
    let count = |connection: &rusqlite::Connection| {
        Ok(connection.query_row("SELECT count(*), count(DISTINCT name) FROM quota_spent", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?)
    };
    let (rows, names) = store.reader().read(count).await.unwrap();
    assert!((100..=300).contains(&rows) && names <= 150, "{rows} rows of {names} names");
    let last_day = quota.standings(None, None, 1000, at(29 * DAY_MS + DAY_MS / 4));
    assert_eq!(last_day.iter().filter(|one| one.spent == 60).count(), 100, "nobody of today is forgotten");
}
