//! Sessions, messages for absent clients and retained messages of a file that was set aside, brought into this one.
//!
//! First everything that can be read is gathered: rows come under new session numbers that nobody knows yet. Then each
//! session is taken up as a start would, and with it what waits. Until then its client is one without a session.
//!
//! - A client that came back first keeps the session that it made, and gets what waited in the old one on top; one that
//!   asked for a clean start gets nothing, as it wished. A retained message that was published since stays.
//! - What nobody gets is in the ledger of absent clients. Of a file that SQLite does not read to its end, a place between
//!   two that were found counts as lost, which may be more than was; what lay before the first or behind the last is not
//!   known. Clients of such sessions are told that they begin anew, and subscribe again.
//! - Progress is stored with the rows: a crash in the middle goes on with the next start, and tries are bounded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::OptionalExtension as _;
use tokio::sync::mpsc;

use super::custody::Keep;
use super::error::Error;
use super::hub::Hub;
use super::load::{self, Loaded, LoadedSession};
use super::losses;
use super::moment::{Kept, Moments};
use super::outgoing::Restored;
use super::parse::{FoundSession, Queued};
use super::route::Spread;
use super::rows::{self, SessionRow, first_place, last_place, parts_of};
use super::session::Session;
use super::tail::PageOf;
use super::wreck::{self, Found, Which};
use crate::store::{self, CommitError, Tx, Wreck};

/// Wait while the file or the disk is full.
const WAIT: Duration = Duration::from_secs(5);
/// Starts of the same wreck after which it is not read again.
const TRIES: i64 = 5;
/// Clients and topics that are remembered while there is something to salvage.
const MOST_WISHES: usize = 20_000;
/// For the writer's accounts.
const PORTION_BYTES: usize = 64 << 10;

/// What a wreck gave back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Queued and retained messages.
    pub messages: u64,
    /// Messages that clients will not get, at most; in the ledger of absent clients.
    pub lost: u64,
    /// Everything was read, and nothing was bad.
    pub is_whole: bool,
}

/// What clients asked for while old state was on its way.
#[derive(Debug)]
pub(super) struct Salvaging {
    goes_on: AtomicBool,
    wishes: Mutex<Wishes>,
}

#[derive(Debug, Default)]
struct Wishes {
    /// Clients that began anew.
    clean: HashSet<Arc<str>>,
    /// Topics with a newer retained message, or with none by now.
    spoken: HashSet<Arc<str>>,
}

impl Salvaging {
    pub(super) fn new(goes_on: bool) -> Self {
        Self { goes_on: AtomicBool::new(goes_on), wishes: Mutex::default() }
    }

    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, what: &Arc<str>, among: impl FnOnce(&mut Wishes) -> &mut HashSet<Arc<str>>) {
        if self.goes_on.load(Ordering::Acquire) {
            let mut wishes = self.wishes();
            let known = among(&mut wishes);
            if known.len() < MOST_WISHES {
                known.insert(Arc::clone(what));
            }
        }
    }

    /// The client begins anew: what an old session of it holds is not for it.
    pub(super) fn wants_no_session(&self, client: &Arc<str>) {
        self.remember(client, |wishes| &mut wishes.clean);
    }

    /// A retained message came for the topic.
    pub(super) fn has_spoken(&self, topic: &Arc<str>) {
        self.remember(topic, |wishes| &mut wishes.spoken);
    }

    pub(super) fn end(&self) {
        self.goes_on.store(false, Ordering::Release);
        *self.wishes() = Wishes::default();
    }
}

/// How far a wreck has come.
#[derive(Debug, Clone, Copy)]
struct Progress {
    tries: i64,
    gathered: Gathered,
    done: bool,
    messages: u64,
    lost: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
enum Gathered {
    No = 0,
    Whole = 1,
    InParts = 2,
}

/// What is known of the wreck in memory, bounded by the limit on sessions.
#[derive(Default)]
struct Book {
    /// By their old number.
    sessions: HashMap<i64, FoundSession>,
    /// Old number to the new one.
    numbers: BTreeMap<i64, i64>,
    losses: BTreeMap<String, (u64, i64, i64)>,
}

/// What becomes of an old session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    TakenUp,
    /// An earlier run took it up and did not come to say so.
    Known,
    /// Its client has another one.
    HandedOver,
    /// Its client began anew.
    Unwanted,
    /// There is no room, or nobody can say whose it was.
    Lost,
}

const HOLDS: &str = "crc IS row_crc('broker_salvage', file, tries, gathered, done, messages, lost)";

