//! Sessions come, go, are taken over, and end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::error::Error;
use super::hub::{Deadline, Hub};
use super::link::{Leaving, Link};
use super::rows::{self, SessionRow};
use super::session::{Closing, Session, Signal, State, Will};

/// What a CONNECT asks for, after `access` has said who it is.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Client id, not empty.
    pub client: Arc<str>,
    /// Name of the identity. A session belongs to the identity that made it.
    pub owner: Arc<str>,
    /// Begin without the old session.
    pub clean_start: bool,
    /// How long the session outlives the connection; 0 ends with it, `u32::MAX` never ends.
    pub expiry_s: u32,
    /// Published if the connection is lost.
    pub will: Option<Will>,
    /// QoS 1 and 2 messages that the client takes at once.
    pub receive_maximum: u16,
}

/// An accepted connection.
#[derive(Debug)]
pub struct Welcome {
    /// The connection's hold on its session.
    pub link: Link,
    /// The client's old session goes on.
    pub session_present: bool,
    /// Expiry that the session really has.
    pub expiry_s: u32,
}

impl Hub {
    pub(super) async fn connect(self: &Arc<Self>, hello: Hello) -> Result<Welcome, Error> {
        let expiry_s = hello.expiry_s.min(self.config.session_expiry_max_s);
        let (session, signal, session_present, replaced, will) = self.attach(&hello, expiry_s)?;
        let link = Link {
            hub: self.clone(),
            session: session.clone(),
            signal,
            wakes: Vec::new(),
            left: false,
            expired: Vec::new(),
            forgotten: Vec::new(),
        };
        self.metrics.connected.inc();
        if let Some(old) = replaced {
            self.end(&old);
        }
        if let Some(will) = will {
            self.publish_will(&session, &will);
        }
        self.count_sessions();
        if session.row.is_some() {
            let row = {
                let state = session.state();
                OwnedRow::of(&session, &state, None)
            };
            let kept = self.writer.commit(row.bytes(), move |tx| row.put(tx)).await;
            kept.map_err(|source| Error::Keep { client: hello.client.to_string(), source })?;
        }
        Ok(Welcome { link, session_present, expiry_s })
    }

    /// Puts the connection on its session, at once for everybody who looks: the session, its signal, whether it is
    /// an old one, a session that this one replaces, and a will that the takeover sets off.
    #[allow(clippy::type_complexity, reason = "one caller, which takes it apart")]
    fn attach(
        &self,
        hello: &Hello,
        expiry_s: u32,
    ) -> Result<(Arc<Session>, Arc<Signal>, bool, Option<Arc<Session>>, Option<Will>), Error> {
        let mut sessions = self.sessions();
        let old = sessions.get(&hello.client).cloned();
        if old.as_ref().is_some_and(|old| old.owner != hello.owner) {
            return Err(Error::Owner { client: hello.client.to_string() });
        }
        if self.stopping.load(Ordering::Acquire) {
            return Err(Error::Gone { client: hello.client.to_string() });
        }
        let resumed = old.clone().filter(|old| !hello.clean_start && self.can_resume(old));
        let mut session_present = resumed.is_some();
        let replaced = if session_present { None } else { old };
        let session = match resumed {
            Some(session) => session,
            None => {
                if replaced.is_none() && sessions.len() >= self.config.sessions {
                    let limit = self.config.sessions;
                    return Err(Error::Sessions { client: hello.client.to_string(), limit });
                }
                let row = (expiry_s > 0).then(|| self.next_session.fetch_add(1, Ordering::Relaxed));
                let session = Arc::new(Session::new(hello.client.clone(), hello.owner.clone(), row));
                sessions.insert(hello.client.clone(), session.clone());
                session
            }
        };
        if hello.clean_start {
            self.salvaging.wants_no_session(&hello.client);
        }
        let signal = Arc::new(Signal::default());
        let mut state = session.state();
        let mut will = None;
        if let Some(before) = state.signal.replace(signal.clone()) {
            before.close(Closing::TakenOver);
            // The old connection is lost, the session is not: a will without delay goes out.
            will = state.will.take().filter(|will| will.delay_s == 0);
        }
        if std::mem::take(&mut state.incomplete) && session_present {
            session_present = false;
            // Its packet ids are new ones from here on.
            state.incoming.clear();
            if let Some(row) = session.row {
                self.write_later(64, move |tx| rows::release_all_incoming(tx, row));
            }
        }
        state.turn += 1;
        state.expiry_s = expiry_s;
        state.will.clone_from(&hello.will);
        state.window = usize::from(hello.receive_maximum.min(self.config.inflight_messages)).max(1);
        state.queue.reconnected();
        session.online.store(true, Ordering::Release);
        signal.raise();
        drop(state);
        Ok((session, signal, session_present, replaced, will))
    }

    fn can_resume(&self, session: &Session) -> bool {
        let state = session.state();
        let lives_until = state.offline_since.saturating_add(Duration::from_secs(state.expiry_s.into()));
        let lives = state.signal.is_some() || state.expiry_s == u32::MAX || lives_until > self.clock.since_boot();
        session.row.is_some() && !state.ended && lives
    }

