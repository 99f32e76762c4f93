//! From a topic to the sessions that want it, and into their queues.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::custody::KeepRow;
use super::hub::Hub;
use super::message::{Message, Qos};
use super::outgoing::{Delivery, Ids};
use super::rows;
use super::session::{Closing, Options, Session, Signal};

/// One subscription in the tree.
#[derive(Debug, Clone)]
pub(super) struct Subscriber {
    pub(super) session: Arc<Session>,
    pub(super) options: Options,
}

/// Members that share a filter: each message goes to one of them.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Box<str>,
    pub(super) members: Mutex<Vec<Subscriber>>,
    next: AtomicUsize,
}

impl Group {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), members: Mutex::default(), next: AtomicUsize::new(0) }
    }

    pub(super) fn members(&self) -> std::sync::MutexGuard<'_, Vec<Subscriber>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next member in turn that is connected, or else that keeps messages for later.
    fn pick(&self) -> Option<Subscriber> {
        let members = self.members();
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = || (0..members.len()).map(|step| &members[start.wrapping_add(step) % members.len()]);
        let online = turn().find(|member| member.session.is_online());
        online.or_else(|| turn().find(|member| member.session.row.is_some())).cloned()
    }
}

/// What one filter holds.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) groups: Vec<Arc<Group>>,
}

impl Leaf {
    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.groups.is_empty()
    }
}

#[derive(Debug)]
struct Target {
    session: Arc<Session>,
    options: Options,
    ids: Ids,
}

/// Everybody who wants one topic, as of one generation of the tree.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) generation: u64,
    pub(super) tapped: bool,
    targets: Box<[Target]>,
    groups: Box<[Arc<Group>]>,
}

/// A topic name that was checked, with the subscribers found for it. A connection keeps one per topic it
/// publishes to; it renews itself when subscriptions change.
#[derive(Debug, Clone)]
pub struct Topic {
    pub(super) name: Arc<str>,
    pub(super) route: Arc<Route>,
}

impl Topic {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What spreading a message found.
#[derive(Default)]
pub(super) struct Spread {
    /// Rows to write before the message may be acknowledged.
    pub(super) rows: Vec<KeepRow>,
    /// Clients whose persistent sessions had no room: the ledger must say so before the message may be acknowledged.
    pub(super) lost: Vec<Arc<str>>,
    /// Somebody subscribes.
    pub(super) anyone: bool,
    /// A subscriber whose publishers should wait.
    pub(super) pressed: Option<Arc<Session>>,
}

impl Hub {
    /// Looks `topic` up. A session that matches with several filters gets one delivery with the highest QoS
    /// and all identifiers.
    pub(super) fn route(&self, topic: &str) -> Route {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: a change that follows raises the number.
        let generation = self.generation.load(Ordering::Acquire);
        let mut targets: Vec<(Target, Vec<u32>)> = Vec::new();
        let mut seen: HashMap<*const Session, usize> = HashMap::new();
        let mut groups = Vec::new();
        tree.visit(topic, &mut |leaf| {
            for Subscriber { session, options } in &leaf.subscribers {
                let at = *seen.entry(Arc::as_ptr(session)).or_insert_with(|| {
                    targets.push((Target { session: session.clone(), options: *options, ids: None }, Vec::new()));
                    targets.len() - 1
                });
                let (target, ids) = &mut targets[at];
                target.options.qos = target.options.qos.max(options.qos);
                target.options.no_local &= options.no_local;
                target.options.retain_as_published |= options.retain_as_published;
                ids.extend(options.id);
            }
            groups.extend(leaf.groups.iter().cloned());
        });
        let with_ids = |(mut target, ids): (Target, Vec<u32>)| {
            target.ids = (!ids.is_empty()).then(|| ids.into());
            target
        };
        let tapped = self.tap.get().is_some_and(|tap| tap.wants(topic));
        Route { generation, tapped, targets: targets.into_iter().map(with_ids).collect(), groups: groups.into() }
    }

