//! Triton's settings of log and trace, for both inference doors, in terms of what there is here.
//!
//! Triton switches its levels one by one; here a level has every graver one in it. So a change that would leave a gap is
//! refused. Traces are kept in memory and not in a file, and have no tensors in them.

use tracing::level_filters::LevelFilter;

use crate::flows::logging::Logging;
use crate::flows::trace::{Change, TraceChange, TraceSetting, Traces};

/// A value of a log setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doors) enum Value {
    Truth(bool),
    Number(u64),
    Text(String),
}

/// The format of a line's time, which the configuration decides.
const LOG_FORMAT: &str = "ISO8601";

/// Every log setting by name.
pub(in crate::doors) fn log_settings(logging: &Logging) -> [(&'static str, Value); 6] {
    let Levels { info, warning, error, verbose } = Levels::of(logging.level());
    [
        ("log_file", Value::Text(String::new())),
        ("log_info", Value::Truth(info)),
        ("log_warning", Value::Truth(warning)),
        ("log_error", Value::Truth(error)),
        ("log_verbose_level", Value::Number(verbose)),
        ("log_format", Value::Text(LOG_FORMAT.to_owned())),
    ]
}

/// Changes what is given; all of it, or nothing. Only for whoever may.
pub(in crate::doors) fn change_log(logging: &Logging, who: &str, given: &[(String, Value)]) -> Result<(), String> {
    logging.change(who, |now| {
        let mut levels = Levels::of(now);
        given.iter().try_for_each(|(name, value)| levels.change(name, value))?;
        levels.level()
    })
}

/// Triton's switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Levels {
    info: bool,
    warning: bool,
    error: bool,
    verbose: u64,
}

impl Levels {
    fn of(level: LevelFilter) -> Self {
        Self {
            info: level >= LevelFilter::INFO,
            warning: level >= LevelFilter::WARN,
            error: level >= LevelFilter::ERROR,
            verbose: u64::from(level >= LevelFilter::DEBUG) + u64::from(level >= LevelFilter::TRACE),
        }
    }

    fn change(&mut self, name: &str, value: &Value) -> Result<(), String> {
        match (name, value) {
            ("log_info", Value::Truth(on)) => self.info = *on,
            ("log_warning", Value::Truth(on)) => self.warning = *on,
            ("log_error", Value::Truth(on)) => self.error = *on,
            ("log_verbose_level", Value::Number(level)) => self.verbose = *level,
            ("log_info" | "log_warning" | "log_error", other) => {
                return Err(format!("log setting {name} is true or false, given {}", shown(other)));
            }
            ("log_verbose_level", other) => {
                return Err(format!("log setting {name} is a whole number from 0, given {}", shown(other)));
            }
            ("log_file", Value::Text(file)) if file.is_empty() => {}
            ("log_file", _) => {
                return Err("log setting log_file cannot be changed: the log goes to standard error".to_owned());
            }
            ("log_format", Value::Text(format)) if format == LOG_FORMAT => {}
            ("log_format", _) => {
                return Err(format!(
                    "log setting log_format is {LOG_FORMAT} and cannot be changed here; `format` in [log] of the configuration says how a line looks"
                ));
            }
            _ => return Err(format!("no log setting {name:?}")),
        }
        Ok(())
    }

