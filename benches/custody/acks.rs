//! Durable messages a second and the time to the acknowledgement, beside others, in turns.

use std::time::{Duration, Instant};

use crate::load::{Load, Until, absent_subscriber};
use crate::servers::{Server, Setup};
use crate::{median, percentile, relp};

const ROUNDS: usize = 3;
const SPAN: Duration = Duration::from_secs(3);

/// Messages a second and the 99th percentile of milliseconds to an acknowledgement, of every round.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    p99: Vec<f64>,
}

impl Figures {
    fn add(&mut self, rate: f64, times: &[f64]) {
        self.rates.push(rate);
        self.p99.push(percentile(times, 99));
    }

    fn line(&self, what: &str, publishers: usize, window: usize, ours: Option<&Self>) -> f64 {
        let (rate, p99) = (median(self.rates.clone()), median(self.p99.clone()));
        let ratio = ours.map_or(String::new(), |ours| format!("{:.2}", median(ours.rates.clone()) / rate));
        if !rate.is_nan() {
            println!("| {what} | {publishers} | {window} | {rate:.0} | {p99:.2} | {ratio} |");
        }
        rate
    }
}

pub(crate) fn run() {
    println!(
        "\n## Acknowledged QoS 1 messages of 60 bytes, {ROUNDS} rounds of {} s in turns, medians\n",
        SPAN.as_secs()
    );
    println!(
        "| | publishers | unacknowledged each | messages/s | p99 ms | forebay is times as fast |\n|---|---|---|---|---|---|"
    );
    for (publishers, window) in [(1, 1), (10, 1), (100, 1), (10, 64)] {
        let mut all: [Figures; 4] = Default::default();
        for _ in 0..ROUNDS {
            mqtt(&mut all[0], Some(Server::gateway(&Setup::default())), publishers, window, false);
            mqtt(&mut all[1], Server::mosquitto(true), publishers, window, true);
            mqtt(&mut all[2], Server::mosquitto(false), publishers, window, true);
            if let Some(server) = Server::rsyslog() {
                let seen = relp::run(server.address, publishers, window, SPAN);
                all[3].add(seen.rate(), &seen.times);
            }
        }
        all[0].line("forebay, into a stream", publishers, window, None);
        all[1].line("mosquitto, autosave_on_changes (loses nothing)", publishers, window, Some(&all[0]));
        all[2].line(
            "mosquitto, persistence with defaults (loses all since the last save)",
            publishers,
            window,
            Some(&all[0]),
        );
        all[3].line("rsyslog, RELP into a synced disk queue", publishers, window, Some(&all[0]));
    }
    println!("\n| one thread, FULL | rows a commit | rows/s | p99 ms of a commit |\n|---|---|---|---|");
    for batch in [1, 64, 256] {
        let mut figures = Figures::default();
        (0..ROUNDS).for_each(|_| bare(&mut figures, batch));
        println!("| bare rusqlite | {batch} | {:.0} | {:.2} |", median(figures.rates), median(figures.p99));
    }
}

/// `keep` has a persistent subscriber that is away, without which a broker has nothing to keep.
fn mqtt(figures: &mut Figures, server: Option<Server>, publishers: usize, window: usize, keep: bool) {
    let Some(server) = server else { return };
    if keep {
        absent_subscriber(server.address);
    }
    let seen = Load { window, ..Load::new(server.address, publishers, Until::Elapsed(SPAN)) }.run();
    assert!(
        keep || server.metric("forebay_store_records_total") >= seen.messages as f64,
        "acknowledged and not written"
    );
    figures.add(seen.rate(), &seen.times);
}

fn bare(figures: &mut Figures, batch: usize) {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("bare.db")).unwrap();
    connection.execute_batch("PRAGMA journal_mode = wal; PRAGMA synchronous = full;").unwrap();
    connection.execute_batch("CREATE TABLE item (no INTEGER PRIMARY KEY, body BLOB NOT NULL)").unwrap();
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < SPAN / 3 {
        let commit = Instant::now();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut insert = connection.prepare_cached("INSERT INTO item (body) VALUES (?1)").unwrap();
        for _ in 0..batch {
            insert.execute([[7_u8; 60]]).unwrap();
        }
        drop(insert);
        connection.execute_batch("COMMIT").unwrap();
        times.push(commit.elapsed().as_secs_f64() * 1000.0);
    }
    let rate = (times.len() * batch) as f64 / began.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    figures.add(rate, &times);
}
