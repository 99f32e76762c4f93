//! A series of readings to windows: the last one, or one every so many readings.

use serde::Deserialize;
use serde_json::Value;

use super::error::Error;
use super::port::{Port, fill};
use super::record::brief;
use crate::base::Tensor;

const WINDOW_MAX: usize = 1 << 20;

/// `kind = "series"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeriesConfig {
    pub(super) name: Option<String>,
    pub(super) tensor: Option<String>,
    /// What is measured at each moment; left out, a single value.
    #[serde(default)]
    channels: Vec<String>,
    /// Readings in a window.
    window: usize,
    /// A window begins every so many readings. Left out, there is one: the last.
    stride: Option<usize>,
    #[serde(default)]
    order: Order,
    /// (x - mean) / std, one number or one a channel.
    #[serde(default)]
    mean: Vec<f64>,
    #[serde(default)]
    std: Vec<f64>,
}

/// Which index runs slower in the tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    /// All channels of a moment side by side.
    #[default]
    TimeChannel,
    /// All moments of a channel side by side.
    ChannelTime,
}

/// Makes windows.
#[derive(Debug)]
pub(super) struct Series {
    channels: Vec<String>,
    window: usize,
    stride: Option<usize>,
    order: Order,
    shift: Vec<f64>,
    scale: Vec<f64>,
    port: Port,
}

impl Series {
    pub(super) fn build(config: SeriesConfig, port: Port) -> Result<Self, Error> {
        let SeriesConfig { channels, window, stride, order, mean, std, .. } = config;
        let wrong = |what: &str, expected: String, given: String| {
            Err(Error::step(format!("[[predict.input]] series: {what}"), &port.name, expected, given))
        };
        let width = channels.len().max(1);
        if window == 0 || window > WINDOW_MAX || stride == Some(0) {
            let given = format!("window {window}, stride {stride:?}");
            return wrong(
                "window",
                format!("a window of 1 to {WINDOW_MAX} readings and a stride of at least 1"),
                given,
            );
        }
        let each = |given: &[f64], default: f64| match given {
            [] => Some(vec![default; width]),
            [one] => Some(vec![*one; width]),
            many => (many.len() == width).then(|| many.to_vec()),
        };
        let (Some(shift), Some(scale)) = (each(&mean, 0.0), each(&std, 1.0)) else {
            let given = format!("{} and {}", mean.len(), std.len());
            return wrong("mean and std", format!("1 or {width} numbers each"), given);
        };
        if !scale.iter().all(|&std| std.is_finite() && std > 0.0) || !shift.iter().all(|mean| mean.is_finite()) {
            return wrong("mean and std", "finite numbers, std above 0".to_owned(), format!("{mean:?} and {std:?}"));
        }
        let elements = window.saturating_mul(width);
        if port.row_shape(elements).is_none() || port.row_elements().is_some_and(|row| row != elements) {
            let given = format!("{window} readings of {width}");
            return wrong("window", format!("windows that fill a row of {:?}", port.shape), given);
        }
        Ok(Self { channels, window, stride, order, shift, scale, port })
    }

    /// Whether one series may become several windows.
    pub(super) fn is_many(&self) -> bool {
        self.stride.is_some()
    }

    /// The windows, each with the index of its first reading.
    pub(super) fn windows(&self, given: &Value, at: &str, most: usize) -> Result<Vec<(usize, Tensor)>, Error> {
        let width = self.channels.len().max(1);
        let values = self.values(given, at)?;
        let readings = values.len() / width;
        if readings < self.window {
            return Err(Error::content(at, format!("at least {} readings", self.window), format!("{readings}")));
        }
        let last = readings - self.window;
        let starts: Vec<usize> = match self.stride {
            None => vec![last],
            Some(stride) => (0..=last).step_by(stride).take(most + 1).collect(),
        };
        if starts.len() > most {
            return Err(Error::TooLarge {
                what: at.to_owned(),
                given: format!("{} windows", last / self.stride.unwrap_or(1) + 1),
                most: format!("{most} (predict.instances_max)"),
            });
        }
        let window = |start: usize| {
            let of = |time: usize, channel: usize| {
                (values[(start + time) * width + channel] - self.shift[channel]) / self.scale[channel]
            };
            let numbers: Vec<f64> = match self.order {
                Order::TimeChannel => (0..self.window)
                    .flat_map(|time| (0..width).map(move |c| (time, c)))
                    .map(|(t, c)| of(t, c))
                    .collect(),
                Order::ChannelTime => (0..width)
                    .flat_map(|c| (0..self.window).map(move |time| (time, c)))
                    .map(|(t, c)| of(t, c))
                    .collect(),
            };
            Ok((start, fill(&self.port, &numbers, at)?))
        };
        starts.into_iter().map(window).collect()
    }

