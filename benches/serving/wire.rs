//! Clients that cost little: requests are bytes that were made beforehand, answers are read and not looked into.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// One kept HTTP/1.1 connection.
pub(crate) struct Http {
    stream: TcpStream,
    read: Vec<u8>,
}

/// The bytes of a POST.
pub(crate) fn post(address: SocketAddr, path: &str, json_bytes: Option<usize>, body: &[u8]) -> Vec<u8> {
    let (kind, announced) = match json_bytes {
        None => ("application/json", String::new()),
        Some(bytes) => ("application/octet-stream", format!("inference-header-content-length: {bytes}\r\n")),
    };
    let length = body.len();
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {kind}\r\n{announced}content-length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

impl Http {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: vec![0; 1 << 16] }
    }

    /// The answer's status and body.
    pub(crate) fn ask(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).unwrap();
        let mut filled = 0;
        let head = loop {
            filled += self.more(filled);
            let from = self.read[..filled].windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = from {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&self.read[..head]).unwrap().to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).expect("a length");
        let end = head + length.trim().parse::<usize>().unwrap();
        if self.read.len() < end {
            self.read.resize(end, 0);
        }
        while filled < end {
            filled += self.more(filled);
        }
        (text[9..12].parse().unwrap(), &self.read[head..end])
    }

    fn more(&mut self, filled: usize) -> usize {
        if filled == self.read.len() {
            self.read.resize(2 * filled, 0);
        }
        let count = self.stream.read(&mut self.read[filled..]).unwrap();
        assert!(count > 0, "the server closed the connection");
        count
    }
}

const FRAME_MAX: usize = 16_384;
const WINDOW: usize = (1 << 31) - 1;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// One kept HTTP/2 connection with one gRPC call at a time.
pub(crate) struct Grpc {
    stream: TcpStream,
    headers: Vec<u8>,
    last: u32,
    /// What the server takes before it must say so again: of the connection, and of a new stream.
    window: usize,
    stream_window: usize,
    fresh_window: usize,
    out: Vec<u8>,
    read: Vec<u8>,
    start: usize,
    end: usize,
    body: Vec<u8>,
    received: usize,
}

impl Grpc {
    pub(crate) fn connect(address: SocketAddr, path: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut headers = Vec::new();
        let authority = address.to_string();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", &authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ] {
            // A literal without an index, twice a length below 127 with its text (RFC 7541, 6.2.2).
            headers.push(0);
            for text in [name, value] {
                headers.push(u8::try_from(text.len()).unwrap());
                headers.extend_from_slice(text.as_bytes());
            }
        }
        let mut this = Self {
            stream,
            headers,
            last: 0,
            window: 65_535,
            stream_window: 0,
            fresh_window: 65_535,
            out: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            read: vec![0; 1 << 18],
            start: 0,
            end: 0,
            body: Vec::new(),
            received: 0,
        };
        let most = u32::try_from(WINDOW).unwrap().to_be_bytes();
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&most);
        this.frame(SETTINGS, 0, 0, &settings);
        this.frame(WINDOW_UPDATE, 0, 0, &u32::try_from(WINDOW - 65_535).unwrap().to_be_bytes());
        this.send();
        while this.next(0).0 != SETTINGS {}
        this
    }

    /// The answer's messages, each with its prefix of five bytes; none if the call failed.
    pub(crate) fn ask(&mut self, message: &[u8]) -> &[u8] {
        self.last = if self.last == 0 { 1 } else { self.last + 2 };
        self.stream_window = self.fresh_window;
        let (stream, headers) = (self.last, std::mem::take(&mut self.headers));
        self.frame(HEADERS, END_HEADERS, stream, &headers);
        self.headers = headers;
        self.body.clear();
        let mut left = message;
        while !left.is_empty() {
            let most = left.len().min(FRAME_MAX).min(self.window).min(self.stream_window);
            if most == 0 {
                self.send();
                self.next(stream);
                continue;
            }
            let (part, rest) = left.split_at(most);
            self.frame(DATA, if rest.is_empty() { END_STREAM } else { 0 }, stream, part);
            (self.window, self.stream_window, left) = (self.window - most, self.stream_window - most, rest);
        }
        self.send();
        while self.next(stream) != (HEADERS, true) {}
        if self.received > WINDOW / 2 {
            let received = u32::try_from(self.received).unwrap().to_be_bytes();
            self.frame(WINDOW_UPDATE, 0, 0, &received);
            self.received = 0;
        }
        &self.body
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        self.out.extend_from_slice(&length[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&stream.to_be_bytes());
        self.out.extend_from_slice(payload);
    }

    fn send(&mut self) {
        self.stream.write_all(&self.out).unwrap();
        self.out.clear();
    }

    /// Reads one frame and does what it asks. Its kind, and whether it is the last of `stream`.
    fn next(&mut self, stream: u32) -> (u8, bool) {
        let head = self.take(9);
        let length = u32::from_be_bytes([0, self.read[head], self.read[head + 1], self.read[head + 2]]) as usize;
        let (kind, flags) = (self.read[head + 3], self.read[head + 4]);
        let of = self.number(head + 5) & 0x7fff_ffff;
        let at = self.take(length);
        match kind {
            DATA => {
                self.received += length;
                if of == stream {
                    self.body.extend_from_slice(&self.read[at..at + length]);
                }
            }
            SETTINGS if flags & ACK == 0 => {
                for setting in (at..at + length).step_by(6) {
                    // The first window of each stream to come.
                    if self.read[setting..setting + 2] == [0, 4] {
                        self.fresh_window = self.number(setting + 2) as usize;
                    }
                }
                self.frame(SETTINGS, ACK, 0, &[]);
                self.send();
            }
            PING if flags & ACK == 0 => {
                let payload = self.read[at..at + length].to_vec();
                self.frame(PING, ACK, 0, &payload);
                self.send();
            }
            WINDOW_UPDATE => {
                let more = self.number(at) as usize;
                if of == 0 {
                    self.window += more;
                } else if of == stream {
                    self.stream_window += more;
                }
            }
            RESET | GO_AWAY => panic!("the server ended the call or the connection: frame {kind}"),
            _ => {}
        }
        (kind, of == stream && flags & END_STREAM != 0 && matches!(kind, DATA | HEADERS))
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.read[at..at + 4].try_into().unwrap())
    }

    /// Where the next `count` bytes begin, once they are there.
    fn take(&mut self, count: usize) -> usize {
        while self.end - self.start < count {
            if self.start > 0 {
                self.read.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.read.len() < count {
                self.read.resize(count, 0);
            }
            let got = self.stream.read(&mut self.read[self.end..]).unwrap();
            assert!(got > 0, "the server closed the connection");
            self.end += got;
        }
        let at = self.start;
        self.start += count;
        at
    }
}
