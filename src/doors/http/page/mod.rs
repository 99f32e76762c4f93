//! The live page: server-rendered HTML with inline SVG, complete without JavaScript.
//!
//! With JavaScript the same address with `part=live` gives the inside of `main`, and a small script swaps what
//! changed. Escaping is by construction: `maud` escapes every value, and only the style sheet, the script and the icon,
//! which are constants of this binary, go in raw.

mod chart;
mod frame;
mod overview;
mod scale;
mod shape;
mod stream;
mod tables;
mod text;
mod tiles;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use maud::Markup;
use serde::Deserialize;

use super::door::Door;
use super::problem::Problem;
use crate::access::Principal;
use crate::flows::query::{CurvePoint, LinkView, ModelView, QueueView, StreamView};

/// Buckets of the large curve: about one a pixel and a half on a wide screen.
const CURVE_POINTS: usize = 600;
const CARD_POINTS: usize = 160;
/// Cards on the overview; more streams are listed by name under them.
const CARDS_MAX: usize = 48;
/// Alarms that are marked on the curve; the table shows fewer.
const ALERTS_MAX: usize = 100;
/// Without a choice the page shows the widest range with at most so many readings.
const DEFAULT_READINGS_MAX: f64 = 25_000.0;

pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new().route("/", get(home)).route("/streams/{stream}", get(one)).route("/icon.svg", get(icon))
}

/// How far back the curve goes from the newest reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Range {
    Hour,
    Day,
    Week,
    All,
}

impl Range {
    const EVERY: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::All];

    fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::All => "all",
        }
    }

    fn span_ms(self) -> Option<i64> {
        match self {
            Self::Hour => Some(3_600_000),
            Self::Day => Some(86_400_000),
            Self::Week => Some(604_800_000),
            Self::All => None,
        }
    }

    /// The widest range that a page may draw several times a second, for a stream of `count` readings over `span_ms`.
    fn fitting(count: u64, span_ms: i64) -> Self {
        let per_ms = count as f64 / span_ms.max(1) as f64;
        let fits = |range: &Self| match range.span_ms() {
            None => count as f64 <= DEFAULT_READINGS_MAX,
            Some(span) => span as f64 * per_ms <= DEFAULT_READINGS_MAX,
        };
        Self::EVERY.into_iter().rev().find(fits).unwrap_or(Self::Hour)
    }
}

/// What the address asks for. Unknown and unreadable parts are ignored: a page should open.
#[derive(Debug, Default, Clone, Copy)]
struct Asked {
    range: Option<Range>,
    only_live: bool,
}

impl Asked {
    fn read(query: Option<&str>) -> Self {
        let mut asked = Self::default();
        for (name, value) in query.unwrap_or("").split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "range" => asked.range = Range::EVERY.into_iter().find(|range| range.word() == value),
                "part" => asked.only_live = value == "live",
                _ => {}
            }
        }
        asked
    }
}

/// What both pages show beside their streams.
struct Plant {
    link: LinkView,
    queue: Option<QueueView>,
    models: Vec<ModelView>,
}

impl Plant {
    async fn look(door: &Door) -> Self {
        let query = &door.parts.query;
        Self { link: query.link(), queue: query.queue().await.ok(), models: query.models() }
    }
}

/// One page, ready to be sent whole or in part.
struct Sheet {
    title: String,
    /// Where the script listens.
    events: String,
    /// Streams to switch between: name, and whether it is this one.
    streams: Vec<(String, bool)>,
    main: Markup,
}

async fn home(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Principal>,
    RawQuery(query): RawQuery,
) -> Response {
    let asked = Asked::read(query.as_deref());
    let made = async {
        let streams = door.streams(&who).await?;
        match streams.as_slice() {
            [only] => stream_sheet(&door, only, &streams, asked).await,
            _ => overview_sheet(&door, &streams).await,
        }
    };
    answer(made.await, asked)
}

async fn one(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Principal>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let asked = Asked::read(query.as_deref());
    let made = async {
        let streams = door.streams(&who).await?;
        let found = streams.iter().find(|stream| stream.name == name).ok_or_else(|| Problem::no_stream(&name))?;
        stream_sheet(&door, found, &streams, asked).await
    };
    answer(made.await, asked)
}

