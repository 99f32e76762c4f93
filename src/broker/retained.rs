//! The last retained message of every topic. Memory leads; the disk follows in the order of the writer.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::message::Message;
use super::topic::Filter;

/// The retained messages. A row is written by looking here at the moment the writer gets to it, so the last
/// row of a topic is always the last message, whatever the order in which jobs were handed in.
#[derive(Debug)]
pub(super) struct Retained {
    state: Mutex<State>,
    messages: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<Arc<str>, Arc<Message>>,
    bytes: usize,
    /// Topics changed by QoS 0, which nobody waits for: written together.
    dirty: HashSet<Arc<str>>,
    flushing: bool,
}

impl Retained {
    pub(super) fn new(messages: usize, bytes: usize) -> Self {
        Self { state: Mutex::default(), messages, bytes }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `message` for its topic; an empty payload forgets the topic. False at the bound.
    pub(super) fn set(&self, message: &Arc<Message>) -> bool {
        let mut state = self.lock();
        let old = state.topics.get(&message.topic).map_or(0, |old| old.size_bytes());
        if message.payload.is_empty() {
            state.topics.remove(&message.topic);
            state.bytes -= old;
            return true;
        }
        let size = message.size_bytes();
        if old == 0 && state.topics.len() >= self.messages || state.bytes - old + size > self.bytes {
            return false;
        }
        state.bytes = state.bytes - old + size;
        state.topics.insert(message.topic.clone(), message.clone());
        true
    }

    pub(super) fn current(&self, topic: &str) -> Option<Arc<Message>> {
        self.lock().topics.get(topic).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().topics.len()
    }

    /// All that `filter` matches and that has not expired, in topic order.
    pub(super) fn matching(&self, filter: Filter<'_>, now: Duration) -> Vec<Arc<Message>> {
        let prefix = filter.literal_prefix();
        let state = self.lock();
        state
            .topics
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(prefix))
            .filter(|(topic, message)| filter.matches(topic) && !message.expired(|| now))
            .map(|(_, message)| message.clone())
            .collect()
    }

    /// Forgets what expired; its rows are to be removed.
    pub(super) fn expire(&self, now: Duration) -> usize {
        let mut state = self.lock();
        let gone: Vec<Arc<Message>> =
            state.topics.values().filter(|message| message.expired(|| now)).cloned().collect();
        for message in &gone {
            state.topics.remove(&message.topic);
            state.bytes -= message.size_bytes();
            state.dirty.insert(message.topic.clone());
        }
        gone.len()
    }

    /// Remembers that a row is to be written without anybody waiting for it.
    pub(super) fn mark(&self, topic: Arc<str>) {
        self.lock().dirty.insert(topic);
    }

    /// Topics to write now, at most `most`; None if nothing is due or a write is under way.
    pub(super) fn begin_flush(&self, most: usize) -> Option<Vec<Arc<str>>> {
        let mut state = self.lock();
        if state.flushing || state.dirty.is_empty() {
            return None;
        }
        state.flushing = true;
        let topics: Vec<Arc<str>> = state.dirty.iter().take(most).cloned().collect();
        for topic in &topics {
            state.dirty.remove(topic);
        }
        Some(topics)
    }

    /// The write returned; what was not written is due again.
    pub(super) fn end_flush(&self, unwritten: Vec<Arc<str>>) {
        let mut state = self.lock();
        state.flushing = false;
        state.dirty.extend(unwritten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::message::Qos;

    fn message(topic: &str, payload: &'static str) -> Arc<Message> {
        Arc::new(Message::new(topic, payload, Qos::AtLeastOnce).retained())
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        let found = retained.matching(Filter::parse(filter).unwrap(), Duration::ZERO);
        found.iter().map(|message| message.topic.to_string()).collect()
    }

    #[test]
    fn a_filter_finds_the_last_message_of_each_topic() {
        let retained = Retained::new(10, 10_000);
        for topic in ["a/b", "a", "a/b/c", "ab", "b", "$SYS/x"] {
            assert!(retained.set(&message(topic, "x")));
        }
        assert_eq!(topics(&retained, "a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(topics(&retained, "+"), ["a", "ab", "b"]);
        assert_eq!(topics(&retained, "#").len(), 5);
        assert!(retained.set(&message("a/b", "")));
        assert_eq!(topics(&retained, "a/+"), [""; 0]);
    }

    #[test]
    fn the_bounds_hold_and_a_replacement_still_fits() {
        let retained = Retained::new(1, 10_000);
        assert!(retained.set(&message("a", "x")));
        assert!(!retained.set(&message("b", "x")));
        assert!(retained.set(&message("a", "yy")));
        let small = Retained::new(10, 100);
        assert!(small.set(&message("a", "x")));
        assert!(!small.set(&message("b", "x")));
    }

    #[test]
    fn changes_nobody_waits_for_are_written_in_one_go_at_a_time() {
        let retained = Retained::new(10, 10_000);
        retained.mark("a".into());
        retained.mark("a".into());
        assert_eq!(retained.begin_flush(9).unwrap().len(), 1);
        retained.mark("b".into());
        assert_eq!(retained.begin_flush(9), None);
        retained.end_flush(Vec::new());
        assert_eq!(retained.begin_flush(9).unwrap(), ["b".into()]);
    }
}
