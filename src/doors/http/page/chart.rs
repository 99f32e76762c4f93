//! The curve of a stream's first field with the score under it, as inline SVG.
//!
//! No style attributes: the content security policy forbids them.

use std::fmt::Write;

use maud::{Markup, html};

use super::scale::{Scale, time_ticks};
use super::shape::{HEIGHT, Path, WIDTH, inner, percent};
use super::text;
use crate::flows::board::Alert;
use crate::flows::query::CurvePoint;

/// A gap of so many usual distances breaks the line: no reading, no line.
const GAP: i64 = 4;
/// An alarm label takes about this share of the width; the next one on the same line keeps off it.
const LABEL_PERCENT: f64 = 8.0;
const LABEL_LINES: usize = 3;
/// Half the length of a lone reading's dash, in units of the inner picture.
const DASH: f64 = 8.0;

/// What the picture shows.
pub(super) struct Chart<'a> {
    pub(super) field: &'a str,
    pub(super) unit: &'a str,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    pub(super) curve: &'a [CurvePoint],
    /// Newest first.
    pub(super) alerts: &'a [Alert],
    /// Score at which an alarm is raised.
    pub(super) raise: Option<f64>,
}

impl Chart<'_> {
    pub(super) fn markup(&self) -> Markup {
        let values = self.curve.iter().flat_map(|p| [p.low, p.high, p.expected.unwrap_or(p.low)]);
        let scale = Scale::around(values);
        let segments = self.segments();
        let scored = self.curve.iter().any(|p| p.score.is_some());
        html! {
            div.chart #chart-live data-live="" {
                div.plot {
                    (y_axis(scale, 5))
                    svg.field role="img" aria-label=(self.summary()) data-plot=""
                        data-from=(self.from_ms) data-to=(self.to_ms) data-unit=(self.unit) data-points=(self.data()) {
                        (hatch())
                        (grid_lines(scale, 5))
                        (self.time_lines())
                        (self.alarm_spans())
                        (inner(&html! {
                            // The measured band covers what went as expected: what still shows is the difference.
                            path.expected d=(self.expected(&segments, scale)) {}
                            path.band d=(self.envelope(&segments, scale)) {}
                        }))
                        (self.alarm_labels())
                        line.cross y1="0" y2="100%" visibility="hidden" {}
                    }
                }
                @if scored || self.raise.is_some() {
                    (self.score(&segments))
                }
                div.plot.times aria-hidden="true" {
                    svg.axis {}
                    svg.field {
                        @for (at, (time, label)) in self.time_ticks().into_iter().enumerate() {
                            @let x = self.percent(time);
                            @let anchor = if x > 96.0 { "end" } else if x < 3.0 { "start" } else { "middle" };
                            text.minor[at % 3 != 0] x=(percent(x)) y="14" text-anchor=(anchor) { (label) }
                        }
                    }
                }
            }
        }
    }

    fn score(&self, segments: &[&[CurvePoint]]) -> Markup {
        let top = self.curve.iter().filter_map(|p| p.score).chain(self.raise).fold(0.0, f64::max);
        let scale = Scale { low: 0.0, high: if top > 0.0 { top * 1.15 } else { 1.0 } };
        let line = self.score_line(segments, scale);
        let area = self.score_area(segments, scale);
        let raise_share = self.raise.map(|raise| 1.0 - scale.share(raise));
        html! {
            div.plot.score {
                (y_axis(scale, 2))
                svg.field aria-hidden="true" {
                    (grid_lines(scale, 2))
                    (self.time_lines())
                    (self.alarm_spans())
                    @if let Some(share) = raise_share {
                        clipPath id="over" { rect x="0" y="0" width=(WIDTH) height=(share * HEIGHT) {} }
                    }
                    (inner(&html! {
                        path.score-area d=(area) {}
                        path.score-line d=(line) {}
                        @if raise_share.is_some() {
                            g clip-path="url(#over)" {
                                path.over-area d=(area) {}
                                path.over-line d=(line) {}
                            }
                        }
                    }))
                    @if let (Some(share), Some(raise)) = (raise_share, self.raise) {
                        line.threshold x1="0" x2="100%" y1=(percent(share * 100.0)) y2=(percent(share * 100.0)) {}
                        text.threshold-label x="6" y=(percent(share * 100.0)) dy="-5" { "alarm from " (text::score(raise)) }
                    }
                    line.cross y1="0" y2="100%" visibility="hidden" {}
                }
            }
        }
    }

    fn x(&self, time_ms: i64) -> f64 {
        let span = (self.to_ms - self.from_ms).max(1) as f64;
        (time_ms - self.from_ms) as f64 / span * WIDTH
    }

    fn percent(&self, time_ms: i64) -> f64 {
        self.x(time_ms) / WIDTH * 100.0
    }

    fn time_ticks(&self) -> Vec<(i64, String)> {
        time_ticks(self.from_ms, self.to_ms, 12)
    }

    /// Stretches without a gap.
    fn segments(&self) -> Vec<&[CurvePoint]> {
        let mut steps: Vec<_> = self.curve.windows(2).map(|pair| pair[1].time_ms - pair[0].time_ms).collect();
        steps.sort_unstable();
        let usual = steps.get(steps.len() / 2).copied().unwrap_or(0).max(1);
        self.curve.chunk_by(|a, b| b.time_ms - a.time_ms <= usual.saturating_mul(GAP)).collect()
    }

    /// Highs forward, lows back: where both are one reading it is a line.
    fn envelope(&self, segments: &[&[CurvePoint]], scale: Scale) -> String {
        let mut path = Path::default();
        for segment in segments {
            path.begin();
            if let [alone] = segment {
                // A lone reading would have no extent: it becomes a short dash.
                path.to(self.x(alone.time_ms) - DASH, scale.share(alone.high));
                path.to(self.x(alone.time_ms) + DASH, scale.share(alone.low));
            }
            segment.iter().for_each(|p| path.to(self.x(p.time_ms), scale.share(p.high)));
            segment.iter().rev().for_each(|p| path.to(self.x(p.time_ms), scale.share(p.low)));
            path.close();
        }
        path.text
    }

    fn expected(&self, segments: &[&[CurvePoint]], scale: Scale) -> String {
        let mut path = Path::default();
        for segment in segments {
            path.begin();
            for (time, expected) in segment.iter().filter_map(|p| Some((p.time_ms, p.expected?))) {
                path.to(self.x(time), scale.share(expected));
            }
        }
        path.text
    }

    fn score_line(&self, segments: &[&[CurvePoint]], scale: Scale) -> String {
        let mut path = Path::default();
        for segment in segments {
            for scored in segment.chunk_by(|a, b| a.score.is_some() == b.score.is_some()) {
                path.begin();
                for (time, score) in scored.iter().filter_map(|p| Some((p.time_ms, p.score?))) {
                    path.to(self.x(time), scale.share(score));
                }
            }
        }
        path.text
    }

    fn score_area(&self, segments: &[&[CurvePoint]], scale: Scale) -> String {
        let mut path = Path::default();
        for segment in segments {
            for scored in segment.chunk_by(|a, b| a.score.is_some() == b.score.is_some()) {
                let (Some(first), Some(last)) = (scored.first(), scored.last()) else { continue };
                if first.score.is_none() {
                    continue;
                }
                path.begin();
                path.to(self.x(first.time_ms), 0.0);
                for (time, score) in scored.iter().filter_map(|p| Some((p.time_ms, p.score?))) {
                    path.to(self.x(time), scale.share(score));
                }
                path.to(self.x(last.time_ms), 0.0);
                path.close();
            }
        }
        path.text
    }

    fn time_lines(&self) -> Markup {
        html! {
            @for (time, _) in self.time_ticks() {
                @let x = percent(self.percent(time));
                line.grid x1=(x) x2=(x) y1="0" y2="100%" {}
            }
        }
    }

    /// Alarms that touch the picture, oldest first, with their start and end in percent.
    fn visible_alerts(&self) -> impl Iterator<Item = (&Alert, f64, f64)> {
        self.alerts.iter().rev().filter_map(|alert| {
            let end_ms = alert.cleared_ms.unwrap_or(self.to_ms).max(alert.raised_ms);
            if end_ms < self.from_ms || alert.raised_ms > self.to_ms {
                return None;
            }
            let start = self.percent(alert.raised_ms).clamp(0.0, 100.0);
            Some((alert, start, self.percent(end_ms).clamp(start, 100.0)))
        })
    }

    fn alarm_spans(&self) -> Markup {
        html! {
            @for (alert, start, end) in self.visible_alerts() {
                @let class = tone(alert);
                g class=(format!("span {class}")) {
                    rect.tint x=(percent(start)) width=(percent(end - start)) y="0" height="100%" {}
                    rect.stripes x=(percent(start)) width=(percent(end - start)) y="0" height="100%" {}
                    line.edge x1=(percent(start)) x2=(percent(start)) y1="0" y2="100%" {}
                }
            }
        }
    }

    /// Numbers match the table. Labels that would collide move a line down; past the last line they are left out.
    fn alarm_labels(&self) -> Markup {
        let mut taken = [f64::NEG_INFINITY; LABEL_LINES];
        let mut labels = Vec::new();
        for (alert, start, _) in self.visible_alerts() {
            let flip = start > 100.0 - LABEL_PERCENT;
            let from = if flip { start - LABEL_PERCENT } else { start };
            let Some(line) = taken.iter().position(|end| *end <= from) else { continue };
            taken[line] = from + LABEL_PERCENT;
            labels.push((alert, start, line, flip));
        }
        html! {
            @for (alert, start, line, flip) in labels {
                text class=(format!("alarm-label {}", tone(alert))) x=(percent(start)) y=(16 + line * 16)
                    dx=(if flip { -5 } else { 5 }) text-anchor=(if flip { "end" } else { "start" }) {
                    "#" (alert.id) tspan.minor { " " (alert.severity) }
                }
            }
        }
    }

    /// For the read-out under the pointer: `seconds,low,high,score,expected` a point, seconds from the left edge.
    fn data(&self) -> String {
        let mut text = String::with_capacity(self.curve.len() * 32);
        for point in self.curve {
            let seconds = (point.time_ms - self.from_ms) as f64 / 1000.0;
            let _ = write!(text, "{seconds},{},{},", rounded(point.low), rounded(point.high));
            if let Some(score) = point.score {
                let _ = write!(text, "{}", rounded(score));
            }
            text.push(',');
            if let Some(expected) = point.expected {
                let _ = write!(text, "{}", rounded(expected));
            }
            text.push(';');
        }
        text
    }

    fn summary(&self) -> String {
        let low = self.curve.iter().map(|p| p.low).fold(f64::INFINITY, f64::min);
        let high = self.curve.iter().map(|p| p.high).fold(f64::NEG_INFINITY, f64::max);
        let alarms = self.visible_alerts().count();
        let unit = self.unit;
        format!(
            "{} from {} to {} UTC: between {} and {} {unit}, {alarms} {}",
            self.field,
            text::time(self.from_ms),
            text::time(self.to_ms),
            text::value(low),
            text::value(high),
            if alarms == 1 { "alarm" } else { "alarms" },
        )
    }
}

