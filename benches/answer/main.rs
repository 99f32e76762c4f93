//! What a gateway for language models costs between a client and a provider: CPU time and memory, time to the first
//! word, streams at once, requests a second; beside other gateways and beside nobody between, over one mock provider.
//!
//! `FOREBAY_PEERS=... cargo bench --bench answer`. Peers that are not installed are said and left out; ONLY=nginx,crabllm
//! takes these. `hyper` is this program as a bare proxy. Everybody takes turns, ROUNDS (5) of SLICE_MS (1000), and medians
//! of the rounds are printed. CPU time is what the kernel counted for all threads of a server's processes, so that a busy
//! machine changes it little; times do change. Every request is a new one to every cache. ONE_CORE=1: everybody shares one
//! core. AWAKE=1: cores do not sleep between two words. FOREBAY_BENCH_PROGRAM is another build of the gateway to measure,
//! FOREBAY_BEFORE one to compare with. STREAMS=0 and LADDER=0 leave these parts out.
//!
//! `cargo bench --bench answer -- mock --address 127.0.0.1:9100 ...` is the mock provider alone.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a bench")]

mod awake;
mod bare;
mod load;
mod mock;
mod servers;
mod usage;

use std::time::Duration;

use load::{Client, Numbers, Streams, Turn, closed, streams};
use servers::{Contender, Mocks, Model, contenders};

const CONNECTIONS: usize = 16;
const LADDER: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const WITHIN_MS: [u64; 3] = [1, 5, 10];

/// What was measured of one contender.
#[derive(Default)]
struct Measured {
    /// Of a request whose answer is whole, and of a stream of three words.
    cpu_us: Vec<f64>,
    stream_cpu_us: Vec<f64>,
    rss_mb: Vec<f64>,
    rate: Vec<f64>,
    /// Until the first word, by rounds, where the provider writes all of them at once and where it takes its time.
    at_once: Vec<Vec<Duration>>,
    paced: Vec<Vec<Duration>>,
    wrong: usize,
    streams: Option<(Streams, f64, f64)>,
    /// By rungs of the ladder: requests a second, and times.
    rungs: Vec<(f64, Vec<Duration>)>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// In microseconds, the time that so many of a hundred are within.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

fn setting(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match arguments.next().as_deref() {
        Some("mock") => return mock::serve(arguments),
        Some("bare") => return bare::serve(arguments),
        _ => {}
    }
    if setting("ONE_CORE", 0) > 0 {
        let mut first = rustix::thread::CpuSet::new();
        first.set(0);
        // Programs that are started from here inherit it.
        rustix::thread::sched_setaffinity(None, &first).unwrap();
    }
    if setting("AWAKE", 0) > 0 {
        awake::keep_awake();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let work = tempfile::tempdir().unwrap();
    let mocks = Mocks::start(work.path());
    let mut ready = Vec::new();
    for mut contender in contenders(work.path(), &mocks) {
        match contender.is_ready(&mocks).await {
            Ok(()) => ready.push(contender),
            Err(why) => {
                let log = work.path().join(format!("{}.log", contender.name.to_lowercase()));
                let log = std::fs::read_to_string(log).unwrap_or_default();
                println!("left out: {}, which did not answer well: {why}\n{log}", contender.name);
            }
        }
    }
    let idle: Vec<f64> = ready.iter().map(|one| one.group().map_or(f64::NAN, usage::rss_mb)).collect();
    let mut measured: Vec<Measured> = ready.iter().map(|_| Measured::default()).collect();
    let mut numbers = Numbers::default();
    let (rounds, slice) = (setting("ROUNDS", 5), Duration::from_millis(setting("SLICE_MS", 1000).into()));
    for round in 0..rounds as usize {
        // Each round begins with another one, so that nobody always comes after the same.
        for at in (0..ready.len()).map(|at| (at + round) % ready.len()) {
            costs(&ready[at], &mocks, slice, &mut numbers, &mut measured[at]).await;
            first_word(&ready[at], &mocks, slice, &mut numbers, &mut measured[at]).await;
        }
    }
    for _ in 0..setting("LADDER", 3) {
        for (contender, found) in ready.iter().zip(&mut measured) {
            ladder(contender, &mocks, slice / 3, &mut numbers, found).await;
        }
    }
    let count = setting("STREAMS", 1000) as usize;
    for (contender, found) in ready.iter().zip(&mut measured).filter(|_| count > 0) {
        found.streams = Some(at_once(contender, &mocks, count, &mut numbers).await);
    }
    print_costs(&ready, &measured, &idle);
    if setting("LADDER", 3) > 0 {
        print_ladder(&ready, &measured);
    }
    if count > 0 {
        print_streams(&ready, &measured, count);
    }
}

async fn connected(contender: &Contender, model: Model, mocks: &Mocks, count: usize) -> Vec<Client> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(Client::connect(contender.address_of(model, mocks)).await.unwrap());
    }
    clients
}

