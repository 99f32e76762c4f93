//! Google's paths: the model and the operation are in them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::Method;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::ask::{Wanted, ask, enter, request_id};
use super::{Llm, answer, array};
use crate::dialect::{Dialect, Failure, FailureKind, gemini_call};
use crate::doors::http::body::discard;

type Whole = State<Arc<Llm>>;

pub(super) fn routes() -> Router<Arc<Llm>> {
    Router::new()
        .route("/v1beta/models", get(models))
        // Names of models may have a prefix: `groq/llama-3`.
        .route("/v1beta/models/{*model}", get(model).post(call))
        .route("/v1/projects/{project}/locations/{location}/publishers/google/models/{*model}", post(call))
}

/// Brings what is meant for Google to the paths above. Its API is told apart by a version, and what its SDKs call `v1` has
/// the form of paths that OpenAI and KServe have, too: the method at the end, or Google's own headers, say whose it is.
/// Vertex AI's clients take what stands before a slash for a publisher.
pub(in crate::doors::http) fn readdress<B>(request: &mut hyper::Request<B>) {
    let versions = ["/v1/", "/v1alpha/", "/v1beta1/"];
    let path = request.uri().path();
    let Some(rest) = versions.iter().find_map(|version| path.strip_prefix(version)) else { return };
    let calls = || gemini_call(&percent_decoded(path)).is_some();
    let named = if let Some(found) = interactions(rest) {
        Some(found.to_owned())
    } else if rest.starts_with("models") {
        let is_googles =
            || ["x-goog-api-client", "x-goog-api-key"].iter().any(|name| request.headers().contains_key(*name));
        let asks_google = !path.starts_with("/v1/") || calls() || (request.method() == Method::GET && is_googles());
        asks_google.then(|| rest.to_owned())
    } else if rest.starts_with("projects/") || rest.starts_with("publishers/") {
        // Anything but a question stays where it is: these paths take nothing else.
        let asks = request.method() == Method::POST && calls();
        rest.rsplit_once("/models/").filter(|_| asks).map(|(place, model)| {
            match place.rsplit('/').next().filter(|publisher| *publisher != "google") {
                None => format!("models/{model}"),
                Some(publisher) => format!("models/{publisher}/{model}"),
            }
        })
    } else {
        None
    };
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    if let Some(Ok(uri)) = named.map(|named| format!("/v1beta/{named}{query}").parse()) {
        *request.uri_mut() = uri;
    }
}

/// The path of interactions, which nobody but Google has, without the project and the location before it.
fn interactions(path: &str) -> Option<&str> {
    let is_it = |path: &str| path == "interactions" || path.starts_with("interactions/");
    if is_it(path) {
        return Some(path);
    }
    let mut parts = path.strip_prefix("projects/")?.splitn(4, '/').skip(1);
    let is_place = parts.next() == Some("locations");
    parts.nth(1).filter(|rest| is_place && is_it(rest))
}

async fn call(State(llm): Whole, request: Request) -> Response {
    // `%3A` and `%2F` are what some clients make of the marks in it.
    let path = percent_decoded(request.uri().path());
    let Some(found) = gemini_call(&path) else {
        let id = request_id(&llm, &request);
        discard(request).await;
        let message = "This path has no such method; use generateContent, streamGenerateContent, embedContent, \
                       batchEmbedContents or countTokens.";
        return answer::failed(&Failure::new(FailureKind::NotFound, message), &id, Dialect::Gemini);
    };
    let wanted = Wanted {
        dialect: Dialect::Gemini,
        operation: found.operation,
        model: Some(found.model),
        stream: Some(found.stream),
        batch: found.batch,
    };
    let wants_events = request.uri().query().is_some_and(asks_for_events);
    let response = ask(&llm, wanted, request).await;
    if found.stream && !wants_events { array::instead_of_events(response) } else { response }
}

/// Whether a query asks for a stream of events; Google tells everybody else an array.
fn asks_for_events(query: &str) -> bool {
    query.split('&').any(|part| matches!(part, "alt=sse" | "$alt=sse" | "%24alt=sse"))
}

