//! The live page in a real browser.

use forebay::doors::http::Config;

use super::http_fixture::{Setup, cloud, gateway, gateway_with, open_access};
use super::webdriver::{Look, with_browser};

const LIVE: &str = "document.documentElement.dataset.state === 'live'";

fn shows(selector: &str, text: &str) -> String {
    format!("document.querySelector({selector:?})?.textContent.includes({text:?})")
}

#[tokio::test]
async fn the_page_follows_what_happens_and_talks_to_nobody_else() {
    let cloud = cloud().await;
    let gateway = Setup { cloud: Some(cloud.address().port()), ..Setup::default() }.start().await;
    let home = format!("http://{}/", gateway.address);
    gateway.reading("machine", 71.5).await;
    with_browser(Look::DESK, async |browser| {
        browser.open(&home).await;
        browser.until(LIVE).await;
        browser.until(&shows(".value", "71.5")).await;
        gateway.reading("machine", 83.2).await;
        browser.until(&shows(".value", "83.2")).await;
        gateway.alarm("machine").await;
        browser.until("document.title.startsWith('ALARM ')").await;
        browser.until(&shows("#verdict-live", "Alarm")).await;
        browser.until(&shows("#alarms-live", "critical")).await;
        browser.until(&shows("#heard", "machine: alarm 1")).await;
        browser.until("document.querySelectorAll('.alarm-label').length === 1").await;
        browser.until(&shows("#legend-live", "expected")).await;
        browser.until(&shows("#link-live", "Up")).await;
        cloud.stop().await;
        browser.until(&shows("#link-live", "127.0.0.1:")).await;
        browser.point(700, 350).await;
        browser.until(&shows("#readout", "measured")).await;
        browser.picture("page-desk").await;
        assert_eq!(browser.complaints().await, [""; 0]);
        let asked = browser.requested().await;
        assert!(asked.iter().any(|url| url.contains("/api/v1/events")), "{asked:?}");
        // The browser's own first tab comes from inside it.
        let inside = |url: &String| [&*home, "chrome:", "data:"].iter().any(|ours| url.starts_with(ours));
        let foreign: Vec<_> = asked.into_iter().filter(|url| !inside(url)).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
    })
    .await;
}

#[tokio::test]
async fn the_page_turns_from_waiting_to_a_curve_by_itself() {
    let gateway = gateway().await;
    with_browser(Look::DESK, async |browser| {
        browser.open(&format!("http://{}/", gateway.address)).await;
        browser.until(LIVE).await;
        browser.until(&shows(".waiting", "Waiting for the first reading")).await;
        browser.picture("page-waiting").await;
        gateway.reading("machine", 71.5).await;
        browser.until(&shows(".value", "71.5")).await;
        browser.until("document.querySelector('.band') !== null").await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_shows_and_heals() {
    let gateway = gateway().await;
    let address = gateway.address;
    gateway.reading("machine", 71.5).await;
    with_browser(Look::DESK, async |browser| {
        browser.open(&format!("http://{address}/")).await;
        browser.until(LIVE).await;
        let closed = gateway.close().await.unwrap();
        browser.until(&shows("#connection", "Connection lost")).await;
        browser.picture("page-lost").await;
        let http = Config { address, ..Config::default() };
        let back = Setup { http, ..Setup::default() }.start_in(closed.folder).await;
        back.reading("machine", 64.3).await;
        browser.until(LIVE).await;
        browser.until(&shows(".value", "64.3")).await;
    })
    .await;
}

#[tokio::test]
async fn a_page_without_a_place_among_the_watchers_still_updates() {
    let config = Config { watchers_max: 1, ..Config::default() };
    let gateway = gateway_with(config, open_access(), &["machine"]).await;
    let _other = gateway.events("").await;
    gateway.reading("machine", 71.5).await;
    with_browser(Look::DESK, async |browser| {
        browser.open(&format!("http://{}/", gateway.address)).await;
        browser.until(&shows("#connection", "Updating every 5 s")).await;
        gateway.reading("machine", 83.2).await;
        browser.until(&shows(".value", "83.2")).await;
    })
    .await;
}

#[tokio::test]
async fn the_page_is_readable_without_javascript() {
    let gateway = gateway().await;
    gateway.alarm("machine").await;
    with_browser(Look { scripts: false, ..Look::DESK }, async |browser| {
        browser.open(&format!("http://{}/?range=all", gateway.address)).await;
        let source = browser.source().await;
        assert!(!source.contains("class=\"scripted\""), "the script ran");
        for wanted in ["Reload the page for newer readings", "130.0", "Alarm", "critical", "Not live"] {
            assert!(source.contains(wanted), "{wanted}");
        }
        browser.picture("page-without-javascript").await;
        assert_eq!(browser.complaints().await, [""; 0]);
    })
    .await;
}

/// Text against what lies behind it, by the WCAG 2 formula. Answers with what falls short of 4.5 (3 where large).
const TOO_FAINT: &str = r"(() => {
  const parse = (text) => { const n = text.match(/[\d.]+/g).map(Number); return { rgb: n.slice(0, 3), alpha: n[3] ?? 1 }; };
  const light = (rgb) => { const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.alpha === 1) return c.rgb; } return [255, 255, 255]; };
  const faint = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, style = getComputedStyle(e);
    if (!walk.currentNode.data.trim() || ['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(e.tagName) || !e.getClientRects().length) continue;
    const front = parse(e instanceof SVGElement ? style.fill : style.color).rgb;
    const [a, b] = [light(front), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) faint.push(walk.currentNode.data.trim() + ' ' + ratio.toFixed(2));
  }
  return faint;
})()";

