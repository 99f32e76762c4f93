//! What a configuration that parses still gets wrong, and what an operator should know about one that is right.

use std::fmt::Display;

use super::answering::answering;
use super::place::place;
use super::{Diagnosis, Loaded, nearest};
use crate::access::Access;
use crate::base::Name;
use crate::catalog::{self, Catalog};
use crate::flows::{self, sense};
use crate::pipeline::{Graph, Member};
use crate::{doors, outbox, rules, signal, uplink};

/// The outcome.
#[derive(Debug, Default)]
pub struct Review {
    /// With these the gateway does not start.
    pub errors: Vec<Diagnosis>,
    /// With these it starts, and something does not work.
    pub problems: Vec<Diagnosis>,
    /// Choices that an operator should know about.
    pub remarks: Vec<String>,
}

/// Looks at everything that can be looked at without starting anything: settings, models, certificates.
pub fn review(loaded: &Loaded) -> Review {
    let mut review = Review::default();
    let config = &loaded.config;
    if let Err(error) = Access::new(&config.access) {
        review.errors.push(at(loaded, "access.identity", &error, None));
    }
    review.remarks.extend(config.access.remarks());
    queue(loaded, &mut review);
    cloud(loaded, &mut review);
    past(loaded, &mut review);
    delegates(loaded, &mut review);
    pace(loaded, &mut review);
    if let Err((key, problem)) = config.catalog.check() {
        review.errors.push(at(loaded, &key, &format!("{key}: {problem}"), None));
    }
    let catalog = Catalog::scan(&config.catalog);
    for problem in catalog.problems() {
        let mut file = problem.path.display().to_string();
        if let Some((line, column)) = problem.position {
            file = format!("{file}:{line}:{column}");
        }
        review.problems.push(Diagnosis::whole(&file, problem.what.clone(), Some(problem.advice.clone())));
    }
    traffic(loaded, &catalog, &mut review);
    for model in catalog.models() {
        if let Err(error) = flows::plan_of(model) {
            let file = model.folder.join("manifest.toml").display().to_string();
            let advice = "correct [predict] in the manifest; docs/predict.md describes every step".to_owned();
            review.problems.push(Diagnosis::whole(&file, error.to_string(), Some(advice)));
        }
    }
    pipelines(&catalog, &mut review);
    for (number, stream) in config.stream.iter().enumerate() {
        let path = format!("stream[{number}]");
        if config.stream[..number].iter().any(|other| other.name == stream.name) {
            let message = format!("two streams are called {}", stream.name);
            review.errors.push(at(loaded, &format!("{path}.name"), &message, Some("names must differ".to_owned())));
        }
        shape(loaded, &path, stream, &mut review);
        model(loaded, &path, stream, &catalog, &mut review);
        let topic = stream.topic.to_string();
        if let Some(earlier) = config.stream[..number].iter().find(|other| other.topic.covers(&stream.topic)) {
            let message = format!("{topic} is covered by the topic of stream {}, which gets everything", earlier.name);
            let hint = "a topic feeds the first stream that matches: put the narrower one first".to_owned();
            review.problems.push(at(loaded, &format!("{path}.topic"), &message, Some(hint)));
        }
    }
    listeners(loaded, &mut review);
    answering(loaded, &catalog, &mut review);
    review
}

/// What keeps pipelines from serving with the models that are there.
fn pipelines(catalog: &Catalog, review: &mut Review) {
    for model in catalog.models() {
        let Some(graph) = flows::graph_of(model) else { continue };
        let about = &model.manifest.model;
        let file = model.folder.join(&about.file).display().to_string();
        let advice = "docs/pipelines.md describes every step".to_owned();
        let mut problem = |message: String, advice: String| {
            review.problems.push(Diagnosis::whole(&file, message, Some(advice)));
        };
        let graph = match graph {
            Ok(graph) => graph,
            Err(reason) => {
                problem(reason, advice);
                continue;
            }
        };
        for (step, member) in graph.members() {
            if catalog.model(member.name(), member.version).is_none() {
                let known: Vec<_> = catalog.models().map(|model| model.manifest.model.name.as_str()).collect();
                let near = nearest(member.name(), known.iter().copied()).filter(|near| *near != member.name());
                let advice =
                    near.map_or("put it into the models folder".to_owned(), |near| format!("did you mean `{near}`?"));
                problem(
                    format!("step {}: no usable model {}; the pipeline waits for it", step.name, member.title()),
                    advice,
                );
            }
        }
        if let Some(way) = circle(catalog, &mut vec![about.name.to_string()], &graph) {
            problem(format!("pipelines ask each other in a circle: {way}"), "take one of them out".to_owned());
        }
        let signature = |member: &Member| flows::signature_of(&catalog.model(member.name(), member.version)?.manifest);
        if let Err(error) = graph.check(&signature) {
            problem(error.to_string(), advice);
        }
    }
}

