//! What leaves: due and within its budget, made once, known to the disk where a day's budget asks for it.

use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use crate::base::Seq;
use crate::flows::address::Address;
use crate::flows::batch::{BATCH_OVERHEAD_BYTES, Batch};
use crate::flows::due::tally;
use crate::flows::frame;
use crate::flows::pace::Claim;
use crate::flows::queue::End;
use crate::flows::receipt::Span;
use crate::outbox::{self, BatchLimits, Class, StreamKey};
use crate::uplink::{Message, Uplink};

use super::flow::{Ended, Sync};

/// A message that is made and waits for its budget. Its batch counts as on its way.
pub(super) struct Ready {
    key: StreamKey,
    /// Of the batch.
    pub(super) ticket: u64,
    span: Span,
    rows: u64,
    message: Message,
    /// Size before compression.
    plain_bytes: u64,
    /// What it costs.
    bytes: u64,
    again: bool,
    overtakes: bool,
    waited: bool,
}

/// There may be ledger entries without a row, which nothing counts: look once even if nothing seems to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Entries that say what was lost: they leave first.
    pub(super) losses: bool,
    pub(super) alarms: bool,
    pub(super) others: bool,
}

/// Whether a message could be made.
enum Made {
    Ready,
    Nothing,
    /// A row was declared lost: there may be more.
    GaveUp,
}

/// What to do next.
struct Due {
    /// In this order.
    turns: Vec<Claim>,
    /// Rows are counted, so finding none is a matter of a moment.
    counted: bool,
    /// From which end fresh rows are taken.
    fresh_end: End,
    /// After which time to look again, if only time is missing.
    wait: Option<Duration>,
}

impl<U: Uplink, R: Rng + Send> Sync<U, R> {
    /// The link takes a message.
    pub(super) fn has_window(&self) -> bool {
        self.confirmations.asked() < self.uplink.window()
    }

    /// The link takes a batch, at least one with alarms, and it may be remembered.
    pub(super) fn has_room(&self) -> bool {
        self.has_window() && !self.confirmations.is_full_for_alarms()
    }

    /// Submits what is due while there is room. Gives the time after which to look again, if only time is missing.
    pub(super) async fn fill(&mut self) -> Result<Option<Duration>, Ended> {
        self.queue.settle(&mut self.flights).await?;
        let losses = self.queue.losses();
        self.look.losses |= std::mem::replace(&mut self.losses, losses) != losses;
        let again = self.send_again().await?;
        let wait = self.fill_from_queue().await?;
        Ok([again, wait].into_iter().flatten().min())
    }

    /// Sends what has waited too long for its receipt, and says so of the link. Gives the time after which to look again.
    async fn send_again(&mut self) -> Result<Option<Duration>, Ended> {
        let now = self.clock.since_boot();
        let silent = self.confirmations.silent_since(now).map(|since| {
            let since_ms = self.clock.wall_ms() - i64::try_from((now - since).as_millis()).unwrap_or(i64::MAX);
            // To the second: what the clocks differ by between two looks is no news.
            let since = jiff::Timestamp::from_second(since_ms / 1000).unwrap_or_default();
            format!("the broker takes batches and no receiver has confirmed one since {since}; they stay in the queue")
        });
        if silent.is_some() != self.silent {
            self.silent = silent.is_some();
            if let Some(reason) = &silent {
                tracing::warn!(reason, "no receipts");
            }
            self.uplink.complain("receipts", silent);
        }
        while self.has_window() {
            let Some(bytes) = self.confirmations.late_bytes(now) else { break };
            let (by_second, by_day) = self.pace.waits(Claim::Backlog, bytes, now);
            let wait = by_second.max(by_day);
            if !wait.is_zero() {
                return Ok(Some(wait));
            }
            self.pay(Claim::Backlog, bytes).await?;
            let Some((ticket, message)) = self.confirmations.again(now) else { break };
            self.metrics.resent.inc();
            self.metrics.sent_bytes.inc_by(bytes);
            self.submitted.insert(ticket, now);
            self.uplink.submit(ticket, message)?;
        }
        // Without room the answer that makes some is the reason to look again.
        let due_at = self.confirmations.due_at(now).filter(|due_at| self.has_window() || *due_at > now);
        Ok(due_at.map(|due_at| due_at.saturating_sub(now)))
    }

