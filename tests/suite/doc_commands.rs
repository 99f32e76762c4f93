//! The commands of the documentation, run as they stand there against a gateway that has the models they ask.

use std::path::Path;

use forebay::engine::built_in;

use crate::http_fixture::Setup;
use crate::oip_clients::copy;

/// The blocks of a page that call `curl`, without prompts.
fn blocks(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let blocks = text.split("```").skip(1).step_by(2);
    let code = |block: &str| block.split_once('\n').map(|(_, code)| code.replace("\n$ ", "\n")).unwrap_or_default();
    let code = blocks.map(code).map(|code| code.strip_prefix("$ ").unwrap_or(&code).to_owned());
    code.filter(|code| code.lines().any(|line| line.starts_with("curl "))).collect()
}

#[tokio::test]
async fn the_commands_about_inference_and_of_the_bundled_models_do_what_the_pages_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    copy(&root.join("models"), &folder.path().join("models"));
    copy(&root.join("tests/fixtures/models/simple"), &folder.path().join("models/simple"));
    let setup = Setup {
        models: Some(folder.path().join("models")),
        engines: built_in(),
        streams: &[],
        access: toml::from_str("allow_anonymous_loopback = true\nanonymous_manage_models = true").unwrap(),
        ..Setup::default()
    };
    let gateway = setup.start().await;
    let image = cfg!(feature = "image");
    for (page, says) in [
        ("docs/inference.md", vec!["\"data\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", "\"TIMESTAMPS\""]),
        ("models/digits/README.md", vec!["\"label\":\"3\""; usize::from(image)]),
        ("models/wine-cultivar/README.md", vec!["\"label\":\"cultivar 3\""]),
        ("models/machine-temperature/README.md", vec!["\"name\":\"score\""]),
    ] {
        let blocks = blocks(&root.join(page));
        if page.contains("digits") && !image {
            continue;
        }
        assert_eq!(blocks.len(), says.len(), "{page}: {blocks:#?}");
        for (block, says) in blocks.into_iter().zip(says) {
            let address = gateway.address.to_string();
            let code = block.replace("localhost:8080", &address).replace("127.0.0.1:8080", &address);
            let mut bash = std::process::Command::new("bash");
            bash.args(["-ec", &code]).current_dir(folder.path());
            let ran = tokio::task::spawn_blocking(move || bash.output().unwrap()).await.unwrap();
            let said = String::from_utf8_lossy(&ran.stdout).into_owned();
            assert!(
                ran.status.success() && !said.contains("\"error\"") && said.contains(says),
                "{page}: {block}\n{said}"
            );
        }
    }
}