/// Deeper than pipelines may be nested.
const DEPTH_MAX: usize = 8;

/// The way from a pipeline back to itself.
fn circle(catalog: &Catalog, path: &mut Vec<String>, graph: &Graph) -> Option<String> {
    for (_, member) in graph.members() {
        if path[0] == member.name() {
            return Some(format!("{} -> {}", path.join(" -> "), member.name()));
        }
        // Another pipeline's circle is told with that one.
        if path.len() > DEPTH_MAX || path.iter().any(|above| above == member.name()) {
            continue;
        }
        let inner = catalog.model(member.name(), member.version).and_then(|model| flows::graph_of(model)?.ok());
        if let Some(inner) = inner {
            path.push(member.name().to_owned());
            let way = circle(catalog, path, &inner);
            path.pop();
            if way.is_some() {
                return way;
            }
        }
    }
    None
}

/// A finding about the setting at `path`.
pub(super) fn at(loaded: &Loaded, path: &str, message: &impl Display, hint: Option<String>) -> Diagnosis {
    match place(&loaded.text, path) {
        Some(span) => Diagnosis::at(&loaded.file, &loaded.text, span, &message.to_string(), hint),
        None => Diagnosis::whole(&loaded.file, format!("{path}: {message}"), hint),
    }
}

fn cloud(loaded: &Loaded, review: &mut Review) {
    let Some(cloud) = &loaded.config.cloud else {
        review.remarks.push("no [cloud]: results stay in the queue until its limit".to_owned());
        return;
    };
    match cloud.check() {
        Err(uplink::Error::Setting { setting, problem }) => {
            let key = setting.split(' ').next().unwrap_or(setting);
            review.errors.push(at(loaded, &format!("cloud.{key}"), &format!("{setting} {problem}"), None));
        }
        Err(error) => review.errors.push(at(loaded, "cloud", &error, None)),
        Ok(()) if cloud.tls.is_none() && !is_loopback(&cloud.host) => {
            review.remarks.push(format!("the link to {} is not encrypted: add [cloud.tls]", cloud.host));
        }
        Ok(()) => {}
    }
    for (key, file) in cloud.files() {
        if let Err(error) = std::fs::File::open(file) {
            let message = format!("failed to open {}: {error}", file.display());
            let hint = "put it there, readable for the service only".to_owned();
            review.errors.push(at(loaded, &format!("cloud.{key}"), &message, Some(hint)));
        }
    }
    if cloud.kind == uplink::Kind::Nats {
        let remark = "over NATS the stream's own answer lets rows leave the queue, and the cloud can ask nothing";
        review.remarks.push(remark.to_owned());
    }
    if cfg!(not(feature = "nats")) && cloud.kind == uplink::Kind::Nats {
        review.errors.push(at(loaded, "cloud.kind", &"this build has no NATS in it", None));
    }
    if let Some(tls) = &cloud.tls {
        let files = [
            ("ca_file", Some(&tls.ca_file)),
            ("certificate_file", tls.certificate_file.as_ref()),
            ("key_file", tls.key_file.as_ref()),
        ];
        for (key, file) in files {
            if let Some(file) = file
                && let Err(error) = std::fs::File::open(file)
            {
                let message = format!("failed to open {}: {error}", file.display());
                review.errors.push(at(
                    loaded,
                    &format!("cloud.tls.{key}"),
                    &message,
                    Some("put the PEM file there, readable for the service".to_owned()),
                ));
            }
        }
    }
}

