//! Each model's state and figures for `/metrics`, read when somebody asks: a version that is gone leaves nothing behind.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::conduct::{BreakerView, ConductCounts, ShadowCounts};
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
        steps(&models, &mut encoder)?;
        encode_traffic(&models, &mut encoder)
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

/// Of models whose requests are spread over versions.
fn encode_traffic(models: &Models, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut slots = models.all_known();
    slots.retain(|slot| models.plan(slot.model.manifest.model.name.as_str()).is_some());
    if slots.is_empty() {
        return Ok(());
    }
    let each: Vec<_> = slots.iter().map(|slot| (slot.title(), slot.conduct.counts(), models.breaker(slot))).collect();
    let gauge = ConstGauge::<i64>::new(0).metric_type();
    let mut metric =
        encoder.encode_descriptor("model_breaker", "1 in the state that the breaker is in", None, gauge)?;
    for (title, _, breaker) in &each {
        for state in ["closed", "open", "half_open"] {
            let [model, version] = labels(title);
            let labels = [model, version, ("state", state.to_owned())];
            ConstGauge::new(i64::from(breaker.state == state)).encode(metric.encode_family(&labels)?)?;
        }
    }
    type Figure = fn(&ConductCounts, &BreakerView) -> u64;
    let counters: [(&str, &str, Figure); 3] = [
        ("model_breaker_opened", "Times that the breaker opened", |_, breaker| breaker.opened),
        ("model_chosen", "Requests that came to the version first", |counts, _| counts.chosen),
        ("model_stood_in", "Requests answered in the place of another version", |counts, _| counts.stood_in),
    ];
    for (name, help, figure) in counters {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (title, counts, breaker) in &each {
            ConstCounter::new(figure(counts, breaker)).encode(metric.encode_family(&labels(title))?)?;
        }
    }
    let help = "Requests that the version did not answer in its turn";
    let mut metric = encoder.encode_descriptor("model_passed_over", help, None, MetricType::Counter)?;
    for (title, counts, _) in &each {
        for (why, count) in &counts.passed_over {
            let [model, version] = labels(title);
            let labels = [model, version, ("why", why.as_str().to_owned())];
            ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
        }
    }
    let shadows: Vec<_> = each.iter().filter_map(|(title, counts, _)| Some((title, counts.shadow.as_ref()?))).collect();
    let help = "Copies of requests by what came of them";
    let mut metric = encoder.encode_descriptor("model_shadow_requests", help, None, MetricType::Counter)?;
    for (title, shadow) in &shadows {
        let outcomes = [
            ("matched", shadow.matched),
            ("differed", shadow.differed),
            ("failed", shadow.failed),
            ("dropped", shadow.dropped),
        ];
        for (outcome, count) in outcomes {
            let [model, version] = labels(title);
            let labels = [model, version, ("outcome", outcome.to_owned())];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
    }
    type Time = fn(&ShadowCounts) -> u64;
    let times: [(&str, &str, Time); 2] = [
        ("model_shadow", "In the engine, of copies that were answered", |shadow| shadow.shadow_us),
        ("model_shadowed", "In the engine, of the requests that these are copies of", |shadow| shadow.answer_us),
    ];
    for (name, help, time) in times {
        let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        for (title, shadow) in &shadows {
            #[allow(clippy::cast_precision_loss, reason = "a sum of seconds")]
            let seconds = time(shadow) as f64 / 1e6;
            ConstCounter::new(seconds).encode(metric.encode_family(&labels(title))?)?;
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
