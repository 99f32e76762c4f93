//! Each model's state and figures for `/metrics`, read when somebody asks: a version that is gone leaves nothing behind.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::models::Models;
use super::pipeline_tally::{StepCounts, StepServed};
use super::tally::Counts;

/// Reads the models. They need not be there any more.
#[derive(Debug)]
struct ModelsCollector(Weak<Models>);

/// Adds the models' metrics to `registry`.
pub fn register(models: Weak<Models>, registry: &mut Registry) {
    registry.register_collector(Box::new(ModelsCollector(models)));
}

impl Collector for ModelsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(models) = self.0.upgrade() else { return Ok(()) };
        let views = models.views();
        if views.is_empty() {
            return Ok(());
        }
        let gauge = ConstGauge::<i64>::new(0).metric_type();
        let mut ready = encoder.encode_descriptor("model_ready", "1 if the version answers", None, gauge)?;
        for view in &views {
            let labels =
                [("model", view.name.clone()), ("version", view.version.to_string()), ("state", view.state.to_owned())];
            ConstGauge::new(i64::from(view.serving)).encode(ready.encode_family(&labels)?)?;
        }
        let served: Vec<_> = models.all_known().into_iter().map(|slot| (slot.title(), slot.tally.counts())).collect();
        type Figure = fn(&Counts) -> u64;
        let counters: [(&str, &str, Figure); 4] = [
            ("model_requests", "Requests answered", |counts| counts.success.count),
            ("model_failures", "Requests without an answer", |counts| counts.fail.count),
            ("model_inferences", "Rows answered", |counts| counts.inferences),
            ("model_executions", "Runs; requests computed together are one", |counts| counts.executions),
        ];
        for (name, help, figure) in counters {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (title, counts) in &served {
                ConstCounter::new(figure(counts)).encode(metric.encode_family(&labels(title))?)?;
            }
        }
        let seconds: [(&str, &str, Figure); 2] = [
            ("model_queue", "Waiting, of answered requests", |counts| counts.queue.ns),
            ("model_compute", "In the engine, of answered requests", |counts| counts.compute.ns),
        ];
        for (name, help, figure) in seconds {
            let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
            for (title, counts) in &served {
                #[allow(clippy::cast_precision_loss, reason = "a sum of seconds")]
                let seconds = figure(counts) as f64 / 1e9;
                ConstCounter::new(seconds).encode(metric.encode_family(&labels(title))?)?;
            }
        }
        steps(&models, &mut encoder)
    }
}

/// Steps of pipelines: as many as their files have, which is bounded.
fn steps(models: &Models, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let loaded = models.all_known().into_iter().filter(|slot| slot.graph.is_some());
    let loaded = loaded.filter_map(|slot| Some((slot.title(), slot.loaded()?.steps())));
    let served: Vec<(String, Vec<StepServed>)> = loaded.collect();
    if served.is_empty() {
        return Ok(());
    }
    type Figure = fn(&StepCounts) -> u64;
    let counters: [(&str, &str, Figure); 5] = [
        ("pipeline_step_runs", "Steps of pipelines done", |counts| counts.success.count),
        ("pipeline_step_failures", "Steps of pipelines that failed", |counts| counts.fail),
        ("pipeline_step_rows", "Rows that a step asked its model about", |counts| counts.rows),
        ("pipeline_step_considered_rows", "Rows of which a step's condition chose those", |counts| counts.of_rows),
        ("pipeline_step_fallbacks", "Steps that another than the right delegate computed", |counts| counts.fallbacks),
    ];
    for (name, help, figure) in counters {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (title, steps) in &served {
            for step in steps {
                ConstCounter::new(figure(&step.counts)).encode(metric.encode_family(&step_labels(title, step))?)?;
            }
        }
    }
    let help = "Computing in steps of pipelines";
    let mut metric = encoder.encode_descriptor("pipeline_step", help, Some(&Unit::Seconds), MetricType::Counter)?;
    for (title, steps) in &served {
        for step in steps {
            #[allow(clippy::cast_precision_loss, reason = "a sum of seconds")]
            let seconds = step.counts.success.ns as f64 / 1e9;
            ConstCounter::new(seconds).encode(metric.encode_family(&step_labels(title, step))?)?;
        }
    }
    Ok(())
}

fn step_labels(title: &str, step: &StepServed) -> [(&'static str, String); 3] {
    let [(_, pipeline), version] = labels(title);
    [("pipeline", pipeline), version, ("step", step.step.clone())]
}

fn labels(title: &str) -> [(&'static str, String); 2] {
    let (model, version) = title.split_once('/').unwrap_or((title, ""));
    [("model", model.to_owned()), ("version", version.to_owned())]
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models").finish_non_exhaustive()
    }
}
