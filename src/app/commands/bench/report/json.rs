//! The report as JSON, for programs.

use serde_json::{Value, json};

use super::{Outcome, QUICK, Report, chosen, millis};
use crate::engine::bench::{Difference, Golden, Series};

impl Report {
    /// Everything, for programs.
    pub(in crate::app::commands::bench) fn to_json(&self) -> Value {
        let chosen = chosen(&self.candidates);
        let advice = self.advice();
        let engines = self.candidates.iter().enumerate().map(|(at, candidate)| {
            let mut line = json!({
                "engine": candidate.engine,
                "device": candidate.device,
                "gateway_chooses": Some(at) == chosen,
                "not_asked_because": candidate.fit.as_ref().err(),
            });
            match &candidate.outcome {
                Outcome::Refused(reason) => line["refused"] = json!(reason),
                Outcome::Computed(trial) => {
                    line["load_ms"] = json!(millis(trial.load_time()));
                    line["memory_bytes"] = json!(trial.grown_bytes());
                    line["golden"] = match trial.golden() {
                        Golden::Absent => Value::Null,
                        Golden::Right { samples, difference } => {
                            json!({ "right": true, "samples": samples, "difference": number_of(difference) })
                        }
                        Golden::Wrong(error) => json!({ "right": false, "why": error.to_string() }),
                    };
                    line["difference"] = match &candidate.difference {
                        Some(Ok(difference)) => number_of(difference),
                        Some(Err(problem)) => json!(problem),
                        None => Value::Null,
                    };
                    line["batches"] = trial.series().map(of_series).collect();
                }
            }
            line
        });
        json!({
            "model": self.title,
            "format": self.format,
            "size_bytes": self.size_bytes,
            "inputs": {
                "origin": self.origin,
                "shapes": self.shapes.iter().map(|(name, shape)| json!({ "name": name, "shape": shape })).collect::<Value>(),
            },
            "engines": engines.collect::<Value>(),
            "use": advice.as_ref().map(|advice| self.candidates[advice.at].engine),
            "advice": advice.map(|advice| advice.text),
            "remarks": self.remarks(),
            "fine": self.is_fine(),
        })
    }
}

fn of_series(series: &Series) -> Value {
    let micros = |share: f64| (series.within(share).as_secs_f64() * 1e7).round() / 10.0;
    json!({
        "rows": series.rows(),
        "runs": series.runs(),
        "p10_us": micros(QUICK),
        "p50_us": micros(0.5),
        "p99_us": micros(0.99),
        "cpu_us_per_row": series.cpu_us_per_row(),
        "rows_per_second": series.rows_per_second(),
    })
}

fn number_of(difference: &Difference) -> Value {
    match difference {
        Difference::By(by, output) if output.is_empty() => json!({ "by": by }),
        Difference::By(by, output) => json!({ "by": by, "output": output }),
        Difference::Otherwise(what) => json!({ "otherwise": what }),
    }
}