#[tokio::test]
async fn text_is_legible_by_day_and_by_night_and_fits_a_phone() {
    let gateway = gateway_with(Config::default(), open_access(), &["machine", "pump"]).await;
    gateway.alarm("machine").await;
    for (name, look) in [
        ("page-phone", Look::PHONE),
        ("page-phone-dark", Look { dark: true, ..Look::PHONE }),
        ("page-dark", Look { dark: true, ..Look::DESK }),
    ] {
        with_browser(look, async |browser| {
            for path in ["", "streams/machine?range=all", "streams/pump", "streams/nobody"] {
                browser.open(&format!("http://{}/{path}", gateway.address)).await;
                browser.until("document.body !== null").await;
                assert_eq!(browser.ask(TOO_FAINT).await, serde_json::json!([]), "{name} /{path}");
                let wide = browser.ask("document.documentElement.scrollWidth - innerWidth").await;
                assert!(wide.as_i64().unwrap() <= 0, "{name} /{path} is {wide} too wide");
                let small = browser
                    .ask("[...document.querySelectorAll('main *, main text')].filter((e) => e.childElementCount === 0 && e.textContent.trim() && parseFloat(getComputedStyle(e).fontSize) < 11).map((e) => e.textContent)")
                    .await;
                assert_eq!(small, serde_json::json!([]), "{name} /{path}");
                if path.contains("range") {
                    browser.picture(name).await;
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn the_page_has_the_structure_that_screen_readers_use() {
    let gateway = gateway_with(Config::default(), open_access(), &["machine", "pump"]).await;
    gateway.alarm("machine").await;
    with_browser(Look::DESK, async |browser| {
        for path in ["", "streams/machine?range=all", "streams/pump"] {
            browser.open(&format!("http://{}/{path}", gateway.address)).await;
            for (what, expression) in [
                ("one main heading", "document.querySelectorAll('h1').length === 1"),
                ("a language", "document.documentElement.lang === 'en'"),
                ("unique ids", "(ids => new Set(ids).size === ids.length)([...document.querySelectorAll('[id]')].map(e => e.id))"),
                ("labels that exist", "[...document.querySelectorAll('[aria-labelledby]')].every(e => document.getElementById(e.getAttribute('aria-labelledby')))"),
                ("a scope for every header cell", "[...document.querySelectorAll('th')].every(e => e.scope)"),
                ("a name or no voice for every picture", "[...document.querySelectorAll('svg')].every(e => e.closest('[aria-hidden],[aria-label],[role=img]'))"),
                ("regions with names", "[...document.querySelectorAll('section, nav')].every(e => e.getAttribute('aria-label') || e.getAttribute('aria-labelledby'))"),
                ("no script in attributes", "![...document.querySelectorAll('*')].some(e => [...e.attributes].some(a => a.name.startsWith('on') || a.name === 'style'))"),
            ] {
                assert_eq!(browser.ask(expression).await, true, "/{path}: {what}");
            }
        }
    })
    .await;
}
