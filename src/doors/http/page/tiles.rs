//! Four figures an operator looks at: how fast in, how quick, how much waits, and whether the cloud is there.

use maud::{Markup, html};

use super::{shape, text};
use crate::doors::http::pulse::{Pulse, TREND_SAMPLES};
use crate::flows::board::Latency;
use crate::flows::query::{LinkView, QueueView};

pub(super) fn throughput(pulse: &Pulse, place: Option<usize>, committed: u64) -> Markup {
    tile(
        "rate-live",
        "Throughput",
        &html! {
            p.figure { (text::rate(pulse.rate(place))) span.unit { "readings/s" } }
            p.muted { (text::count(committed)) " committed since start" }
            (shape::trend(&pulse.rates(place), TREND_SAMPLES, "readings per second over the last two minutes"))
        },
    )
}

pub(super) fn latency(verdict: Latency, commit: Latency) -> Markup {
    let row = |name: &str, latency: Latency| {
        html! {
            tr {
                th scope="row" { (name) }
                @if latency.count == 0 { td { "—" } td { "—" } }
                @else { td { (text::latency(latency.p50_us)) } td { (text::latency(latency.p99_us)) } }
            }
        }
    };
    let count = verdict.count.max(commit.count) as u64;
    tile(
        "latency-live",
        "Latency",
        &html! {
            table.small {
                thead { tr { th scope="col" { "from arrival" } th scope="col" { "p50" } th scope="col" { "p99" } } }
                tbody { (row("to verdict", verdict)) (row("to disk", commit)) }
            }
            p.muted { "newest " (text::count(count)) @if count == 1 { " reading" } @else { " readings" } }
        },
    )
}

pub(super) fn queue(queue: Option<&QueueView>, pulse: &Pulse) -> Markup {
    let content = match queue {
        Some(queue) => html! {
            p.figure { (text::count(queue.rows)) span.unit { @if queue.rows == 1 { "row waits" } @else { "rows wait" } } }
            p.muted { "deepest " (text::count(queue.deepest_rows)) " · " (text::bytes(queue.file_bytes)) " on disk" }
            @for class in queue.classes.iter().filter(|class| class.rows > 0) {
                p.muted { (class.class) ": " (text::bytes(class.bytes)) " of " (text::bytes(class.limit_bytes)) }
            }
            (shape::trend(&pulse.queue_rows(), TREND_SAMPLES, "rows waiting over the last two minutes"))
        },
        None => html! { p.figure.alarm { "No answer" } p.muted { "The store cannot be read." } },
    };
    tile("queue-live", "Queue to the cloud", &content)
}

pub(super) fn link(link: &LinkView) -> Markup {
    let (class, shape, word) = match link.state {
        "up" => ("ok", "M3 8.500l3.300 3.300L13 5", "Up"),
        "degraded" => ("warn", "M8 3v6.500M8 12.500v.1", "Degraded"),
        "metered" => ("ok", "M3 8.500l3.300 3.300L13 5", "Up, metered"),
        "down" => ("alarm", "M4 4l8 8M12 4l-8 8", "Down"),
        _ => ("note", "M4 8h8", "Not configured"),
    };
    tile(
        "link-live",
        "Cloud link",
        &html! {
            p class=(format!("figure badge {class}")) { svg viewBox="0 0 16 16" aria-hidden="true" { path d=(shape) {} } (word) }
            @if let Some(reason) = &link.reason { p.reason { (reason) } }
            @if let Some(since) = link.since_ms { p.muted { "since " (text::time(since)) } }
            p.muted {
                (text::count(link.rows)) " rows in " (text::count(link.batches)) " batches, " (text::bytes(link.bytes))
                @if let Some(left) = link.day_left_bytes { " · " (text::bytes(left)) " left today" }
                @if link.failures > 0 { " · " (text::count(link.failures)) @if link.failures == 1 { " failed attempt" } @else { " failed attempts" } }
            }
        },
    )
}

fn tile(id: &str, name: &str, content: &Markup) -> Markup {
    html! {
        section.panel.tile.wide[matches!(id, "latency-live" | "link-live")] aria-label=(name) {
            h2 { (name) }
            div.tile-body id=(id) data-live="" { (content) }
        }
    }
}
