//! A stream of Google's for whoever did not ask for events: an array that grows.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use crate::dialect::{Dialect, GeminiArray, Limits};

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");

/// The same answer with an array in the place of its events; what is no stream stays as it is.
pub(super) fn instead_of_events(response: Response) -> Response {
    if response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != Dialect::Gemini.stream_content_type()) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    head.headers.insert(header::CONTENT_TYPE, JSON);
    let array = GeminiArray::new(Limits::default().frame_max_bytes);
    Response::from_parts(head, Body::from_stream(Elements { events: Some(body.into_data_stream()), array }))
}

struct Elements {
    /// None: they have ended.
    events: Option<BodyDataStream>,
    array: GeminiArray,
}

impl Stream for Elements {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { events, array } = &mut *self;
        let mut out = Vec::new();
        while out.is_empty() {
            let Some(stream) = events else { return Poll::Ready(None) };
            match ready!(stream.poll_next_unpin(cx)) {
                Some(Ok(bytes)) => array.push(&bytes, &mut out).map_err(axum::Error::new)?,
                // Cut off as the stream is, without its end: whoever reads it sees that something is missing.
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    array.close(&mut out);
                    *events = None;
                }
            }
        }
        Poll::Ready(Some(Ok(out.into())))
    }
}