    /// Submits what is due and within its budget while the window has room. Gives the time after which to look again,
    /// if only time is missing.
    async fn fill_from_queue(&mut self) -> Result<Option<Duration>, Ended> {
        while self.has_room() {
            let now = self.clock.since_boot();
            let Due { turns, counted, fresh_end, mut wait } = self.due(now);
            let mut sent = false;
            for claim in turns {
                let end = if claim == Claim::Fresh { fresh_end } else { End::Oldest };
                let made = if self.ready.contains_key(&claim) { Made::Ready } else { self.fetch(claim, end).await? };
                match made {
                    Made::Ready => {}
                    Made::GaveUp => {
                        sent = true;
                        break;
                    }
                    Made::Nothing => {
                        // The count and the rows disagree for a moment (a deletion): look again later.
                        let later = Duration::from_millis(self.config.linger_ms.max(1));
                        wait = if counted { Some(wait.map_or(later, |wait| wait.min(later))) } else { wait };
                        continue;
                    }
                }
                let bytes = self.ready.get(&claim).map_or(0, |ready| ready.bytes);
                let (by_second, by_day) = self.pace.waits(claim, bytes, now);
                if by_second.is_zero() && by_day.is_zero() {
                    self.hand_over(claim).await?;
                    sent = true;
                    break;
                }
                if let Some(ready) = self.ready.get_mut(&claim)
                    && !std::mem::replace(&mut ready.waited, true)
                {
                    self.metrics.paced.inc();
                }
                let needed = by_second.max(by_day);
                wait = Some(wait.map_or(needed, |wait| wait.min(needed)));
                // Its turn: the next must not take the bytes that it waits for. Those of another day are not in its way.
                if by_day.is_zero() {
                    break;
                }
            }
            if !sent {
                return Ok(wait);
            }
        }
        Ok(None)
    }

    /// Alarms at once, a full batch at once, a backlog at once in its turn, anything else when it has waited for company.
    fn due(&mut self, now: Duration) -> Due {
        let (batch_rows, live) = (self.config.batch_rows as u64, self.config.live_share_percent > 0);
        let allowed = |class| self.allows(class);
        let tally = tally(&self.queue.positions(), &self.flights, &self.holds, allowed, (batch_rows, live), now);
        let mut turns = Vec::with_capacity(3);
        if tally.alarms > 0 || self.look.losses || self.look.alarms || self.ready.contains_key(&Claim::Alarm) {
            turns.push(Claim::Alarm);
        }
        let full = self.confirmations.is_full();
        // What waits for receipts needs no look before one comes.
        let mut wait = tally.held_until.filter(|_| !full || tally.alarms > 0).map(|until| until - now);
        let mut sooner = |than: Duration| wait = Some(wait.map_or(than, |wait| wait.min(than)));
        let company = self.company.wait(tally.fresh, now);
        let quiet = self.pace.quiet(Claim::Backlog, now);
        if full {
            // Only alarms.
        } else if quiet.is_zero() {
            let fresh = company == Some(Duration::ZERO) || self.ready.contains_key(&Claim::Fresh);
            let backlog =
                tally.backlog > 0 || tally.losses || self.look.others || self.ready.contains_key(&Claim::Backlog);
            match (fresh, backlog) {
                (true, true) if self.pace.share.fresh_first() => turns.extend([Claim::Fresh, Claim::Backlog]),
                (true, true) => turns.extend([Claim::Backlog, Claim::Fresh]),
                (true, false) => turns.push(Claim::Fresh),
                (false, true) => turns.push(Claim::Backlog),
                (false, false) => {}
            }
            if let (false, Some(company)) = (fresh, company) {
                sooner(company);
            }
        } else if tally.fresh + tally.backlog > 0 || tally.losses || self.look.others {
            sooner(quiet);
        }
        let fresh_end =
            if tally.backlog > 0 || self.ready.contains_key(&Claim::Backlog) { End::Newest } else { End::Oldest };
        let counted = tally.alarms + tally.fresh + tally.backlog > 0;
        Due { turns, counted, fresh_end, wait }
    }

