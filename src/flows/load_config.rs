//! A configuration that comes with a request to load a model, in Triton's words: what of it can be had here, and the name
//! of the first key that cannot.
//!
//! It says how the model is served, never what it computes: its file, inputs and outputs are the manifest's, which may
//! come back as GET /v2/models/{model}/config has shown them. It counts until the model is loaded again without one.

use serde_json::{Map, Value};

use crate::base::Datatype;
use crate::catalog::{BatchWhen, Manifest, Port, Serving, Versions};

/// Rows that a configuration may let a request have.
const ROWS_MAX: u64 = 1 << 20;
/// Most rows that are computed together, whatever one request may have.
const BATCH_ROWS_MAX: u32 = 1024;

/// What a request says of how a model is to be served; the rest is as configured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadConfig {
    pub(super) serving: Serving,
    pub(super) versions: Option<Versions>,
    /// Rows that one request may have; 0 is any number.
    pub(super) request_rows_max: u32,
    same: Same,
}

/// What must be as it is.
#[derive(Debug, Clone, Default, PartialEq)]
struct Same {
    name: Option<String>,
    platform: Option<String>,
    file: Option<String>,
    inputs: Option<Vec<Shown>>,
    outputs: Option<Vec<Shown>>,
}

/// A tensor in a configuration.
#[derive(Debug, Clone, PartialEq)]
struct Shown {
    name: String,
    data_type: String,
    dims: Vec<i64>,
}

/// The type's name in a configuration.
pub fn data_type(datatype: Datatype) -> String {
    match datatype {
        Datatype::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{other}"),
    }
}

/// A tensor's dimensions in a configuration: without the batch where `max_batch_size` has a word on it.
pub fn dims(shape: &[i64], request_rows_max: u32) -> &[i64] {
    if request_rows_max > 0 { shape.get(1..).unwrap_or_default() } else { shape }
}

