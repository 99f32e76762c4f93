//! All steps of one model, checked against its signature, and the way through them.

use std::fmt;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use toml::Table;

use super::answer::Answer;
use super::audio::Sounds;
use super::config::{Config, InputConfig};
use super::error::Error;
use super::geometry::Geometry;
use super::image::Images;
use super::output::{Named, Readout};
use super::port::Port;
use super::record::{Record, brief};
use super::series::Series;
use super::text::{Texts, Words};
use super::work::Work;
use crate::base::Tensor;

/// A filled tensor by its name.
pub(super) type Filled = (String, Tensor);

/// What a caller sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A JPEG or PNG.
    Image,
    /// A WAV.
    Audio,
    /// A text.
    Text,
    /// JSON with named fields.
    Record,
    /// JSON with readings.
    Series,
}

impl Kind {
    /// The manifest's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Text => "text",
            Self::Record => "record",
            Self::Series => "series",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its key where there are several.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// One thing as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A file's bytes, for an image or audio.
    File(Bytes),
    /// For a text.
    Words(Words),
    /// For a record or series.
    Json(Value),
}

/// Tensors for one run of the model, and whose they are.
#[derive(Debug)]
pub struct Run {
    /// The model's inputs.
    pub inputs: Vec<Named>,
    items: Vec<Item>,
}

/// One row of a run.
#[derive(Debug, Clone)]
struct Item {
    instance: usize,
    first: Option<usize>,
    picture: Option<Geometry>,
}

/// What the model says of one instance, or of one window of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Which instance, from 0.
    pub instance: usize,
    /// Of a series that has several windows: the first reading of this one.
    pub first: Option<usize>,
    /// By the names of the outputs, in the manifest's order.
    pub answers: Vec<(String, Answer)>,
}

#[derive(Debug)]
enum Maker {
    Record(Record),
    Series(Series),
    Image(Images),
    Audio(Sounds),
    Text(Box<Texts>),
}

#[derive(Debug)]
struct Feed {
    source: usize,
    maker: Maker,
    /// The tensor it fills; a text names its own.
    tensor: String,
}

/// The steps around one model.
#[derive(Debug)]
pub struct Plan {
    sources: Vec<Source>,
    feeds: Vec<Feed>,
    readouts: Vec<Readout>,
    /// Several items can be computed at once.
    is_batched: bool,
}

/// The port of that name, or the only one.
pub(super) fn pick<'a>(ports: &'a [Port], name: Option<&str>, what: &str, title: &str) -> Result<&'a Port, Error> {
    let names = || ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, ports) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Error::step(title, "", format!("`tensor`, one of the {what}s {}", names()), "none")),
        (Some(name), _) => ports
            .iter()
            .find(|port| port.name == name)
            .ok_or_else(|| Error::step(title, name, format!("one of the {what}s {}", names()), "another name")),
    }
}

/// One item with the tensors that were made for it.
struct Made {
    first: Option<usize>,
    picture: Option<Geometry>,
    tensors: Vec<Filled>,
}

