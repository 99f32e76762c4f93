//! One client's session, and the signal to the connection that serves it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::message::{Message, Qos};
use super::outgoing::{Delivery, Queue};
use super::replies::{Replies, Ticket, Verdict};

/// Why the broker ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Another connection uses the same client id.
    TakenOver,
    /// Its queue is full and its messages may not be dropped.
    Overflow,
    /// The broker stops.
    Shutdown,
}

/// What a session and the broker tell the task of a connection.
#[derive(Debug, Default)]
pub(super) struct Signal {
    waker: AtomicWaker,
    raised: AtomicBool,
    closing: Mutex<Option<Closing>>,
    replies: Mutex<Replies>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a lock was held ends its own connection only; the data is updated in single steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signal {
    /// Marks that there is work. True if the task has to be woken for it.
    pub(super) fn raise(&self) -> bool {
        !self.raised.swap(true, Ordering::AcqRel)
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    pub(super) fn raise_and_wake(&self) {
        if self.raise() {
            self.wake();
        }
    }

    pub(super) fn listen(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// True once after each [`raise`](Self::raise); registers `waker` for the next.
    pub(super) fn lower(&self, waker: &std::task::Waker) -> bool {
        self.listen(waker);
        self.raised.swap(false, Ordering::AcqRel)
    }

    pub(super) fn close(&self, why: Closing) {
        locked(&self.closing).get_or_insert(why);
        // Also a task that is busy with a slow client, and leaves its work marked, must see this.
        self.raise();
        self.wake();
    }

    pub(super) fn closing(&self) -> Option<Closing> {
        *locked(&self.closing)
    }

    pub(super) fn replies(&self) -> MutexGuard<'_, Replies> {
        locked(&self.replies)
    }

    pub(super) fn settle(&self, ticket: Ticket, verdict: Verdict) {
        if self.replies().settle(ticket, verdict) {
            self.raise_and_wake();
        }
    }
}

/// What a client asked for with one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Highest QoS of a delivery.
    pub qos: Qos,
    /// Not the client's own messages.
    pub no_local: bool,
    /// Keep the RETAIN flag as published.
    pub retain_as_published: bool,
    /// 0 send retained at subscribe, 1 only if new, 2 never.
    pub retain_handling: u8,
    /// Subscription identifier.
    pub id: Option<u32>,
}

impl Options {
    /// A plain subscription.
    pub fn at(qos: Qos) -> Self {
        Self { qos, no_local: false, retain_as_published: false, retain_handling: 0, id: None }
    }
}

/// A will and its delay.
#[derive(Debug, Clone)]
pub struct Will {
    /// What to publish.
    pub message: Arc<Message>,
    /// Seconds after the connection is lost.
    pub delay_s: u32,
    /// Message expiry of the published will.
    pub expiry_s: Option<u32>,
}

/// A QoS 2 packet id of the client that has not been released.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Its holders have not all answered; who waits for the PUBREC.
    Pending(Vec<(Arc<Signal>, Ticket)>),
    /// PUBREC was or will be sent; a repetition is not passed on.
    Held,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) signal: Option<Arc<Signal>>,
    pub(super) ended: bool,
    pub(super) queue: Queue,
    pub(super) replay: std::collections::VecDeque<Delivery>,
    pub(super) incoming: HashMap<u16, Incoming>,
    pub(super) subscriptions: HashMap<Arc<str>, Options>,
    pub(super) expiry_s: u32,
    pub(super) will: Option<Will>,
    /// QoS 1 and 2 messages the client takes at once.
    pub(super) window: usize,
    /// When the last connection ended.
    pub(super) offline_since: Duration,
    /// Counts connections and disconnections, so that old deadlines are recognised.
    pub(super) turn: u64,
    /// Publishers do not wait for this client before this moment.
    pub(super) impatient_until: Duration,
    /// Publishers wait, or would if they were patient.
    pub(super) pressed: bool,
    /// The next row's place.
    pub(super) next_place: u64,
    /// Something of it was lost: its client is told that it begins anew, and what waits still comes.
    pub(super) incomplete: bool,
    /// Bytes of `queue` that the broker's total knows of.
    accounted: usize,
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Arc<str>,
    pub(super) owner: Arc<str>,
    /// Number of the session's rows; None if it ends with its connection.
    pub(super) row: Option<i64>,
    pub(super) online: AtomicBool,
    state: Mutex<State>,
    /// Told when publishers that wait for this client may go on.
    pub(super) room: Notify,
}

impl Session {
    pub(super) fn new(client: Arc<str>, owner: Arc<str>, row: Option<i64>) -> Self {
        let state = State {
            signal: None,
            ended: false,
            queue: Queue::default(),
            replay: std::collections::VecDeque::new(),
            incoming: HashMap::new(),
            subscriptions: HashMap::new(),
            expiry_s: 0,
            will: None,
            window: 0,
            offline_since: Duration::ZERO,
            turn: 0,
            impatient_until: Duration::ZERO,
            pressed: false,
            next_place: row.map_or(0, super::rows::first_place),
            incomplete: false,
            accounted: 0,
        };
        Self { client, owner, row, online: AtomicBool::new(false), state: Mutex::new(state), room: Notify::new() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    pub(super) fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }
}

impl State {
    /// Brings the broker's total of persistent bytes up to date.
    pub(super) fn account(&mut self, persistent: bool, total: &AtomicUsize) {
        if persistent {
            let bytes = self.queue.bytes();
            total.fetch_add(bytes.wrapping_sub(self.accounted), Ordering::Relaxed);
            self.accounted = bytes;
        }
    }

    /// Marks work for the connection; gives the signal back if its task must be woken.
    pub(super) fn raise(&self) -> Option<&Arc<Signal>> {
        self.signal.as_ref().filter(|signal| signal.raise())
    }
}
