//! Triton's settings of log and trace, for both inference doors, in terms of what there is here.
//!
//! Triton switches its levels one by one; here a level has every graver one in it. So a change that would leave a gap is
//! refused. Requests are not traced, and nothing that would need it can be switched on.

use tracing::level_filters::LevelFilter;

use crate::flows::logging::Logging;

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

/// Every trace setting by name: nothing is traced.
pub(in crate::doors) const TRACE: [(&str, &str); 5] =
    [("trace_level", "OFF"), ("trace_rate", "0"), ("trace_count", "0"), ("log_frequency", "0"), ("trace_file", "")];

/// Whether a trace setting may be given: as it is, or, with no value, as Triton clears one.
pub(in crate::doors) fn check_trace(name: &str, values: &[String]) -> Result<(), String> {
    let Some((_, now)) = TRACE.iter().find(|(known, _)| *known == name) else {
        return Err(format!("no trace setting {name:?}"));
    };
    if values.iter().all(|value| value == now) {
        return Ok(());
    }
    Err(format!(
        "trace setting {name} cannot be changed from {now:?} to {values:?}: requests are not traced; an answer's x-forebay-duration-us and GET /v2/models/{{model}}/stats have times"
    ))
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
    fn nothing_that_needs_traces_can_be_switched_on() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        check_trace("trace_level", &texts(&["OFF"])).unwrap();
        check_trace("trace_rate", &[]).unwrap();
        assert!(check_trace("trace_level", &texts(&["TIMESTAMPS"])).unwrap_err().contains("are not traced"));
        assert!(check_trace("trace_rate", &texts(&["1"])).unwrap_err().contains("from \"0\" to [\"1\"]"));
        assert!(check_trace("trace_mood", &[]).unwrap_err().contains("no trace setting"));
    }
}