pub(super) fn tone(alert: &Alert) -> &'static str {
    match alert.severity.as_str() {
        _ if alert.suppressed => "quiet",
        "critical" => "alarm",
        "warning" => "warn",
        _ => "note",
    }
}

/// The curve alone, for a card.
pub(super) fn miniature(curve: &[CurvePoint], label: &str) -> Markup {
    let (Some(first), Some(last)) = (curve.first(), curve.last()) else { return html! { svg.trend {} } };
    let chart =
        Chart { field: "", unit: "", from_ms: first.time_ms, to_ms: last.time_ms, curve, alerts: &[], raise: None };
    let scale = Scale::around(curve.iter().flat_map(|p| [p.low, p.high]));
    html! {
        svg.trend role="img" aria-label=(label) {
            (inner(&html! { path.band d=(chart.envelope(&chart.segments(), scale)) {} }))
        }
    }
}

fn hatch() -> Markup {
    let pattern = |id: &str, class: &str| {
        html! {
            pattern id=(id) width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                line class=(class) x1="0" y1="0" x2="0" y2="7" {}
            }
        }
    };
    html! {
        defs {
            (pattern("hatch-alarm", "hatch alarm"))
            (pattern("hatch-warn", "hatch warn"))
            (pattern("hatch-note", "hatch note"))
        }
    }
}

