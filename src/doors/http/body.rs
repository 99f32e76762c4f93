//! Bodies of requests, unfolded where they are compressed, read up to a bound.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::encoding;
use super::problem::Problem;

/// Most bytes of a body that nobody wants.
const DISCARDED_MAX_BYTES: usize = 64 << 20;
/// Longest time that they may take.
const DISCARDED_WITHIN: Duration = Duration::from_secs(5);

/// Reads a body that nobody wants to its end, within bounds. A connection that is closed under a client that still sends
/// takes the answer with it: the client reports a broken pipe and never hears why it was refused.
pub(super) async fn discard(request: Request) {
    // Who asks before it sends will not.
    if !request.headers().contains_key(header::EXPECT) {
        drain(&mut request.into_body().into_data_stream()).await;
    }
}

/// Likewise what is left of one that was begun.
pub(super) async fn drain(parts: &mut BodyDataStream) {
    let reading = async {
        let mut left = DISCARDED_MAX_BYTES;
        while let Some(Ok(part)) = parts.next().await {
            left = left.saturating_sub(part.len());
            if left == 0 {
                return;
            }
        }
    };
    // Whoever takes longer is cut off.
    let _ = timeout(DISCARDED_WITHIN, reading).await;
}

/// The whole body, up to a bound.
pub(super) async fn read_body(body: Body, headers: &HeaderMap, max_bytes: usize) -> Result<Bytes, Problem> {
    read_split(body, headers, max_bytes, usize::MAX).await.map(|(whole, _)| whole)
}

/// The first `head_bytes` as they are after unfolding, and the rest in memory of its own: tensors in it begin where their
/// elements may be read in place.
pub(super) async fn read_split(
    body: Body,
    headers: &HeaderMap,
    max_bytes: usize,
    head_bytes: usize,
) -> Result<(Bytes, Bytes), Problem> {
    let Some(encoding) = encoding::of_request(headers)? else {
        return read_plain(body, headers, max_bytes, head_bytes).await;
    };
    let (folded, _) = read_plain(body, headers, max_bytes, usize::MAX).await?;
    let unfolding = move || encoding::unfold(encoding, &folded, max_bytes, head_bytes);
    let closing = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "closing", "the gateway is stopping").retry_after(5);
    // A few bytes may unfold into many: never on a thread that serves others meanwhile.
    tokio::task::spawn_blocking(unfolding).await.map_err(|_| closing())?
}

async fn read_plain(
    body: Body,
    headers: &HeaderMap,
    max_bytes: usize,
    head_bytes: usize,
) -> Result<(Bytes, Bytes), Problem> {
    let too_large = || {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("the body is over {max_bytes} bytes"))
            .hint("send it in parts; `body_max_bytes` in [http] is the bound")
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut parts = body.into_data_stream();
    if announced.is_some_and(|bytes| bytes > max_bytes) {
        if !headers.contains_key(header::EXPECT) {
            drain(&mut parts).await;
        }
        return Err(too_large());
    }
    let announced = announced.unwrap_or(0);
    let mut head = BytesMut::with_capacity(announced.min(head_bytes));
    let mut rest = BytesMut::with_capacity(announced.saturating_sub(head_bytes));
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "body", "the body broke off"))?;
        if head.len() + rest.len() + part.len() > max_bytes {
            drop((head, rest));
            drain(&mut parts).await;
            return Err(too_large());
        }
        let (first, second) = part.split_at(part.len().min(head_bytes - head.len()));
        head.extend_from_slice(first);
        rest.extend_from_slice(second);
    }
    Ok((head.freeze(), rest.freeze()))
}