fn answer(made: Result<Sheet, Problem>, asked: Asked) -> Response {
    match made {
        Ok(sheet) if asked.only_live => frame::html_response(sheet.main.into_string()),
        Ok(sheet) => frame::html_response(frame::document(&sheet).into_string()),
        Err(problem) => {
            let status = problem.status;
            (status, frame::html_response(frame::problem(&problem).into_string())).into_response()
        }
    }
}

async fn icon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "max-age=86400")], frame::ICON).into_response()
}

async fn stream_sheet(door: &Door, view: &StreamView, all: &[StreamView], asked: Asked) -> Result<Sheet, Problem> {
    let query = &door.parts.query;
    let newest = match &view.last {
        Some(point) => Some(point.clone()),
        None => query.readings(&view.name, None, 1).await?.pop(),
    };
    let mut picture = None;
    if let Some(newest) = &newest {
        let oldest = query.readings(&view.name, Some(0), 1).await?.pop().unwrap_or_else(|| newest.clone());
        let span_ms = newest.time_ms - oldest.time_ms;
        let range = asked.range.unwrap_or_else(|| Range::fitting(newest.seq.saturating_sub(oldest.seq) + 1, span_ms));
        let to_ms = newest.time_ms;
        let from_ms = range.span_ms().map_or(oldest.time_ms, |span| to_ms.saturating_sub(span));
        // The first reading alone has no span: it stands at the end of a minute.
        let from_ms = from_ms.min(to_ms.saturating_sub(60_000));
        let curve = query.curve(&view.name, Some(from_ms), Some(to_ms), CURVE_POINTS).await?;
        picture = Some(stream::Picture { range, from_ms, to_ms, curve });
    }
    let alerts = query.alerts(Some(&view.name), ALERTS_MAX).await?;
    let plant = Plant::look(door).await;
    let place = query.board().streams().iter().position(|board| board.name().as_str() == view.name);
    let seen = stream::Seen { view, newest: newest.as_ref(), picture: picture.as_ref(), alerts: &alerts };
    Ok(Sheet {
        title: stream::title(&seen),
        events: format!("/api/v1/events?throttle_ms=250&stream={}", view.name),
        streams: switch(all, Some(&view.name)),
        main: stream::main(&seen, &plant, &door.pulse, place),
    })
}

async fn overview_sheet(door: &Door, streams: &[StreamView]) -> Result<Sheet, Problem> {
    let query = &door.parts.query;
    let mut cards: Vec<(&StreamView, Vec<CurvePoint>)> = Vec::new();
    for view in streams.iter().take(CARDS_MAX) {
        cards.push((view, query.curve(&view.name, None, None, CARD_POINTS).await?));
    }
    let mut alerts = query.alerts(None, ALERTS_MAX).await?;
    alerts.retain(|alert| streams.iter().any(|stream| stream.name == alert.stream));
    let plant = Plant::look(door).await;
    Ok(Sheet {
        title: overview::title(streams),
        events: "/api/v1/events?throttle_ms=500".to_owned(),
        streams: switch(streams, None),
        main: overview::main(&cards, streams, &alerts, &plant, &door.pulse),
    })
}

fn switch(streams: &[StreamView], current: Option<&str>) -> Vec<(String, bool)> {
    if streams.len() < 2 {
        return Vec::new();
    }
    streams.iter().map(|stream| (stream.name.clone(), current == Some(stream.name.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_choice_the_range_is_the_widest_that_stays_cheap() {
        assert_eq!(Range::fitting(22_695, 79 * 86_400_000), Range::All);
        assert_eq!(Range::fitting(10_000_000, 10_000_000 * 1000), Range::Hour);
        assert_eq!(Range::fitting(500_000, 500_000 * 60_000), Range::Week);
        assert_eq!(Range::fitting(50_000_000, 50_000_000), Range::Hour);
        assert_eq!(Range::fitting(1, 0), Range::All);
    }

    #[test]
    fn a_page_opens_whatever_stands_behind_the_question_mark() {
        let asked = Asked::read(Some("utm=1&range=day&&part=live&range"));
        assert_eq!((asked.range, asked.only_live), (Some(Range::Day), true));
        assert_eq!(Asked::read(Some("range=<script>")).range, None);
    }
}
