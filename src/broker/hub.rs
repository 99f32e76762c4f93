//! The broker's shared state, how it is loaded, and its slow clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, OnceCell};

use super::Waiting;
use super::config::Config;
use super::error::Error;
use super::load::{self, Corrupt, Loaded, LoadedSession};
use super::losses;
use super::message::Message;
use super::metrics::Metrics;
use super::outgoing::{QueueLimits, Restored};
use super::retained::Retained;
use super::route::Leaf;
use super::rows;
use super::salvage::Salvaging;
use super::session::{Incoming, Options, Session};
use super::tail::{AtStart, Page, PageOf};
use super::tap::Tap;
use super::topic::TopicLimits;
use super::tree::Tree;
use crate::base::Clock;
use crate::store::{self, CommitError, Reader, Tx, Writer};

/// Packet ids are given when a message is queued, so a queue has fewer than there are ids.
const QUEUE_MESSAGES_MOST: usize = 60_000;
/// Work that waits for the writer without a connection that could be slowed down.
const CHORES_MOST: usize = 10_000;
const FLUSH_TOPICS: usize = 256;
/// Wait after a read that failed.
const LOAD_PAUSE: Duration = Duration::from_secs(1);

/// What a session's deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline {
    Will,
    Expiry,
}

/// By moment and number: whose, at which turn, and what for.
type Deadlines = BTreeMap<(Duration, u64), (Arc<Session>, u64, Deadline)>;

