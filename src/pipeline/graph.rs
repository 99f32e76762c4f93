//! The graph: steps in an order in which each comes after what it reads.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::{Table, Value};

use super::config::{DeclaredStep, INPUTS_MAX, Inputs, Limits, names, read};
use super::error::Error;
use super::op::{Op, Takes};
use super::port::{Guess, Port};

/// Where a tensor comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An input of the pipeline, by its place.
    Input(usize),
    /// What a step gives, by the step's place and the output's name; None is its only one.
    Step(usize, Option<String>),
}

/// A model that a step asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, perhaps with an alias behind `@`.
    pub model: String,
    /// None: whatever answers a request that names none.
    pub version: Option<u32>,
    /// Its inputs' names, in the order of the step's inputs.
    pub inputs: Vec<String>,
    /// It gets only the rows that this marks.
    pub rows: Option<Source>,
    /// By the model's outputs: where the rows come from that are not marked.
    pub otherwise: BTreeMap<String, Source>,
    /// It is asked about one row at a time.
    pub each: bool,
    /// The outputs that somebody reads; none is all of them.
    pub wanted: Vec<String>,
}

impl Member {
    /// The model's name without an alias.
    pub fn name(&self) -> &str {
        self.model.split_once('@').map_or(&self.model, |(name, _)| name)
    }

    /// As people write it.
    pub fn title(&self) -> String {
        self.version.map_or_else(|| self.model.clone(), |version| format!("{}/{version}", self.model))
    }
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum Work {
    /// Asks a model.
    Model(Member),
    /// Computes.
    Op(Op),
}

/// A step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Unique in the pipeline.
    pub name: String,
    /// What it does.
    pub work: Work,
    /// What it reads, in the order that it is given in.
    pub inputs: Vec<Source>,
}

impl Step {
    /// Everything it waits for.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let more = match &self.work {
            Work::Model(member) => Some(member.rows.iter().chain(member.otherwise.values())),
            Work::Op(_) => None,
        };
        self.inputs.iter().chain(more.into_iter().flatten())
    }

    /// The places of the steps that it waits for, each once.
    pub fn after(&self) -> BTreeSet<usize> {
        let place = |source: &Source| match source {
            Source::Step(at, _) => Some(*at),
            Source::Input(_) => None,
        };
        self.sources().filter_map(place).collect()
    }

    /// The model that it asks.
    pub fn member(&self) -> Option<&Member> {
        match &self.work {
            Work::Model(member) => Some(member),
            Work::Op(_) => None,
        }
    }
}

/// A pipeline that agrees with itself.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Each after those that it waits for.
    pub steps: Vec<Step>,
    /// What the pipeline takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Where each output comes from.
    pub results: Vec<Source>,
    /// Bounds of a request.
    pub limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberKeys {
    model: String,
    version: Option<u32>,
    rows: Option<String>,
    otherwise: Option<Value>,
    #[serde(default)]
    each: bool,
}

impl Graph {
    /// Reads a pipeline's file; `inputs` and `outputs` are what its manifest declares.
    pub fn parse(text: &str, inputs: &[Port], outputs: &[Port]) -> Result<Self, Error> {
        let declared = read(text)?;
        let book = Book::of(inputs, &declared.steps)?;
        let mut steps = Vec::with_capacity(declared.steps.len());
        for step in declared.steps {
            steps.push(build(step, &book)?);
        }
        let result = |port: &Port| match declared.outputs.get(&port.name) {
            Some(from) => book.source(from).map_err(|problem| Error::Graph(format!("output {}: {problem}", port.name))),
            None => Err(Error::Graph(format!("output {} is made by no step: name one in [output]", port.name))),
        };
        let results = outputs.iter().map(result).collect::<Result<Vec<_>, _>>()?;
        if let Some(odd) = declared.outputs.keys().find(|name| !outputs.iter().any(|port| port.name == **name)) {
            let known = listed(outputs.iter().map(|port| port.name.as_str()));
            return Err(Error::Graph(format!(
                "[output] has {odd}, which the manifest does not declare: it has {known}"
            )));
        }
        let mut graph =
            Self { steps, inputs: inputs.to_vec(), outputs: outputs.to_vec(), results, limits: declared.limits };
        graph.check_names()?;
        graph.check_use()?;
        graph.sort()?;
        graph.want();
        // Settings that cannot work whatever the models are.
        graph.check(&|_| None)?;
        Ok(graph)
    }

