//! Providers of every kind in front of the mock.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use forebay::base::{Clock, SystemClock};
use forebay::provider::{Ask, Call, Failure, Kind, Metrics, Operation, Provider, Providers, Reply, Wire};
use tempfile::TempDir;

use crate::mock_provider::Mock;

pub(crate) const SERVICE_ACCOUNT: &str = include_str!("../fixtures/provider/service-account.json");

/// A provider and the folder with its key.
pub(crate) struct Fixture {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) folder: TempDir,
}

impl Fixture {
    /// Of the kind, at the mock, with a key as the kind has it, and more settings.
    pub(crate) fn of(kind: Kind, mock: &Mock, settings: &str) -> Self {
        Self::with_clock(kind, mock, settings, &(Arc::new(SystemClock::new()) as Arc<dyn Clock>))
    }

    pub(crate) fn with_clock(kind: Kind, mock: &Mock, settings: &str, clock: &Arc<dyn Clock>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = match kind {
            Kind::Bedrock | Kind::Sagemaker => {
                "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = hidden\n".to_owned()
            }
            Kind::Vertex => SERVICE_ACCOUNT.replace("http://127.0.0.1:1/token", &mock.url("/token")),
            _ => "sk-mock".to_owned(),
        };
        std::fs::write(folder.path().join("key"), key).unwrap();
        let region = if matches!(kind, Kind::Bedrock | Kind::Sagemaker) { "region = \"eu-central-1\"" } else { "" };
        let base = match kind {
            Kind::Openai | Kind::Mistral | Kind::Groq | Kind::Huggingface | Kind::OpenaiCompatible => mock.url("/v1"),
            _ => mock.url(""),
        };
        let base = if settings.contains("base_url") { String::new() } else { format!("base_url = \"{base}\"") };
        let key_file = folder.path().join("key");
        let text = format!(
            "name = \"there\"\nkind = \"{kind}\"\nkey_file = \"{}\"\n{base}\n{region}\n{settings}",
            key_file.display()
        );
        let provider = open(&text, None, clock).unwrap();
        Self { provider, folder }
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder.path().join("key")
    }
}

pub(crate) fn open(
    text: &str,
    credentials: Option<&Path>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Provider>, forebay::provider::Error> {
    let config = toml::from_str(text).unwrap();
    let providers = Providers::open(vec![config], credentials, clock, &Metrics::default())?;
    Ok(providers.iter().next().unwrap().clone())
}

/// A request for a chat in the kind's first language, as little as it takes.
pub(crate) fn chat<'a>(provider: &dyn Provider, model: &'a str, stream: bool) -> Ask<'a> {
    let wire = provider.kind().wires()[0];
    let operation = if wire == Wire::Oip { Operation::Infer } else { Operation::Chat };
    chat_in(wire, operation, model, stream)
}

pub(crate) fn chat_in(wire: Wire, operation: Operation, model: &str, stream: bool) -> Ask<'_> {
    let body = match wire {
        Wire::Gemini => "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"hi\"}]}]}".to_owned(),
        Wire::Converse => "{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"hi\"}]}]}".to_owned(),
        Wire::Oip => "{\"inputs\":[]}".to_owned(),
        _ => format!(
            "{{\"model\":\"{model}\",\"stream\":{stream},\"max_tokens\":9,\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]}}"
        ),
    };
    let call = Call::new(wire, operation);
    Ask { call, model, stream, headers: &[], body: Bytes::from(body), first_byte_timeout: None }
}

/// The pieces of an answer until it ends, and how it ended.
pub(crate) async fn pieces(mut reply: Reply) -> (Vec<Bytes>, Option<Failure>) {
    let mut pieces = Vec::new();
    while let Some(piece) = reply.body.next().await {
        match piece {
            Ok(bytes) => pieces.push(bytes),
            Err(failure) => return (pieces, Some(failure)),
        }
    }
    (pieces, None)
}