    /// A connection ended. Does nothing if another one has the session.
    pub(super) fn left(
        self: &Arc<Self>,
        session: &Arc<Session>,
        signal: &Arc<Signal>,
        how: Leaving,
        expiry_s: Option<u32>,
    ) {
        self.metrics.connected.dec();
        let now = self.clock.since_boot();
        let mut state = session.state();
        if !state.signal.as_ref().is_some_and(|current| Arc::ptr_eq(current, signal)) {
            return;
        }
        state.signal = None;
        session.online.store(false, Ordering::Release);
        state.turn += 1;
        state.offline_since = now;
        state.queue.disconnected();
        state.replay.clear();
        state.pressed = false;
        session.room.notify_waiters();
        if how == Leaving::Normal {
            state.will = None;
        }
        if let Some(expiry_s) = expiry_s {
            state.expiry_s = expiry_s.min(self.config.session_expiry_max_s);
        }
        let (expiry_s, turn) = (state.expiry_s, state.turn);
        if expiry_s == 0 || session.row.is_none() {
            drop(state);
            self.end(session);
            return;
        }
        let delay_s = state.will.as_ref().map(|will| will.delay_s.min(expiry_s));
        let will = if delay_s == Some(0) { state.will.take() } else { None };
        state.account(true, &self.persistent_bytes);
        drop(state);
        if let Some(delay_s) = delay_s.filter(|&delay_s| delay_s > 0) {
            self.remind(now + Duration::from_secs(delay_s.into()), session, turn, Deadline::Will);
        }
        if expiry_s != u32::MAX {
            self.remind(now + Duration::from_secs(expiry_s.into()), session, turn, Deadline::Expiry);
        }
        self.write_session(session);
        if let Some(will) = will {
            self.publish_will(session, &will);
        }
    }

    /// Writes the session's row as it is now; nobody waits.
    pub(super) fn write_session(&self, session: &Arc<Session>) {
        let state = session.state();
        let offline = state.signal.is_none().then(|| {
            let boot_ms = i64::try_from(self.clock.since_boot().as_millis()).unwrap_or(i64::MAX);
            (self.clock.wall_ms(), Some(boot_ms))
        });
        let row = OwnedRow::of(session, &state, offline);
        drop(state);
        let session = session.clone();
        self.write_later(row.bytes(), move |tx| if session.state().ended { Ok(()) } else { row.put(tx) });
    }

    /// Ends a session: its subscriptions, queue and rows go, its will is published now.
    pub(super) fn end(self: &Arc<Self>, session: &Arc<Session>) {
        let mut state = session.state();
        if state.ended {
            return;
        }
        state.ended = true;
        session.online.store(false, Ordering::Release);
        if let Some(signal) = state.signal.take() {
            signal.close(Closing::TakenOver);
        }
        let subscriptions = std::mem::take(&mut state.subscriptions);
        let places = state.queue.places_below(rows::first_place(1));
        state.queue = super::outgoing::Queue::default();
        state.replay.clear();
        state.incoming.clear();
        state.account(session.row.is_some(), &self.persistent_bytes);
        state.pressed = false;
        let will = state.will.take();
        drop(state);
        session.room.notify_waiters();
        for filter in subscriptions.keys() {
            self.uproot(session, filter);
        }
        {
            let mut sessions = self.sessions();
            if sessions.get(&session.client).is_some_and(|current| Arc::ptr_eq(current, session)) {
                sessions.remove(&session.client);
            }
        }
        self.count_sessions();
        if let Some(no) = session.row {
            self.write_later(64 + 16 * places.len(), move |tx| {
                rows::delete_session(tx, no)?;
                let _ = rows::delete_queue(tx, no)?;
                rows::delete_queued(tx, &places)
            });
        }
        if let Some(will) = will {
            self.publish_will(session, &will);
        }
    }
}

struct OwnedRow {
    no: i64,
    client: Arc<str>,
    owner: Arc<str>,
    expiry_s: u32,
    offline: Option<(i64, Option<i64>)>,
    will: Option<Will>,
    incomplete: bool,
}

impl OwnedRow {
    fn of(session: &Session, state: &State, offline: Option<(i64, Option<i64>)>) -> Self {
        let no = session.row.expect("only persistent sessions have rows");
        let (expiry_s, will, incomplete) = (state.expiry_s, state.will.clone(), state.incomplete);
        let (client, owner) = (session.client.clone(), session.owner.clone());
        Self { no, client, owner, expiry_s, offline, will, incomplete }
    }

    fn bytes(&self) -> usize {
        128 + self.client.len() + self.owner.len() + self.will.as_ref().map_or(0, |will| will.message.size_bytes())
    }

    fn put(&self, tx: &crate::store::Tx) -> Result<(), crate::store::Error> {
        let Self { no, client, owner, expiry_s, offline, will, incomplete } = self;
        let (no, expiry_s, offline, incomplete) = (*no, *expiry_s, *offline, *incomplete);
        rows::put_session(tx, &SessionRow { no, client, owner, expiry_s, offline, will: will.as_ref(), incomplete })
    }
}
