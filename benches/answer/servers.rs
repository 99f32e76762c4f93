//! Programs that answer: the gateway, the others where they are installed, and the mock provider below all of them.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::load::{Client, NUMBER, Request, Seen};

/// Mocks by what they do, and the model that each of them has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// Twenty words at once.
    Whole,
    /// Three words, 2 ms apart.
    First,
    /// Fifty words, 20 ms apart.
    Paced,
}

pub(crate) const MODELS: [Model; 3] = [Model::Whole, Model::First, Model::Paced];

impl Model {
    pub(crate) fn name(self) -> &'static str {
        ["gpt-4o", "gpt-4o-mini", "gpt-4.1"][self as usize]
    }

    pub(crate) fn words(self) -> usize {
        [20, 3, 50][self as usize]
    }

    fn pace_ms(self) -> usize {
        [0, 2, 20][self as usize]
    }
}

/// A server in a process group of its own, which ends with this.
pub(crate) struct Server {
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.process);
        // Asked at first: callgrind writes at the end what it counted (cross/order.sh).
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        let until = Instant::now() + Duration::from_secs(5);
        while self.is_up() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(command: &mut Command, log: &Path) -> Option<Self> {
        let log = std::fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        Some(Self { process: command.spawn().ok()? })
    }

    fn is_up(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

/// Somebody to ask.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// None: the mock itself.
    pub(crate) server: Option<Server>,
    path: &'static str,
    headers: String,
    prefix: &'static str,
    /// What tells one mock from another where the body does not: a part of the path or a header, `{}` in it.
    tells: fn(Model, &Mocks) -> (String, String),
}

/// The mocks' addresses, in the order of [`MODELS`].
pub(crate) struct Mocks {
    pub(crate) addresses: [SocketAddr; 3],
    _servers: Vec<Server>,
}

