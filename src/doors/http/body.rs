//! Bodies of requests, read up to a bound.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::problem::Problem;

/// The whole body, up to a bound.
pub(super) async fn read_body(body: Body, headers: &HeaderMap, max_bytes: usize) -> Result<Bytes, Problem> {
    read_split(body, headers, max_bytes, usize::MAX).await.map(|(whole, _)| whole)
}

/// The first `head_bytes`, and the rest in memory of its own: tensors in it begin where their elements may be read in place.
pub(super) async fn read_split(
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
    if announced.is_some_and(|bytes| bytes > max_bytes) {
        return Err(too_large());
    }
    let announced = announced.unwrap_or(0);
    let mut head = BytesMut::with_capacity(announced.min(head_bytes));
    let mut rest = BytesMut::with_capacity(announced.saturating_sub(head_bytes));
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "body", "the body broke off"))?;
        if head.len() + rest.len() + part.len() > max_bytes {
            return Err(too_large());
        }
        let (first, second) = part.split_at(part.len().min(head_bytes - head.len()));
        head.extend_from_slice(first);
        rest.extend_from_slice(second);
    }
    Ok((head.freeze(), rest.freeze()))
}
