//! Clients that cost little: requests are bytes that were made beforehand, answers are taken out of their chunks and looked
//! at only as far as their frames are counted. All of them share one thread.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Where a request has the number that makes it a new one for every cache.
pub(crate) const NUMBER: &str = "00000000";

/// A request as bytes, with a number in it that is another one each time.
#[derive(Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    number_at: usize,
}

impl Request {
    pub(crate) fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\naccept: */*\r\n\
             user-agent: OpenAI/Python 2.8.1\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        let number_at = text.rfind(NUMBER).expect("a number");
        Self { bytes: text.into_bytes(), number_at }
    }

    fn with(&mut self, number: u32) -> &[u8] {
        let text = format!("{number:08}");
        self.bytes[self.number_at..self.number_at + 8].copy_from_slice(text.as_bytes());
        &self.bytes
    }
}

/// What came of one request.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    /// From the request to the first word.
    pub(crate) first: Option<Duration>,
    /// Words of the answer that came in frames of their own.
    pub(crate) words: usize,
    /// The end of the stream was said.
    pub(crate) is_done: bool,
    /// Bytes of the body that are no frames.
    pub(crate) whole: Vec<u8>,
}

/// What is left of a body.
struct Left {
    /// Of it, or of its chunk.
    bytes: usize,
    is_chunked: bool,
    /// The line end of a chunk comes before the next one's size.
    is_in_chunk: bool,
}

/// One kept connection.
pub(crate) struct Client {
    address: SocketAddr,
    stream: TcpStream,
    read: Vec<u8>,
    line: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, read: Vec::with_capacity(8192), line: Vec::new() })
    }

    /// Asks; after an error the next request has a new connection.
    pub(crate) async fn ask(&mut self, request: &mut Request, number: u32, seen: &mut Seen) -> std::io::Result<()> {
        let asked = self.once(request.with(number), seen).await;
        if asked.is_err() {
            *self = Self::connect(self.address).await?;
        }
        asked
    }

    async fn once(&mut self, request: &[u8], seen: &mut Seen) -> std::io::Result<()> {
        let began = Instant::now();
        self.stream.write_all(request).await?;
        self.read.clear();
        self.line.clear();
        let head = loop {
            self.more().await?;
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = String::from_utf8_lossy(&self.read[..head]).to_ascii_lowercase();
        seen.status = text[9..12].parse().unwrap_or(0);
        let named = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let said = named("content-length:").map(|length| length.parse().map_err(std::io::Error::other)).transpose()?;
        let mut left = Left { bytes: said.unwrap_or(0), is_chunked: said.is_none(), is_in_chunk: false };
        let is_stream = named("content-type:").is_some_and(|kind| kind.starts_with("text/event-stream"));
        self.read.drain(..head);
        while !self.take(&mut left, is_stream, seen, began)? {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> std::io::Result<()> {
        if self.stream.read_buf(&mut self.read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Takes what was read. True at the end of the body.
    fn take(&mut self, body: &mut Left, is_stream: bool, seen: &mut Seen, began: Instant) -> std::io::Result<bool> {
        let mut at = 0;
        let is_over = loop {
            let left = &self.read[at..];
            if body.bytes > 0 {
                let count = left.len().min(body.bytes);
                if count == 0 {
                    break false;
                }
                if is_stream {
                    frames(&mut self.line, &left[..count], seen, began);
                } else {
                    seen.whole.extend_from_slice(&left[..count]);
                }
                (body.bytes, at) = (body.bytes - count, at + count);
                continue;
            }
            if !body.is_chunked {
                break true;
            }
            let skipped = if body.is_in_chunk { 2 } else { 0 };
            let Some(line) = left.get(skipped..) else { break false };
            let Some(end) = line.windows(2).position(|two| two == b"\r\n") else { break false };
            let size = std::str::from_utf8(&line[..end]).map_err(std::io::Error::other)?;
            body.bytes = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            if body.bytes == 0 {
                break line.len() >= end + 4;
            }
            (body.is_in_chunk, at) = (true, at + skipped + end + 2);
        };
        self.read.drain(..at);
        Ok(is_over)
    }
}

/// Counts the frames that end in this part.
fn frames(line: &mut Vec<u8>, part: &[u8], seen: &mut Seen, began: Instant) {
    const WORD: &[u8] = b"\"content\":\"";
    for piece in part.split_inclusive(|byte| *byte == b'\n') {
        line.extend_from_slice(piece);
        if piece.last() != Some(&b'\n') {
            return;
        }
        let says = memchr::memmem::find(line, WORD).is_some_and(|at| line.get(at + WORD.len()) != Some(&b'"'));
        if line.starts_with(b"data:") && says {
            seen.words += 1;
            seen.first.get_or_insert_with(|| began.elapsed());
        }
        seen.is_done |= line.starts_with(b"data: [DONE]");
        line.clear();
    }
}

/// Requests one after another on each of so many connections, for so long.
pub(crate) async fn closed(clients: &mut [Client], request: &Request, time: Duration, numbers: &mut Numbers) -> Turn {
    let until = Instant::now() + time;
    let began = Instant::now();
    let shares = numbers.share(clients.len());
    let asking = clients.iter_mut().zip(shares).map(|(client, mut number)| {
        let mut request = request.clone();
        async move {
            let (mut times, mut firsts, mut wrong) = (Vec::new(), Vec::new(), 0);
            while Instant::now() < until {
                let start = Instant::now();
                number += 1;
                let mut seen = Seen::default();
                match client.ask(&mut request, number, &mut seen).await {
                    Ok(()) if seen.status == 200 => {
                        times.push(start.elapsed());
                        firsts.extend(seen.first);
                    }
                    _ => wrong += 1,
                }
            }
            (times, firsts, wrong)
        }
    });
    let mut turn = Turn::default();
    for (times, firsts, wrong) in futures_util::future::join_all(asking).await {
        turn.times.extend(times);
        turn.firsts.extend(firsts);
        turn.wrong += wrong;
    }
    turn.took = began.elapsed();
    turn
}

/// Numbers that no request had before.
#[derive(Default)]
pub(crate) struct Numbers(u32);

impl Numbers {
    /// The first of twenty thousand for each.
    fn share(&mut self, count: usize) -> Vec<u32> {
        const EACH: u32 = 20_000;
        let from = self.0;
        self.0 += EACH * u32::try_from(count).unwrap();
        // Eight digits; whoever comes round again is long out of every cache.
        self.0 %= 90_000_000;
        (0..count).map(|at| from + EACH * u32::try_from(at).unwrap()).collect()
    }
}

/// What a number of requests saw.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) times: Vec<Duration>,
    pub(crate) firsts: Vec<Duration>,
    pub(crate) wrong: usize,
    pub(crate) took: Duration,
}

/// What so many streams at once saw.
#[derive(Default)]
pub(crate) struct Streams {
    pub(crate) whole: usize,
    pub(crate) words: usize,
    pub(crate) firsts: Vec<Duration>,
    pub(crate) took: Duration,
}

/// So many streams at once, begun within `ramp`, none of them waited for longer than `patience`.
pub(crate) async fn streams(
    address: SocketAddr,
    request: &Request,
    count: usize,
    words: usize,
    (ramp, patience): (Duration, Duration),
    numbers: &mut Numbers,
) -> Streams {
    let began = Instant::now();
    let number = numbers.share(1)[0];
    let asking = (0..count).map(|at| {
        let mut request = request.clone();
        async move {
            let wait = ramp * u32::try_from(at).unwrap() / u32::try_from(count).unwrap();
            tokio::time::sleep(wait).await;
            let mut seen = Seen::default();
            let asked = async {
                let mut client = Client::connect(address).await.ok()?;
                client.ask(&mut request, number + u32::try_from(at).unwrap(), &mut seen).await.ok()
            };
            let _ = tokio::time::timeout(patience, asked).await;
            seen
        }
    });
    let mut all = Streams::default();
    for seen in futures_util::future::join_all(asking).await {
        all.whole += usize::from(seen.words == words && seen.is_done);
        all.words += seen.words;
        all.firsts.extend(seen.first);
    }
    all.took = began.elapsed();
    all
}