/// A whole row, so that nothing that the disk has changed gets a good checksum.
fn put_progress(tx: &Tx<'_>, file: &str, progress: Progress) -> Result<(), store::Error> {
    let Progress { tries, gathered, done, messages, lost } = progress;
    tx.execute(
        "INSERT OR REPLACE INTO broker_salvage
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, row_crc('broker_salvage', ?1, ?2, ?3, ?4, ?5, ?6))",
        (file, tries, gathered as i64, done, messages.cast_signed(), lost.cast_signed()),
    )?;
    Ok(())
}

impl Hub {
    /// See [`Broker::salvage`](super::Broker::salvage).
    pub(super) async fn salvage(self: &Arc<Self>, wreck: &Wreck) -> Result<Salvaged, Error> {
        let file: Arc<str> = wreck.name().into();
        let mut progress = self.begin(&file).await?;
        let said = |progress: &Progress| Salvaged {
            messages: progress.messages,
            lost: progress.lost,
            is_whole: progress.gathered == Gathered::Whole,
        };
        if progress.done {
            return Ok(said(&progress));
        }
        let mut book = Book { numbers: self.numbers(&file).await?, ..Book::default() };
        if progress.tries < TRIES {
            let which = if progress.gathered == Gathered::No { Which::All } else { Which::SessionsAndLosses };
            let read = self.gather(wreck, &file, which, &mut book, &mut progress).await?;
            if progress.gathered == Gathered::No {
                progress.gathered = if read.is_whole { Gathered::Whole } else { Gathered::InParts };
                self.note(&file, progress).await?;
            }
        } else {
            progress.gathered = Gathered::InParts;
        }
        for (old_no, no) in std::mem::take(&mut book.numbers) {
            let found = book.sessions.remove(&old_no);
            progress.lost += self.settle(old_no, no, found, progress.gathered).await?;
        }
        progress.done = true;
        let losses = Arc::new(std::mem::take(&mut book.losses));
        self.patiently(|| {
            let (file, losses) = (Arc::clone(&file), Arc::clone(&losses));
            move |tx: &Tx<'_>| {
                for (client, (messages, first_ms, last_ms)) in losses.iter() {
                    losses::add(tx, client, *messages, (*first_ms, *last_ms))?;
                }
                put_progress(tx, &file, progress)
            }
        })
        .await?;
        self.count_sessions();
        Ok(said(&progress))
    }

    async fn begin(&self, file: &Arc<str>) -> Result<Progress, Error> {
        self.patiently(|| {
            let file = Arc::clone(file);
            move |tx: &Tx<'_>| {
                let sql = format!(
                    "SELECT tries, gathered, done, messages, lost FROM broker_salvage WHERE file = ?1 AND {HOLDS}"
                );
                let read = |row: &rusqlite::Row<'_>| {
                    Ok(Progress {
                        tries: row.get(0)?,
                        gathered: match row.get::<_, i64>(1)? {
                            0 => Gathered::No,
                            1 => Gathered::Whole,
                            _ => Gathered::InParts,
                        },
                        done: row.get(2)?,
                        messages: row.get::<_, i64>(3)?.cast_unsigned(),
                        lost: row.get::<_, i64>(4)?.cast_unsigned(),
                    })
                };
                let anew = Progress { tries: 0, gathered: Gathered::No, done: false, messages: 0, lost: 0 };
                let known = tx.prepare_cached(&sql)?.query_row([&file], read).optional()?.unwrap_or(anew);
                if !known.done {
                    put_progress(tx, &file, Progress { tries: known.tries + 1, ..known })?;
                }
                Ok(known)
            }
        })
        .await
    }

    async fn note(&self, file: &Arc<str>, progress: Progress) -> Result<(), Error> {
        let progress = Progress { tries: progress.tries + 1, ..progress };
        self.patiently(|| {
            let file = Arc::clone(file);
            move |tx: &Tx<'_>| put_progress(tx, &file, progress)
        })
        .await
    }

    /// Numbers that an earlier run gave.
    async fn numbers(&self, file: &Arc<str>) -> Result<BTreeMap<i64, i64>, Error> {
        let file = Arc::clone(file);
        let read = move |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare(
                "SELECT old_no, no FROM broker_salvaged
                 WHERE file = ?1 AND crc IS row_crc('broker_salvaged', no, file, old_no)",
            )?;
            let rows = statement.query_map([&file], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.reader.read(read).await.map_err(Error::Load)
    }

    /// Brings rows over as they are found.
    async fn gather(
        self: &Arc<Self>,
        wreck: &Wreck,
        file: &Arc<str>,
        which: Which,
        book: &mut Book,
        progress: &mut Progress,
    ) -> Result<wreck::Read, Error> {
        let (to, mut portions) = mpsc::channel(1);
        let from = wreck.clone();
        let reading = tokio::task::spawn_blocking(move || wreck::read(&from, which, to));
        while let Some(portion) = portions.recv().await {
            let portion = self.learn(portion, book);
            // What was gathered has its numbers; what has none any more has met its fate.
            if portion.is_empty() || which == Which::SessionsAndLosses {
                continue;
            }
            let (mut numbers, mut new_numbers) = (BTreeMap::new(), Vec::new());
            for old_no in portion.iter().filter_map(session_of) {
                let no = *book.numbers.entry(old_no).or_insert_with(|| {
                    let no = self.next_session.fetch_add(1, Ordering::Relaxed);
                    new_numbers.push((no, old_no));
                    no
                });
                numbers.insert(old_no, no);
            }
            let (portion, new_numbers, numbers) = (Arc::new(portion), Arc::new(new_numbers), Arc::new(numbers));
            let messages = self
                .patiently(|| {
                    let (hub, file, portion) = (Arc::clone(self), Arc::clone(file), Arc::clone(&portion));
                    let (new_numbers, numbers) = (Arc::clone(&new_numbers), Arc::clone(&numbers));
                    move |tx: &Tx<'_>| {
                        for (no, old_no) in new_numbers.iter() {
                            tx.execute(
                                "INSERT INTO broker_salvaged
                                 VALUES (?1, ?2, ?3, row_crc('broker_salvaged', ?1, ?2, ?3))",
                                (no, &*file, old_no),
                            )?;
                        }
                        let mut messages = 0;
                        for found in portion.iter() {
                            messages += u64::from(hub.bring(tx, found, &numbers)?);
                        }
                        Ok(messages)
                    }
                })
                .await?;
            progress.messages += messages;
            self.metrics.salvaged.inc_by(messages);
        }
        let read = reading.await.map_err(|error| Error::Salvage { problem: error.to_string() })?;
        read.map_err(|error| Error::Salvage { problem: error.to_string() })
    }

    /// Takes what belongs into memory until the end out of a portion.
    fn learn(&self, portion: Vec<Found>, book: &mut Book) -> Vec<Found> {
        let mut rest = Vec::with_capacity(portion.len());
        for found in portion {
            match found {
                Found::Lost { client, messages, first_ms, last_ms } => {
                    book.losses.insert(client, (messages, first_ms, last_ms));
                }
                Found::Session(session) => {
                    if book.sessions.len() < self.config.sessions || book.sessions.contains_key(&session.no) {
                        // A number for it, also if nothing waits.
                        rest.push(Found::Session(session.clone()));
                        book.sessions.insert(session.no, session);
                    }
                }
                other => rest.push(other),
            }
        }
        rest
    }

    /// Writes one row under its new number. True if it is a message.
    fn bring(&self, tx: &Tx<'_>, found: &Found, numbers: &BTreeMap<i64, i64>) -> Result<bool, store::Error> {
        let new = |old_no: &i64| numbers.get(old_no).copied().unwrap_or_default();
        match found {
            Found::Session(_) | Found::Lost { .. } => Ok(false),
            Found::Subscription(session, filter, options) => {
                rows::put_subscription(tx, new(session), filter, options).map(|()| false)
            }
            Found::Incoming(session, packet_id) => rows::hold_incoming(tx, new(session), *packet_id).map(|()| false),
            Found::Queued(row) => {
                let session = new(&row.session);
                let place = first_place(session) - 1 + parts_of(row.place).1;
                rows::put_queued(tx, &Queued { place, session, ..row.clone() })
            }
            Found::Retained(message, expires) => {
                let expires_at = self.expiry_of(*expires);
                let message = super::Message { expires_at, ..message.clone() };
                let topic = Arc::clone(&message.topic);
                let is_new = {
                    // Held over the look and the deed: whoever speaks now does so afterwards, and wins.
                    let wishes = self.salvaging.wishes();
                    let is_old = wishes.spoken.contains(&topic) || self.retained.current(&topic).is_some();
                    !is_old && !message.expired(|| self.clock.since_boot()) && self.retained.set(&Arc::new(message))
                };
                // Memory leads, also where an earlier try of this transaction filled it.
                let current = self.retained.current(&topic);
                rows::put_retained(tx, &*self.clock, &topic, current.as_deref()).map(|()| is_new)
            }
        }
    }

    fn expiry_of(&self, kept: Option<Kept>) -> Option<Duration> {
        let left_ms = kept?.wall_ms.saturating_sub(self.clock.wall_ms()).max(0).cast_unsigned();
        Some(self.clock.since_boot() + Duration::from_millis(left_ms))
    }

    /// Gives one old session its fate. Returns how many messages nobody gets.
    async fn settle(
        self: &Arc<Self>,
        old_no: i64,
        no: i64,
        found: Option<FoundSession>,
        gathered: Gathered,
    ) -> Result<u64, Error> {
        let holes = if gathered == Gathered::InParts { self.holes(no).await? } else { 0 };
        let Some(found) = found else {
            return self.give_up(no, losses::nameless(old_no).into(), holes).await;
        };
        let client = Arc::clone(&found.client);
        let fate = self
            .patiently(|| {
                let (hub, found) = (Arc::clone(self), found.clone());
                move |tx: &Tx<'_>| {
                    let fate = hub.fate(no, &found);
                    if fate == Fate::TakenUp {
                        let FoundSession { client, owner, expiry_s, offline, will, incomplete, .. } = &found;
                        let wall_ms = hub.clock.wall_ms();
                        losses::add(tx, client, holes, (wall_ms, wall_ms))?;
                        let offline = offline.map(|kept| (kept.wall_ms, None));
                        let (expiry_s, incomplete) = (*expiry_s, *incomplete || gathered == Gathered::InParts);
                        let will = will.as_ref();
                        rows::put_session(tx, &SessionRow { no, client, owner, expiry_s, offline, will, incomplete })?;
                    }
                    Ok(fate)
                }
            })
            .await?;
        match fate {
            Fate::TakenUp => {
                if self.take_up(no, found, gathered).await? {
                    self.forget_number(no).await?;
                    return Ok(holes);
                }
                // Its client was quicker.
                Ok(holes + self.hand_over(no, &client, 0).await?)
            }
            Fate::Known => self.forget_number(no).await.map(|()| 0),
            Fate::HandedOver => self.hand_over(no, &client, holes).await,
            Fate::Unwanted => self.drop_rows(no, None, 0).await,
            Fate::Lost => self.give_up(no, client, holes).await,
        }
    }

    /// Looked at on the writer's thread: a session that is made later writes its row later.
    fn fate(&self, no: i64, found: &FoundSession) -> Fate {
        if self.salvaging.wishes().clean.contains(&found.client) {
            return Fate::Unwanted;
        }
        let sessions = self.sessions();
        match sessions.get(&found.client) {
            Some(present) if present.row == Some(no) => Fate::Known,
            Some(present) if present.owner != found.owner => Fate::Lost,
            Some(_) => Fate::HandedOver,
            None if sessions.len() >= self.config.sessions => Fate::Lost,
            None => Fate::TakenUp,
        }
    }

    /// As a start would. False if the client has another session by now.
    async fn take_up(self: &Arc<Self>, no: i64, found: FoundSession, gathered: Gathered) -> Result<bool, Error> {
        let clock = Arc::clone(&self.clock);
        let read = move |connection: &rusqlite::Connection| {
            let mut loaded = Loaded::default();
            load::load_parts(connection, Some(no), &mut loaded)?;
            loaded.at_start.extend(load::find_queue(connection, no)?.map(|rows| (no, rows)));
            let mut session = LoadedSession::of(found, &mut Moments::new(connection, &*clock)?)?;
            session.no = no;
            session.incomplete |= gathered == Gathered::InParts;
            loaded.sessions.push(session);
            Ok(loaded)
        };
        let loaded = self.reader.read(read).await.map_err(Error::Load)?;
        Ok(self.take_sessions(loaded).is_empty())
    }

    /// Gives what waited in an old session to the one that its client has now.
    async fn hand_over(self: &Arc<Self>, no: i64, client: &Arc<str>, holes: u64) -> Result<u64, Error> {
        let mut lost = holes;
        loop {
            let clock = Arc::clone(&self.clock);
            let of = PageOf { after: first_place(no) - 1, until: last_place(no) };
            let read = move |connection: &rusqlite::Connection| load::load_page(connection, &*clock, no, &of);
            let page = self.reader.read(read).await.map_err(Error::Load)?;
            if page.rows.is_empty() && page.skipped.is_empty() {
                return self.drop_rows(no, Some(Arc::clone(client)), holes).await.map(|_| lost);
            }
            lost += self.hand_page(client, page.rows, page.skipped.iter().map(|(place, _)| *place).collect()).await?;
        }
    }

    /// One page of it: the new rows and the end of the old ones in one transaction.
    async fn hand_page(
        self: &Arc<Self>,
        client: &Arc<str>,
        old_rows: Vec<Restored>,
        skipped: Vec<u64>,
    ) -> Result<u64, Error> {
        let places: Arc<Vec<u64>> = Arc::new(old_rows.iter().map(|row| row.place).chain(skipped.clone()).collect());
        loop {
            let session: Option<Arc<Session>> = self.sessions().get(client).cloned();
            let (mut keeps, mut wakes, mut lost) = (Vec::new(), Vec::new(), skipped.len() as u64);
            // A released message is with its client already.
            for row in old_rows.iter().filter(|row| !row.released) {
                let mut spread = Spread::default();
                match session.as_ref().filter(|session| !session.state().ended) {
                    Some(session) => self.enqueue(session, row.delivery.clone(), &mut wakes, &mut spread),
                    None => spread.lost.push(Arc::clone(client)),
                }
                lost += spread.lost.len() as u64;
                let mut keep = Keep::new(self, &row.delivery.message, spread.rows);
                keep.lost = spread.lost;
                keeps.push(keep);
            }
            super::publish::wake(&mut wakes);
            let keeps = Arc::new(keeps);
            let (written, gone, bad) = (Arc::clone(&keeps), Arc::clone(&places), skipped.len() as u64);
            let (client, wall_ms) = (Arc::clone(client), self.clock.wall_ms());
            let work = move |tx: &Tx<'_>| {
                written.iter().try_for_each(|keep| keep.write(tx))?;
                losses::add(tx, &client, bad, (wall_ms, wall_ms))?;
                rows::delete_queued(tx, &gone)
            };
            let outcome = self.writer.commit(PORTION_BYTES, work).await;
            keeps.iter().for_each(|keep| keep.finish(outcome.is_ok()));
            match outcome {
                Ok(()) => return Ok(lost),
                Err(error) => wait_if_full(error).await?,
            }
        }
    }

    /// Nobody gets what waited there.
    async fn give_up(&self, no: i64, client: Arc<str>, holes: u64) -> Result<u64, Error> {
        self.drop_rows(no, Some(client), holes).await
    }

    /// Removes everything under a number; messages of it, and `more`, are entered as lost for `client`. Returns how many.
    async fn drop_rows(&self, no: i64, client: Option<Arc<str>>, more: u64) -> Result<u64, Error> {
        let wall_ms = self.clock.wall_ms();
        self.patiently(|| {
            let client = client.clone();
            move |tx: &Tx<'_>| {
                let messages = rows::delete_queue(tx, no)? as u64 + more;
                rows::delete_session(tx, no)?;
                tx.execute("DELETE FROM broker_salvaged WHERE no = ?1", [no])?;
                let Some(client) = client else { return Ok(0) };
                losses::add(tx, &client, messages, (wall_ms, wall_ms))?;
                Ok(messages)
            }
        })
        .await
    }

    async fn forget_number(&self, no: i64) -> Result<(), Error> {
        let work = || move |tx: &Tx<'_>| tx.execute("DELETE FROM broker_salvaged WHERE no = ?1", [no]).map(drop);
        self.patiently(work).await
    }

    /// Numbers between the first and the last message of a session that no row stands for.
    async fn holes(&self, no: i64) -> Result<u64, Error> {
        let read = move |connection: &rusqlite::Connection| {
            let sql = "SELECT coalesce(max(place) - min(place) + 1 - count(*), 0) FROM broker_queue
                       WHERE place BETWEEN ?1 AND ?2";
            let range = (first_place(no).cast_signed(), last_place(no).cast_signed());
            Ok(connection.query_row(sql, range, |row| row.get::<_, i64>(0))?.max(0).cast_unsigned())
        };
        self.reader.read(read).await.map_err(Error::Load)
    }

    /// Commits, and waits for as long as the disk has no room.
    async fn patiently<W, T>(&self, mut work: impl FnMut() -> W) -> Result<T, Error>
    where
        W: FnOnce(&Tx<'_>) -> Result<T, store::Error> + Send + 'static,
        T: Send + 'static,
    {
        loop {
            match self.writer.commit(PORTION_BYTES, work()).await {
                Ok(done) => return Ok(done),
                Err(error) => wait_if_full(error).await?,
            }
        }
    }
}

async fn wait_if_full(error: store::Error) -> Result<(), Error> {
    match error {
        store::Error::Commit(CommitError::Full(_) | CommitError::Disk(_)) => {
            tokio::time::sleep(WAIT).await;
            Ok(())
        }
        error => Err(Error::Salvage { problem: error.to_string() }),
    }
}

fn session_of(found: &Found) -> Option<i64> {
    match found {
        Found::Session(session) => Some(session.no),
        Found::Subscription(session, ..) | Found::Incoming(session, _) => Some(*session),
        Found::Queued(row) => Some(row.session),
        Found::Retained(..) | Found::Lost { .. } => None,
    }
}