    /// False for what does not leave over a metered link.
    fn allows(&self, class: Class) -> bool {
        !self.is_metered() || self.config.metered_classes.0.contains(&class)
    }

    /// Bodies and what stands around them must fit into one message; [`shrink`] has the last word.
    fn limits(&self) -> BatchLimits {
        let most = self.uplink.max_payload_bytes("");
        let paced = usize::try_from(self.config.message_bytes()).unwrap_or(usize::MAX);
        BatchLimits {
            rows: self.config.batch_rows.min(most / 64),
            bytes: self.config.batch_bytes.min(most / 2).min(paced),
        }
    }

    /// Makes the claim's next message.
    async fn fetch(&mut self, claim: Claim, end: End) -> Result<Made, Ended> {
        let now = self.clock.since_boot();
        let (alarms, metered) = (claim == Claim::Alarm, self.is_metered());
        let (holds, classes) = (&self.holds, &self.config.metered_classes.0);
        let passed = |key: &StreamKey| {
            (key.class == Class::Alarm) != alarms
                || holds.is_held(key, now)
                || (metered && !classes.contains(&key.class))
        };
        let limits = self.limits();
        if claim == Claim::Alarm && self.look.losses {
            // Of every class, over every link: a few bytes that say what will never come.
            let held = |key: &StreamKey| holds.is_held(key, now);
            let found = self.queue.next(&self.gateway, End::Losses, limits, &self.flights, held).await?;
            if let Some((key, batch)) = found {
                let overtakes = batch.ahead.is_some();
                return self.make(claim, key, batch, overtakes).await;
            }
            // Those of a stream that is held travel with its rows later.
            self.look.losses = false;
        }
        let found = self.queue.next(&self.gateway, end, limits, &self.flights, passed).await?;
        if claim == Claim::Alarm {
            self.look.alarms = false;
        } else if end == End::Oldest {
            self.look.others = false;
        }
        match found {
            Some((key, mut batch)) => {
                let overtakes = batch.ahead.is_some();
                // What is made and not sent yet may come behind this one.
                let unsent = self.ready.values().filter(|ready| ready.key == key).map(|ready| ready.span.first);
                let behind = unsent.filter(|first| *first < batch.first).chain(batch.ahead).min();
                batch.ahead = behind;
                self.make(claim, key, batch, overtakes).await
            }
            None => {
                self.company.again();
                Ok(Made::Nothing)
            }
        }
    }

    /// Encodes a batch, smaller if the far side or the burst takes less. One row that is too large by itself is declared
    /// lost: it can never be sent, and everything behind it could not either.
    async fn make(&mut self, claim: Claim, key: StreamKey, mut batch: Batch, overtakes: bool) -> Result<Made, Ended> {
        let address = Address {
            tenant: self.config.tenant.clone(),
            gateway: self.gateway.clone(),
            class: batch.class.clone(),
            stream: batch.stream.clone(),
        };
        let topic = address.topic();
        let limit = self.uplink.max_payload_bytes(&topic);
        let (plain_bytes, payload) = loop {
            let plain = batch.encode();
            let plain_bytes = plain.len() as u64;
            let payload = if self.config.compress { frame::pack(plain) } else { plain };
            let fits = payload.len() <= limit;
            if fits && (payload.len() + topic.len()) as u64 <= self.config.message_bytes() {
                break (plain_bytes, payload);
            }
            if shrink(&mut batch) {
                continue;
            }
            if fits {
                break (plain_bytes, payload);
            }
            self.give_up(&key, &batch, limit).await?;
            return Ok(Made::GaveUp);
        };
        let bytes = (payload.len() + topic.len()) as u64;
        let span = Span::of(&batch);
        let rows = batch.rows.len() as u64;
        let (ticket, again) = self.flights.depart(&key, batch.first, batch.last, rows);
        let message = Message { topic, payload: Bytes::from(payload) };
        self.ready.insert(
            claim,
            Ready { key, ticket, span, rows, message, plain_bytes, bytes, again, overtakes, waited: false },
        );
        Ok(Made::Ready)
    }

