//! Records in a block: one row of the database holds up to 256 of them, each text once.
//!
//! Numbers are LEB128; an optional one is its value plus one, or 0. A text is 0 for none, 1 and itself when it comes for the
//! first time in its block, and otherwise its number in order of first appearance, plus two.

use std::collections::HashMap;

use super::record::{Attempt, Call, Here, Record, Tried, Usage};

/// Longest text of a record.
const MAX_TEXT_BYTES: usize = 256;
/// Most attempts of a record.
const MAX_ATTEMPTS: usize = 16;
/// Most texts that a block knows by number; more come in full.
const MAX_TEXTS: usize = 2048;
/// Texts of a record, and two of each attempt.
const TEXTS: usize = 17;
/// The first byte of a record in this form.
const FORM: u8 = 2;
/// Likewise, of one that does not say what the request took of this box.
const FORM_WITHOUT_HERE: u8 = 1;

const IS_STREAM: u8 = 1;
const IS_ESTIMATED: u8 = 2;
const IS_CACHED: u8 = 4;

/// A block that is being filled.
#[derive(Debug, Default)]
pub(super) struct Packer {
    pub(super) body: Vec<u8>,
    pub(super) rows: u32,
    texts: HashMap<Box<str>, u32>,
    /// Where in `body` each numbered text stands.
    places: Vec<(u32, u32)>,
    /// The number that each of a record's texts had last: mostly it is the same again, which needs no search.
    recent: [u32; TEXTS],
    last_ms: i64,
    /// Earliest and latest time in it.
    pub(super) times: Option<(i64, i64)>,
}

impl Packer {
    pub(super) fn push(&mut self, record: &Record<'_>) {
        let Record { time_ms, day, id, usage, .. } = *record;
        self.body.push(FORM);
        let flags = [(record.is_stream, IS_STREAM), (usage.estimated, IS_ESTIMATED), (record.is_cached, IS_CACHED)];
        self.body.push(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
        self.signed(time_ms.wrapping_sub(self.last_ms));
        self.last_ms = time_ms;
        self.signed(day.into());
        // Nobody else has this one.
        let id = cut(id);
        self.number(id.len() as u64);
        self.body.extend_from_slice(id.as_bytes());
        for (slot, text) in texts(record).into_iter().enumerate() {
            self.text(slot, text);
        }
        let attempts = &record.attempts[..record.attempts.len().min(MAX_ATTEMPTS)];
        self.number(attempts.len() as u64);
        for Attempt { candidate, outcome, status, duration_us } in attempts {
            self.text(TEXTS - 2, candidate);
            self.text(TEXTS - 1, outcome);
            self.optional(status.map(u64::from));
            self.number(*duration_us);
        }
        for number in [usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens] {
            self.optional(number);
        }
        self.optional(record.cost_pico);
        self.optional(record.saved_pico);
        self.number(record.status.into());
        self.number(record.total_us);
        self.optional(record.first_token_us);
        self.number(record.overhead_us);
        let Here { cpu_us, energy_uwh } = record.here.unwrap_or_default();
        self.optional(cpu_us);
        self.optional(energy_uwh);
        self.rows += 1;
        let (first, last) = self.times.unwrap_or((time_ms, time_ms));
        self.times = Some((first.min(time_ms), last.max(time_ms)));
    }

    /// Nothing more comes: what is known of its texts is of no use.
    pub(super) fn finish(&mut self) {
        self.texts = HashMap::new();
        self.places = Vec::new();
        self.body.shrink_to_fit();
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.body.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.body.push(value as u8);
    }

    fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn optional(&mut self, value: Option<u64>) {
        self.number(value.map_or(0, |value| value.saturating_add(1)));
    }

    fn text(&mut self, slot: usize, text: &str) {
        if text.is_empty() {
            return self.number(0);
        }
        let text = cut(text);
        let recent = self.recent[slot];
        let known = match self.places.get(recent as usize) {
            Some(&(from, to)) if &self.body[from as usize..to as usize] == text.as_bytes() => Some(recent),
            _ => self.texts.get(text).copied(),
        };
        if let Some(at) = known {
            self.recent[slot] = at;
            return self.number(u64::from(at) + 2);
        }
        self.number(1);
        self.number(text.len() as u64);
        let from = offset(self.body.len());
        self.body.extend_from_slice(text.as_bytes());
        if self.places.len() < MAX_TEXTS {
            let at = offset(self.places.len());
            self.texts.insert(text.into(), at);
            self.places.push((from, offset(self.body.len())));
            self.recent[slot] = at;
        }
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a block ends far below 4 GiB")
}

fn texts<'a>(record: &Record<'a>) -> [&'a str; TEXTS - 2] {
    [
        record.tenant,
        record.key,
        record.team,
        record.user,
        record.dialect,
        record.operation,
        record.route,
        record.candidate,
        record.reason,
        record.model_asked,
        record.model_answered,
        record.prompt,
        record.link,
        record.cache,
        record.error,
    ]
}

/// The longest beginning that fits and is whole characters.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

/// A block whose checksum was right holds what no release of this program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// All records of a block, in order.
pub(super) fn unpack(body: &[u8]) -> Result<Vec<Call>, Malformed> {
    let mut reader = Unpacker { rest: body, texts: Vec::new(), last_ms: 0 };
    let mut calls = Vec::new();
    while !reader.rest.is_empty() {
        calls.push(reader.call()?);
    }
    Ok(calls)
}

struct Unpacker<'a> {
    rest: &'a [u8],
    texts: Vec<&'a str>,
    last_ms: i64,
}