impl LoadConfig {
    /// Reads a configuration as JSON. The error begins with the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let keys: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("it is no JSON object: {error}"))?;
        let mut read = Self::default();
        for (key, value) in &keys {
            read.take(key, value).map_err(|problem| format!("{key}: {problem}"))?;
        }
        let Self { serving, request_rows_max, .. } = &mut read;
        if *request_rows_max > 0 && serving.batch_rows_max.is_none() {
            serving.batch_rows_max = Some((*request_rows_max).min(BATCH_ROWS_MAX));
        }
        read.serving.check()?;
        Ok(read)
    }

    fn take(&mut self, key: &str, value: &Value) -> Result<(), String> {
        match key {
            "name" => self.same.name = Some(text(value)?),
            "platform" => self.same.platform = Some(text(value)?),
            // Engines choose themselves by what a model needs.
            "backend" => drop(text(value)?),
            "default_model_filename" => self.same.file = Some(text(value)?),
            "input" => self.same.inputs = Some(tensors(value)?),
            "output" => self.same.outputs = Some(tensors(value)?),
            "max_batch_size" => {
                let rows = whole(value)?;
                let within = u32::try_from(rows).ok().filter(|_| rows <= ROWS_MAX);
                self.request_rows_max = within.ok_or_else(|| format!("it is {rows}, the most is {ROWS_MAX}"))?;
            }
            "dynamic_batching" => self.batching(object(value)?)?,
            "version_policy" => self.versions = Some(policy(object(value)?)?),
            "instance_group" => self.instances(value)?,
            "parameters" => {
                for (name, value) in object(value)? {
                    let value = value.get("string_value").unwrap_or(value);
                    self.parameter(name, value).map_err(|problem| format!("{name}: {problem}"))?;
                }
            }
            _ => return Err("it cannot be set with a request".to_owned()),
        }
        Ok(())
    }

    fn batching(&mut self, keys: &Map<String, Value>) -> Result<(), String> {
        self.serving.batching = Some(BatchWhen::On);
        for (key, value) in keys {
            let named = |problem: String| format!("{key}: {problem}");
            match key.as_str() {
                "max_queue_delay_microseconds" => {
                    self.serving.batch_delay_us = Some(whole(value).map_err(named)?);
                }
                "preferred_batch_size" => {
                    let sizes = value.as_array().ok_or_else(|| named(format!("expected a list, given {value}")))?;
                    let sizes = sizes.iter().map(whole).collect::<Result<Vec<_>, _>>().map_err(named)?;
                    let largest = sizes.into_iter().max().map(|rows| u32::try_from(rows).unwrap_or(u32::MAX));
                    self.serving.batch_rows_max = largest.or(self.serving.batch_rows_max);
                }
                _ => return Err(named("it cannot be set with a request".to_owned())),
            }
        }
        Ok(())
    }

    fn instances(&mut self, value: &Value) -> Result<(), String> {
        let groups = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let [group] = groups else { return Err(format!("expected a list of one group, given {value}")) };
        for (key, value) in object(group)? {
            match (key.as_str(), value.as_str()) {
                ("count", _) => {
                    self.serving.concurrency_max = Some(small(value).map_err(|why| format!("count: {why}"))?)
                }
                ("kind", Some("KIND_CPU" | "KIND_AUTO")) | ("name", Some(_)) => {}
                ("kind", _) => {
                    return Err(format!(
                        "kind: {value} cannot be set with a request; [delegate] in the configuration has devices"
                    ));
                }
                _ => return Err(format!("{key}: it cannot be set with a request")),
            }
        }
        Ok(())
    }

    /// A key of `[serving]`.
    fn parameter(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let serving = &mut self.serving;
        match name {
            "batching" => {
                serving.batching = Some(match value.as_str() {
                    Some("auto") => BatchWhen::Auto,
                    Some("on") => BatchWhen::On,
                    Some("off") => BatchWhen::Off,
                    _ => return Err(format!("expected auto, on or off, given {value}")),
                });
            }
            "batch_rows_max" => serving.batch_rows_max = Some(small(value)?),
            "batch_delay_us" => serving.batch_delay_us = Some(whole(value)?),
            "concurrency_max" => serving.concurrency_max = Some(small(value)?),
            "idle_unload_s" => serving.idle_unload_s = Some(whole(value)?),
            "memory_bytes" => serving.memory_bytes = Some(whole(value)?),
            "warm_up_runs" => serving.warm_up_runs = Some(small(value)?),
            _ => {
                return Err("it is no parameter that can be set with a request; those of [serving] can: batching, \
                            batch_rows_max, batch_delay_us, concurrency_max, idle_unload_s, memory_bytes, warm_up_runs"
                    .to_owned());
            }
        }
        Ok(())
    }

    /// Whether what it says of the model itself is so. The manifest has its inputs and outputs in it.
    pub(super) fn check(&self, manifest: &Manifest) -> Result<(), String> {
        let about = &manifest.model;
        let facts = [
            ("name", &self.same.name, about.name.as_str()),
            ("platform", &self.same.platform, about.format.as_str()),
            ("default_model_filename", &self.same.file, about.file.as_str()),
        ];
        for (key, given, is) in facts {
            if let Some(given) = given.as_ref().filter(|given| *given != is) {
                return Err(format!("{key}: it is {is:?} and cannot become {given:?}"));
            }
        }
        let rows = self.request_rows_max;
        for (key, given, ports) in
            [("input", &self.same.inputs, &manifest.inputs), ("output", &self.same.outputs, &manifest.outputs)]
        {
            if rows > 0
                && let Some(port) = ports.iter().find(|port| port.shape.first() != Some(&-1))
            {
                let (name, shape) = (&port.name, &port.shape);
                return Err(format!(
                    "max_batch_size: {key} {name} has shape {shape:?}, which does not begin with a batch"
                ));
            }
            let Some(given) = given else { continue };
            let is: Vec<_> = ports.iter().map(|port| shown(port, rows)).collect();
            if *given != is {
                return Err(format!("{key}: the model's are {is:?} and cannot become {given:?}"));
            }
        }
        Ok(())
    }
}

fn shown(port: &Port, request_rows_max: u32) -> Shown {
    let dims = dims(&port.shape, request_rows_max).to_vec();
    Shown { name: port.name.clone(), data_type: data_type(port.datatype), dims }
}

fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("expected a text, given {value}"))
}

fn object(value: &Value) -> Result<&Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("expected an object, given {value}"))
}

/// A whole number, also as a text: protobuf's JSON writes long ones like that.
fn whole(value: &Value) -> Result<u64, String> {
    let whole = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    whole.ok_or_else(|| format!("expected a whole number from 0, given {value}"))
}

fn small(value: &Value) -> Result<u32, String> {
    let whole = whole(value)?;
    u32::try_from(whole).map_err(|_| format!("it is {whole}, the most is {}", u32::MAX))
}

fn tensors(value: &Value) -> Result<Vec<Shown>, String> {
    let list = value.as_array().ok_or_else(|| format!("expected a list of tensors, given {value}"))?;
    let tensor = |value: &Value| {
        let keys = object(value)?;
        if let Some(key) = keys.keys().find(|key| !["name", "data_type", "dims"].contains(&key.as_str())) {
            return Err(format!("{key} cannot be set with a request"));
        }
        let part = |key: &str| keys.get(key).ok_or_else(|| format!("a tensor has no {key}"));
        let dims = part("dims")?.as_array().ok_or("dims are a list")?;
        let dim = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let dims = dims.iter().map(dim).collect::<Option<Vec<_>>>().ok_or("dims are whole numbers")?;
        Ok(Shown { name: text(part("name")?)?, data_type: text(part("data_type")?)?, dims })
    };
    list.iter().map(tensor).collect()
}

