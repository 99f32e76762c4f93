//! One stream: its newest value and state, its curve, and what the gateway does with it.

use maud::{Markup, html};

use super::chart::Chart;
use super::{Plant, Range, tables, text, tiles};
use crate::doors::http::pulse::Pulse;
use crate::flows::board::{Alert, Point};
use crate::flows::query::{CurvePoint, StreamView};

/// The curve and the times it was asked for.
pub(super) struct Picture {
    pub(super) range: Range,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    pub(super) curve: Vec<CurvePoint>,
}

/// Everything this page knows about its stream.
pub(super) struct Seen<'a> {
    pub(super) view: &'a StreamView,
    pub(super) newest: Option<&'a Point>,
    pub(super) picture: Option<&'a Picture>,
    /// Newest first.
    pub(super) alerts: &'a [Alert],
}

pub(super) fn title(seen: &Seen<'_>) -> String {
    let Some(point) = seen.newest else { return format!("{} | Forebay", seen.view.name) };
    let alarm = if seen.view.alert.is_some() { "ALARM " } else { "" };
    format!("{alarm}{} {} | {} | Forebay", newest_value(point), unit(seen.view), seen.view.name)
}

pub(super) fn main(seen: &Seen<'_>, plant: &Plant, pulse: &Pulse, place: Option<usize>) -> Markup {
    let view = seen.view;
    html! {
        @if let Some(point) = seen.newest {
            (head(seen, point))
            (curve(seen))
        } @else {
            (waiting(view))
        }
        section.tiles aria-label="Gateway" {
            (tiles::throughput(pulse, place, view.tally.committed))
            (tiles::latency(view.verdict_latency, view.commit_latency))
            (tiles::queue(plant.queue.as_ref(), pulse))
            (tiles::link(&plant.link))
        }
        div.columns {
            div.stack {
                (tables::alerts(seen.alerts, false))
                (tables::models(&plant.models))
            }
            (tables::counters(&view.tally))
        }
        div #title-live data-live="" data-title=(title(seen)) data-state=(spoken(seen)) hidden {}
    }
}

fn head(seen: &Seen<'_>, point: &Point) -> Markup {
    let view = seen.view;
    html! {
        section.panel.head aria-labelledby="stream-name" {
            div.identity {
                h1 #stream-name { (view.name) }
                p.muted { span.mono { (view.topic) } }
            }
            div.newest #newest-live data-live="" {
                p.value { (newest_value(point)) span.unit { (unit(view)) } }
                p.muted { time datetime=(text::machine_time(point.time_ms)) { (text::time(point.time_ms)) } " · reading " (text::count(point.seq)) }
                @if view.fields.len() > 1 {
                    dl.fields {
                        @for (field, value) in view.fields.iter().zip(&point.values).skip(1) {
                            div { dt { (field.name) } dd { (value.map_or("—".to_owned(), text::value)) " " (field.unit.as_deref().unwrap_or("")) } }
                        }
                    }
                }
            }
            div.verdict #verdict-live data-live="" {
                (badge(point.state))
                (meter(point.score, view.raise, view.model.is_some()))
            }
        }
    }
}

fn curve(seen: &Seen<'_>) -> Markup {
    let Some(picture) = seen.picture else { return html! {} };
    let view = seen.view;
    let field = view.fields.first().map_or("value", |field| field.name.as_str());
    let chart = Chart {
        field,
        unit: unit(view),
        from_ms: picture.from_ms,
        to_ms: picture.to_ms,
        curve: &picture.curve,
        alerts: seen.alerts,
        raise: view.raise,
    };
    html! {
        section.panel.curve aria-labelledby="curve-name" {
            div.curve-head {
                h2 #curve-name { (capitalised(field)) @if !unit(view).is_empty() { span.muted { ", " (unit(view)) } } " and score" }
                ul.legend #legend-live data-live="" aria-label="Legend" {
                    li { span.key.key-band aria-hidden="true" {} "measured" }
                    @if picture.curve.iter().any(|p| p.expected.is_some()) { li { span.key.key-expected aria-hidden="true" {} "expected" } }
                    @if picture.curve.iter().any(|p| p.score.is_some()) { li { span.key.key-score aria-hidden="true" {} "score" } }
                    @if !seen.alerts.is_empty() { li { span.key.key-alarm aria-hidden="true" {} "alarm" } }
                }
                nav.ranges #ranges-live data-live="" aria-label="Time range" {
                    @for range in Range::EVERY {
                        a href=(format!("?range={}", range.word())) aria-current=[(range == picture.range).then_some("true")] { (range_name(range)) }
                    }
                }
            }
            (chart.markup())
            p.readout #readout aria-hidden="true" {}
        }
    }
}