impl<'a> Unpacker<'a> {
    fn call(&mut self) -> Result<Call, Malformed> {
        let form = self.byte()?;
        if form != FORM && form != FORM_WITHOUT_HERE {
            return Err(Malformed);
        }
        let flags = self.byte()?;
        let step = self.signed()?;
        self.last_ms = self.last_ms.wrapping_add(step);
        let time_ms = self.last_ms;
        let day = i32::try_from(self.signed()?).map_err(|_| Malformed)?;
        let id = self.plain()?.to_owned();
        let mut next = || self.text().map(str::to_owned);
        let mut call = Call {
            time_ms,
            day,
            id,
            tenant: next()?,
            key: next()?,
            team: next()?,
            user: next()?,
            dialect: next()?,
            operation: next()?,
            route: next()?,
            candidate: next()?,
            reason: next()?,
            model_asked: next()?,
            model_answered: next()?,
            prompt: next()?,
            link: next()?,
            cache: next()?,
            error: next()?,
            is_stream: flags & IS_STREAM != 0,
            is_cached: flags & IS_CACHED != 0,
            ..Call::default()
        };
        let attempts = self.number()?;
        if attempts > MAX_ATTEMPTS as u64 {
            return Err(Malformed);
        }
        for _ in 0..attempts {
            call.attempts.push(Tried {
                candidate: self.text()?.to_owned(),
                outcome: self.text()?.to_owned(),
                status: self.optional()?.map(status).transpose()?,
                duration_us: self.number()?,
            });
        }
        call.usage = Usage {
            input_tokens: self.optional()?,
            output_tokens: self.optional()?,
            cached_tokens: self.optional()?,
            reasoning_tokens: self.optional()?,
            estimated: flags & IS_ESTIMATED != 0,
        };
        call.cost_pico = self.optional()?;
        call.saved_pico = self.optional()?;
        call.status = status(self.number()?)?;
        call.total_us = self.number()?;
        call.first_token_us = self.optional()?;
        call.overhead_us = self.number()?;
        if form == FORM {
            call.here = Here { cpu_us: self.optional()?, energy_uwh: self.optional()? };
        }
        Ok(call)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = rest;
        Ok(first)
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(Malformed);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn signed(&mut self) -> Result<i64, Malformed> {
        let value = self.number()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn optional(&mut self) -> Result<Option<u64>, Malformed> {
        Ok(self.number()?.checked_sub(1))
    }

    fn plain(&mut self) -> Result<&'a str, Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        if length > MAX_TEXT_BYTES || length > self.rest.len() {
            return Err(Malformed);
        }
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| Malformed)
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        match self.number()? {
            0 => Ok(""),
            1 => {
                let text = self.plain()?;
                if self.texts.len() < MAX_TEXTS {
                    self.texts.push(text);
                }
                Ok(text)
            }
            at => usize::try_from(at - 2).ok().and_then(|at| self.texts.get(at).copied()).ok_or(Malformed),
        }
    }
}

