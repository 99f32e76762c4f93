//! Alarms, counters and models.

use maud::{Markup, html};

use super::chart::tone;
use super::text;
use crate::flows::board::{Alert, Tally};
use crate::flows::query::ModelView;

/// Rows in the table; the rest is one link away.
const ROWS: usize = 12;

pub(super) fn alerts(alerts: &[Alert], with_stream: bool) -> Markup {
    html! {
        section.panel aria-labelledby="alarms-name" {
            h2 #alarms-name { "Alarms" }
            div.scroll tabindex="0" role="region" aria-labelledby="alarms-name" {
                table #alarms-live data-live="" {
                    @if alerts.is_empty() {
                        tbody { tr { td.muted { "None so far." } } }
                    } @else {
                        thead {
                            tr {
                                th.number scope="col" { "#" }
                                @if with_stream { th scope="col" { "Stream" } }
                                th scope="col" { "Severity" }
                                th scope="col" { "Raised" }
                                th scope="col" { "Lasted" }
                                th.number scope="col" { "Peak score" }
                                th.number scope="col" { "Reading" }
                            }
                        }
                        tbody { @for alert in alerts.iter().take(ROWS) { (row(alert, with_stream)) } }
                    }
                }
            }
            @if alerts.len() > ROWS { p.muted { a href="/api/v1/alerts?limit=1000" { "All alarms as JSON" } } }
        }
    }
}

fn row(alert: &Alert, with_stream: bool) -> Markup {
    html! {
        tr {
            td.number { (alert.id) }
            @if with_stream { td { a href=(format!("/streams/{}", alert.stream)) { (alert.stream) } } }
            td { span class=(format!("severity {}", tone(alert))) { (alert.severity) } @if alert.suppressed { span.muted { " (quiet period)" } } }
            td { time datetime=(text::machine_time(alert.raised_ms)) { (text::time(alert.raised_ms)) } }
            td {
                @match alert.cleared_ms {
                    Some(cleared) => (text::duration(cleared - alert.raised_ms)),
                    None => strong.standing { "stands" },
                }
            }
            td.number { (text::score(alert.peak_score)) }
            td.number { (text::count(alert.raised_seq)) }
        }
    }
}

pub(super) fn counters(tally: &Tally) -> Markup {
    let counters = [
        ("Committed", tally.committed, "on disk with their verdict", false),
        ("Duplicates", tally.duplicates, "acknowledged, not stored again", false),
        ("Rejected", tally.rejected, "payloads that could not be read", true),
        ("Dropped", tally.dropped, "by a policy: late, out of range, not a number", true),
        ("Flagged", tally.flagged, "kept, but marked or repaired", false),
        ("Overflowed", tally.overflowed, "QoS 0, lost because the queue was full", true),
        ("Unkept", tally.unkept, "acknowledged from memory, and the disk did not take them", true),
        ("Missing", tally.missing, "expected by the rate, never came", true),
        ("Unscored", tally.unscored, "no verdict although there is a model", false),
    ];
    html! {
        section.panel aria-labelledby="counters-name" {
            h2 #counters-name { "Readings since start" }
            table.counters #counters-live data-live="" {
                tbody {
                    @for (name, count, what, is_loss) in counters {
                        tr.zero[count == 0] {
                            th scope="row" { (name) span.muted { (what) } }
                            td.number.loss[is_loss && count > 0] { (text::count(count)) }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn models(models: &[ModelView]) -> Markup {
    html! {
        section.panel aria-labelledby="models-name" {
            h2 #models-name { "Models" }
            ul.models #models-live data-live="" {
                @if models.is_empty() { li.muted { "None." } }
                @for model in models {
                    li {
                        p {
                            span.mono { (model.name) "/" (model.version) } " "
                            @if model.serving { span.severity.ok { "serving" } span.muted { " on " (model.engine.as_deref().unwrap_or("an unknown engine")) } }
                            @else { span.severity.alarm { "not serving" } }
                        }
                        @if let Some(problem) = &model.problem { p.reason { (problem) } }
                        @if let Some(breaker) = &model.breaker && breaker.state != "closed" {
                            p.reason {
                                "its breaker is " (breaker.state.replace('_', "-")) ": " (breaker.reason.as_deref().unwrap_or("it failed"))
                                "; other versions are asked"
                            }
                        }
                        @if let Some(delegate) = &model.delegate && delegate.state != "serving" {
                            p.reason {
                                "its delegate is " (delegate.state) ": " (delegate.reason.as_deref().unwrap_or("not yet loaded")) "; "
                                @match delegate.stand_in { Some(engine) => { (engine) " answers" } None => { "nobody answers" } }
                            }
                        }
                    }
                }
            }
        }
    }
}