fn queue(loaded: &Loaded, review: &mut Review) {
    match loaded.config.outbox.check() {
        Err(outbox::Error::Setting { key, problem }) => {
            review.errors.push(at(loaded, &format!("outbox.{key}"), &format!("{key}: {problem}"), None));
        }
        Err(error) => review.errors.push(at(loaded, "outbox", &error, None)),
        Ok(()) => {}
    }
    let (wanted, file) = (loaded.config.outbox.max_bytes, loaded.config.store.max_bytes);
    if let Some(wanted) = wanted.filter(|wanted| *wanted > file) {
        let message = format!("the queue may have {wanted} bytes and the file {file}: the file's limit comes first");
        let hint = "raise store.max_bytes, or leave outbox.max_bytes out: 70 % of the file is the default".to_owned();
        review.problems.push(at(loaded, "outbox.max_bytes", &message, Some(hint)));
    }
}

fn delegates(loaded: &Loaded, review: &mut Review) {
    let Some(delegate) = &loaded.config.delegate else { return };
    if let Err((key, problem)) = delegate.check() {
        review.errors.push(at(loaded, &format!("delegate.{key}"), &problem, None));
    }
    for (key, file) in [("program", &delegate.program), ("library", &delegate.library)] {
        if let Err(error) = std::fs::File::open(file) {
            let message = format!("failed to open {}: {error}", file.display());
            let hint = "models are computed by this program until it is there; `forebay doctor` says how to get it";
            review.problems.push(at(loaded, &format!("delegate.{key}"), &message, Some(hint.to_owned())));
        }
    }
    if delegate.allow_network {
        review.remarks.push("delegate.allow_network: a vendor's library may reach the network".to_owned());
    }
}

fn past(loaded: &Loaded, review: &mut Review) {
    if let Err((key, problem)) = loaded.config.history.check() {
        review.errors.push(at(loaded, &format!("history.{key}"), &format!("history.{key} {problem}"), None));
    }
}

