//! Vectors of texts, by an encoder and its tokenizer: for requests, and for answers that are found by what a request means.
#![cfg(feature = "text")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::failure;
use super::library::{Languages, PATIENCE, embedding_of};
use crate::base::{Datatype, Tensor};
use crate::cache::{Embed, EmbedError};
use crate::dialect::{EmbeddingsRequest, Usage};
use crate::flows::answer::{LocalAsk, LocalBody, LocalFailure};
use crate::flows::inference::{Inferred, NamedTensor, Question, Wanted};
use crate::flows::models::{Loaded, NotServing};
use crate::generate::{Batch, Embedder, Long};
use crate::price::LocalUse;

/// A longer text has no vector for the cache: reading it would take longer than asking.
const CACHED_BYTES_MAX: usize = 16 * 1024;

/// Vectors, and what they took.
struct Vectors {
    each: Vec<Vec<f32>>,
    tokens: u64,
    cpu: Option<Duration>,
}

/// An answer that is there.
struct Given {
    body: Option<Bytes>,
    used: Option<LocalUse>,
}

impl LocalBody for Given {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, LocalFailure>>> {
        Poll::Ready(self.body.take().map(Ok))
    }

    fn used(&self) -> Option<LocalUse> {
        self.used
    }
}

impl Languages {
    pub(super) async fn embed_request(&self, ask: LocalAsk<'_>) -> Result<Box<dyn LocalBody>, LocalFailure> {
        let request = EmbeddingsRequest::read(&ask.asked.request).map_err(|error| LocalFailure::of_request(&error))?;
        let texts = request.inputs.iter().map(|text| text.clone().into_owned()).collect();
        let dimensions = request.dimensions.map(|wanted| usize::try_from(wanted).unwrap_or(usize::MAX));
        let loaded = self.ready(ask.model).await?;
        let vectors = self.vectors(&loaded, texts, dimensions).await?;
        let usage = Usage { input_tokens: Some(vectors.tokens), output_tokens: Some(0), ..Usage::default() };
        let shown = ask.asked.model_shown.as_deref().unwrap_or(ask.model);
        let body = Some(request.answer(shown, &vectors.each, &usage).into());
        let cpu_us = |cpu: Duration| u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
        let used = vectors.cpu.map(|cpu| LocalUse { cpu_us: cpu_us(cpu) });
        Ok(Box::new(Given { body, used }))
    }

    async fn vectors(
        &self,
        loaded: &Arc<Loaded>,
        texts: Vec<String>,
        dimensions: Option<usize>,
    ) -> Result<Vectors, LocalFailure> {
        let cannot = |reason: String| {
            let name = &loaded.manifest.model.name;
            failure::cannot(&format!("The model {name} makes no vectors of texts: {reason}."))
        };
        let output = embedding_of(&loaded.manifest);
        let output = output.ok_or_else(|| cannot("none of its outputs is an embedding".to_owned()))?.name.clone();
        let count = texts.len();
        let (tokenizing, cpu) = (Arc::clone(loaded), self.cpu);
        let tokenized = tokio::task::spawn_blocking(move || {
            let began = cpu();
            let embedder = tokenizing.speech.embedder().map_err(Err)?;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let batches = embedder.batches(&texts, Long::Refused).map_err(Ok)?;
            Ok((batches, cpu().zip(began).map(|(now, began)| now.saturating_sub(began))))
        });
        let tokenized = tokenized.await.map_err(|_| failure::unavailable("The tokenizer broke down."))?;
        let ((batches, tokens), mut took) = tokenized.map_err(|error: Result<_, String>| match error {
            Ok(error) => LocalFailure::of_generation(&error),
            Err(reason) => cannot(reason),
        })?;
        let mut each = vec![Vec::new(); count];
        for batch in batches {
            let inferred = self.infer(loaded, &batch, &output).await?;
            took = took.map(|took| took + Duration::from_micros(inferred.duration_us));
            let rows = inferred.outputs.first().and_then(|output| output.tensor.as_slice::<f32>());
            let rows = rows.filter(|rows| !rows.is_empty() && rows.len() % batch.texts.len() == 0);
            let rows = rows.ok_or_else(|| failure::unavailable("The encoder gave no vector for each text."))?;
            for (row, text) in rows.chunks_exact(rows.len() / batch.texts.len()).zip(&batch.texts) {
                let vector = Embedder::vector(row, dimensions);
                each[*text] = vector.map_err(|error| LocalFailure::of_generation(&error))?;
            }
        }
        Ok(Vectors { each, tokens, cpu: took })
    }