    /// The steps that ask a model.
    pub fn members(&self) -> impl Iterator<Item = (&Step, &Member)> {
        self.steps.iter().filter_map(|step| Some((step, step.member()?)))
    }

    /// A step gives what it is read for; what a model gives is known later.
    fn check_names(&self) -> Result<(), Error> {
        let wrong = |source: &Source| {
            let Source::Step(at, name) = source else { return None };
            let Work::Op(op) = &self.steps[*at].work else { return None };
            let (step, gives) = (&self.steps[*at].name, op.gives());
            match name {
                None if gives.len() == 1 => None,
                Some(name) if gives.contains(&name.as_str()) => None,
                None => Some(format!("{step} gives {}: write `{step}.{}`", gives.join(", "), gives[0])),
                Some(name) => Some(format!("{step} gives no {name:?}; it gives {}", gives.join(", "))),
            }
        };
        for step in &self.steps {
            if let Some(problem) = step.sources().find_map(wrong) {
                return Err(Error::step(&step.name, problem));
            }
        }
        match self.results.iter().zip(&self.outputs).find_map(|(source, port)| Some((wrong(source)?, port))) {
            Some((problem, port)) => Err(Error::Graph(format!("output {}: {problem}", port.name))),
            None => Ok(()),
        }
    }

    /// Nothing is declared for nothing.
    fn check_use(&self) -> Result<(), Error> {
        let read: Vec<&Source> = self.steps.iter().flat_map(Step::sources).chain(&self.results).collect();
        let unused = |at: usize| !read.iter().any(|source| matches!(source, Source::Step(step, _) if *step == at));
        if let Some((_, step)) = self.steps.iter().enumerate().find(|(at, _)| unused(*at)) {
            return Err(Error::step(&step.name, "nobody reads what it gives"));
        }
        let unread = |at: usize| !read.contains(&&Source::Input(at));
        match self.inputs.iter().enumerate().find(|(at, _)| unread(*at)) {
            Some((_, port)) => Err(Error::Graph(format!("input {} is read by no step", port.name))),
            None => Ok(()),
        }
    }

    /// Puts each step behind those that it waits for, otherwise as they are written.
    fn sort(&mut self) -> Result<(), Error> {
        let waits: Vec<BTreeSet<usize>> = self.steps.iter().map(Step::after).collect();
        let mut order: Vec<usize> = Vec::with_capacity(waits.len());
        while order.len() < waits.len() {
            let ready = |at: &usize| !order.contains(at) && waits[*at].iter().all(|before| order.contains(before));
            match (0..waits.len()).find(ready) {
                Some(next) => order.push(next),
                None => return Err(self.circle(&waits, &order)),
            }
        }
        let place = |old: usize| order.iter().position(|&at| at == old).unwrap_or(old);
        let moved = |source: &mut Source| {
            if let Source::Step(at, _) = source {
                *at = place(*at);
            }
        };
        for step in &mut self.steps {
            step.inputs.iter_mut().for_each(moved);
            if let Work::Model(member) = &mut step.work {
                member.rows.iter_mut().chain(member.otherwise.values_mut()).for_each(moved);
            }
        }
        self.results.iter_mut().for_each(moved);
        let mut steps: Vec<Option<Step>> = std::mem::take(&mut self.steps).into_iter().map(Some).collect();
        self.steps = order.iter().filter_map(|&at| steps[at].take()).collect();
        Ok(())
    }