/// One turn with the CPU time of a request.
async fn turn(
    contender: &Contender,
    clients: &mut [Client],
    request: &load::Request,
    slice: Duration,
    numbers: &mut Numbers,
) -> (Turn, f64) {
    // Connections, caches of code and pools are warm when it counts.
    closed(clients, request, slice / 10, numbers).await;
    let cpu = || contender.group().map_or(f64::NAN, usage::cpu_us);
    let before = cpu();
    let turn = closed(clients, request, slice, numbers).await;
    let each = (cpu() - before) / turn.times.len() as f64;
    (turn, each)
}

async fn costs(contender: &Contender, mocks: &Mocks, slice: Duration, numbers: &mut Numbers, found: &mut Measured) {
    let mut clients = connected(contender, Model::Whole, mocks, CONNECTIONS).await;
    let request = contender.request(Model::Whole, false, mocks);
    let (whole, cpu) = turn(contender, &mut clients, &request, slice, numbers).await;
    found.cpu_us.push(cpu);
    found.rate.push(whole.times.len() as f64 / whole.took.as_secs_f64());
    found.wrong += whole.wrong;
    found.rss_mb.push(contender.group().map_or(f64::NAN, usage::rss_mb));
}

async fn first_word(
    contender: &Contender,
    mocks: &Mocks,
    slice: Duration,
    numbers: &mut Numbers,
    found: &mut Measured,
) {
    for model in [Model::Whole, Model::First] {
        let mut clients = connected(contender, model, mocks, 1).await;
        let request = contender.request(model, true, mocks);
        let (streamed, cpu) = turn(contender, &mut clients, &request, slice, numbers).await;
        found.wrong += streamed.wrong;
        if model == Model::First {
            found.stream_cpu_us.push(cpu);
            found.paced.push(streamed.firsts);
        } else {
            found.at_once.push(streamed.firsts);
        }
    }
}

async fn ladder(contender: &Contender, mocks: &Mocks, slice: Duration, numbers: &mut Numbers, found: &mut Measured) {
    found.rungs.resize(LADDER.len(), (0.0, Vec::new()));
    let request = contender.request(Model::Whole, false, mocks);
    for (rung, count) in found.rungs.iter_mut().zip(LADDER) {
        let mut clients = connected(contender, Model::Whole, mocks, count).await;
        let (seen, _) = turn(contender, &mut clients, &request, slice, numbers).await;
        // Three turns: their mean.
        rung.0 += seen.times.len() as f64 / seen.took.as_secs_f64() / f64::from(setting("LADDER", 3));
        rung.1.extend(seen.times);
        found.wrong += seen.wrong;
        if percentile(&rung.1, 50) > 20_000.0 {
            break;
        }
    }
}