impl Plan {
    /// Reads `[predict]` and checks every step against the model. `file` gives the bytes of a file beside the model.
    pub fn build(
        table: &Table,
        inputs: &[Port],
        outputs: &[Port],
        file: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, Error> {
        let config = Config::parse(table)?;
        let mut plan = Self { sources: Vec::new(), feeds: Vec::new(), readouts: Vec::new(), is_batched: true };
        for input in config.input {
            plan.add_feed(input, inputs, file)?;
        }
        plan.check_feeds(inputs)?;
        let has_picture = plan.sources.iter().any(|source| source.kind == Kind::Image);
        for output in config.output {
            let readout = Readout::build(output, outputs, has_picture, file)?;
            if plan.readouts.iter().any(|other| other.name == readout.name) {
                let title = format!("[[predict.output]] {}", readout.name);
                return Err(Error::step(title, &readout.tensor, "a `name` of its own for each", "the same twice"));
            }
            plan.readouts.push(readout);
        }
        if plan.readouts.is_empty() {
            plan.readouts = outputs.iter().map(Readout::plain).collect();
        }
        let is_read = |port: &&Port| {
            let reads =
                |readout: &Readout| readout.tensor == port.name || readout.also_reads().contains(&port.name.as_str());
            plan.readouts.iter().any(reads)
        };
        plan.is_batched = inputs.iter().chain(outputs.iter().filter(is_read)).all(Port::has_free_batch);
        Ok(plan)
    }

    fn add_feed(
        &mut self,
        config: InputConfig,
        inputs: &[Port],
        file: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<(), Error> {
        let port = |tensor: &Option<String>, kind: Kind| {
            pick(inputs, tensor.as_deref(), "input", &format!("[[predict.input]] {kind}")).cloned()
        };
        let (name, kind, tensor, maker) = match config {
            InputConfig::Record(config) => {
                let port = port(&config.tensor, Kind::Record)?;
                (config.name.clone(), Kind::Record, port.name.clone(), Maker::Record(Record::build(config, port)?))
            }
            InputConfig::Series(config) => {
                let port = port(&config.tensor, Kind::Series)?;
                (config.name.clone(), Kind::Series, port.name.clone(), Maker::Series(Series::build(config, port)?))
            }
            InputConfig::Image(config) => {
                let port = port(&config.tensor, Kind::Image)?;
                (config.name.clone(), Kind::Image, port.name.clone(), Maker::Image(Images::build(config, port)?))
            }
            InputConfig::Audio(config) => {
                let port = port(&config.tensor, Kind::Audio)?;
                (config.name.clone(), Kind::Audio, port.name.clone(), Maker::Audio(Sounds::build(config, port)?))
            }
            InputConfig::Text(config) => {
                let texts = Texts::build(&config, inputs, file)?;
                (config.name, Kind::Text, String::new(), Maker::Text(Box::new(texts)))
            }
        };
        let name = name.unwrap_or_else(|| kind.to_string());
        let source = match self.sources.iter().position(|source| source.name == name) {
            // A record may fill several tensors: a model of scikit-learn often has one for each column.
            Some(at) if self.sources[at].kind == kind => at,
            Some(at) => {
                let given = format!("a {} and a {kind}", self.sources[at].kind);
                let title = format!("[[predict.input]] {name}");
                return Err(Error::step(title, &tensor, "one kind for a name", given));
            }
            None => {
                self.sources.push(Source { name, kind });
                self.sources.len() - 1
            }
        };
        self.feeds.push(Feed { source, maker, tensor });
        Ok(())
    }

    fn check_feeds(&self, inputs: &[Port]) -> Result<(), Error> {
        let filled: Vec<&str> = self.feeds.iter().flat_map(Feed::tensors).collect();
        for port in inputs {
            let times = filled.iter().filter(|name| **name == port.name).count();
            if times != 1 {
                let given = format!("{times}");
                return Err(Error::step("[[predict.input]]", &port.name, "one that fills it", given));
            }
        }
        let many = self.feeds.iter().any(|feed| matches!(&feed.maker, Maker::Series(series) if series.is_many()));
        if many && self.feeds.len() > 1 {
            let tensor = &self.feeds[0].tensor;
            return Err(Error::step(
                "[[predict.input]] series: stride",
                tensor,
                "one input: several windows have no counterpart in another",
                format!("{} inputs", self.feeds.len()),
            ));
        }
        Ok(())
    }

    /// What an instance consists of, in the order in which [`prepare`](Self::prepare) wants it.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Tensors for the model, as few runs as possible. Each instance has a content for each source.
    pub fn prepare(&self, instances: &[Vec<Content>], work: &mut Work<'_>) -> Result<Vec<Run>, Error> {
        let most = work.limits().instances_max;
        if instances.is_empty() || instances.len() > most {
            return Err(Error::TooLarge {
                what: "the request".to_owned(),
                given: format!("{} instances", instances.len()),
                most: format!("{most} (predict.instances_max), the least 1"),
            });
        }
        self.check_fields(instances)?;
        let mut items: Vec<Vec<Made>> = instances.iter().map(|_| Vec::new()).collect();
        for feed in &self.feeds {
            let made = self.make(feed, instances, work)?;
            for (slot, made) in items.iter_mut().zip(made) {
                match slot.first_mut() {
                    // Further feeds add their tensors to the item.
                    Some(item) => {
                        for next in made {
                            item.picture = item.picture.or(next.picture);
                            item.tensors.extend(next.tensors);
                        }
                    }
                    None => *slot = made,
                }
            }
        }
        let items: Vec<(usize, Made)> = items
            .into_iter()
            .enumerate()
            .flat_map(|(instance, items)| items.into_iter().map(move |item| (instance, item)))
            .collect();
        if items.len() > most {
            return Err(Error::TooLarge {
                what: "the request".to_owned(),
                given: format!("{} windows", items.len()),
                most: format!("{most} (predict.instances_max)"),
            });
        }
        Ok(self.runs(items))
    }

    fn make(&self, feed: &Feed, instances: &[Vec<Content>], work: &mut Work<'_>) -> Result<Vec<Vec<Made>>, Error> {
        let source = &self.sources[feed.source];
        let at = |instance: usize| match instances.len() {
            1 => source.name.clone(),
            _ => format!("{} {instance}", source.name),
        };
        let one =
            |tensor: Tensor| vec![Made { first: None, picture: None, tensors: vec![(feed.tensor.clone(), tensor)] }];
        let wrong = |instance: usize, given: &Content| {
            let given = match given {
                Content::File(bytes) => format!("a file of {} bytes", bytes.len()),
                Content::Words(_) => "a text".to_owned(),
                Content::Json(value) => brief(value),
            };
            Error::content(at(instance), format!("a {}", source.kind), given)
        };
        if let Maker::Text(texts) = &feed.maker {
            let words = |(instance, contents): (usize, &Vec<Content>)| match contents.get(feed.source) {
                Some(Content::Words(_)) => Ok(()),
                Some(other) => Err(wrong(instance, other)),
                None => Err(Error::content(at(instance), "a text", "nothing")),
            };
            instances.iter().enumerate().try_for_each(words)?;
            let words: Vec<&Words> = instances
                .iter()
                .filter_map(|contents| match contents.get(feed.source) {
                    Some(Content::Words(words)) => Some(words),
                    _ => None,
                })
                .collect();
            let made = work.lap(&source.name, "tokenize", |_| texts.make(&words, &source.name))?;
            work.hold(&source.name, made.iter().flatten().map(|(_, tensor)| tensor.bytes().len()).sum())?;
            return Ok(made.into_iter().map(|tensors| vec![Made { first: None, picture: None, tensors }]).collect());
        }
        let mut made: Vec<Vec<Made>> = Vec::with_capacity(instances.len());
        for (instance, contents) in instances.iter().enumerate() {
            let at = at(instance);
            let content = contents
                .get(feed.source)
                .ok_or_else(|| Error::content(&at, format!("a {}", source.kind), "nothing"))?;
            made.push(match (&feed.maker, content) {
                (Maker::Record(record), Content::Json(value)) => {
                    one(work.lap(&at, "record", |_| record.row(value, &at))?)
                }
                (Maker::Series(series), Content::Json(value)) => {
                    let windows = work.lap(&at, "window", |limits| series.windows(value, &at, limits.instances_max))?;
                    let item = |(first, tensor)| Made {
                        first: series.is_many().then_some(first),
                        picture: None,
                        tensors: vec![(feed.tensor.clone(), tensor)],
                    };
                    windows.into_iter().map(item).collect()
                }
                (Maker::Image(images), Content::File(bytes)) => {
                    let (tensor, picture) = images.make(bytes, &at, work)?;
                    vec![Made { first: None, picture: Some(picture), tensors: vec![(feed.tensor.clone(), tensor)] }]
                }
                (Maker::Audio(sounds), Content::File(bytes)) => one(sounds.make(bytes, &at, work)?),
                (_, other) => return Err(wrong(instance, other)),
            });
            // A picture is counted before its tensor is made.
            if source.kind != Kind::Image {
                let items = made.last().into_iter().flatten();
                let bytes = items.flat_map(|item| &item.tensors).map(|(_, tensor)| tensor.bytes().len()).sum();
                work.hold(&at, bytes)?;
            }
        }
        Ok(made)
    }

    /// A field that no input takes is a mistake in its name.
    fn check_fields(&self, instances: &[Vec<Content>]) -> Result<(), Error> {
        for (at, source) in self.sources.iter().enumerate().filter(|(_, source)| source.kind == Kind::Record) {
            let records = self.feeds.iter().filter(|feed| feed.source == at).filter_map(|feed| match &feed.maker {
                Maker::Record(record) => Some(record),
                _ => None,
            });
            let known: Vec<&str> = records.flat_map(Record::names).collect();
            for (instance, contents) in instances.iter().enumerate() {
                let Some(Content::Json(Value::Object(fields))) = contents.get(at) else { continue };
                if let Some(odd) = fields.keys().find(|name| !known.contains(&name.as_str())) {
                    let place =
                        if instances.len() == 1 { source.name.clone() } else { format!("{} {instance}", source.name) };
                    return Err(Error::content(place, format!("the fields {}", known.join(", ")), format!("{odd:?}")));
                }
            }
        }
        Ok(())
    }

    fn runs(&self, items: Vec<(usize, Made)>) -> Vec<Run> {
        let about =
            |(instance, item): &(usize, Made)| Item { instance: *instance, first: item.first, picture: item.picture };
        let named = |(name, tensor): Filled| Named { name, tensor };
        if self.is_batched && items.len() > 1 {
            let stacked = (0..items[0].1.tensors.len()).map(|at| {
                let tensors: Vec<&Tensor> = items.iter().map(|(_, item)| &item.tensors[at].1).collect();
                Some((items[0].1.tensors[at].0.clone(), stack(&tensors)?))
            });
            if let Some(inputs) = stacked.collect::<Option<Vec<_>>>() {
                let about = items.iter().map(about).collect();
                return vec![Run { inputs: inputs.into_iter().map(named).collect(), items: about }];
            }
        }
        let run = |item: (usize, Made)| {
            let items = vec![about(&item)];
            Run { inputs: item.1.tensors.into_iter().map(named).collect(), items }
        };
        items.into_iter().map(run).collect()
    }

    /// What the model's outputs of each run say.
    pub fn finish(&self, runs: &[Run], outputs: &[Vec<Named>], work: &mut Work<'_>) -> Result<Vec<Prediction>, Error> {
        let mut predictions = Vec::new();
        for (run, outputs) in runs.iter().zip(outputs) {
            for (row, item) in run.items.iter().enumerate() {
                let alone;
                let outputs = if run.items.len() == 1 {
                    outputs
                } else {
                    alone = self.row_of(outputs, row, run.items.len())?;
                    &alone
                };
                let mut answers = Vec::with_capacity(self.readouts.len());
                for readout in &self.readouts {
                    let answer =
                        work.lap(&readout.name, readout.step(), |_| readout.read(outputs, item.picture.as_ref()))?;
                    answers.push((readout.name.clone(), answer));
                }
                predictions.push(Prediction { instance: item.instance, first: item.first, answers });
            }
        }
        Ok(predictions)
    }

    /// One item's part of the outputs that are read.
    fn row_of(&self, outputs: &[Named], row: usize, rows: usize) -> Result<Vec<Named>, Error> {
        let is_read = |output: &&Named| {
            let name = output.name.as_str();
            self.readouts.iter().any(|readout| readout.tensor == name || readout.also_reads().contains(&name))
        };
        let part = |output: &Named| {
            let tensor = &output.tensor;
            let found = match tensor.texts() {
                None => tensor.row(row).filter(|_| tensor.shape().first() == Some(&rows)),
                Some(texts) => {
                    let width = tensor.elements() / rows.max(1);
                    let shape: Vec<usize> = [&[1], tensor.shape().get(1..).unwrap_or_default()].concat();
                    Tensor::of_texts(shape, texts.skip(row * width).take(width)).ok()
                }
            };
            found.map(|tensor| Named { name: output.name.clone(), tensor }).ok_or_else(|| Error::Output {
                tensor: output.name.clone(),
                step: "batch",
                detail: format!("it has the shape {:?} for {rows} items", tensor.shape()),
            })
        };
        outputs.iter().filter(is_read).map(part).collect()
    }
}

impl Feed {
    fn tensors(&self) -> Vec<&str> {
        match &self.maker {
            Maker::Text(texts) => texts.tensors(),
            _ => vec![&self.tensor],
        }
    }
}

/// Items one behind the other. None where they differ in shape or are no batches of one.
fn stack(tensors: &[&Tensor]) -> Option<Tensor> {
    let first = tensors.first()?;
    let alike = |tensor: &&Tensor| tensor.shape() == first.shape() && tensor.datatype() == first.datatype();
    if first.shape().first() != Some(&1) || !tensors.iter().all(alike) {
        return None;
    }
    let mut bytes = BytesMut::with_capacity(tensors.iter().map(|tensor| tensor.bytes().len()).sum());
    tensors.iter().for_each(|tensor| bytes.extend_from_slice(tensor.bytes()));
    let mut shape = first.shape().to_vec();
    shape[0] = tensors.len();
    Tensor::from_bytes(first.datatype(), shape, bytes.freeze()).ok()
}
