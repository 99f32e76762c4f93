//! The body of a question: whole, within a bound and a time.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::config::Config;
use crate::dialect::{Failure, FailureKind};
use crate::doors::http::body::drain;

/// Most bytes that are made room for before they have come.
const AHEAD_MAX_BYTES: usize = 1 << 20;

pub(super) async fn read(body: Body, headers: &HeaderMap, config: &Config) -> Result<Bytes, Failure> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let message = "The body is compressed; send it as it is.";
        return Err(Failure::new(FailureKind::InvalidRequest, message));
    }
    let limit = Duration::from_millis(config.body_timeout_ms);
    let reading = collect(body, headers, config.body_max_bytes);
    timeout(limit, reading)
        .await
        .unwrap_or_else(|_| Err(Failure::new(FailureKind::RequestTimeout, "The body did not come in time.")))
}

async fn collect(body: Body, headers: &HeaderMap, max_bytes: usize) -> Result<Bytes, Failure> {
    let too_large =
        || Failure::new(FailureKind::TooLarge, format!("The body is over {max_bytes} bytes, which is the bound here."));
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut parts = body.into_data_stream();
    if said.is_some_and(|bytes| bytes > max_bytes) {
        if !headers.contains_key(header::EXPECT) {
            drain(&mut parts).await;
        }
        return Err(too_large());
    }
    let broken = |_| Failure::new(FailureKind::InvalidRequest, "The body broke off.");
    let Some(first) = parts.next().await.transpose().map_err(broken)? else { return Ok(Bytes::new()) };
    if first.len() > max_bytes {
        return Err(too_large());
    }
    // Usually that was all, and nothing has to be copied.
    if said == Some(first.len()) {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(said.unwrap_or(0).clamp(first.len(), AHEAD_MAX_BYTES.max(first.len())));
    whole.extend_from_slice(&first);
    while let Some(part) = parts.next().await.transpose().map_err(broken)? {
        if whole.len() + part.len() > max_bytes {
            drop(whole);
            drain(&mut parts).await;
            return Err(too_large());
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}