fn status(number: u64) -> Result<u16, Malformed> {
    u16::try_from(number).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, proptest};

    /// The call that should be read for a record.
    fn as_read(record: &Record<'_>) -> Call {
        let mut packer = Packer::default();
        packer.push(record);
        unpack(&packer.body).unwrap().remove(0)
    }

    #[test]
    fn what_is_read_is_what_was_recorded() {
        let attempts = [
            Attempt { candidate: "gpt", outcome: "rate_limited", status: Some(429), duration_us: 12 },
            Attempt { candidate: "local", outcome: "ok", status: None, duration_us: u64::MAX },
        ];
        let record = Record {
            time_ms: 1_700_000_000_123,
            day: -5,
            id: "req-1",
            tenant: "acme",
            key: "k1",
            team: "acme",
            user: "ümlaut",
            model_asked: "gpt",
            attempts: &attempts,
            usage: Usage { input_tokens: Some(0), output_tokens: None, estimated: true, ..Usage::default() },
            cost_pico: Some(u64::MAX - 1),
            here: Some(Here { cpu_us: Some(1_234_567), energy_uwh: None }),
            status: 200,
            is_stream: true,
            is_cached: true,
            total_us: 5,
            first_token_us: Some(3),
            ..Record::default()
        };
        let mut packer = Packer::default();
        let earlier = Record { time_ms: -7, id: "req-2", user: "acme", ..record };
        for record in [&record, &earlier, &Record::default()] {
            packer.push(record);
        }
        let calls = unpack(&packer.body).unwrap();
        assert_eq!((packer.rows, packer.times), (3, Some((-7, 1_700_000_000_123))));
        let call = &calls[0];
        assert_eq!((call.time_ms, call.day, &*call.id, &*call.user), (1_700_000_000_123, -5, "req-1", "ümlaut"));
        assert_eq!((&*call.tenant, &*call.team, &*call.model_asked, &*call.route), ("acme", "acme", "gpt", ""));
        assert_eq!((call.usage, call.cost_pico, call.saved_pico), (record.usage, record.cost_pico, None));
        assert_eq!(Some(call.here), record.here);
        assert_eq!(
            (call.status, call.is_stream && call.is_cached, call.first_token_us, call.total_us),
            (200, true, Some(3), 5)
        );
        let tried =
            Tried { candidate: "gpt".into(), outcome: "rate_limited".into(), status: Some(429), duration_us: 12 };
        assert_eq!((call.attempts.len(), &call.attempts[0]), (2, &tried));
        assert_eq!((calls[1].time_ms, &*calls[1].user), (-7, "acme"));
        assert_eq!(calls[2], Call::default());
    }

    #[test]
    fn records_of_the_form_before_are_read_and_took_of_this_box_what_nobody_knows() {
        let mut packer = Packer::default();
        packer.push(&Record { id: "a", tenant: "b", cost_pico: Some(7), overhead_us: 9, ..Record::default() });
        // It had neither of the two numbers at its end.
        let mut old = packer.body[..packer.body.len() - 2].to_vec();
        old[0] = FORM_WITHOUT_HERE;
        let both = [old.clone(), packer.body, old].concat();
        let calls = unpack(&both).unwrap();
        assert_eq!((calls.len(), calls[0].cost_pico, calls[2].overhead_us), (3, Some(7), 9));
        assert_eq!(calls[0].here, Here { cpu_us: None, energy_uwh: None });
    }

    #[test]
    fn long_texts_are_cut_at_a_character_and_attempts_are_bounded() {
        let long = "ß".repeat(1000);
        let call =
            as_read(&Record { id: &long, tenant: &long, attempts: &[Attempt::default(); 40], ..Record::default() });
        assert_eq!((call.id.len(), call.tenant.len(), call.attempts.len()), (256, 256, 16));
        let odd = format!("a{long}");
        assert_eq!(as_read(&Record { user: &odd, ..Record::default() }).user.len(), 255);
    }

    #[test]
    fn repeated_texts_cost_a_byte() {
        let mut packer = Packer::default();
        let record =
            Record { id: "0123456789abcdef", tenant: "a-tenant-with-a-long-name", status: 200, ..Record::default() };
        packer.push(&record);
        let first = packer.body.len();
        packer.push(&record);
        assert!(packer.body.len() - first < 60, "{} and {first}", packer.body.len() - first);
        // More texts than are numbered still come back.
        let names: Vec<_> = (0..3000).map(|at| format!("user {at}")).collect();
        for user in names.iter().chain(&names) {
            packer.push(&Record { user, ..record });
        }
        let calls = unpack(&packer.body).unwrap();
        assert_eq!((&*calls[2].user, &*calls[6001].user), ("user 0", "user 2999"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..400), at in 0_usize..80) {
            let _ = unpack(&body);
            let mut packer = Packer::default();
            packer.push(&Record { id: "a", tenant: "b", attempts: &[Attempt::default()], ..Record::default() });
            if let (Some(byte), Some(new)) = (packer.body.get_mut(at), body.first()) {
                *byte = *new;
            }
            let _ = unpack(&packer.body);
        }
    }

    #[test]
    fn a_block_that_was_cut_off_is_refused() {
        let mut packer = Packer::default();
        packer.push(&Record { id: "a", tenant: "b", attempts: &[Attempt::default()], ..Record::default() });
        for end in 1..packer.body.len() {
            assert_eq!(unpack(&packer.body[..end]), Err(Malformed), "{end}");
        }
        assert_eq!(unpack(&[]), Ok(Vec::new()));
    }
}
