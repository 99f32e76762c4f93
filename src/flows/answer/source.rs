//! Where an answer's bytes come from: a provider, or a model of this box.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use super::fell::Fell;
use super::local::LocalBody;
use super::scripted::Scripted;
use crate::dialect::Dialect;
use crate::price::LocalUse;
use crate::provider::ReplyBody;

/// Most bytes of a whole answer of a model on this box; providers have a bound of their own.
const LOCAL_MAX_BYTES: usize = 64 << 20;

/// Dropping it cancels.
pub(super) enum Source {
    Remote(Box<ReplyBody>),
    Local(Box<dyn LocalBody>),
    Scripted(Box<Scripted>),
}

impl Source {
    /// The next bytes in `spoken`; none: it ended as it should.
    pub(super) fn poll_next(&mut self, spoken: Dialect, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fell>>> {
        Poll::Ready(match self {
            Self::Remote(body) => {
                ready!(body.poll_next(cx)).map(|next| next.map_err(|failure| Fell::of_provider(&failure, spoken)))
            }
            Self::Local(body) => {
                ready!(body.poll_next(cx)).map(|next| next.map_err(|failure| Fell::of_local(&failure)))
            }
            Self::Scripted(answer) => ready!(answer.poll_next(cx)),
        })
    }

    pub(super) async fn next(&mut self, spoken: Dialect) -> Option<Result<Bytes, Fell>> {
        poll_fn(|cx| self.poll_next(spoken, cx)).await
    }

    /// All of it.
    pub(super) async fn collect(&mut self, spoken: Dialect) -> Result<Bytes, Fell> {
        let Some(first) = self.next(spoken).await.transpose()? else { return Ok(Bytes::new()) };
        let Some(second) = self.next(spoken).await.transpose()? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        whole.extend_from_slice(&second);
        while let Some(more) = self.next(spoken).await.transpose()? {
            if matches!(self, Self::Local(_)) && whole.len() + more.len() > LOCAL_MAX_BYTES {
                return Err(Fell::silent());
            }
            whole.extend_from_slice(&more);
        }
        Ok(whole.freeze())
    }

    /// Whether a usage that the answer holds was estimated here.
    pub(super) fn estimates(&self) -> bool {
        matches!(self, Self::Scripted(answer) if answer.estimates())
    }

    /// What this box used for it so far.
    pub(super) fn used(&self) -> Option<LocalUse> {
        match self {
            Self::Remote(_) | Self::Scripted(_) => None,
            Self::Local(body) => body.used(),
        }
    }
}