    /// The way around: from a step that cannot be placed along what it waits for until one comes again.
    fn circle(&self, waits: &[BTreeSet<usize>], order: &[usize]) -> Error {
        let Some(mut at) = (0..waits.len()).find(|at| !order.contains(at)) else {
            return Error::Graph("steps wait for each other".to_owned());
        };
        let mut path = Vec::new();
        while !path.contains(&at) {
            path.push(at);
            match waits[at].iter().find(|before| !order.contains(before)) {
                Some(&before) => at = before,
                None => break,
            }
        }
        let begin = path.iter().position(|&step| step == at).unwrap_or(0);
        let around = path[begin..].iter().chain([&at]).map(|&step| self.steps[step].name.as_str());
        Error::Graph(format!("steps wait for each other: {}", around.collect::<Vec<_>>().join(" -> ")))
    }

    /// Which outputs of each model are read.
    fn want(&mut self) {
        let read: Vec<Source> = self.steps.iter().flat_map(Step::sources).chain(&self.results).cloned().collect();
        for (at, step) in self.steps.iter_mut().enumerate() {
            let Work::Model(member) = &mut step.work else { continue };
            let mut wanted = BTreeSet::new();
            let mut all = false;
            for source in &read {
                match source {
                    Source::Step(of, Some(name)) if *of == at => drop(wanted.insert(name.clone())),
                    Source::Step(of, None) if *of == at => all = true,
                    _ => {}
                }
            }
            member.wanted = if all { Vec::new() } else { wanted.into_iter().collect() };
        }
    }

    /// What is known of a source before there is one.
    pub(super) fn guess(&self, source: &Source, given: &[Option<Vec<(String, Guess)>>]) -> Result<Guess, String> {
        let (at, name) = match source {
            Source::Input(at) => return Ok(Guess::from(&self.inputs[*at])),
            Source::Step(at, name) => (*at, name),
        };
        let Some(outputs) = given.get(at).and_then(Option::as_ref) else { return Ok(Guess::default()) };
        let step = &self.steps[at].name;
        let known = || listed(outputs.iter().map(|(name, _)| name.as_str()));
        match (name, outputs.as_slice()) {
            (None, [(_, only)]) => Ok(only.clone()),
            (None, _) => Err(format!(
                "{step} gives {}: write which, such as `{step}.{}`",
                known(),
                outputs.first().map_or("NAME", |(name, _)| name)
            )),
            (Some(name), _) => outputs
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, guess)| guess.clone())
                .ok_or_else(|| format!("{step} gives no {name:?}; it gives {}", known())),
        }
    }
}

pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// What may be named.
struct Book<'a> {
    inputs: &'a [Port],
    steps: Vec<String>,
}

impl<'a> Book<'a> {
    fn of(inputs: &'a [Port], steps: &[DeclaredStep]) -> Result<Self, Error> {
        let mut names: Vec<String> = Vec::with_capacity(steps.len());
        for step in steps {
            if names.contains(&step.name) {
                return Err(Error::step(&step.name, "its name stands twice"));
            }
            if inputs.iter().any(|input| input.name == step.name) {
                return Err(Error::step(&step.name, "an input of the pipeline has this name"));
            }
            names.push(step.name.clone());
        }
        Ok(Self { inputs, steps: names })
    }

    /// An input's name, a step's, or a step's with one of its outputs behind a point.
    fn source(&self, text: &str) -> Result<Source, String> {
        if let Some(at) = self.inputs.iter().position(|input| input.name == text) {
            return Ok(Source::Input(at));
        }
        let (step, output) = text.split_once('.').map_or((text, None), |(step, output)| (step, Some(output)));
        match self.steps.iter().position(|name| name == step) {
            Some(at) => Ok(Source::Step(at, output.map(ToOwned::to_owned))),
            None => {
                let inputs = listed(self.inputs.iter().map(|input| input.name.as_str()));
                let steps = listed(self.steps.iter().map(String::as_str));
                Err(format!("{text:?} is neither an input of the pipeline ({inputs}) nor a step ({steps})"))
            }
        }
    }
}