    async fn infer(&self, loaded: &Loaded, batch: &Batch, output: &str) -> Result<Inferred, LocalFailure> {
        let about = &loaded.manifest.model;
        let mut inputs = Vec::new();
        for port in &loaded.manifest.inputs {
            let tensor = match port.name.as_str() {
                "input_ids" => &batch.ids,
                "attention_mask" => &batch.mask,
                "token_type_ids" => &batch.types,
                other => {
                    let reason = format!("The model {} wants {other}, which is not made of texts here.", about.name);
                    return Err(failure::cannot(&reason));
                }
            };
            inputs.push(NamedTensor { name: port.name.clone(), tensor: fitted(tensor, port.datatype) });
        }
        let question = Question {
            model: about.name.to_string(),
            version: Some(about.version),
            inputs,
            outputs: vec![Wanted { name: output.to_owned(), classes: None }],
            deadline: PATIENCE,
            priority: 0,
        };
        self.inference.infer(question).await.map_err(|error| failure::of_inference(&error))
    }
}

/// The same numbers as the model takes them.
fn fitted(tensor: &Tensor, datatype: Datatype) -> Tensor {
    match (datatype, tensor.as_slice::<i64>()) {
        #[allow(clippy::cast_possible_truncation, reason = "numbers of tokens")]
        (Datatype::Int32, Some(whole)) => {
            let narrow: Vec<i32> = whole.iter().map(|&value| value as i32).collect();
            Tensor::new(tensor.shape(), narrow).expect("it has as many elements as before")
        }
        _ => tensor.clone(),
    }
}

/// One version of an encoder, for answers that are found by what a request means.
pub struct Embedding {
    languages: Arc<Languages>,
    /// `model/version`.
    name: String,
    model: String,
    version: u32,
}

impl Embedding {
    /// The version of `model` that serves now, or loads on request. It stays that one: vectors of another are no neighbours.
    ///
    /// # Errors
    /// There is no such model, or it embeds nothing.
    pub fn new(languages: Arc<Languages>, model: &str) -> Result<Self, String> {
        let slot = languages.models().find(model, None).map_err(|error: NotServing| error.to_string())?;
        if let Some(problem) = slot.problem() {
            return Err(problem.to_string());
        }
        let about = &slot.model.manifest.model;
        let (model, version) = (about.name.to_string(), about.version);
        if !languages.embeds(&slot) {
            return Err(format!("{model}/{version} makes no vectors of texts"));
        }
        Ok(Self { languages, name: format!("{model}/{version}"), model, version })
    }
}

impl Embed for Embedding {
    fn name(&self) -> &str {
        &self.name
    }

    fn embed<'a>(&'a self, text: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<f32>, EmbedError>> + Send + 'a>> {
        Box::pin(async move {
            if text.len() > CACHED_BYTES_MAX {
                return Err(EmbedError(format!("it has {} bytes, the most is {CACHED_BYTES_MAX}", text.len())));
            }
            let models = self.languages.models();
            let loaded = models.ready(&self.model, Some(self.version), PATIENCE).await;
            let loaded = loaded.map_err(|error| EmbedError(error.to_string()))?;
            let vectors = self.languages.vectors(&loaded, vec![text.to_owned()], None).await;
            let vectors = vectors.map_err(|failure| EmbedError(failure.reason))?;
            vectors.each.into_iter().next().ok_or_else(|| EmbedError("the encoder gave nothing".to_owned()))
        })
    }
}