fn waiting(view: &StreamView) -> Markup {
    let topic = view.topic.replace(['+', '#'], "x");
    html! {
        section.panel.head.waiting aria-labelledby="stream-name" {
            div {
                h1 #stream-name { (view.name) }
                p.lead { "Waiting for the first reading." }
                p.muted { "It listens on " span.mono { (view.topic) } ". To send one:" }
                pre { code { "mosquitto_pub -q 1 -t " (topic) " -m '…'" } }
            }
        }
    }
}

/// What a screen reader hears when it changes. A state that comes and goes within seconds is not announced.
fn spoken(seen: &Seen<'_>) -> String {
    match &seen.view.alert {
        Some(alert) => format!("{}: alarm {}, {}", seen.view.name, alert.id, alert.severity),
        None => format!("{}: no alarm", seen.view.name),
    }
}

/// State by shape, word and colour.
pub(super) fn badge(state: &str) -> Markup {
    let (class, shape, word) = match state {
        "normal" => ("ok", "M3 8.5l3.300 3.300L13 5", "Normal"),
        "pending" => ("warn", "M8 3.500v5l3 2", "Over threshold, waiting"),
        "alarm" => ("alarm", "M8 3v6.500M8 12.500v.1", "Alarm"),
        "clearing" => ("warn", "M8 3v8M4.500 8l3.500 3.500L11.500 8", "Clearing"),
        _ => ("note", "M4 8h8", "No score yet"),
    };
    html! {
        p class=(format!("badge {class}")) {
            svg viewBox="0 0 16 16" aria-hidden="true" { path d=(shape) {} }
            (word)
        }
    }
}

/// The score as a bar whose end is a little past the threshold.
fn meter(score: Option<f64>, raise: Option<f64>, has_model: bool) -> Markup {
    let Some(score) = score else {
        return html! { @if has_model { p.muted { "The model scores once its first window is full." } } };
    };
    let end = raise.map_or(score.max(1.0), |raise| raise * 1.5);
    let share = (score / end).clamp(0.0, 1.0) * 100.0;
    html! {
        p.score-text {
            span.muted { "Score " } strong { (text::score(score)) }
            @if let Some(raise) = raise { span.muted { " of " (text::score(raise)) } }
        }
        svg.meter aria-hidden="true" {
            rect.meter-ground x="0" y="0" width="100%" height="100%" rx="3" {}
            rect class=(if raise.is_some_and(|raise| score >= raise) { "meter-over" } else { "meter-fill" })
                x="0" y="0" width=(format!("{share:.1}%")) height="100%" rx="3" {}
            @if raise.is_some() { line.meter-mark x1="66.67%" x2="66.67%" y1="0" y2="100%" {} }
        }
    }
}

pub(super) fn newest_value(point: &Point) -> String {
    point.values.first().copied().flatten().map_or("—".to_owned(), text::value)
}

pub(super) fn unit(view: &StreamView) -> &str {
    view.fields.first().and_then(|field| field.unit.as_deref()).unwrap_or("")
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    (first + letters.as_str()).replace('_', " ")
}

fn range_name(range: Range) -> &'static str {
    match range {
        Range::Hour => "Hour",
        Range::Day => "Day",
        Range::Week => "Week",
        Range::All => "All",
    }
}