    /// Moment by moment.
    fn values(&self, given: &Value, at: &str) -> Result<Vec<f64>, Error> {
        let names = self.channels.join(", ");
        let numbers = |value: &Value, what: &str| {
            let list = value.as_array().ok_or_else(|| Error::content(what, "a list of numbers", brief(value)))?;
            let number = |(place, value): (usize, &Value)| {
                value
                    .as_f64()
                    .ok_or_else(|| Error::content(format!("{what}, reading {place}"), "a number", brief(value)))
            };
            list.iter().enumerate().map(number).collect::<Result<Vec<f64>, _>>()
        };
        if self.channels.is_empty() {
            return numbers(given, at);
        }
        match given {
            Value::Object(fields) => {
                let list = |name: &String| {
                    let what = format!("{at}, channel {name:?}");
                    numbers(fields.get(name).unwrap_or(&Value::Null), &what)
                };
                let lists = self.channels.iter().map(list).collect::<Result<Vec<_>, _>>()?;
                if let Some(known) = fields.keys().find(|name| !self.channels.contains(name)) {
                    return Err(Error::content(at, format!("the channels {names}"), format!("{known:?}")));
                }
                let readings = lists[0].len();
                if let Some(other) = lists.iter().find(|list| list.len() != readings) {
                    let given = format!("{readings} and {}", other.len());
                    return Err(Error::content(at, "as many readings of every channel", given));
                }
                Ok((0..readings).flat_map(|time| lists.iter().map(move |list| list[time])).collect())
            }
            Value::Array(moments) => {
                let mut values = Vec::with_capacity(moments.len() * self.channels.len());
                for (place, moment) in moments.iter().enumerate() {
                    let what = format!("{at}, reading {place}");
                    let row = numbers(moment, &what)?;
                    if row.len() != self.channels.len() {
                        let expected = format!("{} numbers: {names}", self.channels.len());
                        return Err(Error::content(what, expected, row.len().to_string()));
                    }
                    values.extend(row);
                }
                Ok(values)
            }
            other => Err(Error::content(at, format!("lists by channel ({names}), or a list of moments"), brief(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Datatype;
    use serde_json::json;

    fn build(text: &str, shape: &[i64]) -> Result<Series, String> {
        let port = Port {
            name: "x".to_owned(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
            labels: Vec::new(),
            unit: None,
        };
        Series::build(toml::from_str(text).unwrap(), port).map_err(|error| error.to_string())
    }

    fn numbers(series: &Series, given: &Value) -> Vec<(usize, Vec<f64>)> {
        let windows = series.windows(given, "series", 4).unwrap();
        windows.into_iter().map(|(first, window)| (first, window.to_numbers().unwrap())).collect()
    }

    #[test]
    fn the_last_window_or_one_every_stride() {
        let last = build("window = 3\nmean = [1]\nstd = [2]", &[-1, 3]).unwrap();
        assert_eq!(numbers(&last, &json!([9, 1, 3, 5])), [(1, vec![0.0, 1.0, 2.0])]);
        let every = build("window = 2\nstride = 2", &[-1, 1, 2]).unwrap();
        assert_eq!(numbers(&every, &json!([1, 2, 3, 4, 5])), [(0, vec![1.0, 2.0]), (2, vec![3.0, 4.0])]);
        let error = every.windows(&json!(vec![0; 100]), "series", 4).unwrap_err().to_string();
        assert_eq!(error, "series has 50 windows, the most is 4 (predict.instances_max)");
    }

    #[test]
    fn channels_come_by_name_or_by_moment_and_lie_in_the_tensors_order() {
        let config = "channels = [\"x\", \"y\"]\nwindow = 2\nmean = [0, 10]\nstd = [1, 1]\n";
        let time = build(config, &[-1, 2, 2]).unwrap();
        let channel = build(&format!("{config}order = \"channel-time\""), &[-1, 2, 2]).unwrap();
        for given in [json!({"x": [1, 2], "y": [13, 14]}), json!([[1, 13], [2, 14]])] {
            assert_eq!(numbers(&time, &given), [(0, vec![1.0, 3.0, 2.0, 4.0])]);
            assert_eq!(numbers(&channel, &given), [(0, vec![1.0, 2.0, 3.0, 4.0])]);
        }
        for (given, says) in [
            (json!({"x": [1, 2], "y": [1]}), "as many readings of every channel, given 2 and 1"),
            (json!({"x": [1, 2]}), "channel \"y\": expected a list of numbers, given nothing"),
            (json!([[1, 2], [3]]), "reading 1: expected 2 numbers: x, y, given 1"),
            (json!([[1, 2]]), "expected at least 2 readings, given 1"),
            (json!([[1, "2"]]), "reading 0, reading 1: expected a number, given \"2\""),
            (json!(5), "expected lists by channel (x, y)"),
        ] {
            let error = time.windows(&given, "series", 4).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_window_that_is_not_the_models_is_refused_when_it_is_loaded() {
        assert!(
            build("window = 3", &[-1, 4])
                .unwrap_err()
                .contains("windows that fill a row of [-1, 4], given 3 readings of 1")
        );
        assert!(build("window = 0", &[-1, 4]).unwrap_err().contains("a window of 1 to"));
        assert!(build("window = 4\nmean = [1, 2]", &[-1, 4]).unwrap_err().contains("1 or 1 numbers each"));
        assert!(build("window = 4\nstd = [0]", &[-1, 4]).unwrap_err().contains("std above 0"));
    }
}
