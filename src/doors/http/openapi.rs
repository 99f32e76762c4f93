//! The description of this door in OpenAPI's form, for generators of clients and tests.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::routing::get;

use super::door::Door;

/// Written by hand, held to the routes by a test below and to what they answer by `tests/suite/openapi.rs`.
const DESCRIPTION: &str = include_str!("openapi.json");

/// Open: it says what there is to ask, and nothing that is measured.
pub(super) fn open_routes() -> Router<Arc<Door>> {
    Router::new().route("/openapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn sources(folder: &Path, into: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    /// What the code routes, as `get /v2`.
    fn routed() -> BTreeSet<String> {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/doors/http"), &mut text);
        let mut routed = BTreeSet::new();
        for call in text.split(".route(").skip(1) {
            let call = call.trim_start();
            let Some((path, methods)) = call.strip_prefix('"').and_then(|rest| rest.split_once('"')) else { continue };
            let end = methods.find([';', '\n']).unwrap_or(methods.len());
            let methods = methods[..end].split(".route(").next().unwrap();
            // A name that may have slashes in it is a name all the same.
            let path = path.replace("{*", "{");
            for method in ["get", "post", "put", "patch", "delete"] {
                if methods.contains(&format!(" {method}(")) || methods.contains(&format!(".{method}(")) {
                    routed.insert(format!("{method} {path}"));
                }
            }
        }
        routed
    }

    #[test]
    fn every_path_and_method_is_described_and_nothing_else() {
        let description: serde_json::Value = serde_json::from_str(DESCRIPTION).unwrap();
        let described: BTreeSet<String> = description["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
            })
            .collect();
        let mut routed = routed();
        assert!(routed.len() > 30, "{routed:?}");
        // Pages for people.
        routed.retain(|route| !["get /", "get /streams/{stream}", "get /icon.svg"].contains(&&**route));
        assert_eq!(described, routed);
    }
}
