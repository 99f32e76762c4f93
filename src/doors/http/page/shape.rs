//! Shapes that stretch with the window while text does not: paths in an inner `svg`, labels outside at percentages.

use std::fmt::Write;

use maud::{Markup, html};

use super::scale::Scale;

/// Units of the inner picture.
pub(super) const WIDTH: f64 = 4000.0;
pub(super) const HEIGHT: f64 = 1000.0;

pub(super) fn inner(shapes: &Markup) -> Markup {
    html! {
        svg x="0" y="0" width="100%" height="100%" preserveAspectRatio="none" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) { (shapes) }
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{share:.2}%")
}

/// A small curve without axes: `values` oldest first, at most `room` of them across the width.
pub(super) fn trend(values: &[f64], room: usize, label: &str) -> Markup {
    let high = values.iter().copied().fold(0.0, f64::max);
    let scale = Scale { low: 0.0, high: if high > 0.0 { high * 1.1 } else { 1.0 } };
    let step = WIDTH / room.saturating_sub(1).max(1) as f64;
    let x = |at: usize| WIDTH - (values.len() - 1 - at) as f64 * step;
    let mut line = Path::default();
    values.iter().enumerate().for_each(|(at, value)| line.to(x(at), scale.share(*value)));
    let mut area = Path::default();
    if !values.is_empty() {
        area.to(x(0), 0.0);
        values.iter().enumerate().for_each(|(at, value)| area.to(x(at), scale.share(*value)));
        area.to(WIDTH, 0.0);
        area.close();
    }
    html! {
        svg.trend role="img" aria-label=(label) {
            line.trend-base x1="0" x2="100%" y1="100%" y2="100%" {}
            (inner(&html! { path.trend-area d=(area.text) {} path.trend-line d=(line.text) {} }))
        }
    }
}

/// SVG path data in whole units of the inner picture; y grows upward from 0 to 1 before it gets here.
#[derive(Default)]
pub(super) struct Path {
    pub(super) text: String,
    drawing: bool,
}

impl Path {
    pub(super) fn begin(&mut self) {
        self.drawing = false;
    }

    pub(super) fn to(&mut self, x: f64, share: f64) {
        if !share.is_finite() {
            return;
        }
        let y = ((1.0 - share) * HEIGHT).clamp(-HEIGHT, HEIGHT * 2.0);
        let command = if self.drawing { 'L' } else { 'M' };
        let _ = write!(self.text, "{command}{:.0} {y:.0}", x.clamp(-WIDTH, WIDTH * 2.0));
        self.drawing = true;
    }

    pub(super) fn close(&mut self) {
        self.text.push('Z');
        self.drawing = false;
    }
}
