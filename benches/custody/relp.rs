//! Publishers that speak RELP: numbered frames, each answered when the server has taken the message over.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::load::{Seen, payload};

pub(crate) fn run(address: SocketAddr, publishers: usize, window: usize, span: Duration) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        let began = Instant::now();
        for seed in 0..publishers as u64 {
            tasks.spawn(publish(address, window, span, seed));
        }
        let mut times: Vec<f64> = tasks.join_all().await.concat();
        let seconds = began.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        Seen { messages: times.len() as u64, seconds, times }
    })
}

async fn publish(address: SocketAddr, window: usize, span: Duration, seed: u64) -> Vec<f64> {
    let (from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
    let mut lines = BufReader::new(from).lines();
    let offer = "relp_version=0\nrelp_software=bench\ncommands=syslog";
    to.write_all(format!("1 open {} {offer}\n", offer.len()).as_bytes()).await.unwrap();
    while !lines.next_line().await.unwrap().unwrap().starts_with("commands=") {}
    let (began, mut times, mut flying, mut sent) = (Instant::now(), Vec::new(), VecDeque::new(), 1_u64);
    loop {
        let more = began.elapsed() < span;
        if !more && flying.is_empty() {
            return times;
        }
        let mut out = String::new();
        while more && flying.len() < window {
            sent += 1;
            let message = format!("<13>Nov 21 00:00:00 box press: {}", payload(seed * 10_000_000 + sent, 60));
            out += &format!("{sent} syslog {} {message}\n", message.len());
            flying.push_back(Instant::now());
        }
        if !out.is_empty() {
            to.write_all(out.as_bytes()).await.unwrap();
        }
        let answer = lines.next_line().await.unwrap().unwrap();
        assert!(answer.contains("rsp 6 200 OK"), "{answer}");
        times.push(flying.pop_front().unwrap().elapsed().as_secs_f64() * 1000.0);
    }
}