/// The state that every clone of the broker shares.
pub(super) struct Hub {
    pub(super) config: Config,
    pub(super) queue_limits: QueueLimits,
    pub(super) topic_limits: TopicLimits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) writer: Writer,
    pub(super) reader: Reader,
    pub(super) tree: RwLock<Tree<Leaf>>,
    /// Counts changes of the tree.
    pub(super) generation: AtomicU64,
    pub(super) sessions: Mutex<HashMap<Arc<str>, Arc<Session>>>,
    pub(super) retained: Retained,
    pub(super) tap: OnceLock<Arc<dyn Tap>>,
    pub(super) next_session: AtomicI64,
    pub(super) persistent_bytes: AtomicUsize,
    pub(super) stopping: AtomicBool,
    pub(super) salvaging: Salvaging,
    pub(super) metrics: Metrics,
    pub(super) chore_added: Notify,
    deadlines: Mutex<Deadlines>,
    next_deadline: AtomicU64,
    chores: Mutex<Vec<Waiting>>,
    /// Set when the queue's pages were found to hang together.
    followed: OnceCell<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Reads sessions, queues and retained messages, and starts from there.
    pub(super) async fn open(
        config: Config,
        writer: Writer,
        reader: &Reader,
        has_wrecks: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, Error> {
        let load_clock = clock.clone();
        let loaded = reader.read(move |connection| load::load(connection, &*load_clock)).await.map_err(Error::Load)?;
        let messages = config.queue_messages.min(QUEUE_MESSAGES_MOST);
        let hub = Arc::new(Self {
            queue_limits: QueueLimits { messages, bytes: config.queue_bytes },
            topic_limits: TopicLimits { levels: config.topic_levels, bytes: config.topic_bytes },
            clock,
            writer,
            reader: reader.clone(),
            tree: RwLock::default(),
            generation: AtomicU64::new(1),
            sessions: Mutex::default(),
            retained: Retained::new(config.retained_messages, config.retained_bytes),
            tap: OnceLock::new(),
            next_session: AtomicI64::new(loaded.highest + 1),
            persistent_bytes: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            salvaging: Salvaging::new(has_wrecks),
            metrics: Metrics::default(),
            chore_added: Notify::new(),
            deadlines: Mutex::default(),
            next_deadline: AtomicU64::new(0),
            chores: Mutex::default(),
            followed: OnceCell::new(),
            config,
        });
        hub.restore(loaded);
        Ok(hub)
    }

    fn restore(self: &Arc<Self>, mut loaded: Loaded) {
        for message in &loaded.retained {
            self.retained.set(message);
        }
        let (corrupt, orphans, gone) = (
            std::mem::take(&mut loaded.corrupt),
            std::mem::take(&mut loaded.orphans),
            std::mem::take(&mut loaded.gone),
        );
        self.take_sessions(loaded);
        if !orphans.is_empty() {
            self.write_later(64 + orphans.len() * 8, move |tx| rows::delete_queued(tx, &orphans));
        }
        self.settle_damage(&corrupt, gone);
        self.count_sessions();
        self.metrics.retained.set(i64::try_from(self.retained.len()).unwrap_or(i64::MAX));
    }

    /// Rows that the disk has changed go, and the ledger says what that costs.
    fn settle_damage(self: &Arc<Self>, corrupt: &Corrupt, gone: Vec<i64>) {
        if corrupt.rows() > 0 {
            self.metrics.corrupt.inc_by(corrupt.rows() as u64);
            tracing::error!(
                sessions = corrupt.sessions,
                subscriptions = corrupt.subscriptions,
                held = corrupt.incoming,
                retained = corrupt.retained.len(),
                losses = corrupt.lost,
                "rows of the broker had a wrong checksum and are not served"
            );
        }
        let wall_ms = self.clock.wall_ms();
        for session in gone {
            self.write_later(64, move |tx| {
                let messages = rows::delete_queue(tx, session)? as u64;
                losses::add(tx, &losses::nameless(session), messages, (wall_ms, wall_ms))
            });
        }
        // Whose subscriptions they were is not known: every client is told that it begins anew, and subscribes again.
        let is_incomplete = corrupt.subscriptions > 0;
        if is_incomplete {
            self.sessions().values().for_each(|session| session.state().incomplete = true);
        }
        if corrupt.rows() > 0 {
            let retained = corrupt.retained.clone();
            self.write_later(64 + 64 * corrupt.rows(), move |tx| {
                for row in retained {
                    tx.execute("DELETE FROM broker_retained WHERE rowid = ?1", [row])?;
                }
                losses::sweep_bad(tx)?;
                rows::sweep_bad(tx, is_incomplete)
            });
        }
    }

    /// Takes up persistent sessions as rows have them. Returns the numbers of those whose clients have one already.
    pub(super) fn take_sessions(&self, loaded: Loaded) -> Vec<i64> {
        let Loaded { sessions, subscriptions, queued, at_start, incoming, .. } = loaded;
        let at_start: HashMap<i64, AtStart> = at_start.into_iter().collect();
        let mut filters: HashMap<i64, Vec<(Arc<str>, Options)>> = HashMap::new();
        for (row, filter, options) in subscriptions {
            filters.entry(row).or_default().push((filter, options));
        }
        let mut held: HashMap<i64, Vec<u16>> = HashMap::new();
        incoming.into_iter().for_each(|(row, packet_id)| held.entry(row).or_default().push(packet_id));
        let mut old_rows: HashMap<i64, Vec<Restored>> = HashMap::new();
        queued.into_iter().for_each(|(row, restored)| old_rows.entry(row).or_default().push(restored));
        let mut unplaced = Vec::new();
        for loaded in sessions {
            // Whoever connects meanwhile finds the session whole, or not at all.
            let mut present = self.sessions();
            if present.contains_key(&loaded.client) {
                unplaced.push(loaded.no);
                continue;
            }
            let session = self.restored(&loaded);
            let filters = filters.remove(&loaded.no).unwrap_or_default();
            {
                let mut state = session.state();
                state.subscriptions.extend(filters.iter().cloned());
                if let Some(rows) = old_rows.remove(&loaded.no) {
                    state.queue.restore(rows);
                }
                if let Some(rows) = at_start.get(&loaded.no) {
                    state.queue.rests_on_disk(rows);
                    state.next_place = rows.last_place + 1;
                }
                let held = held.remove(&loaded.no).unwrap_or_default();
                state.incoming.extend(held.into_iter().map(|packet_id| (packet_id, Incoming::Held)));
                state.queue.disconnected();
                state.account(true, &self.persistent_bytes);
            }
            filters.iter().for_each(|(filter, options)| self.plant(&session, filter, *options));
            present.insert(loaded.client, session);
        }
        unplaced
    }

    fn restored(&self, loaded: &LoadedSession) -> Arc<Session> {
        let session = Arc::new(Session::new(loaded.client.clone(), loaded.owner.clone(), Some(loaded.no)));
        let now = self.clock.since_boot();
        let mut state = session.state();
        state.expiry_s = loaded.expiry_s;
        state.will.clone_from(&loaded.will);
        state.incomplete = loaded.incomplete;
        state.offline_since = now;
        if let Some(will) = &loaded.will {
            // Its connection ended with the last process.
            let delay_s = will.delay_s.min(loaded.expiry_s);
            self.remind(now + Duration::from_secs(delay_s.into()), &session, state.turn, Deadline::Will);
        }
        let left = Duration::from_secs(loaded.expiry_s.into()).saturating_sub(loaded.away);
        if loaded.expiry_s != u32::MAX {
            self.remind(now + left, &session, state.turn, Deadline::Expiry);
        }
        drop(state);
        session
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Session>>> {
        locked(&self.sessions)
    }

    pub(super) fn count_sessions(&self) {
        self.metrics.sessions.set(i64::try_from(self.sessions().len()).unwrap_or(i64::MAX));
    }

    /// Sets a deadline that is void once the session's turn has changed.
    pub(super) fn remind(&self, at: Duration, session: &Arc<Session>, turn: u64, what: Deadline) {
        let number = self.next_deadline.fetch_add(1, Ordering::Relaxed);
        locked(&self.deadlines).insert((at, number), (session.clone(), turn, what));
    }

    fn next_due(&self, now: Duration) -> Option<(Arc<Session>, u64, Deadline)> {
        let mut deadlines = locked(&self.deadlines);
        let first = deadlines.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Does what is due: delayed wills, expired sessions and retained messages, rows nobody waits for.
    pub(super) fn tick(self: &Arc<Self>) {
        let now = self.clock.since_boot();
        while let Some((session, turn, what)) = self.next_due(now) {
            let (due, will) = {
                let mut state = session.state();
                let due = state.turn == turn && !state.ended;
                (due, if due && what == Deadline::Will { state.will.take() } else { None })
            };
            match what {
                Deadline::Will => {
                    if let Some(will) = will {
                        self.write_session(&session);
                        self.publish_will(&session, &will);
                    }
                }
                Deadline::Expiry if due => self.end(&session),
                Deadline::Expiry => {}
            }
        }
        self.retained.expire(now);
        self.flush_retained();
        self.metrics.retained.set(i64::try_from(self.retained.len()).unwrap_or(i64::MAX));
        let bytes = self.persistent_bytes.load(Ordering::Relaxed);
        self.metrics.persistent_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Work that nobody waits for and that could not be done at once.
    pub(super) fn chore(&self, work: Option<Waiting>) {
        let Some(work) = work else { return };
        let mut chores = locked(&self.chores);
        if chores.len() < CHORES_MOST {
            chores.push(work);
            self.chore_added.notify_one();
        } else {
            tracing::error!(limit = CHORES_MOST, "the disk does not keep up, a change of broker state is not kept");
        }
    }

    pub(super) fn take_chores(&self) -> Vec<Waiting> {
        std::mem::take(&mut *locked(&self.chores))
    }

    /// Finds out, once, whether rows of the queue are hidden. Before the first is handed out: what clients take makes
    /// SQLite free pages, and with them what hides there.
    pub(super) async fn follow_queue(&self) -> Result<(), store::Error> {
        self.followed.get_or_try_init(|| self.reader.follow("broker_queue")).await.copied()
    }

    /// Reads the next rows of a connected client's queue. One read a session at a time.
    pub(super) fn load(self: &Arc<Self>, session: &Arc<Session>, of: PageOf) {
        let Some(row) = session.row else { return };
        let (hub, session, reader) = (self.clone(), session.clone(), self.reader.clone());
        let (clock, wanted) = (self.clock.clone(), of.clone());
        let work: Waiting = Box::pin(async move {
            let read = match hub.follow_queue().await {
                Ok(()) => reader.read(move |connection| load::load_page(connection, &*clock, row, &wanted)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = &read {
                tracing::warn!(client = &*session.client, error = %error, "queued messages cannot be read yet");
                tokio::time::sleep(LOAD_PAUSE).await;
            }
            hub.take_page(&session, &of, read.ok());
        });
        // Not one of the bounded chores: there is one at most for each connection.
        locked(&self.chores).push(work);
        self.chore_added.notify_one();
    }

    fn take_page(&self, session: &Arc<Session>, of: &PageOf, page: Option<Page>) {
        let skipped: Vec<u64> = page.iter().flat_map(|page| page.skipped.iter().map(|(place, _)| *place)).collect();
        let mut state = session.state();
        if state.ended {
            return;
        }
        match page {
            Some(page) => state.queue.loaded(of, page),
            None => state.queue.not_loaded(),
        }
        state.account(true, &self.persistent_bytes);
        if let Some(signal) = state.raise() {
            signal.wake();
        }
        drop(state);
        if !skipped.is_empty() {
            self.metrics.corrupt.inc_by(skipped.len() as u64);
            tracing::error!(
                client = &*session.client,
                rows = skipped.len(),
                "queued messages had a wrong checksum and are not served"
            );
            let (client, wall_ms) = (session.client.clone(), self.clock.wall_ms());
            self.write_later(128 + skipped.len() * 8, move |tx| {
                rows::delete_queued(tx, &skipped)?;
                losses::add(tx, &client, skipped.len() as u64, (wall_ms, wall_ms))
            });
        }
    }

    /// Writes rows whose commit nobody waits for, in order with everything else.
    pub(super) fn write_later(
        &self,
        bytes: usize,
        work: impl FnOnce(&Tx) -> Result<(), store::Error> + Send + 'static,
    ) {
        self.write_then(bytes, work, |_| {});
    }

    /// Writes rows and calls `done` after the commit.
    pub(super) fn write_then(
        &self,
        bytes: usize,
        work: impl FnOnce(&Tx) -> Result<(), store::Error> + Send + 'static,
        done: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) {
        if let Err(full) = self.writer.try_submit(bytes, work, done) {
            let writer = self.writer.clone();
            self.chore(Some(Box::pin(async move {
                let _ = writer.submit(bytes, full.work, full.done).await;
            })));
        }
    }

    /// Deletes that may ride in the next transaction: lost in a crash, they only cause a repetition.
    pub(super) fn ride_later(&self, bytes: usize, work: impl FnOnce(&Tx) -> Result<(), store::Error> + Send + 'static) {
        let writer = self.writer.clone();
        let mut ride: Waiting = Box::pin(async move {
            let _ = writer.ride(bytes, work, |_| {}).await;
        });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if ride.as_mut().poll(&mut context).is_pending() {
            self.chore(Some(ride));
        }
    }

    /// Writes retained messages changed by QoS 0, a few hundred at a time and one write under way.
    pub(super) fn flush_retained(self: &Arc<Self>) {
        let Some(topics) = self.retained.begin_flush(FLUSH_TOPICS) else { return };
        let bytes = 64 + topics.len() * 256;
        let (hub, written) = (self.clone(), topics.clone());
        let work = move |tx: &Tx| {
            for topic in &written {
                let current: Option<Arc<Message>> = hub.retained.current(topic);
                rows::put_retained(tx, &*hub.clock, topic, current.as_deref())?;
            }
            Ok(())
        };
        let (hub, again) = (self.clone(), topics.clone());
        let done = move |result: Result<(), _>| {
            hub.retained.end_flush(if result.is_ok() { Vec::new() } else { again });
        };
        if self.writer.try_submit(bytes, work, done).is_err() {
            self.retained.end_flush(topics);
        }
    }
}