impl Mocks {
    pub(crate) fn start(work: &Path) -> Self {
        let addresses = MODELS.map(|_| free());
        let start = |model: &Model| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let (words, pace) = (model.words().to_string(), model.pace_ms().to_string());
            let address = addresses[*model as usize].to_string();
            command.args(["mock", "--address", &address, "--words", &words, "--pace-ms", &pace]);
            Server::start(&mut command, &work.join(format!("mock-{}.log", model.name()))).unwrap()
        };
        Self { addresses, _servers: MODELS.iter().map(start).collect() }
    }

    fn of(&self, model: Model) -> SocketAddr {
        self.addresses[model as usize]
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn in_the_body(_: Model, _: &Mocks) -> (String, String) {
    (String::new(), String::new())
}

const PATH: &str = "/v1/chat/completions";

impl Contender {
    fn new(name: &'static str, address: SocketAddr, server: Option<Server>, key: &str) -> Self {
        let headers = format!("authorization: Bearer {key}\r\n");
        Self { name, address, server, path: PATH, headers, prefix: "", tells: in_the_body }
    }

    /// Where it is asked for this model: the mocks are three programs.
    pub(crate) fn address_of(&self, model: Model, mocks: &Mocks) -> SocketAddr {
        if self.server.is_none() { mocks.of(model) } else { self.address }
    }

    pub(crate) fn request(&self, model: Model, is_stream: bool, mocks: &Mocks) -> Request {
        let (place, header) = (self.tells)(model, mocks);
        let body = format!(
            r#"{{"model":"{}{}","messages":[{{"role":"system","content":"You look after the presses of a plant. Answer shortly, and say what you do not know."}},{{"role":"user","content":"Shift {NUMBER}: the bearing of press 7 reads 71.5 degrees and 4.1 mm/s, ten minutes ago 69.0 and 3.9. Is that within its usual limits, and what should the night shift look at first?"}}],"temperature":0.2,"max_tokens":256{}}}"#,
            self.prefix,
            model.name(),
            if is_stream { r#","stream":true,"stream_options":{"include_usage":true}"# } else { "" },
        );
        let headers = [&self.headers[..], &header].concat();
        Request::post(self.address_of(model, mocks), &[&place, self.path].concat(), &headers, &body)
    }

    /// Waits until it answers as it should.
    pub(crate) async fn is_ready(&mut self, mocks: &Mocks) -> Result<(), String> {
        let began = Instant::now();
        let mut last = String::new();
        while self.server.as_mut().is_none_or(Server::is_up) && began.elapsed() < Duration::from_secs(90) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let Ok(mut client) = Client::connect(self.address).await else { continue };
            let mut seen = Seen::default();
            let asked = client.ask(&mut self.request(Model::Whole, false, mocks), 99_000_001, &mut seen).await;
            let text = String::from_utf8_lossy(&seen.whole);
            if asked.is_ok() && seen.status == 200 && text.contains("within") {
                return self.streams_well(mocks).await;
            }
            last = format!("{} {text}", seen.status);
        }
        Err(last)
    }

    async fn streams_well(&self, mocks: &Mocks) -> Result<(), String> {
        let mut request = self.request(Model::First, true, mocks);
        let mut client = Client::connect(self.address_of(Model::First, mocks)).await.map_err(|why| why.to_string())?;
        let mut seen = Seen::default();
        let asked = client.ask(&mut request, 99_000_002, &mut seen).await;
        let is_well = asked.is_ok() && seen.words == Model::First.words() && seen.is_done;
        if is_well { Ok(()) } else { Err(format!("its stream: status {}, {} words", seen.status, seen.words)) }
    }
}

/// Whoever can be had here, the mock itself first.
pub(crate) fn contenders(work: &Path, mocks: &Mocks) -> Vec<Contender> {
    let mut all = vec![Contender::new("nobody between", mocks.of(Model::Whole), None, "sk-mock")];
    let program = std::env::var_os("FOREBAY_BENCH_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_forebay").into());
    all.push(gateway("Forebay", &PathBuf::from(program), work, mocks));
    if let Some(before) = std::env::var_os("FOREBAY_BEFORE") {
        all.push(gateway("before", &PathBuf::from(before), work, mocks));
    }
    let peers = std::env::var_os("FOREBAY_PEERS").map(PathBuf::from).unwrap_or_default();
    let wanted = std::env::var("ONLY").ok();
    for (name, program, start) in [
        ("hyper", std::env::current_exe().unwrap(), hyper as fn(&Path, &Path, &Mocks) -> Option<Contender>),
        ("nginx", "/usr/sbin/nginx".into(), nginx),
        ("crabllm", peers.join("crabllm/bin/crabllm"), crabllm),
        ("TensorZero", peers.join("tensorzero/bin/python"), tensorzero),
        ("Portkey", peers.join("portkey/node_modules/@portkey-ai/gateway/build/start-server.js"), portkey),
        ("LiteLLM", peers.join("litellm/bin/litellm"), litellm),
    ] {
        if wanted.as_ref().is_some_and(|wanted| !wanted.split(',').any(|one| one == name)) {
            continue;
        }
        match Some(&program).filter(|program| program.exists()).and_then(|program| start(program, work, mocks)) {
            Some(contender) => all.push(contender),
            None => println!("left out: {name}, of which there is no {} (tests/tools.sh bench)", program.display()),
        }
    }
    all
}