fn y_axis(scale: Scale, most: u32) -> Markup {
    let (ticks, step) = scale.ticks(most);
    html! {
        svg.axis aria-hidden="true" {
            @for tick in ticks {
                text x="100%" dx="-8" y=(percent((1.0 - scale.share(tick)) * 100.0)) dy="4" text-anchor="end" {
                    (text::tick(tick, step))
                }
            }
        }
    }
}

fn grid_lines(scale: Scale, most: u32) -> Markup {
    html! {
        @for tick in scale.ticks(most).0 {
            @let y = percent((1.0 - scale.share(tick)) * 100.0);
            line.grid x1="0" x2="100%" y1=(y) y2=(y) {}
        }
    }
}

/// Enough digits for a read-out, no more.
fn rounded(value: f64) -> f64 {
    if value.abs() < 1e9 { (value * 1000.0).round() / 1000.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(time_ms: i64, value: f64) -> CurvePoint {
        CurvePoint { time_ms, low: value, high: value, score: Some(value / 10.0), expected: None }
    }

    fn alert(id: i64, raised_ms: i64, cleared_ms: Option<i64>) -> Alert {
        Alert {
            id,
            stream: "s".into(),
            severity: "critical".into(),
            raised_ms,
            cleared_ms,
            raised_seq: 1,
            peak_score: 9.0,
            suppressed: false,
        }
    }

    fn chart<'a>(curve: &'a [CurvePoint], alerts: &'a [Alert]) -> Chart<'a> {
        Chart { field: "<b>", unit: "°C", from_ms: 0, to_ms: 100_000, curve, alerts, raise: Some(3.0) }
    }

    #[test]
    fn a_pause_without_readings_breaks_the_line() {
        let curve: Vec<_> = [0, 1, 2, 3, 50, 51].map(|s| point(s * 1000, 20.0)).into();
        assert_eq!(chart(&curve, &[]).segments().iter().map(|s| s.len()).collect::<Vec<_>>(), [4, 2]);
    }

    #[test]
    fn alarms_outside_the_picture_are_not_drawn_and_a_standing_one_reaches_its_end() {
        let curve = [point(0, 1.0), point(100_000, 2.0)];
        let alerts = [alert(3, 90_000, None), alert(2, -50, Some(10_000)), alert(1, -100, Some(-60))];
        let chart = chart(&curve, &alerts);
        let seen: Vec<_> = chart.visible_alerts().map(|(a, start, end)| (a.id, start, end)).collect();
        assert_eq!(seen, [(2, 0.0, 10.0), (3, 90.0, 100.0)]);
    }

    #[test]
    fn labels_at_the_right_edge_point_left_and_keep_off_those_before_them() {
        let curve = [point(0, 1.0), point(100_000, 2.0)];
        let alerts = [alert(2, 95_000, None), alert(1, 89_000, Some(90_000))];
        let text = chart(&curve, &alerts).alarm_labels().into_string();
        assert!(text.contains(r#"y="16" dx="5" text-anchor="start">#1"#), "{text}");
        assert!(text.contains(r#"y="32" dx="-5" text-anchor="end">#2"#), "{text}");
    }

    #[test]
    fn names_from_the_configuration_cannot_become_markup() {
        let curve = [point(0, 1.0)];
        let text = chart(&curve, &[]).markup().into_string();
        assert!(text.contains("&lt;b&gt;") && !text.contains("<b>"));
    }

    #[test]
    fn coordinates_are_finite_whatever_the_values() {
        for values in [[f64::NAN, 1.0], [f64::MAX, f64::MIN], [0.0, 0.0]] {
            let curve: Vec<_> = values.iter().enumerate().map(|(i, v)| point(i as i64 * 1000, *v)).collect();
            let text = chart(&curve, &[]).markup().into_string();
            assert!(!text.contains("inf") && !text.contains("LNaN"), "{values:?}: {text}");
        }
    }
}
