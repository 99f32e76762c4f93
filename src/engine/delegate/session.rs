//! The engine that this program sees: it loads a model into a host and passes requests on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::config::{Config, Device};
use super::keeper::{Keeper, Refusal, State, Task};
use super::link::port;
use super::metrics::Metrics;
use super::process::{clear, model_file};
use super::wire::{Load, PROTOCOL, Runtime};
use crate::base::{Clock, Digest};
use crate::engine::error::Error;
use crate::engine::session::{Engine, Fit, Session};
use crate::engine::spec::{LoadSpec, NamedTensor};

/// A device that a host computes on.
pub struct Delegate {
    config: Arc<Config>,
    device: Device,
    work_folder: PathBuf,
    numbers: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// One engine for each configured device, in their order. Takes away what an earlier run left in `work_folder`.
pub fn delegates(
    config: Config,
    work_folder: &Path,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<Vec<Arc<dyn Engine>>, Error> {
    if let Err((key, problem)) = config.check() {
        return Err(Error::Setting { setting: format!("delegate.{key}"), problem });
    }
    clear(work_folder);
    let (config, numbers) = (Arc::new(config.absolute()), Arc::<AtomicU64>::default());
    let engine = |device: &Device| {
        Arc::new(Delegate {
            config: Arc::clone(&config),
            device: device.clone(),
            work_folder: work_folder.to_owned(),
            numbers: Arc::clone(&numbers),
            clock: Arc::clone(clock),
            metrics: metrics.clone(),
        }) as Arc<dyn Engine>
    };
    Ok(config.device.iter().map(engine).collect())
}

impl Engine for Delegate {
    fn name(&self) -> &'static str {
        self.device.provider.engine()
    }

    fn reads(&self, format: &str) -> bool {
        format == "onnx"
    }

    fn suits(&self, spec: &LoadSpec) -> Result<Fit, String> {
        match self.config.rule(&spec.name) {
            Some(rule) if rule.devices.contains(&self.device.name) => Ok(Fit::Best),
            _ => Err(format!("no [[delegate.model]] gives it to {}", self.device.name)),
        }
    }

    fn wants_stand_in(&self, spec: &LoadSpec) -> Option<bool> {
        Some(self.config.rule(&spec.name).is_none_or(|rule| rule.stand_in))
    }

    fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
        let failed = |reason: String| Error::Load { model: spec.title(), engine: self.name(), reason };
        let Self { config, device, work_folder, .. } = self;
        let rule = config.rule(&spec.name);
        if spec.samples.is_empty() && rule.is_none_or(|rule| rule.require_golden) {
            let reason = "its manifest has no golden inputs, so nobody knows whether this device computes it right";
            return Err(failed(format!("{reason} (or set require_golden = false)")));
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let file = format!("model-{}-{number}", std::process::id());
        let file = model_file(work_folder, &file, &spec.bytes)
            .map_err(|error| failed(format!("failed to put it into {}: {error}", work_folder.display())))?;
        let load = Load {
            protocol: PROTOCOL,
            model: spec.title(),
            runtime: Runtime {
                library: config.library.clone(),
                provider: device.provider,
                plugin: device.library.clone(),
                device: device.device.clone(),
                options: device.options.clone(),
            },
            threads: device.threads,
            hard_limit_bytes: if device.kernel_limits_memory() { device.hard_limit_bytes() } else { 0 },
            allow_network: config.allow_network,
            inputs: spec.inputs.iter().map(port).collect(),
            outputs: spec.outputs.iter().map(port).collect(),
        };
        let keeper = Keeper::start(Task {
            config: Arc::clone(config),
            device: device.clone(),
            work_folder: work_folder.clone(),
            number,
            model: spec.title(),
            load,
            file,
            digest: Digest::of(&spec.bytes),
            inputs: spec.inputs.clone(),
            outputs: spec.outputs.clone(),
            samples: spec.samples.clone(),
            timeout: config.timeout(rule),
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.clone(),
        });
        let keeper = keeper.map_err(failed)?;
        Ok(Box::new(DelegateSession {
            keeper,
            model: spec.title(),
            engine: self.name(),
            threads: device.threads,
            metrics: self.metrics.clone(),
        }))
    }
}

struct DelegateSession {
    keeper: Keeper,
    model: String,
    engine: &'static str,
    /// The host's, of this box's cores.
    threads: usize,
    metrics: Metrics,
}

impl Session for DelegateSession {
    fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        self.keeper.infer(inputs).map_err(|refusal| {
            let (model, engine) = (self.model.clone(), self.engine);
            match refusal {
                Refusal::Down(reason) => Error::Delegate { model, engine, reason },
                Refusal::Request(reason) => Error::Run { model, engine, reason },
            }
        })
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn delegate(&self) -> Option<State> {
        Some(self.keeper.state())
    }
}

impl Drop for DelegateSession {
    fn drop(&mut self) {
        self.metrics.forget(&self.model);
    }
}