fn build(declared: DeclaredStep, book: &Book<'_>) -> Result<Step, Error> {
    let DeclaredStep { name, inputs, rest } = declared;
    let wrong = |problem: String| Error::step(&name, problem);
    let source = |from: &str| book.source(from).map_err(wrong);
    match (rest.contains_key("model"), rest.contains_key("step")) {
        (true, false) => {
            let (member, inputs) = member(&name, inputs, rest, book)?;
            Ok(Step { name, work: Work::Model(member), inputs })
        }
        (false, true) => {
            let op = Op::parse(rest).map_err(wrong)?;
            let from = match (op.takes(), inputs) {
                (Takes::One, Inputs::One(from)) => vec![from],
                (Takes::Many, Inputs::Many(from)) if !from.is_empty() && from.len() <= INPUTS_MAX => from,
                (Takes::Named(must, may), Inputs::Named(mut given)) => {
                    let mut from = Vec::new();
                    for key in must {
                        from.push(given.remove(*key).ok_or_else(|| wrong(format!("`input` lacks {key}")))?);
                    }
                    from.extend(may.iter().filter_map(|key| given.remove(*key)));
                    if let Some(odd) = given.keys().next() {
                        let known = must.iter().chain(may).copied();
                        return Err(wrong(format!("`input` has {odd}, expected {}", listed(known))));
                    }
                    from
                }
                (Takes::One, _) => return Err(wrong("`input` is one name".to_owned())),
                (Takes::Many, _) => return Err(wrong(format!("`input` is a list of 1 to {INPUTS_MAX} names"))),
                (Takes::Named(must, _), _) => {
                    let example = must.iter().map(|key| format!("{key} = \"...\"")).collect::<Vec<_>>().join(", ");
                    return Err(wrong(format!("`input` is a table: {{ {example} }}")));
                }
            };
            let inputs = from.iter().map(|from| source(from)).collect::<Result<_, _>>()?;
            Ok(Step { name, work: Work::Op(op), inputs })
        }
        _ => Err(wrong("it needs either `model`, the model that it asks, or `step`, what it does".to_owned())),
    }
}

fn member(name: &str, inputs: Inputs, rest: Table, book: &Book<'_>) -> Result<(Member, Vec<Source>), Error> {
    let wrong = |problem: String| Error::step(name, problem);
    let source = |from: &str| book.source(from).map_err(wrong);
    let keys: MemberKeys =
        Value::Table(rest).try_into().map_err(|error: toml::de::Error| wrong(error.message().trim().to_owned()))?;
    if keys.model.is_empty() || (keys.version.is_some() && keys.model.contains('@')) {
        return Err(wrong("`model` is a name, with an alias behind `@` or with `version` beside it".to_owned()));
    }
    let Inputs::Named(given) = inputs else {
        return Err(wrong(
            "`input` is a table: the model's inputs on the left, where they come from on the right".to_owned(),
        ));
    };
    if given.is_empty() || given.len() > INPUTS_MAX {
        return Err(wrong(format!("a model has 1 to {INPUTS_MAX} inputs, given {}", given.len())));
    }
    let (ports, sources): (Vec<String>, Vec<String>) = given.into_iter().unzip();
    let sources = sources.iter().map(|from| source(from)).collect::<Result<Vec<_>, _>>()?;
    let otherwise = match keys.otherwise {
        None => BTreeMap::new(),
        Some(Value::Table(table)) => {
            let table = names(name, "otherwise", table)?;
            table.into_iter().map(|(port, from)| Ok((port, source(&from)?))).collect::<Result<_, Error>>()?
        }
        Some(other) => {
            return Err(wrong(format!("`otherwise` is a table: the model's outputs on the left, given {other}")));
        }
    };
    let rows = keys.rows.as_deref().map(source).transpose()?;
    if rows.is_none() && !otherwise.is_empty() {
        return Err(wrong("`otherwise` says where unmarked rows come from: it needs `rows`".to_owned()));
    }
    let MemberKeys { model, version, each, .. } = keys;
    Ok((Member { model, version, inputs: ports, rows, otherwise, each, wanted: Vec::new() }, sources))
}
