//! Admission: work that will append to a class that blocks asks before it goes to the writer, because in a transaction
//! that it shares with others it is too late to say no.

use std::sync::Arc;

use tokio::sync::watch;

use super::config::Policy;
use super::queue::Outbox;
use super::size::stored_bytes;
use super::state::State;
use super::stream::Class;

/// What a piece of work will append to one class at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The class.
    pub class: Class,
    /// Rows at most.
    pub rows: usize,
    /// Length of the longest body at most.
    pub body_bytes: usize,
}

/// A class that blocks has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the share of class {} is used up until the cloud takes rows", class.as_str())]
pub struct ClassFull {
    /// Which one.
    pub class: Class,
}

/// Room promised to work that is on its way to the disk. Hold it until the commit has returned; dropping it gives the
/// promise back.
#[derive(Default)]
pub struct Admission {
    promised: Option<(Arc<State>, [u64; 4])>,
}

impl Outbox {
    /// Promises room for everything in `wanted`, or for nothing. Only classes that block say no. Work that is larger than
    /// a whole share is let in when the class is empty, or it would wait for ever.
    pub fn admit(&self, wanted: &[Wanted]) -> Result<Admission, ClassFull> {
        let mut streams = self.state.lock();
        let mut bytes = [0; 4];
        for Wanted { class, rows, body_bytes } in wanted {
            if streams.quota.class(*class).policy == Policy::Block {
                bytes[*class as usize] += *rows as u64 * stored_bytes(*body_bytes as u64);
            }
        }
        if bytes == [0; 4] {
            return Ok(Admission::default());
        }
        for class in Class::ALL {
            let (asked, taken) = (bytes[class as usize], streams.class_bytes(class) + streams.admitted[class as usize]);
            if asked > 0 && taken > 0 && taken + asked > streams.limit(class) {
                drop(streams);
                self.state.metrics.blocked(class);
                return Err(ClassFull { class });
            }
        }
        for (promised, bytes) in streams.admitted.iter_mut().zip(bytes) {
            *promised += bytes;
        }
        Ok(Admission { promised: Some((Arc::clone(&self.state), bytes)) })
    }

    /// Changes when a class that said no may say yes.
    pub fn room(&self) -> watch::Receiver<u64> {
        self.state.room.subscribe()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let Some((state, bytes)) = self.promised.take() else { return };
        {
            let mut streams = state.lock();
            for (promised, bytes) in streams.admitted.iter_mut().zip(bytes) {
                *promised -= bytes;
            }
        }
        state.room.send_modify(|count| *count += 1);
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Admission").field(&self.promised.as_ref().map(|(_, bytes)| bytes)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::fixture::open_with;
    use crate::outbox::{ClassConfig, Config, PackConfig};

    const WANTED: Wanted = Wanted { class: Class::Verdict, rows: 1, body_bytes: 869 };

    fn blocking() -> Config {
        let verdict = ClassConfig { share_percent: Some(4), policy: Some(Policy::Block), ttl_s: None };
        // Rows that were blocks would take less than was promised.
        let pack = PackConfig { after_s: 0, ..PackConfig::default() };
        Config { max_bytes: Some(100_000), pack, verdict, ..Config::default() }
    }

    #[tokio::test]
    async fn a_class_that_blocks_promises_no_more_than_its_share_and_takes_promises_back() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open_with(&folder, &blocking());
        let stream = bench.stream("press", Class::Verdict);
        let body = "x".repeat(869);
        bench.append(stream, &[&body]).await;
        let mut room = bench.outbox.room();
        let held: Vec<_> = (0..3).map(|_| bench.outbox.admit(&[WANTED]).unwrap()).collect();
        assert_eq!(bench.outbox.admit(&[WANTED]).unwrap_err(), ClassFull { class: Class::Verdict });
        room.mark_unchanged();
        drop(held);
        assert!(room.has_changed().unwrap());
        let held = bench.outbox.admit(&[Wanted { rows: 3, ..WANTED }]).unwrap();
        bench.append(stream, &[&body, &body, &body]).await;
        drop(held);
        bench.outbox.admit(&[WANTED]).unwrap_err();
        bench.outbox.admit(&[Wanted { class: Class::Raw, rows: 1000, body_bytes: 1000 }]).expect("raw does not block");
        room.mark_unchanged();
        let batch = bench.next().await.unwrap();
        bench.delete(&batch).await;
        assert!(room.has_changed().unwrap());
        bench.outbox.admit(&[WANTED]).unwrap();
    }

    #[tokio::test]
    async fn work_larger_than_the_share_passes_when_the_class_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open_with(&folder, &blocking());
        let stream = bench.stream("press", Class::Verdict);
        let large = Wanted { rows: 50, ..WANTED };
        drop(bench.outbox.admit(&[large]).unwrap());
        bench.append(stream, &["x"]).await;
        bench.outbox.admit(&[large]).unwrap_err();
    }
}