/// So many paced streams; the CPU time of a word, and the most memory meanwhile.
async fn at_once(contender: &Contender, mocks: &Mocks, count: usize, numbers: &mut Numbers) -> (Streams, f64, f64) {
    let request = contender.request(Model::Paced, true, mocks);
    let before = contender.group().map_or(f64::NAN, usage::cpu_us);
    let most = std::cell::Cell::new(0.0_f64);
    let watching = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            most.set(most.get().max(contender.group().map_or(f64::NAN, usage::rss_mb)));
        }
    };
    let times = (Duration::from_secs(1), Duration::from_secs(30));
    let address = contender.address_of(Model::Paced, mocks);
    let seen = tokio::select! {
        seen = streams(address, &request, count, Model::Paced.words(), times, numbers) => seen,
        () = watching => unreachable!(),
    };
    let used = contender.group().map_or(f64::NAN, usage::cpu_us) - before;
    let each = used / seen.words as f64;
    (seen, each, most.get())
}

fn print_costs(ready: &[Contender], measured: &[Measured], idle: &[f64]) {
    println!(
        "\n{CONNECTIONS} connections; RSS before and after; the first word over one connection, beside nobody between"
    );
    println!(
        "\n| | CPU us a request | in times of ours | CPU us a short stream | RSS MB | requests/s | first word us: words at once p50 (p99) | added | words 2 ms apart p50 (p99) | added |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let ours = median(measured[1].cpu_us.clone());
    let first = |times: &[Vec<Duration>], nobody: &[Vec<Duration>]| {
        let of_all = |percent| percentile(&times.concat(), percent);
        // Of each round by itself: the machine's pace is another one in the next.
        let added = |percent| {
            let each =
                times.iter().zip(nobody).map(|(mine, nobody)| percentile(mine, percent) - percentile(nobody, percent));
            median(each.collect())
        };
        format!("{:.0} ({:.0}) | {:.0} ({:.0})", of_all(50), of_all(99), added(50), added(99))
    };
    for ((contender, found), idle) in ready.iter().zip(measured).zip(idle) {
        let cpu = median(found.cpu_us.clone());
        println!(
            "| {} | {cpu:.1} | {:.2} | {:.1} | {idle:.1}, {:.1} | {:.0} | {} | {} |{}",
            contender.name,
            cpu / ours,
            median(found.stream_cpu_us.clone()),
            found.rss_mb.last().copied().unwrap_or(f64::NAN),
            median(found.rate.clone()),
            first(&found.at_once, &measured[0].at_once),
            first(&found.paced, &measured[0].paced),
            if found.wrong > 0 { format!(" {} without an answer", found.wrong) } else { String::new() },
        );
    }
}

fn print_ladder(ready: &[Contender], measured: &[Measured]) {
    println!("\nrequests/s at the best rung of {LADDER:?} connections whose p99 is within");
    println!("\n| | 1 ms | 5 ms | 10 ms | any |\n|---|---|---|---|---|");
    for (contender, found) in ready.iter().zip(measured) {
        print!("| {} |", contender.name);
        for within in WITHIN_MS.iter().map(|ms| *ms as f64 * 1000.0).chain([f64::INFINITY]) {
            let fit = found.rungs.iter().zip(LADDER).filter(|(rung, _)| percentile(&rung.1, 99) <= within);
            let best = fit.max_by(|one, other| one.0.0.total_cmp(&other.0.0));
            print!("{}", best.map_or(" - |".to_owned(), |((rate, _), count)| format!(" {rate:.0} ({count}) |")));
        }
        println!();
    }
}

fn print_streams(ready: &[Contender], measured: &[Measured], count: usize) {
    let words = Model::Paced.words();
    println!("\n{count} streams at once of {words} words, one every 20 ms, begun within a second");
    println!("\n| | whole | words lost | seconds | first word ms p50 (p99) | CPU us a word | RSS MB at most |");
    println!("|---|---|---|---|---|---|---|");
    for (contender, found) in ready.iter().zip(measured) {
        let Some((seen, cpu, rss)) = &found.streams else { continue };
        println!(
            "| {} | {} | {} | {:.2} | {:.1} ({:.1}) | {cpu:.2} | {rss:.1} |",
            contender.name,
            seen.whole,
            (count * words).saturating_sub(seen.words),
            seen.took.as_secs_f64(),
            percentile(&seen.firsts, 50) / 1000.0,
            percentile(&seen.firsts, 99) / 1000.0,
        );
    }
}