    fn level(self) -> Result<LevelFilter, String> {
        let Self { info, warning, error, verbose } = self;
        let gap = |on: &str, off: &str| {
            Err(format!(
                "{on} without {off} is not to be had: a level has every graver one in it; switch {off} on, or {on} off"
            ))
        };
        match (verbose, info, warning, error) {
            (0, false, false, false) => Ok(LevelFilter::OFF),
            (0, false, false, true) => Ok(LevelFilter::ERROR),
            (0, false, true, true) => Ok(LevelFilter::WARN),
            (0, true, true, true) => Ok(LevelFilter::INFO),
            (1, true, true, true) => Ok(LevelFilter::DEBUG),
            (_, true, true, true) => Ok(LevelFilter::TRACE),
            (1.., false, ..) => gap("log_verbose_level", "log_info"),
            (_, true, false, _) => gap("log_info", "log_warning"),
            (_, true, true, false) | (_, false, true, false) => gap("log_warning", "log_error"),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Truth(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => format!("{text:?}"),
    }
}

/// Every trace setting by name, of all models or of one. `trace_level` is a list.
pub(in crate::doors) fn trace_settings(traces: &Traces, model: Option<&str>) -> [(&'static str, String); 6] {
    let TraceSetting { timestamps, rate, count } = traces.setting(model);
    [
        (TRACE_LEVEL, if timestamps { "TIMESTAMPS" } else { "OFF" }.to_owned()),
        ("trace_rate", rate.to_string()),
        ("trace_count", count.map_or_else(|| "-1".to_owned(), |count| count.to_string())),
        ("log_frequency", "0".to_owned()),
        ("trace_file", String::new()),
        ("trace_mode", TRACE_MODE.to_owned()),
    ]
}

pub(in crate::doors) const TRACE_LEVEL: &str = "trace_level";
const TRACE_MODE: &str = "triton";

/// Changes what is given; all of it, or nothing. No value is Triton's way of clearing a setting. Only for whoever may.
pub(in crate::doors) fn change_trace(
    traces: &Traces,
    who: &str,
    model: Option<&str>,
    given: &[(String, Vec<String>)],
) -> Result<(), String> {
    let mut change = TraceChange::default();
    for (name, values) in given {
        let wrong = |expected: &str| Err(format!("trace setting {name} is {expected}, given {values:?}"));
        let value = match values.as_slice() {
            [] => None,
            [value] => Some(value.trim()),
            _ if name == TRACE_LEVEL => None,
            _ => return wrong("one value"),
        };
        match (name.as_str(), value) {
            (TRACE_LEVEL, _) => {
                let known = |value: &String| matches!(value.as_str(), "OFF" | "TIMESTAMPS");
                if values.iter().any(|value| value == "TENSORS") {
                    return Err(format!(
                        "trace setting {TRACE_LEVEL} TENSORS cannot be had: what is asked and answered is not kept"
                    ));
                }
                if !values.iter().all(known) {
                    return wrong("OFF or TIMESTAMPS");
                }
                let timestamps = values.iter().any(|value| value == "TIMESTAMPS");
                change.timestamps = if values.is_empty() { Change::Clear } else { Change::To(timestamps) };
            }
            ("trace_rate", None) => change.rate = Change::Clear,
            ("trace_rate", Some(value)) => match value.parse() {
                Ok(rate) => change.rate = Change::To(rate),
                Err(_) => return wrong("a whole number from 0 to 4294967295"),
            },
            ("trace_count", None) => change.count = Change::Clear,
            ("trace_count", Some("-1")) => change.count = Change::To(None),
            ("trace_count", Some(value)) => match value.parse() {
                Ok(count) => change.count = Change::To(Some(count)),
                Err(_) => return wrong("-1 or a whole number from 0 to 4294967295"),
            },
            ("log_frequency", None | Some("0"))
            | ("trace_file", None | Some(""))
            | ("trace_mode", None | Some(TRACE_MODE)) => {}
            ("log_frequency" | "trace_file", _) => {
                return Err(format!(
                    "trace setting {name} cannot be changed to {values:?}: traces are kept in memory, GET /api/v1/traces has them as Triton's file would"
                ));
            }
            ("trace_mode", _) => return wrong(TRACE_MODE),
            _ => return Err(format!("no trace setting {name:?}")),
        }
    }
    traces.change(who, model, change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logging(level: LevelFilter) -> Logging {
        Logging::new(level, Box::new(|_| Ok(())))
    }

    fn given(settings: &[(&str, Value)]) -> Vec<(String, Value)> {
        settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn every_level_is_shown_as_switches_that_give_it_back() {
        for level in [
            LevelFilter::OFF,
            LevelFilter::ERROR,
            LevelFilter::WARN,
            LevelFilter::INFO,
            LevelFilter::DEBUG,
            LevelFilter::TRACE,
        ] {
            assert_eq!(Levels::of(level).level(), Ok(level));
            let shown = log_settings(&logging(level)).map(|(name, value)| (name.to_owned(), value));
            let other = logging(LevelFilter::INFO);
            change_log(&other, "a", &shown).unwrap();
            assert_eq!(other.level(), level);
        }
    }

    #[test]
    fn settings_change_together_or_not_at_all_and_say_why_not() {
        use Value::{Number, Text, Truth};
        let logging = logging(LevelFilter::INFO);
        change_log(&logging, "a", &given(&[("log_verbose_level", Number(7))])).unwrap();
        assert_eq!(logging.level(), LevelFilter::TRACE);
        for (settings, says) in [
            (given(&[("log_verbose_level", Number(0)), ("log_warning", Truth(false))]), "log_info without log_warning"),
            (given(&[("log_info", Truth(false))]), "log_verbose_level without log_info"),
            (given(&[("log_error", Truth(false))]), "log_warning without log_error"),
            (given(&[("log_info", Number(1))]), "log_info is true or false, given 1"),
            (given(&[("log_verbose_level", Text("1".to_owned()))]), "whole number from 0, given \"1\""),
            (given(&[("log_file", Text("/tmp/x".to_owned()))]), "goes to standard error"),
            (given(&[("log_format", Text("default".to_owned()))]), "cannot be changed here"),
            (given(&[("log_everything", Truth(true))]), "no log setting \"log_everything\""),
        ] {
            let error = change_log(&logging, "a", &settings).unwrap_err();
            assert!(error.contains(says), "{error}");
            assert_eq!(logging.level(), LevelFilter::TRACE);
        }
        let quiet = given(&[("log_verbose_level", Number(0)), ("log_info", Truth(false))]);
        change_log(&logging, "a", &quiet).unwrap();
        assert_eq!(logging.level(), LevelFilter::WARN);
    }

    #[test]
    fn trace_settings_change_together_or_not_at_all_and_say_why_not() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let given = |settings: &[(&str, &[&str])]| {
            settings.iter().map(|(name, values)| ((*name).to_owned(), texts(values))).collect::<Vec<_>>()
        };
        let traces = Traces::default();
        let told = |model| trace_settings(&traces, model).map(|(_, value)| value);
        assert_eq!(told(None), ["OFF", "1000", "-1", "0", "", "triton"]);
        change_trace(&traces, "a", None, &given(&[("trace_level", &["TIMESTAMPS"]), ("trace_rate", &["1"])])).unwrap();
        change_trace(&traces, "a", Some("press"), &given(&[("trace_count", &["7"]), ("trace_file", &[])])).unwrap();
        assert_eq!(told(Some("press")), ["TIMESTAMPS", "1", "7", "0", "", "triton"]);
        assert_eq!(told(Some("drill"))[2], "-1");
        for (settings, says) in [
            (given(&[("trace_rate", &["5"]), ("trace_level", &["TENSORS"])]), "what is asked and answered is not kept"),
            (given(&[("trace_level", &["TIMESTAMPS", "MOOD"])]), "is OFF or TIMESTAMPS, given"),
            (given(&[("trace_rate", &["-1"])]), "trace_rate is a whole number from 0 to 4294967295, given [\"-1\"]"),
            (given(&[("trace_count", &["-2"])]), "trace_count is -1 or a whole number"),
            (given(&[("trace_count", &["1", "2"])]), "trace_count is one value"),
            (given(&[("trace_file", &["/tmp/x"])]), "kept in memory"),
            (given(&[("log_frequency", &["10"])]), "kept in memory"),
            (given(&[("trace_mode", &["opentelemetry"])]), "trace_mode is triton, given"),
            (given(&[("trace_mood", &[])]), "no trace setting"),
        ] {
            let error = change_trace(&traces, "a", None, &settings).unwrap_err();
            assert!(error.contains(says), "{error}");
            assert_eq!(told(None), ["TIMESTAMPS", "1", "-1", "0", "", "triton"]);
        }
        change_trace(&traces, "a", None, &given(&[("trace_level", &[]), ("trace_rate", &[])])).unwrap();
        assert_eq!(told(None), ["OFF", "1000", "-1", "0", "", "triton"]);
    }
}