/// The gateway with a key, rates, budgets, prices, the exact cache, and the record of every call.
fn gateway(name: &'static str, program: &Path, work: &Path, mocks: &Mocks) -> Contender {
    const KEY: &str = "fb-0123456789abcdef0123456789abcdef0123456789abcdef";
    let folder = work.join(name);
    std::fs::create_dir_all(folder.join("models")).unwrap();
    std::fs::write(folder.join("provider.key"), "sk-mock\n").unwrap();
    // As an installation does. What a linker has just written lies in single pages all over memory, and took a fifth more
    // time than the same file once it was read from the disk again.
    let installed = folder.join("forebay");
    std::fs::copy(program, &installed).unwrap();
    let [mqtt, http] = [free(), free()];
    let mut text = format!(
        r#"
[gateway]
name = "bench"
[store]
state_dir = {:?}
[catalog]
folder = {:?}
[[mqtt.listener]]
address = "{mqtt}"
[http]
address = "{http}"
connections_max = 2048
[http.llm]
requests_max = 2048
[[access.identity]]
name = "app"
key_sha256 = "{}"
models = ["gpt-*"]
[[quota.limit]]
level = "key"
requests_per_minute = 100_000_000
tokens_per_minute = 10_000_000_000
concurrent_requests = 4096
usd_per_day = 1_000_000
[[quota.limit]]
level = "tenant"
tokens_per_month = 1_000_000_000_000
usd_per_month = 5_000_000
[cache]
max_bytes = 1_048_576
[[cache.policy]]
exact = true
"#,
        folder.join("state"),
        folder.join("models"),
        forebay::base::Digest::of(KEY.as_bytes()),
    );
    for model in MODELS {
        text += &format!(
            "[[provider]]\nname = \"mock-{at}\"\nkind = \"openai\"\nbase_url = \"http://{}/v1\"\nkey_file = {:?}\n\
             connections_max = 2048\n\
             [[route]]\nname = \"chat-{at}\"\nmodels = [\"{model}\"]\n[[route.candidate]]\nprovider = \"mock-{at}\"\n\
             [[prices.model]]\nprovider = \"mock-{at}\"\nmodel = \"{model}\"\n\
             usd_per_million_tokens = {{ input = 2.5, output = 10.0, cache_read = 1.25 }}\n",
            mocks.of(model),
            folder.join("provider.key"),
            at = model as usize,
            model = model.name(),
        );
    }
    let config = folder.join("forebay.toml");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(installed);
    let server = Server::start(command.args(["run", "--config"]).arg(&config), &work.join(format!("{name}.log")));
    Contender::new(name, http, server, KEY)
}

/// Bytes through, kept connections on both sides; the path says which mock.
fn hyper(program: &Path, work: &Path, mocks: &Mocks) -> Option<Contender> {
    let address = free();
    let all = [address].into_iter().chain(mocks.addresses).map(|address| address.to_string());
    let server = Server::start(Command::new(program).arg("bare").args(all), &work.join("hyper.log"))?;
    Some(Contender { tells: in_the_path, ..Contender::new("hyper", address, Some(server), "sk-mock") })
}

fn in_the_path(model: Model, _: &Mocks) -> (String, String) {
    (format!("/{}", model as usize), String::new())
}

/// As `hyper`.
fn nginx(program: &Path, work: &Path, mocks: &Mocks) -> Option<Contender> {
    let (address, folder) = (free(), work.join("nginx"));
    std::fs::create_dir_all(&folder).unwrap();
    let mut places = String::new();
    for model in MODELS {
        let (at, mock) = (model as usize, mocks.of(model));
        places += &format!("upstream m{at} {{ server {mock}; keepalive 2048; keepalive_requests 1000000000; }}\n");
    }
    let locations: String = (0..3).map(|at| format!("location /{at}/ {{ proxy_pass http://m{at}/; }}\n")).collect();
    let text = format!(
        "daemon off; pid {folder}/pid; error_log {folder}/errors; worker_processes 1;\n\
         events {{ worker_connections 8192; }}\nhttp {{ access_log off; keepalive_requests 1000000000;\n\
         client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;\n\
         uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n{places}\
         server {{ listen {address}; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off;\n\
         {locations} }} }}\n",
        folder = folder.display()
    );
    let config = folder.join("nginx.conf");
    std::fs::write(&config, text).unwrap();
    let server = Server::start(Command::new(program).arg("-c").arg(&config), &work.join("nginx.log"))?;
    Some(Contender { tells: in_the_path, ..Contender::new("nginx", address, Some(server), "sk-mock") })
}