/// Only what a model's name and a method may have in them.
fn percent_decoded(path: &str) -> String {
    let marks = [("%3A", ":"), ("%3a", ":"), ("%2F", "/"), ("%2f", "/")];
    marks.iter().fold(path.to_owned(), |path, (written, mark)| path.replace(written, mark))
}

async fn models(State(llm): Whole, request: Request) -> Response {
    let id = request_id(&llm, &request);
    match enter(&llm, &request) {
        Err(refused) => refused.response(&id, Dialect::Gemini),
        Ok((who, _place)) => {
            let lines = llm.parts.answer.models(&who);
            let models: Vec<_> = lines.iter().map(|line| told(&line.name)).collect();
            answer::json(&id, Dialect::Gemini, json!({ "models": models }).to_string())
        }
    }
}

async fn model(State(llm): Whole, Path(model): Path<String>, request: Request) -> Response {
    let id = request_id(&llm, &request);
    match enter(&llm, &request) {
        Err(refused) => refused.response(&id, Dialect::Gemini),
        Ok((who, _place)) => match llm.parts.answer.model(&who, &model) {
            Some(line) => answer::json(&id, Dialect::Gemini, told(&line.name).to_string()),
            None => answer::failed(&Failure::model_not_found(&model), &id, Dialect::Gemini),
        },
    }
}

fn told(name: &str) -> Value {
    json!({
        "name": format!("models/{name}"),
        "displayName": name,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "embedContent", "countTokens"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readdressed(method: &str, uri: &str, header: &str) -> String {
        let request = hyper::Request::builder().method(method).uri(uri);
        let mut request = if header.is_empty() { request } else { request.header(header, "k") }.body(()).unwrap();
        readdress(&mut request);
        request.uri().to_string()
    }

    #[test]
    fn every_version_of_googles_paths_is_brought_to_one() {
        for (from, to) in [
            ("/v1/models/a/b:generateContent", "/v1beta/models/a/b:generateContent"),
            ("/v1/models/m%3AstreamGenerateContent?alt=sse", "/v1beta/models/m%3AstreamGenerateContent?alt=sse"),
            ("/v1alpha/models/m:countTokens", "/v1beta/models/m:countTokens"),
            (
                "/v1beta1/projects/p/locations/l/publishers/google/models/m:generateContent",
                "/v1beta/models/m:generateContent",
            ),
            ("/v1beta1/publishers/groq/models/m:countTokens", "/v1beta/models/groq/m:countTokens"),
        ] {
            assert_eq!(readdressed("POST", from, ""), to);
        }
        for from in ["/v1/interactions", "/v1alpha/interactions", "/v1beta1/projects/p/locations/l/interactions"] {
            assert_eq!(readdressed("POST", &format!("{from}?alt=sse"), ""), "/v1beta/interactions?alt=sse");
            assert_eq!(readdressed("GET", &format!("{from}/v1_x"), ""), "/v1beta/interactions/v1_x");
        }
        assert_eq!(readdressed("GET", "/v1/models?pageSize=9", "x-goog-api-key"), "/v1beta/models?pageSize=9");
        assert_eq!(readdressed("GET", "/v1/models/m", "x-goog-api-client"), "/v1beta/models/m");
    }

    #[test]
    fn others_keep_their_paths() {
        for (method, path, header) in [
            ("GET", "/v1/models", "authorization"),
            ("GET", "/v1/models/m", "x-api-key"),
            ("POST", "/v1/models/m:predict", "x-goog-api-key"),
            ("POST", "/v1/chat/completions", "x-goog-api-key"),
            ("POST", "/v1/interactionsofmine", ""),
            ("GET", "/v1/projects/p/locations/l/publishers/google/models/interactions/m", ""),
            ("POST", "/v1/my/interactions", ""),
            ("POST", "/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict", ""),
            ("GET", "/", ""),
        ] {
            assert_eq!(readdressed(method, path, header), path);
        }
    }
}