    /// What is left of the batch is one row or one gap.
    async fn give_up(&mut self, key: &StreamKey, batch: &Batch, limit_bytes: usize) -> Result<(), Ended> {
        match batch.rows.first() {
            Some(row) if limit_bytes >= 2 * BATCH_OVERHEAD_BYTES => {
                let (seq, size_bytes) = (row.seq.0, row.body.len());
                tracing::error!(stream = %key, seq, size_bytes, limit_bytes, "a row is too large for the cloud: lost");
                self.metrics.unsendable.inc();
                self.look = Look { losses: true, alarms: true, others: true };
                Ok(self.queue.give_up(key, row.seq).await?)
            }
            // A far side that takes next to nothing is set up wrongly; that is no reason to throw rows away.
            _ => Err(Ended::Lost(format!("the far side takes {limit_bytes} bytes: too few for any batch"))),
        }
    }

    /// The claim's message leaves. The disk knows of its cost before.
    async fn hand_over(&mut self, claim: Claim) -> Result<(), Ended> {
        let Some(ready) = self.ready.remove(&claim) else { return Ok(()) };
        let (now, bytes) = (self.clock.since_boot(), ready.bytes);
        if let Err(error) = self.pay(claim, bytes).await {
            self.flights.cancel(ready.ticket);
            return Err(error.into());
        }
        if claim == Claim::Fresh {
            self.company.again();
        }
        if ready.again {
            self.metrics.resent.inc();
        }
        if ready.overtakes {
            self.metrics.overtaking.inc();
        }
        self.metrics.bytes.inc_by(ready.plain_bytes);
        self.metrics.sent_bytes.inc_by(bytes);
        tracing::debug!(stream = %ready.key, bytes, "a batch leaves");
        let ticket = self.confirmations.depart(ready.ticket, (ready.span, ready.rows), &ready.message);
        self.submitted.insert(ticket, now);
        self.uplink.submit(ticket, ready.message)?;
        Ok(())
    }

    /// Charges so many bytes; where there is a day's budget, the disk knows before they leave.
    async fn pay(&mut self, claim: Claim, bytes: u64) -> Result<(), outbox::Error> {
        let now = self.clock.since_boot();
        if self.pace.day.as_mut().is_some_and(|day| !day.is_covered(bytes, now)) {
            self.reserve(bytes).await?;
        }
        self.pace.charge(claim, bytes, now);
        Ok(())
    }

    async fn reserve(&mut self, bytes: u64) -> Result<(), outbox::Error> {
        let stamp = self.clock.stamp();
        let Some(day) = &mut self.pace.day else { return Ok(()) };
        day.credit(&stamp);
        let row = day.row_ahead(bytes, &stamp);
        self.queue.keep(row.clone()).await?;
        day.written(&row);
        Ok(())
    }

    /// Messages that were made and not handed over are made again later.
    pub(super) fn unready(&mut self) {
        for (_, ready) in self.ready.drain() {
            self.flights.cancel(ready.ticket);
        }
    }
}

/// Keeps the first half of what the batch covers. False if that is one row or one gap already.
fn shrink(batch: &mut Batch) -> bool {
    let rows = batch.rows.iter().map(|row| row.seq);
    let mut ends: Vec<Seq> = rows.chain(batch.gaps.iter().map(|gap| gap.last)).collect();
    if ends.len() < 2 {
        return false;
    }
    ends.sort_unstable();
    let last = ends[ends.len() / 2 - 1];
    batch.rows.retain(|row| row.seq <= last);
    batch.gaps.retain(|gap| gap.last <= last);
    batch.last = last;
    true
}
