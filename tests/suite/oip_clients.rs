//! NVIDIA's and KServe's own clients for the Open Inference Protocol, over HTTP and gRPC, against a real gateway.

use std::path::Path;
use std::process::Command;

use crate::gateway::{Gateway, Setup, free_port, loopback, said};

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let into = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &into);
        } else {
            std::fs::copy(entry.path(), into).unwrap();
        }
    }
}

/// Runs a script with the gateway's addresses and its models' folder.
fn passes(script: &str, fixtures: &[&str], more: &str) {
    let models = tempfile::tempdir().unwrap();
    for folder in fixtures {
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder), models.path());
    }
    let grpc = loopback(free_port());
    let gateway = Gateway::with(&Setup {
        access: "allow_anonymous_loopback = true\nanonymous_manage_models = true",
        models: Some(models.path()),
        more: &format!(
            "[grpc]\naddress = \"{grpc}\"\n\
             [catalog.models.dense.serving]\nbatching = \"on\"\nbatch_rows_max = 4\nbatch_delay_us = 100\n{more}"
        ),
        ..Setup::default()
    });
    let interpreter = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite").join(script);
    let mut python = Command::new(&interpreter);
    python.arg(script).args([gateway.http.to_string(), grpc.to_string()]).arg(models.path());
    let output =
        python.output().unwrap_or_else(|error| panic!("{interpreter}: {error}; name a Python 3 in FOREBAY_PYTHON"));
    let (code, stdout, stderr) = said(output);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

#[test]
fn tritons_clients_infer_describe_and_manage_models_over_http_and_grpc() {
    passes("oip_clients.py", &["models"], "");
}

/// What NVIDIA's example programs do, under the names that they use for models and regions.
#[test]
fn tritons_clients_use_texts_bytes_shared_memory_compression_and_settings() {
    passes("oip_extensions.py", &["models", "triton"], "[shared_memory]\nprefix = \"\"\nregions_max = 8\n");
}

#[test]
fn a_pipeline_is_a_model_to_tritons_clients() {
    passes("oip_pipelines.py", &["models"], "");
}

#[test]
fn kserves_client_infers_over_rest_and_grpc() {
    passes("oip_kserve.py", &["models"], "");
}
