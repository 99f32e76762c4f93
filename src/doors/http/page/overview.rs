//! Several streams at a glance, each leading to its own page.

use maud::{Markup, html};

use super::{Plant, chart, stream, tables, text, tiles};
use crate::doors::http::pulse::Pulse;
use crate::flows::board::Alert;
use crate::flows::query::{CurvePoint, StreamView};

pub(super) fn title(streams: &[StreamView]) -> String {
    let standing = streams.iter().filter(|stream| stream.alert.is_some()).count();
    match standing {
        0 => "Forebay".to_owned(),
        1 => "ALARM on 1 stream | Forebay".to_owned(),
        many => format!("ALARM on {many} streams | Forebay"),
    }
}

pub(super) fn main(
    cards: &[(&StreamView, Vec<CurvePoint>)],
    streams: &[StreamView],
    alerts: &[Alert],
    plant: &Plant,
    pulse: &Pulse,
) -> Markup {
    let committed = streams.iter().map(|stream| stream.tally.committed).sum();
    html! {
        h1.page-name { "Streams" }
        @if streams.is_empty() {
            section.panel { p.lead { "No stream here that you may read." } p.muted { "Streams are [[stream]] entries in the configuration." } }
        }
        ul.cards #cards-live data-live="" {
            @for (view, curve) in cards {
                li { (card(view, curve)) }
            }
        }
        @if streams.len() > cards.len() {
            p.muted { "and " (streams.len() - cards.len()) " more, in the list above" }
        }
        section.tiles aria-label="Gateway" {
            (tiles::throughput(pulse, None, committed))
            (tiles::queue(plant.queue.as_ref(), pulse))
            (tiles::link(&plant.link))
        }
        div.columns {
            (tables::alerts(alerts, true))
            div.stack { (tables::models(&plant.models)) }
        }
        div #title-live data-live="" data-title=(title(streams)) data-state=(title(streams)) hidden {}
    }
}

fn card(view: &StreamView, curve: &[CurvePoint]) -> Markup {
    html! {
        a.panel.card href=(format!("/streams/{}", view.name)) {
            h2 { (view.name) }
            @if let Some(point) = &view.last {
                p.value { (stream::newest_value(point)) span.unit { (stream::unit(view)) } }
                (stream::badge(point.state))
                (chart::miniature(curve, "newest readings"))
                p.muted { (text::time(point.time_ms)) }
            } @else {
                p.muted { "Waiting for the first reading on " span.mono { (view.topic) } }
            }
        }
    }
}
