//! Requests that are the same ask once: the first leads, those that come while it flies follow and get its answer.

use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::answer::Answer;
use super::metrics::{Kind, Metrics, Passed};
use crate::base::Map;

enum News {
    Flying,
    Landed(Answer),
    Abandoned,
}

type Flying = Map<[u8; 32], Arc<watch::Sender<News>>>;

/// The requests that are on their way.
pub(super) struct Flights {
    flying: Mutex<Flying>,
    max_flights: usize,
    max_followers: usize,
    metrics: Metrics,
}

/// What a request is to do.
pub enum Turn {
    /// Ask, keep the answer, and tell by [`Leader::land`].
    Lead(Leader),
    /// Wait for another's answer.
    Follow(Follower),
    /// Ask for itself: too many are on their way, or wait for the same.
    Alone,
}

/// Whoever asks for all. Dropped without an answer (the asking failed, the caller hung up), it sets its followers free.
pub struct Leader {
    flights: Arc<Flights>,
    digest: [u8; 32],
    news: Arc<watch::Sender<News>>,
}

/// Whoever waits for a leader. Dropping it takes nothing from the others.
pub struct Follower {
    flights: Arc<Flights>,
    news: watch::Receiver<News>,
}

/// The leader ended without an answer: join again, or ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failed to follow: the request that was to be answered first got no answer")]
pub struct Abandoned;

impl Flights {
    pub(super) fn new(max_flights: usize, max_followers: usize, metrics: Metrics) -> Self {
        Self { flying: Mutex::default(), max_flights, max_followers, metrics }
    }

    fn flying(&self) -> MutexGuard<'_, Flying> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(self: &Arc<Self>, digest: [u8; 32]) -> Turn {
        let mut flying = self.flying();
        let len = flying.len();
        match flying.entry(digest) {
            Entry::Occupied(entry) if entry.get().receiver_count() < self.max_followers => {
                Turn::Follow(Follower { flights: Arc::clone(self), news: entry.get().subscribe() })
            }
            Entry::Vacant(entry) if len < self.max_flights => {
                let news = Arc::new(watch::Sender::new(News::Flying));
                entry.insert(Arc::clone(&news));
                Turn::Lead(Leader { flights: Arc::clone(self), digest, news })
            }
            Entry::Occupied(_) | Entry::Vacant(_) => {
                self.metrics.passed(Passed::Crowded);
                Turn::Alone
            }
        }
    }
}

impl Leader {
    /// The followers get this answer. Keep it first: whoever comes between would find neither.
    pub fn land(self, answer: &Answer) {
        self.news.send_replace(News::Landed(answer.clone()));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.flights.flying().remove(&self.digest);
        self.news.send_if_modified(|news| {
            let is_flying = matches!(news, News::Flying);
            if is_flying {
                *news = News::Abandoned;
            }
            is_flying
        });
    }
}

impl Follower {
    /// Waits for the leader's answer. Put a time limit around it: the leader's is not the caller's.
    pub async fn answer(mut self) -> Result<Answer, Abandoned> {
        let landed = self.news.wait_for(|news| !matches!(news, News::Flying)).await;
        let answer = match landed.as_deref() {
            Ok(News::Landed(answer)) => Ok(answer.clone()),
            _ => Err(Abandoned),
        };
        drop(landed);
        match &answer {
            Ok(answer) => self.flights.metrics.hit(Kind::Flight, &answer.worth),
            Err(Abandoned) => self.flights.metrics.missed(Kind::Flight),
        }
        answer
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tasks end with the test's runtime")]
mod tests {
    use super::*;
    use crate::cache::Worth;
    use bytes::Bytes;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn answer(text: &'static str) -> Answer {
        let worth = Worth { tokens: Some(7), cost_pico_usd: None };
        Answer { body: Bytes::from_static(text.as_bytes()), content_type: "".into(), note: Bytes::new(), worth }
    }

    fn flights(max_flights: usize, max_followers: usize) -> (Arc<Flights>, Metrics) {
        let metrics = Metrics::default();
        (Arc::new(Flights::new(max_flights, max_followers, metrics.clone())), metrics)
    }

    fn lead(turn: Turn) -> Leader {
        let Turn::Lead(leader) = turn else { panic!("it does not lead") };
        leader
    }

    fn follow(turn: Turn) -> Follower {
        let Turn::Follow(follower) = turn else { panic!("it does not follow") };
        follower
    }

    #[tokio::test]
    async fn followers_get_what_the_leader_got_and_the_next_one_leads() {
        let (flights, metrics) = flights(9, 9);
        let leader = lead(flights.join([1; 32]));
        let followers = [follow(flights.join([1; 32])), follow(flights.join([1; 32]))];
        let other = lead(flights.join([2; 32]));
        leader.land(&answer("yes"));
        for follower in followers {
            assert_eq!(follower.answer().await, Ok(answer("yes")));
        }
        drop(lead(flights.join([1; 32])));
        drop(other);
        assert!(flights.flying().is_empty());
        assert_eq!(metrics.saved_tokens(Kind::Flight), 14);
    }

    #[tokio::test]
    async fn a_leader_that_hangs_up_sets_its_followers_free_and_one_of_them_leads() {
        let (flights, _) = flights(9, 9);
        let leader = lead(flights.join([1; 32]));
        let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(follow(flights.join([1; 32])).answer())).collect();
        drop(leader);
        for follower in waiting {
            assert_eq!(follower.await.unwrap(), Err(Abandoned));
        }
        let _second = lead(flights.join([1; 32]));
        follow(flights.join([1; 32]));
    }

    #[tokio::test]
    async fn a_leader_that_panics_sets_its_followers_free() {
        let (flights, _) = flights(9, 9);
        let leader = lead(flights.join([1; 32]));
        let follower = follow(flights.join([1; 32]));
        let asked = tokio::spawn(async move {
            let _leader = leader;
            panic!("the asking failed");
        });
        assert!(asked.await.is_err());
        assert_eq!(follower.answer().await, Err(Abandoned));
        assert!(flights.flying().is_empty());
    }

    #[test]
    fn at_the_bounds_each_asks_for_itself() {
        let (flights, metrics) = flights(1, 1);
        let leader = lead(flights.join([1; 32]));
        assert!(matches!(flights.join([2; 32]), Turn::Alone));
        let follower = follow(flights.join([1; 32]));
        assert!(matches!(flights.join([1; 32]), Turn::Alone));
        assert_eq!(metrics.passed_count(Passed::Crowded), 2);
        drop(follower);
        follow(flights.join([1; 32]));
        drop(leader);
        lead(flights.join([2; 32]));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn at_any_moment_one_asks_and_everybody_is_answered() {
        let (flights, _) = flights(9, 1000);
        let asking = Arc::new(AtomicUsize::new(0));
        let mut callers = tokio::task::JoinSet::new();
        for no in 0..200 {
            let (flights, asking) = (Arc::clone(&flights), Arc::clone(&asking));
            callers.spawn(async move {
                loop {
                    match flights.join([1; 32]) {
                        Turn::Lead(leader) => {
                            assert_eq!(asking.fetch_add(1, Ordering::SeqCst), 0, "two ask at once");
                            tokio::task::yield_now().await;
                            asking.fetch_sub(1, Ordering::SeqCst);
                            if no % 3 == 0 {
                                leader.land(&answer("yes"));
                            }
                            return;
                        }
                        Turn::Follow(follower) => {
                            if let Ok(answer) = follower.answer().await {
                                return assert_eq!(answer.body, "yes");
                            }
                        }
                        Turn::Alone => panic!("the bounds are far away"),
                    }
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
    }
}
