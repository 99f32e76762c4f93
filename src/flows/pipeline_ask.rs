//! A step of a pipeline that asks a model: about which rows, in how many questions, and how the answers come together.

use futures_util::{StreamExt, TryStreamExt};

use super::inference::{InferError, Inferred, NamedTensor, Question, Wanted};
use super::pipeline::{Composer, Made, Reads, Request};
use super::pipeline_tally::StepReport;
use crate::base::Tensor;
use crate::pipeline::{Limits, Member, Port, join, marked, pick, put};

/// Of a step that asks about its rows one by one: asked ahead of the answers, and in all.
const EACH_AHEAD: usize = 8;
const EACH_MAX: usize = 4096;

impl Composer {
    /// Asks the model of a step, about the rows that it is to be asked about.
    pub(super) async fn ask(&self, request: Request<'_>, member: &Member, reads: Reads) -> Result<Made, InferError> {
        let limits = &request.pipeline.graph.limits;
        let wrong = |detail: String| InferError::Shape { detail };
        let Reads { mut inputs, rows: mask, otherwise } = reads;
        let mut report = StepReport::default();
        let rows = mask.as_ref().map(marked).transpose().map_err(wrong)?;
        if let (Some(mask), Some(rows)) = (&mask, &rows) {
            for (input, name) in inputs.iter_mut().zip(&member.inputs) {
                if input.shape().first() != mask.shape().first() {
                    let (given, marks) = (input.shape(), mask.shape());
                    return Err(wrong(format!("input {name} is {given:?}, its rows are marked by {marks:?}")));
                }
                *input = pick(input, rows, limits).map_err(wrong)?;
            }
            report.of_rows = mask.shape().first().map(|&rows| rows as u64);
        }
        let nothing = !inputs.is_empty() && inputs.iter().all(|input| input.shape().first() == Some(&0));
        report.rows = inputs.first().and_then(|input| input.shape().first()).map(|&rows| rows as u64);
        let mut within = Vec::new();
        let mut tensors = if nothing {
            self.empty(request, member)?
        } else {
            let answers = if member.each {
                self.ask_each(request, member, &inputs).await?
            } else {
                vec![self.ask_once(request, member, inputs).await?]
            };
            report.us = answers.iter().map(|answer| answer.duration_us).sum();
            if let Some(first) = answers.iter().find(|answer| answer.fallback.is_some()).or(answers.first()) {
                report.model = Some(format!("{}/{}", first.model, first.version));
                report.engine = Some(first.engine.clone());
                report.fallback = first.fallback.as_deref().map(ToOwned::to_owned);
            }
            within = answers.iter().flat_map(|answer| answer.steps.iter().cloned()).collect();
            joined(&answers, limits).map_err(wrong)?
        };
        if let Some(rows) = &rows {
            for (name, base) in otherwise {
                let Some((_, tensor)) = tensors.iter_mut().find(|(known, _)| *known == name) else { continue };
                *tensor = if nothing { base } else { put(&base, rows, tensor, limits).map_err(wrong)? };
            }
        }
        Ok(Made { tensors, report, within })
    }

    async fn ask_once(
        &self,
        request: Request<'_>,
        member: &Member,
        inputs: Vec<Tensor>,
    ) -> Result<Inferred, InferError> {
        let named = |(name, tensor): (&String, Tensor)| NamedTensor { name: name.clone(), tensor };
        let wanted = |name: &String| Wanted { name: name.clone(), classes: None };
        let question = Question {
            model: member.model.clone(),
            version: member.version,
            inputs: member.inputs.iter().zip(inputs).map(named).collect(),
            outputs: member.wanted.iter().map(wanted).collect(),
            deadline: request.until.saturating_sub(self.clock.since_boot()),
            priority: request.priority,
        };
        request.members.ask(question).await
    }

    /// One question for each row, some at the same time.
    async fn ask_each(
        &self,
        request: Request<'_>,
        member: &Member,
        inputs: &[Tensor],
    ) -> Result<Vec<Inferred>, InferError> {
        let wrong = |detail: String| InferError::Shape { detail };
        let rows = inputs.first().and_then(|input| input.shape().first().copied()).unwrap_or(0);
        if rows > EACH_MAX || inputs.iter().any(|input| input.shape().first() != Some(&rows)) {
            let shapes: Vec<_> = inputs.iter().map(Tensor::shape).collect();
            return Err(wrong(format!(
                "inputs of the same number of rows, at most {EACH_MAX}, are expected, given {shapes:?}"
            )));
        }
        let limits = &request.pipeline.graph.limits;
        let asked = (0..rows).map(|row| {
            let inputs: Result<Vec<Tensor>, String> = inputs.iter().map(|input| pick(input, &[row], limits)).collect();
            async move { self.ask_once(request, member, inputs.map_err(|detail| InferError::Shape { detail })?).await }
        });
        futures_util::stream::iter(asked).buffered(EACH_AHEAD).try_collect().await
    }

    /// What a model that nobody asks anything would give.
    fn empty(&self, request: Request<'_>, member: &Member) -> Result<Vec<(String, Tensor)>, InferError> {
        let gives = request.members.gives(member)?;
        let wanted = |port: &&Port| member.wanted.is_empty() || member.wanted.contains(&port.name);
        let none = |port: &Port| {
            let inner = port.shape.iter().skip(1).map(|&dim| usize::try_from(dim).unwrap_or(0));
            let shape: Vec<usize> = std::iter::once(0).chain(inner).collect();
            let tensor = Tensor::from_bytes(port.datatype, shape, bytes::Bytes::new());
            let tensor = tensor.map_err(|error| InferError::Failed { detail: error.to_string() })?;
            Ok((port.name.clone(), tensor))
        };
        gives.iter().filter(wanted).map(none).collect()
    }
}

/// Each output of all answers, one answer's rows behind the other's.
fn joined(answers: &[Inferred], limits: &Limits) -> Result<Vec<(String, Tensor)>, String> {
    let Some(first) = answers.first() else { return Ok(Vec::new()) };
    let output = |(at, output): (usize, &NamedTensor)| {
        let parts: Vec<&Tensor> = answers.iter().filter_map(|answer| Some(&answer.outputs.get(at)?.tensor)).collect();
        Ok((output.name.clone(), join(&parts, limits)?))
    };
    first.outputs.iter().enumerate().map(output).collect()
}
