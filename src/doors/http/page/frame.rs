//! The document around the live part: head, header, footer, and the policy that guards them.

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::Sheet;
use crate::doors::http::problem::Problem;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
pub(super) const ICON: &str = include_str!("icon.svg");

/// Only our own style and script run, by their digests, and the page talks to nobody but this door.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digest(STYLE),
        digest(SCRIPT),
    );
    HeaderValue::from_str(&policy).expect("base64 and plain ASCII")
});

fn digest(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

pub(super) fn html_response(body: String) -> Response {
    let headers: [(HeaderName, HeaderValue); 2] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
    ];
    (headers, body).into_response()
}

pub(super) fn document(sheet: &Sheet) -> Markup {
    shell(
        &sheet.title,
        &html! {
            nav.streams aria-label="Streams" {
                @if !sheet.streams.is_empty() {
                    a href="/" aria-current=[sheet.streams.iter().all(|(_, here)| !here).then_some("page")] { "Overview" }
                    @for (name, here) in &sheet.streams {
                        a href=(format!("/streams/{name}")) aria-current=[here.then_some("page")] { (name) }
                    }
                }
            }
            p.connection #connection data-state="static" role="status" { span.dot aria-hidden="true" {} span #connection-text { "Not live" } }
        },
        &html! {
            noscript { p.notice { "Live updates need JavaScript, which is off. Reload the page for newer readings." } }
            main #main data-events=(sheet.events) { (sheet.main) }
            p.only-heard #heard role="status" {}
            footer {
                p { "Forebay " (env!("CARGO_PKG_VERSION")) ". All times are UTC, as the source gave them." }
                nav aria-label="Data" {
                    a href="/api/v1/streams" { "streams" }
                    a href="/api/v1/alerts" { "alarms" }
                    a href="/api/v1/queue" { "queue" }
                    a href="/api/v1/models" { "models" }
                    a href="/metrics" { "metrics" }
                    a href="/readyz" { "health" }
                }
            }
            script { (PreEscaped(SCRIPT)) }
        },
    )
}

/// For people who opened a page that is not there.
pub(super) fn problem(problem: &Problem) -> Markup {
    shell(
        &problem.message,
        &html! {},
        &html! {
            main {
                section.panel.lost {
                    h1 { (problem.message) }
                    @if !problem.hint.is_empty() { p { (problem.hint) } }
                    p { a href="/" { "Back to the start" } }
                }
            }
        },
    )
}

fn shell(title: &str, top: &Markup, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" type="image/svg+xml" href="/icon.svg";
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the readings" }
                header.top {
                    a.brand href="/" aria-label="Forebay, start page" {
                        svg.logo viewBox="0 0 32 32" aria-hidden="true" {
                            path d="M4 6v20M28 6v20" {}
                            path d="M4 13c4-3 8 3 12 0s8 3 12 0" {}
                            path d="M4 20c4-3 8 3 12 0s8 3 12 0" {}
                        }
                        span { "Forebay" }
                    }
                    (top)
                }
                (content)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_digests_of_what_the_page_carries() {
        let sheet = Sheet { title: "<t>".into(), events: "/e".into(), streams: vec![], main: html! {} };
        let page = document(&sheet).into_string();
        let between = |open: &str, close: &str| {
            let start = page.find(open).unwrap() + open.len();
            &page[start..start + page[start..].find(close).unwrap()]
        };
        let policy = POLICY.to_str().unwrap();
        assert!(policy.contains(&digest(between("<style>", "</style>"))));
        assert!(policy.contains(&digest(between("<script>", "</script>"))));
        assert!(page.contains("<title>&lt;t&gt;</title>"));
    }

    #[test]
    fn the_page_names_no_other_host() {
        for text in [STYLE, SCRIPT] {
            assert!(!text.contains("//") || !text.contains("http"), "nothing may be loaded from elsewhere");
        }
    }
}
