//! Subscriptions come and go; retained messages answer new ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::custody::Keep;
use super::error::Error;
use super::hub::Hub;
use super::link::Link;
use super::message::Qos;
use super::outgoing::Delivery;
use super::route::{Group, Leaf, Spread, Subscriber};
use super::rows;
use super::session::{Options, Session};
use super::topic::Filter;
use crate::base::Receipt;

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone)]
pub struct Subscribe {
    /// The filter, perhaps shared.
    pub filter: Arc<str>,
    /// What is asked for.
    pub options: Options,
}

/// What became of one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// Granted at this QoS.
    At(Qos),
    /// Malformed.
    Malformed,
    /// The session has too many.
    TooMany,
}

fn change_leaf(leaf: &mut Leaf, session: &Arc<Session>, share: Option<&str>) -> bool {
    match share {
        None => leaf.subscribers.retain(|subscriber| !Arc::ptr_eq(&subscriber.session, session)),
        Some(name) => leaf.groups.retain(|group| {
            if &*group.name != name {
                return true;
            }
            let mut members = group.members();
            members.retain(|member| !Arc::ptr_eq(&member.session, session));
            !members.is_empty()
        }),
    }
    leaf.is_empty()
}

impl Hub {
    /// Puts a subscription into the tree, in place of the same session's old one.
    pub(super) fn plant(&self, session: &Arc<Session>, filter: &str, options: Options) {
        let Some(Filter { share, path }) = Filter::parse(filter) else { return };
        let subscriber = Subscriber { session: session.clone(), options };
        let mut tree = self.tree.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let leaf = tree.entry(path);
        let put = |subscribers: &mut Vec<Subscriber>| match subscribers
            .iter_mut()
            .find(|other| Arc::ptr_eq(&other.session, session))
        {
            Some(other) => *other = subscriber,
            None => subscribers.push(subscriber),
        };
        match share {
            None => put(&mut leaf.subscribers),
            Some(name) => {
                let at = leaf.groups.iter().position(|group| &*group.name == name);
                let at = at.unwrap_or_else(|| {
                    leaf.groups.push(Arc::new(Group::new(name)));
                    leaf.groups.len() - 1
                });
                put(&mut leaf.groups[at].members());
            }
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes a subscription out of the tree.
    pub(super) fn uproot(&self, session: &Arc<Session>, filter: &str) {
        let Some(Filter { share, path }) = Filter::parse(filter) else { return };
        let mut tree = self.tree.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        tree.change(path, |leaf| change_leaf(leaf, session, share));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Retained messages that a subscription asks for, as deliveries.
    fn retained_for(&self, filter: &str, options: &Options) -> Vec<Delivery> {
        let Some(filter) = Filter::parse(filter).filter(|filter| filter.share.is_none()) else { return Vec::new() };
        let ids = options.id.map(|id| Arc::from([id]));
        let delivery = |message: Arc<super::message::Message>| {
            let qos = message.qos.min(options.qos);
            Delivery { message, qos, retain: true, ids: ids.clone() }
        };
        self.retained.matching(filter, self.clock.since_boot()).into_iter().map(delivery).collect()
    }
}

impl Link {
    /// Subscribes. Returns when the subscriptions of a persistent session are on disk. Retained messages follow
    /// after [`replay`](Self::replay).
    pub async fn subscribe(&mut self, wanted: Vec<Subscribe>) -> Result<(Vec<Subscribed>, Replay), Error> {
        let mut outcomes = Vec::with_capacity(wanted.len());
        let mut granted = Vec::new();
        let mut replay = Replay::default();
        for Subscribe { filter, options } in wanted {
            if self.hub.topic_limits.filter(&filter).is_none() {
                outcomes.push(Subscribed::Malformed);
                continue;
            }
            let known = {
                let mut state = self.session.state();
                let known = state.subscriptions.contains_key(&filter);
                if state.ended || !known && state.subscriptions.len() >= self.hub.config.subscriptions_per_session {
                    outcomes.push(Subscribed::TooMany);
                    continue;
                }
                state.subscriptions.insert(filter.clone(), options);
                known
            };
            self.hub.plant(&self.session, &filter, options);
            if options.retain_handling == 0 || options.retain_handling == 1 && !known {
                replay.deliveries.extend(self.hub.retained_for(&filter, &options));
            }
            outcomes.push(Subscribed::At(options.qos));
            granted.push((filter, options));
        }
        if let Some(row) = self.session.row.filter(|_| !granted.is_empty()) {
            let bytes = granted.iter().map(|(filter, _)| filter.len() + 64).sum();
            let work = move |tx: &crate::store::Tx| {
                granted.iter().try_for_each(|(filter, options)| rows::put_subscription(tx, row, filter, options))
            };
            self.commit(bytes, work).await?;
        }
        Ok((outcomes, replay))
    }

    /// Sends what [`subscribe`](Self::subscribe) found retained: call it after the SUBACK is written.
    pub fn replay(&mut self, replay: Replay) {
        if self.session.row.is_none() {
            // These are in memory already, so only pointers wait here.
            self.session.state().replay.extend(replay.deliveries);
            self.signal.raise_and_wake();
            return;
        }
        let mut spread = Spread::default();
        for delivery in replay.deliveries {
            let message = delivery.message.clone();
            self.hub.enqueue(&self.session, delivery, &mut self.wakes, &mut spread);
            let (rows, lost) = (std::mem::take(&mut spread.rows), std::mem::take(&mut spread.lost));
            if !rows.is_empty() || !lost.is_empty() {
                let mut keep = Keep::new(&self.hub, &message, rows);
                keep.lost = lost;
                self.hub.chore(keep.submit(Receipt::unwatched()));
            }
        }
        self.wake_others();
    }

    /// Unsubscribes. For each filter: true if it was there.
    pub async fn unsubscribe(&mut self, filters: Vec<Arc<str>>) -> Result<Vec<bool>, Error> {
        let mut outcomes = Vec::with_capacity(filters.len());
        for filter in &filters {
            let known = self.session.state().subscriptions.remove(filter).is_some();
            if known {
                self.hub.uproot(&self.session, filter);
            }
            outcomes.push(known);
        }
        if let Some(row) = self.session.row.filter(|_| outcomes.contains(&true)) {
            let bytes = filters.iter().map(|filter| filter.len() + 32).sum();
            let work = move |tx: &crate::store::Tx| {
                filters.iter().try_for_each(|filter| rows::delete_subscription(tx, row, filter))
            };
            self.commit(bytes, work).await?;
        }
        Ok(outcomes)
    }

    async fn commit(
        &self,
        bytes: usize,
        work: impl FnOnce(&crate::store::Tx) -> Result<(), crate::store::Error> + Send + 'static,
    ) -> Result<(), Error> {
        let session = self.session.clone();
        let unless_ended = move |tx: &crate::store::Tx| if session.state().ended { Ok(()) } else { work(tx) };
        let kept = self.hub.writer.commit(bytes, unless_ended).await;
        kept.map_err(|source| Error::Keep { client: self.session.client.to_string(), source })
    }
}

/// Retained messages for new subscriptions.
#[derive(Debug, Default)]
pub struct Replay {
    deliveries: Vec<Delivery>,
}