/// With a key, its rate, budget, usage and cache extensions, all in memory.
fn crabllm(program: &Path, work: &Path, mocks: &Mocks) -> Option<Contender> {
    let address = free();
    let mut text = format!(
        "listen = \"{address}\"\n[[keys]]\nname = \"app\"\nkey = \"sk-app\"\nmodels = [\"*\"]\n\
         [extensions.rate_limit]\nrequests_per_minute = 100000000\ntokens_per_minute = 1000000000\n[extensions.usage]\n\
         [extensions.budget]\ndefault_budget = 1000000.0\n[extensions.cache]\nttl_seconds = 300\n"
    );
    for model in MODELS {
        text += &format!(
            "[providers.m{at}]\nkind = \"openai\"\napi_key = \"sk-mock\"\nbase_url = \"http://{}/v1\"\n\
             models = [\"{model}\"]\n[models.\"{model}\"]\n\
             [models.\"{model}\".pricing]\ninput_cost_per_million = 2.5\noutput_cost_per_million = 10.0\n",
            mocks.of(model),
            at = model as usize,
            model = model.name(),
        );
    }
    let config = work.join("crabllm.toml");
    std::fs::write(&config, text).unwrap();
    let server =
        Server::start(Command::new(program).args(["serve", "--config"]).arg(&config), &work.join("crabllm.log"))?;
    Some(Contender::new("crabllm", address, Some(server), "sk-app"))
}

/// Its Python package carries the gateway. Without its database: nothing is recorded.
fn tensorzero(program: &Path, work: &Path, mocks: &Mocks) -> Option<Contender> {
    let mut text = "[gateway]\nobservability.enabled = false\n".to_owned();
    for model in MODELS {
        text += &format!(
            "[models.\"{model}\"]\nrouting = [\"mock\"]\n[models.\"{model}\".providers.mock]\ntype = \"openai\"\n\
             model_name = \"{model}\"\napi_base = \"http://{}/v1/\"\napi_key_location = \"none\"\n",
            mocks.of(model),
            model = model.name(),
        );
    }
    let (config, log) = (work.join("tensorzero.toml"), work.join("tensorzero.log"));
    std::fs::write(&config, text).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/answer/tensorzero_gateway.py");
    let server = Server::start(Command::new(program).arg(script).arg(&config), &log)?;
    let began = Instant::now();
    let address = loop {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let address = said.lines().find_map(|line| line.strip_prefix("listening on ")?.trim().parse().ok());
        if let Some(address) = address {
            break address;
        }
        if began.elapsed() > Duration::from_secs(30) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let (path, prefix) = ("/openai/v1/chat/completions", "tensorzero::model_name::");
    Some(Contender { path, prefix, ..Contender::new("TensorZero", address, Some(server), "none") })
}

/// As it comes: the caller's headers say whom to ask.
fn portkey(program: &Path, work: &Path, _: &Mocks) -> Option<Contender> {
    let address = free();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/answer/loopback.cjs");
    let mut command = Command::new("node");
    command.arg("--require").arg(script).arg(program).arg("--headless").arg(format!("--port={}", address.port()));
    let server = Server::start(command.env("NODE_ENV", "production"), &work.join("portkey.log"))?;
    let tells = |model: Model, mocks: &Mocks| {
        let host = mocks.of(model);
        (String::new(), format!("x-portkey-provider: openai\r\nx-portkey-custom-host: http://{host}/v1\r\n"))
    };
    Some(Contender { tells, ..Contender::new("Portkey", address, Some(server), "sk-mock") })
}

/// One worker with the master key, no database.
fn litellm(program: &Path, work: &Path, mocks: &Mocks) -> Option<Contender> {
    const KEY: &str = "sk-0123456789abcdef0123456789abcdef0123456789abcdef";
    let address = free();
    let mut text = "model_list:\n".to_owned();
    for model in MODELS {
        text += &format!(
            "  - model_name: {model}\n    litellm_params:\n      model: openai/{model}\n      api_base: http://{}/v1\n      \
             api_key: sk-mock\n",
            mocks.of(model),
            model = model.name(),
        );
    }
    text += &format!("general_settings:\n  master_key: {KEY}\n");
    let config = work.join("litellm.yaml");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(program);
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOG", "ERROR").arg("--config").arg(&config);
    command.args(["--host", "127.0.0.1", "--telemetry", "False", "--num_workers", "1", "--port"]);
    let server = Server::start(command.arg(address.port().to_string()), &work.join("litellm.log"))?;
    Some(Contender::new("LiteLLM", address, Some(server), KEY))
}

impl Contender {
    /// The processes whose time and memory count.
    pub(crate) fn group(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.process.id())
    }
}