fn pace(loaded: &Loaded, review: &mut Review) {
    let sync = &loaded.config.sync;
    if let Err((key, problem)) = sync.check() {
        review.errors.push(at(loaded, &format!("sync.{key}"), &format!("sync.{key} {problem}"), None));
    }
    if let (Some(second), Some(day)) = (sync.bytes_per_s, sync.bytes_per_day)
        && second.saturating_mul(86_400) < day
    {
        review
            .remarks
            .push(format!("sync.bytes_per_s allows {} bytes a day, less than bytes_per_day", second * 86_400));
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn shape(loaded: &Loaded, path: &str, stream: &sense::Config, review: &mut Review) {
    match stream.signal.check() {
        Ok(()) => {}
        Err(signal::Error::Setting { key, problem }) => {
            review.errors.push(at(loaded, &format!("{path}.signal.{key}"), &format!("{key}: {problem}"), None));
        }
        Err(error) => review.errors.push(at(loaded, &format!("{path}.signal"), &error, None)),
    }
    if let Some(rule) = &stream.rule
        && let Err(rules::Error::Setting { key, problem }) = rule.check()
    {
        review.errors.push(at(loaded, &format!("{path}.rule.{key}"), &format!("{key}: {problem}"), None));
    }
}

/// Names of versions that a model's requests are to go to and that mean nothing yet.
fn traffic(loaded: &Loaded, catalog: &Catalog, review: &mut Review) {
    for (name, model) in &loaded.config.catalog.models {
        let Some(traffic) = &model.traffic else { continue };
        let there: Vec<u32> =
            catalog.versions(name.as_str()).iter().map(|model| model.manifest.model.version).collect();
        for (key, to) in traffic.targets() {
            let path = format!("catalog.models.{name}.traffic.{key}");
            let place = if key == "split" { format!("{path}.{to}") } else { path };
            let alias = model.aliases.get(to);
            let message = match (alias.copied().or_else(|| to.as_str().parse().ok()), to.as_str()) {
                (Some(version), _) if there.contains(&version) => continue,
                (None, catalog::DEFAULT) => continue,
                (Some(version), _) => format!("{to} is version {version} of {name}, which is not there"),
                (None, _) => format!("{name} has no alias {to} in the configuration"),
            };
            let known = model.aliases.keys().map(Name::as_str).filter(|known| *known != to.as_str());
            let hint = match (alias, nearest(to.as_str(), known)) {
                (None, Some(near)) => format!("did you mean `{near}`?"),
                _ => format!(
                    "until it is there its requests go to others; PUT /api/v1/models/{name}/aliases/{to} sets an alias"
                ),
            };
            review.problems.push(at(loaded, &place, &message, Some(hint)));
        }
    }
}

fn model(loaded: &Loaded, path: &str, stream: &sense::Config, catalog: &Catalog, review: &mut Review) {
    let Some(wanted) = &stream.model else { return };
    let place = format!("{path}.model.name");
    let Some(found) = catalog.model(wanted.name.as_str(), wanted.version) else {
        let known: Vec<_> = catalog.models().map(|model| model.manifest.model.name.as_str()).collect();
        let near = nearest(wanted.name.as_str(), known.iter().copied());
        let folder = loaded.config.catalog.folder.display();
        let hint = match near {
            Some(near) if near != wanted.name.as_str() => format!("did you mean `{near}`?"),
            _ => format!("put it into {folder}/{}/<version>/ with its manifest.toml", wanted.name),
        };
        let message = format!("no usable model {} in {folder}; the stream would go on without scores", wanted.name);
        review.problems.push(at(loaded, &place, &message, Some(hint)));
        return;
    };
    let Ok(features) = signal::Features::new(&stream.signal) else { return };
    let (manifest, numbers) = (&found.manifest, features.names().len());
    if manifest.inputs.is_empty() || manifest.outputs.is_empty() {
        // They are the model file's, which is read when it is loaded.
        return;
    }
    let title = format!("{}/{}", wanted.name, manifest.model.version);
    if let Err(error) = sense::fit(&title, &manifest.inputs, &manifest.outputs, wanted, numbers) {
        let hint = match &error {
            sense::ScorerError::Shape { .. } => {
                "set signal.window.size and signal.features so that they fit (-1 is any size)".to_owned()
            }
            sense::ScorerError::Output { .. } => "set `score` in [stream.model] to one of them".to_owned(),
            _ => "the stream would go on without scores".to_owned(),
        };
        review.problems.push(at(loaded, &place, &error, Some(hint)));
    }
}

fn listeners(loaded: &Loaded, review: &mut Review) {
    for (number, listener) in loaded.config.mqtt.listener.iter().enumerate() {
        let path = format!("mqtt.listener[{number}]");
        if listener.kind.has_tls() && (listener.certificate.is_none() || listener.key.is_none()) {
            let hint = "name PEM files with `certificate` and `key`".to_owned();
            review.errors.push(at(loaded, &path, &"a TLS listener needs a certificate and its key", Some(hint)));
        }
        let files =
            [("certificate", &listener.certificate), ("key", &listener.key), ("client_ca", &listener.client_ca)];
        for (key, file) in files {
            if let Some(file) = file
                && let Err(error) = std::fs::File::open(file)
            {
                let message = format!("failed to open {}: {error}", file.display());
                review.errors.push(at(loaded, &format!("{path}.{key}"), &message, None));
            }
        }
        if !listener.kind.has_tls() && !listener.address.ip().is_loopback() {
            review.remarks.push(format!("MQTT on {} is not encrypted and visible to the network", listener.address));
        }
    }
    #[cfg(feature = "grpc")]
    if let Some(grpc) = &loaded.config.grpc {
        tls(loaded, "grpc", grpc.tls.as_ref(), review);
        if grpc.tls.is_none() && !grpc.address.ip().is_loopback() {
            review.remarks.push(format!("gRPC on {} is not encrypted and visible to the network", grpc.address));
        }
    }
    if let Some(memory) = &loaded.config.shared_memory
        && memory.prefix.is_empty()
    {
        review.remarks.push(
            "shared_memory.prefix is empty: callers on this machine may have the gateway read and write any file in /dev/shm that is its own"
                .to_owned(),
        );
    }
    let http = &loaded.config.http;
    tls(loaded, "http", http.tls.as_ref(), review);
    if http.tls.is_none() && !http.address.ip().is_loopback() {
        review.remarks.push(format!("HTTP on {} is not encrypted and visible to the network", http.address));
    }
}

fn tls(loaded: &Loaded, door: &str, tls: Option<&doors::tls::Config>, review: &mut Review) {
    let Some(tls) = tls else { return };
    let files =
        [("certificate", Some(&tls.certificate)), ("key", Some(&tls.key)), ("client_ca", tls.client_ca.as_ref())];
    for (key, file) in files {
        if let Some(file) = file
            && let Err(error) = std::fs::File::open(file)
        {
            let message = format!("failed to open {}: {error}", file.display());
            let hint = "put the PEM file there, readable for the service".to_owned();
            review.errors.push(at(loaded, &format!("{door}.tls.{key}"), &message, Some(hint)));
        }
    }
}
