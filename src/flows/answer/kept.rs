//! Answers that were given before, and those that are on their way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::asking::Asking;
use super::call::Call;
use super::pursue::Refused;
use super::story::Answer;
use crate::base::Name;
use crate::cache::{self, Embed, Hit, Key, Leader, Meaning, Partition, Policy, Turn, Wish, Worth};
use crate::dialect::{Failure, FailureKind, Operation, Usage, UserText, user_text};

/// How often a request waits for another that then gets no answer, before it asks for itself.
const FOLLOWED_MAX: usize = 2;

/// What the cache said.
pub(super) enum Look {
    /// This, and how it was found.
    Found(Hit, &'static str),
    /// Ask somebody, and keep the answer if there is anything to keep it with.
    Ask(Option<Box<Keeping>>),
}

/// What an answer is kept with.
pub(super) struct Keeping {
    key: Option<Key>,
    meaning: Option<Meaning>,
    leader: Option<Leader>,
    wish: Wish,
}

impl Answer {
    /// Looks for a kept answer, or for the same request on its way. Waits for the latter at most for `patience`.
    pub(super) async fn look(
        &self,
        asking: &Asking<'_>,
        route: &Name,
        call: &mut Call,
        patience: Duration,
    ) -> Result<Look, Refused> {
        let wish = asking.request.wish();
        let cache = &self.parts.cache;
        let policy = cache.policy(route.as_str());
        if !cache.is_on(policy) || asking.operation() == Operation::CountTokens {
            return if wish.only_kept { Err(nothing_kept()) } else { Ok(Look::Ask(None)) };
        }
        let stream = [u8::from(asking.stream), u8::from(asking.request.batch)];
        let mut more: Vec<&[u8]> = vec![&stream];
        more.extend(asking.forwarded.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]));
        let request = asking.request;
        let partition = Partition {
            tenant: request.who.tenant(),
            key: request.who.name(),
            route: route.as_str(),
            model: &asking.model,
            dialect: request.dialect.name(),
            operation: request.operation.name(),
            more: &more,
        };
        let key = cache.key(&partition, asking.request.body, policy);
        if let Some(key) = &key
            && let Some(hit) = cache.find(key, policy, &wish).await
        {
            return Ok(Look::Found(hit, "hit"));
        }
        call.cache = "miss";
        let (hit, meaning) = match self.parts.embed.as_ref().filter(|_| policy.semantic) {
            Some(embed) => Box::pin(self.look_for_meaning(asking, &**embed, &partition, policy, &wish)).await,
            None => (None, None),
        };
        if let Some(hit) = hit {
            return Ok(Look::Found(hit, "semantic"));
        }
        if wish.only_kept {
            return Err(nothing_kept());
        }
        let mut keeping = Keeping { key, meaning, leader: None, wish };
        if let Some(key) = key.filter(|_| wish.may_find) {
            for _ in 0..FOLLOWED_MAX {
                match cache.join(&key, policy) {
                    Turn::Alone => break,
                    Turn::Lead(leader) => {
                        keeping.leader = Some(leader);
                        break;
                    }
                    Turn::Follow(follower) => {
                        let began = self.now();
                        let landed = Box::pin(timeout(patience, follower.answer())).await;
                        call.waited(self.now().saturating_sub(began));
                        match landed {
                            Ok(Ok(answer)) => {
                                return Ok(Look::Found(Hit { answer, age_ms: 0, similarity: None }, "flight"));
                            }
                            Ok(Err(cache::Abandoned)) => {}
                            Err(_) => {
                                let message = "The same request was on its way and got no answer in time.";
                                return Err(Failure::new(FailureKind::Timeout, message).into());
                            }
                        }
                    }
                }
            }
        }
        Ok(Look::Ask(Some(Box::new(keeping))))
    }

    /// By what the user's last text means, if everything else of the request is the same, byte for byte.
    async fn look_for_meaning(
        &self,
        asking: &Asking<'_>,
        embed: &dyn Embed,
        partition: &Partition<'_>,
        policy: &Policy,
        wish: &Wish,
    ) -> (Option<Hit>, Option<Meaning>) {
        let request = asking.request;
        let Some(UserText { text, at }) = user_text(request.dialect, request.operation, request.body) else {
            return (None, None);
        };
        let around = [&request.body[..at.start], &request.body[at.end..]];
        let more: Vec<&[u8]> = partition.more.iter().copied().chain(around).collect();
        let partition = Partition { more: &more, ..*partition };
        self.parts.cache.find_meaning(&partition, &text, embed, policy, wish).await
    }

    /// Keeps an answer that is whole and good.
    pub(super) fn keep(&self, keeping: Keeping, call: &Call, content_type: &str, body: Bytes, worth: Worth) {
        let Some(route) = call.route() else { return };
        // The key holds the walls; this is for taking answers away by name.
        let partition = Partition {
            tenant: call.who().tenant(),
            key: call.who().name(),
            route: route.as_str(),
            model: call.model(),
            dialect: call.dialect().name(),
            operation: call.operation().name(),
            more: &[],
        };
        let policy = self.parts.cache.policy(route.as_str());
        let note = Bytes::copy_from_slice(call.model_answered().as_bytes());
        let answer = cache::Answer { body, content_type: Arc::from(content_type), note, worth };
        let Keeping { key, meaning, leader, wish } = keeping;
        if let Some(key) = &key {
            self.parts.cache.keep(key, &partition, &answer, policy, &wish);
        }
        if let Some(meaning) = meaning {
            self.parts.cache.keep_meaning(meaning, &partition, &answer, policy, &wish);
        }
        if let Some(leader) = leader {
            leader.land(&answer);
        }
    }
}

/// What asking again would take.
pub(super) fn worth(usage: &Usage, cost_pico_usd: Option<u64>) -> Worth {
    Worth { tokens: usage.total_tokens(), cost_pico_usd }
}

fn nothing_kept() -> Refused {
    let message = "Nothing is kept for this request, and it wants nothing else (`only-if-cached`).";
    Failure::new(FailureKind::Timeout, message).into()
}