    /// Puts `message` into the queue of everybody on `route`. Connections with new work are added to `wakes`.
    pub(super) fn spread(
        &self,
        route: &Route,
        message: &Arc<Message>,
        from: Option<&Arc<Session>>,
        wakes: &mut Vec<Arc<Signal>>,
    ) -> Spread {
        let mut spread = Spread { anyone: !route.targets.is_empty(), ..Spread::default() };
        for Target { session, options, ids } in &*route.targets {
            if options.no_local && from.is_some_and(|from| Arc::ptr_eq(from, session)) {
                continue;
            }
            self.deliver(session, *options, ids.clone(), message, wakes, &mut spread);
        }
        for group in &*route.groups {
            if let Some(Subscriber { session, options }) = group.pick() {
                spread.anyone = true;
                let ids = options.id.map(|id| Arc::from([id]));
                self.deliver(&session, options, ids, message, wakes, &mut spread);
            }
        }
        spread
    }

    fn has_persistent_room(&self) -> bool {
        self.persistent_bytes.load(Ordering::Relaxed) < self.config.persistent_queue_bytes
    }

    /// True if a persistent session on `route` has no room for a QoS 1 or 2 message of `size_bytes`. Members of shared
    /// subscriptions are not asked: another member may take the message.
    pub(super) fn has_full_session(&self, route: &Route, message: &Message) -> bool {
        let size_bytes = message.size_bytes();
        route.targets.iter().any(|Target { session, options, .. }| {
            let keeps = session.row.is_some() && message.qos.min(options.qos) > Qos::AtMostOnce;
            keeps && (!self.has_persistent_room() || session.state().queue.is_full(self.queue_limits, size_bytes))
        })
    }

    fn deliver(
        &self,
        session: &Arc<Session>,
        options: Options,
        ids: Ids,
        message: &Arc<Message>,
        wakes: &mut Vec<Arc<Signal>>,
        spread: &mut Spread,
    ) {
        let qos = message.qos.min(options.qos);
        let retain = options.retain_as_published && message.retain;
        self.enqueue(session, Delivery { message: message.clone(), qos, retain, ids }, wakes, spread);
    }

    /// Queues one delivery by its QoS and the session's kind.
    pub(super) fn enqueue(
        &self,
        session: &Arc<Session>,
        delivery: Delivery,
        wakes: &mut Vec<Arc<Signal>>,
        spread: &mut Spread,
    ) {
        let mut state = session.state();
        if state.ended {
            return;
        }
        let full = state.queue.is_full(self.queue_limits, delivery.message.size_bytes());
        if delivery.qos == Qos::AtMostOnce {
            // A client that is away gets no QoS 0.
            if state.signal.is_none() {
                return;
            }
            if full {
                self.metrics.dropped_qos0.inc();
            } else {
                state.queue.push_once(delivery);
            }
        } else if let Some(row) = session.row {
            // Under the session's lock, so that places rise in the order of the queue.
            let place = state.next_place;
            let room = !full && self.has_persistent_room() && place < rows::last_place(row);
            let slot = if room { state.queue.push_kept(delivery.clone(), Some(place)) } else { None };
            state.next_place += u64::from(slot.is_some());
            match slot {
                Some(slot) => spread.rows.push(KeepRow { session: session.clone(), row, slot, place, delivery }),
                None => {
                    self.metrics.dropped_persistent.inc();
                    spread.lost.push(session.client.clone());
                }
            }
            state.account(true, &self.persistent_bytes);
        } else if (full || state.queue.push_kept(delivery, None).is_none())
            && let Some(signal) = &state.signal
        {
            self.metrics.overflowed.inc();
            signal.close(Closing::Overflow);
        }
        if state.queue.is_above_half(self.queue_limits) && state.signal.is_some() {
            state.pressed = true;
            spread.pressed.get_or_insert_with(|| session.clone());
        }
        if let Some(signal) = state.raise() {
            wakes.push(signal.clone());
        }
    }
}