fn policy(keys: &Map<String, Value>) -> Result<Versions, String> {
    let mut keys = keys.iter();
    let (Some((key, value)), None) = (keys.next(), keys.next()) else {
        return Err("expected one of all, latest, specific".to_owned());
    };
    let inside = object(value)?;
    let only = |name: &str| match inside.keys().find(|key| *key != name) {
        Some(other) => Err(format!("{key}: unknown key {other}")),
        None => Ok(inside.get(name)),
    };
    match key.as_str() {
        "all" => only("").map(|_| Versions::All),
        "latest" => match only("num_versions")?.map(whole).transpose()?.unwrap_or(1) {
            0 => Err("latest: num_versions counts versions: at least 1".to_owned()),
            count => Ok(Versions::Latest(usize::try_from(count).unwrap_or(usize::MAX))),
        },
        "specific" => {
            let listed = only("versions")?.and_then(Value::as_array).ok_or("specific: expected a list of versions")?;
            let listed = listed.iter().map(small).collect::<Result<Vec<_>, _>>()?;
            if listed.is_empty() || listed.contains(&0) {
                return Err("specific: a list of versions needs at least one; they count from 1".to_owned());
            }
            Ok(Versions::Listed(listed))
        }
        _ => Err(format!("{key} is none of all, latest, specific")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = format!(
            r#"
            [model]
            name = "simple"
            version = 1
            file = "model.onnx"
            sha256 = "{}"
            format = "onnx"
            license = "MIT"
            [[input]]
            name = "x"
            datatype = "INT32"
            shape = [-1, 16]
            [[output]]
            name = "y"
            datatype = "BYTES"
            shape = [-1, 16]
            "#,
            "0".repeat(64)
        );
        Manifest::parse(&text).unwrap()
    }

    #[test]
    fn what_can_be_had_here_becomes_settings() {
        let read = LoadConfig::parse(
            r#"{"max_batch_size": "16", "dynamic_batching": {"max_queue_delay_microseconds": "250"},
            "version_policy": {"specific": {"versions": [1, "3"]}}, "instance_group": [{"count": 2, "kind": "KIND_CPU"}],
            "parameters": {"warm_up_runs": {"string_value": "0"}}}"#,
        )
        .unwrap();
        assert_eq!(read.request_rows_max, 16);
        assert_eq!(read.versions, Some(Versions::Listed(vec![1, 3])));
        let expected = Serving {
            batching: Some(BatchWhen::On),
            batch_rows_max: Some(16),
            batch_delay_us: Some(250),
            concurrency_max: Some(2),
            warm_up_runs: Some(0),
            ..Serving::default()
        };
        assert_eq!(read.serving, expected);
        assert_eq!(LoadConfig::parse("{}").unwrap(), LoadConfig::default());
        let preferred = r#"{"dynamic_batching": {"preferred_batch_size": [2, 4]}, "max_batch_size": 16}"#;
        assert_eq!(LoadConfig::parse(preferred).unwrap().serving.batch_rows_max, Some(4));
        for (text, versions) in [
            (r#"{"version_policy": {"all": {}}}"#, Versions::All),
            (r#"{"version_policy": {"latest": {"num_versions": 2}}}"#, Versions::Latest(2)),
            (r#"{"version_policy": {"latest": {}}}"#, Versions::Latest(1)),
        ] {
            assert_eq!(LoadConfig::parse(text).unwrap().versions, Some(versions));
        }
    }

    #[test]
    fn the_first_key_that_cannot_be_had_is_named() {
        for (text, says) in [
            (r#""parameters": {"config": {{"max_batch_size": "16"}}}"#, "it is no JSON object"),
            ("[]", "it is no JSON object"),
            (r#"{"optimization": {}}"#, "optimization: it cannot be set with a request"),
            (r#"{"max_batch_size": -1}"#, "max_batch_size: expected a whole number from 0, given -1"),
            (r#"{"max_batch_size": 99999999}"#, "max_batch_size: it is 99999999, the most is 1048576"),
            (r#"{"dynamic_batching": {"preserve_ordering": true}}"#, "dynamic_batching: preserve_ordering: it cannot"),
            (r#"{"dynamic_batching": {"max_queue_delay_microseconds": 9000000}}"#, "batch_delay_us is 9000000"),
            (r#"{"parameters": {"file": {"string_value": "x"}}}"#, "parameters: file: it is no parameter"),
            (r#"{"instance_group": [{"kind": "KIND_GPU"}]}"#, "instance_group: kind: \"KIND_GPU\""),
            (r#"{"instance_group": []}"#, "instance_group: expected a list of one group"),
            (r#"{"version_policy": {"latest": {"num_versions": 0}}}"#, "at least 1"),
            (r#"{"version_policy": {"newest": {}}}"#, "newest is none of"),
            (r#"{"input": [{"name": "x"}]}"#, "input: a tensor has no dims"),
            (r#"{"input": [{"name": "x", "reshape": {}}]}"#, "input: reshape cannot be set"),
        ] {
            let error = LoadConfig::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_shown_of_a_model_may_come_back_and_nothing_else() {
        let check = |text: &str| LoadConfig::parse(text).unwrap().check(&manifest());
        let shown = r#"{"name": "simple", "platform": "onnx", "backend": "tract", "default_model_filename": "model.onnx",
            "max_batch_size": ROWS, "input": [{"name": "x", "data_type": "TYPE_INT32", "dims": [DIMS]}],
            "output": [{"name": "y", "data_type": "TYPE_STRING", "dims": [DIMS]}]}"#;
        check(&shown.replace("ROWS", "0").replace("DIMS", "-1, 16")).unwrap();
        check(&shown.replace("ROWS", "8").replace("DIMS", "\"16\"")).unwrap();
        for (text, says) in [
            (shown.replace("ROWS", "8").replace("DIMS", "-1, 16"), "input: the model's are"),
            (r#"{"name": "other"}"#.to_owned(), "name: it is \"simple\" and cannot become \"other\""),
            (r#"{"platform": "tensorrt_plan"}"#.to_owned(), "platform: it is \"onnx\""),
            (r#"{"default_model_filename": "../x"}"#.to_owned(), "default_model_filename: it is \"model.onnx\""),
            (r#"{"output": []}"#.to_owned(), "output: the model's are"),
        ] {
            let error = check(&text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let mut fixed = manifest();
        fixed.inputs[0].shape = vec![1, 16];
        let error = LoadConfig::parse(r#"{"max_batch_size": 4}"#).unwrap().check(&fixed).unwrap_err();
        assert!(error.contains("max_batch_size: input x has shape [1, 16]"), "{error}");
    }
}
