//! A W3C WebDriver client: just enough of it to open a page in headless Chromium and ask what is there.

use std::panic::AssertUnwindSafe;
use std::process::Stdio;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const BROWSER: &str = "/usr/bin/chromium";
const DRIVER: &str = "/usr/bin/chromedriver";
const SWITCHES: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];
const SCRIPT_TIMEOUT_MS: u32 = 60_000;
/// The driver answers a script that takes too long by itself; silence beyond that is a hang.
const PATIENCE: Duration = Duration::from_secs(90);

/// How the browser is to be.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) dark: bool,
    pub(crate) scripts: bool,
}

impl Look {
    pub(crate) const DESK: Self = Self { width: 1280, height: 900, dark: false, scripts: true };
    pub(crate) const PHONE: Self = Self { width: 360, height: 740, dark: false, scripts: true };
}

pub(crate) struct Browser {
    port: u16,
    session: String,
}

/// Runs `test` with a browser of its own, which is closed whatever happens.
pub(crate) async fn with_browser(look: Look, test: impl AsyncFnOnce(&Browser)) {
    let profile = tempfile::tempdir().unwrap();
    let (mut driver, port) = start_driver().await;
    let mut browser = Browser { port, session: String::new() };
    browser.open_session(look, profile.path().to_str().unwrap()).await;
    let outcome = AssertUnwindSafe(test(&browser)).catch_unwind().await;
    browser.call("DELETE", "", None).await;
    let _ = driver.kill().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn start_driver() -> (Child, u16) {
    let mut driver = Command::new(DRIVER)
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{DRIVER}: {error}; on Debian: apt install chromium chromium-driver"));
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return (driver, port.trim_end_matches('.').parse().unwrap());
        }
    }
    panic!("{DRIVER} named no port");
}

impl Browser {
    async fn open_session(&mut self, look: Look, profile: &str) {
        let mut switches: Vec<String> = SWITCHES.iter().map(ToString::to_string).collect();
        switches.push(format!("--user-data-dir={profile}"));
        let scripts = if look.scripts { 1 } else { 2 };
        let capabilities = json!({
            "browserName": "chrome",
            "timeouts": { "script": SCRIPT_TIMEOUT_MS },
            "goog:chromeOptions": {
                "binary": BROWSER,
                "args": switches,
                "prefs": { "profile.managed_default_content_settings.javascript": scripts },
            },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let asked = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let made = request(self.port, "POST", "/session", Some(asked)).await;
        self.session = format!("/session/{}", made["sessionId"].as_str().unwrap_or_else(|| panic!("{made}")));
        let metrics = json!({ "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if look.dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        request(self.port, method, &format!("{}{path}", self.session), body).await
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.call("POST", "/goog/cdp/execute", Some(json!({ "cmd": command, "params": parameters }))).await
    }

    pub(crate) async fn open(&self, url: &str) {
        self.call("POST", "/url", Some(json!({ "url": url }))).await;
    }

    /// The value of a JavaScript expression in the page.
    pub(crate) async fn ask(&self, expression: &str) -> Value {
        self.call("POST", "/execute/sync", Some(json!({ "script": format!("return {expression}"), "args": [] }))).await
    }

    /// Waits until a JavaScript expression is true.
    pub(crate) async fn until(&self, expression: &str) {
        let script = format!(
            "const done = arguments[0]; const look = () => {{ if ({expression}) done(true); else setTimeout(look, 30); }}; look();"
        );
        let seen = self.call("POST", "/execute/async", Some(json!({ "script": script, "args": [] }))).await;
        assert_eq!(seen, true, "never: {expression}");
    }

    /// The document as it stands, without running anything in it.
    pub(crate) async fn source(&self) -> String {
        let document = self.devtools("DOM.getDocument", json!({ "depth": 0 })).await;
        let node = json!({ "nodeId": document["root"]["nodeId"] });
        self.devtools("DOM.getOuterHTML", node).await["outerHTML"].as_str().unwrap().to_owned()
    }

    /// Moves the pointer.
    pub(crate) async fn point(&self, x: u32, y: u32) {
        let mouse = json!({ "type": "pointer", "id": "mouse", "parameters": { "pointerType": "mouse" },
            "actions": [{ "type": "pointerMove", "x": x, "y": y }] });
        self.call("POST", "/actions", Some(json!({ "actions": [mouse] }))).await;
    }

    /// What the browser complained about: script errors, policy violations, failed loads.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.call("POST", "/se/log", Some(json!({ "type": "browser" }))).await;
        log.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// Every address that the page has asked for.
    pub(crate) async fn requested(&self) -> Vec<String> {
        let log = self.call("POST", "/se/log", Some(json!({ "type": "performance" }))).await;
        let event = |entry: &Value| serde_json::from_str::<Value>(entry["message"].as_str()?).ok();
        log.as_array()
            .unwrap()
            .iter()
            .filter_map(event)
            .filter(|event| event["message"]["method"] == "Network.requestWillBeSent")
            .map(|event| event["message"]["params"]["request"]["url"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A picture of the window, for people: `<target>/tmp/<name>.png`.
    pub(crate) async fn picture(&self, name: &str) {
        use base64::Engine;
        let png = self.call("GET", "/screenshot", None).await;
        let png = base64::engine::general_purpose::STANDARD.decode(png.as_str().unwrap()).unwrap();
        std::fs::write(format!("{}/{name}.png", env!("CARGO_TARGET_TMPDIR")), png).unwrap();
    }
}

/// One command. The driver's own errors come back as its JSON; a test that needs a value will show it.
async fn request(port: u16, method: &str, path: &str, body: Option<Value>) -> Value {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
    let json = tokio::time::timeout(PATIENCE, read_answer(socket)).await;
    let json = json.unwrap_or_else(|_| panic!("the driver does not answer {method} {path} {body}"));
    serde_json::from_str::<Value>(&json).unwrap_or_else(|error| panic!("{error}: {json}"))["value"].take()
}

/// The driver keeps the connection open whatever it is asked, so the head says how much to read.
async fn read_answer(socket: TcpStream) -> String {
    let mut socket = BufReader::new(socket);
    let mut length = 0;
    loop {
        let mut line = String::new();
        assert!(socket.read_line(&mut line).await.unwrap() > 0, "the driver hung up");
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}
