//! The command line: what there is to do, said so that `--help` teaches it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::allocator;
use super::commands::{self, note};
use super::config::Overrides;
use super::demo;
use super::memory;
use super::runtime::runtime;
use super::stop::until_told_to_stop;

/// MQTT broker, local inference and a durable queue to the cloud, in one file.
///
/// Sensors publish to it, a model judges what they say, alarms rise, and the cloud gets every result once, also
/// when the cable was cut in between. What it has acknowledged is on the disk.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, max_term_width = 100, after_help = "Begin with:  forebay demo")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve sensors and apps until told to stop (SIGTERM or Ctrl-C).
    Run(RunArgs),
    /// Read the configuration, say what is wrong with line and column, and what an operator should know.
    ///
    /// Also reads the models it names and the certificates it points at. Changes nothing. Exit code 0 if the gateway
    /// would start, 1 if not.
    Check(ConfigArgs),
    /// Show the whole thing on this machine: a real machine's readings, a cable that is cut, a process that is killed.
    Demo(DemoArgs),
    /// Publish a recording (CSV of `timestamp,value`) over MQTT, and wait until every reading is acknowledged.
    ///
    /// Each reading goes out as {"n":1,"time":"2013-12-02 21:15:00","value":73.97} with QoS 1. After a broken connection
    /// everything without an acknowledgement is sent again in order, so use `n` as the stream's identity
    /// (decoder.id = "n", intake.duplicate_key = "id").
    Replay(ReplayArgs),
    /// Receive what gateways send and keep it in a SQLite file or in PostgreSQL, each row exactly once.
    ///
    /// From an MQTT broker (--broker), or from a NATS JetStream stream (--nats), which any number of these may share.
    Collect(Box<CollectArgs>),
    /// Ask a gateway for something, over the broker or the NATS server that it sends to, and print its answer.
    #[command(subcommand)]
    Request(RequestCommand),
    /// Lend gateways parts of budgets that they share, so that each can spend its part without the link.
    ///
    /// Runs in the cloud, once for its budgets. Reads what there is to lend from a file, keeps what is lent and used in a
    /// SQLite file, and talks to the gateways over the broker or the NATS server that they send to. docs/quotas.md has an
    /// example.
    Lend(Box<LendArgs>),
    /// Models on this box.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Look at this machine and say what the gateway can rely on: disk, clock, ports, memory, engines, accelerators.
    ///
    /// Lists devices, libraries and versions, what is missing and how to get it. Exit code 1 if something that the
    /// configuration needs does not work.
    Doctor(DoctorArgs),
    /// Prove on this machine's own disk that what is acknowledged survives power cuts and kills.
    ///
    /// Measures how long the disk takes to make a write durable and what that allows: rows a second, at which delay, and
    /// how long flash will last. Then records every call of the real writer to the disk, builds the files that a power
    /// cut could leave after each of them (nothing, all or any part of what had not been synced, torn at 512 bytes), opens
    /// them with the gateway's own code and compares every row with what had been acknowledged. Then runs the writer as
    /// a process of its own and kills it under load, again and again.
    ///
    /// Writes only into folders that it makes and removes; an existing database is never touched. Exit code 0 if
    /// nothing acknowledged was lost, 1 if anything was. Whether the disk itself keeps what it says is synced, only a
    /// pulled plug can show: docs/proof.md says what is proved and what is not.
    Prove(ProveArgs),
    /// Print another gateway's configuration as a part of this one's, with remarks about what could not be taken.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Make a key for an app or a sensor, and the line that lets it in.
    Key {
        /// Its name: the MQTT user name and the name in logs and audit.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// LiteLLM's `config.yaml`: providers, routes, prices and budgets.
    ///
    /// No key is copied: for each provider that needs one, the output names a file to put it into. Addresses that are in
    /// variables (`os.environ/NAME`) are taken from this process's environment. docs/routes.md says what becomes of what.
    Litellm {
        /// The file.
        file: PathBuf,
        /// Folder in which the files with the keys are to lie.
        #[arg(long, value_name = "FOLDER", default_value = "/etc/forebay/keys")]
        keys: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub at: ConfigArgs,
    /// Acknowledge without waiting for the disk, so that a test of power cuts can show that it would notice. No
    /// configuration file can ask for that.
    #[arg(long, hide = true, value_name = "SYNCHRONOUS")]
    pub negative_control: Option<NegativeControl>,
}

/// What a commit waits for in a gateway that is meant to lose data.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum NegativeControl {
    /// Only checkpoints are synced.
    Normal,
    /// Nothing is.
    Off,
}

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/forebay/forebay.toml", env = "FOREBAY_CONFIG")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    pub at: ConfigArgs,
    /// The answer as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Folder for configuration files, databases and logs. It must be empty, absent, or from an earlier demo.
    #[arg(long, value_name = "FOLDER", default_value = "forebay-demo")]
    pub dir: PathBuf,
    /// End after the report instead of leaving the page up.
    #[arg(long)]
    pub once: bool,
    /// Send the cloud each reading with its verdict beside the summaries, and hold every one against the recording.
    #[arg(long)]
    pub verdicts: bool,
    /// Readings a second; the recording is 79 days long.
    #[arg(long, value_name = "N", default_value_t = 1200.0)]
    pub rate: f64,
    /// Only the first N readings.
    #[arg(long, value_name = "N")]
    pub readings: Option<usize>,
    /// Port of the live page; another free one is taken if it is in use.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub http_port: u16,
    /// Port of the local broker; another free one is taken if it is in use.
    #[arg(long, value_name = "PORT", default_value_t = 1883)]
    pub mqtt_port: u16,
}

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The recording.
    pub file: PathBuf,
    /// Broker, HOST:PORT.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    pub broker: String,
    /// Topic of every reading.
    #[arg(long, default_value = "plant/machine/temperature")]
    pub topic: String,
    /// Readings a second; as fast as they are acknowledged if absent.
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Readings under way without an acknowledgement.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub window: u16,
    /// Client id.
    #[arg(long, default_value = "forebay-replay")]
    pub client_id: String,
    /// User name; the password or key is read from FOREBAY_PASSWORD.
    #[arg(long)]
    pub user: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct CollectArgs {
    /// Broker, HOST:PORT.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883", conflicts_with = "nats")]
    pub broker: String,
    #[command(flatten)]
    pub stream: StreamArgs,
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Folder of the database with rows and high-water marks.
    #[arg(long, value_name = "FOLDER", default_value = "collected")]
    pub state: PathBuf,
    /// Tenant whose gateways are received.
    #[arg(long, default_value = "default")]
    pub tenant: String,
    /// Client id: the session under which the broker keeps what arrives while nobody receives.
    #[arg(long, default_value = "forebay-collect")]
    pub client_id: String,
    /// User name, with --password-file.
    #[arg(long, requires = "password_file")]
    pub user: Option<String>,
    /// File that holds the password or key and nothing else.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// Certificate authority (PEM) that signed the broker's certificate: turns TLS on.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca")]
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Instead of receiving: say what each gateway's streams have and miss, and exit with 1 if anything is missing.
    #[arg(long)]
    pub report: bool,
    /// The report as JSON.
    #[arg(long, requires = "report")]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum RequestCommand {
    /// Readings as they came: what surrounds an alarm, or a stretch of time. They come as rows of class `raw`.
    ///
    /// Exit code 0 once they are in the gateway's durable queue, 1 if it refuses or does not answer in time. The same --id
    /// is fulfilled once, so it is safe to ask again.
    Raw(Box<RawArgs>),
}

#[derive(Debug, Args)]
pub(super) struct RawArgs {
    /// The gateway's name.
    #[arg(long)]
    pub gateway: String,
    /// The stream's name.
    #[arg(long)]
    pub stream: String,
    /// The alarm's number on its box: readings around the one that raised it.
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "to"], required_unless_present = "from")]
    pub alarm: Option<i64>,
    /// Readings before the alarm; 144 if absent.
    #[arg(long, value_name = "N", requires = "alarm")]
    pub before: Option<u64>,
    /// Readings from the alarm on; 144 if absent.
    #[arg(long, value_name = "N", requires = "alarm")]
    pub after: Option<u64>,
    /// Start, as 2026-11-21T06:00:00Z or in milliseconds since 1970; source time.
    #[arg(long, value_name = "TIME", requires = "to")]
    pub from: Option<String>,
    /// End, included.
    #[arg(long, value_name = "TIME", requires = "from")]
    pub to: Option<String>,
    /// The request's name, to ask again for the same; a new one if absent.
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// How long to wait for the answer.
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub timeout_s: u64,
    #[command(flatten)]
    pub link: LinkArgs,
    #[command(flatten)]
    pub nats: NatsArgs,
}

#[derive(Debug, Args)]
pub(super) struct LendArgs {
    /// What there is to lend, as TOML; not needed for --report.
    #[arg(required_unless_present = "report")]
    pub file: Option<PathBuf>,
    /// Folder of the database that knows what is lent. Never two lenders over copies of it: a budget would be lent twice.
    #[arg(long, value_name = "FOLDER", default_value = "lent")]
    pub state: PathBuf,
    /// Only read the file and say what is wrong with line and column. Exit code 1 if something is.
    #[arg(long, conflicts_with = "report")]
    pub check: bool,
    /// Instead of lending: say of each budget what is lent to whom until when, what was used as far as has been told, and
    /// what is left. Also while another process lends.
    #[arg(long)]
    pub report: bool,
    /// The report as JSON.
    #[arg(long, requires = "report")]
    pub json: bool,
    /// Where the database was lost or set aside: lend each budget from its whole again. Without it what was lent counts as
    /// used until the next period.
    #[arg(long, conflicts_with_all = ["report", "check"])]
    pub begin_anew: bool,
    /// Client id at the broker.
    #[arg(long, default_value = "forebay-lend")]
    pub client_id: String,
    #[command(flatten)]
    pub link: LinkArgs,
    #[command(flatten)]
    pub nats: NatsArgs,
}

/// How to reach the broker that gateways send to.
#[derive(Debug, Args)]
pub(super) struct LinkArgs {
    /// Broker, HOST:PORT.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883", conflicts_with = "nats")]
    pub broker: String,
    /// The gateway's tenant.
    #[arg(long, default_value = "default")]
    pub tenant: String,
    /// User name, with --password-file.
    #[arg(long, requires = "password_file")]
    pub user: Option<String>,
    /// File that holds the password or key and nothing else.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// Certificate authority (PEM) that signed the broker's certificate: turns TLS on.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca")]
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
}

/// A NATS server instead of an MQTT broker.
#[derive(Debug, Args)]
pub(super) struct NatsArgs {
    /// NATS server, HOST:PORT, instead of an MQTT broker.
    #[arg(long, value_name = "HOST:PORT")]
    pub nats: Option<String>,
    /// JetStream stream that holds the fleet's messages; the letterboxes are in the one of that name with -LETTERS.
    #[arg(long = "nats-stream", value_name = "NAME", default_value = "FLEET", requires = "nats")]
    pub name: String,
    /// JetStream domain of the stream.
    #[arg(long = "nats-domain", value_name = "NAME", requires = "nats")]
    pub domain: Option<String>,
    /// Credentials file (JWT and seed).
    #[arg(long = "nats-credentials", value_name = "FILE", requires = "nats", conflicts_with = "user")]
    pub credentials: Option<PathBuf>,
    /// File with an nkey seed.
    #[arg(long = "nats-nkey", value_name = "FILE", requires = "nats", conflicts_with_all = ["user", "credentials"])]
    pub nkey: Option<PathBuf>,
    /// First part of the subjects that answers come back on, where a user may listen to its own only.
    #[arg(long = "nats-inbox-prefix", value_name = "SUBJECT", default_value = "_INBOX", requires = "nats")]
    pub inbox_prefix: String,
}

/// Receiving from NATS instead of MQTT.
#[derive(Debug, Args)]
pub(super) struct StreamArgs {
    #[command(flatten)]
    pub server: NatsArgs,
    /// Consumer; collectors with one name share the messages between them.
    #[arg(long = "nats-consumer", value_name = "NAME", default_value = "forebay-collect", requires = "nats")]
    pub consumer: String,
    /// A message that is not kept within so many seconds goes to another collector (of a consumer that is made).
    #[arg(long = "nats-ack-wait", value_name = "SECONDS", default_value_t = 30, requires = "nats")]
    pub ack_wait_s: u64,
    /// Make the stream, and the one of the letterboxes, if they do not exist: on disk, kept until received, refusing when full.
    #[arg(long, requires = "nats")]
    pub create_stream: bool,
    /// Servers that hold each message of a stream that is made, 1 to 5.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "create_stream")]
    pub replicas: u8,
    /// Bytes that a stream that is made may hold; 0 for as many as the account may.
    #[arg(long, value_name = "BYTES", default_value_t = 0, requires = "create_stream")]
    pub max_bytes: u64,
}

/// Keeping rows in PostgreSQL instead of SQLite.
#[derive(Debug, Args)]
pub(super) struct PostgresArgs {
    /// PostgreSQL server, HOST:PORT, instead of a SQLite file.
    #[arg(long = "postgres", value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// Database.
    #[arg(long = "postgres-database", value_name = "NAME", default_value = "forebay", requires = "server")]
    pub database: String,
    /// Role.
    #[arg(long = "postgres-user", value_name = "NAME", default_value = "forebay", requires = "server")]
    pub role: String,
    /// File that holds the role's password and nothing else.
    #[arg(long = "postgres-password-file", value_name = "FILE", requires = "server")]
    pub role_password_file: Option<PathBuf>,
    /// Certificate authority (PEM) that signed the server's certificate: turns TLS on.
    #[arg(long = "postgres-ca", value_name = "FILE", requires = "server")]
    pub server_ca: Option<PathBuf>,
    /// Client certificate (PEM).
    #[arg(long = "postgres-certificate", value_name = "FILE", requires = "role_key", requires = "server_ca")]
    pub role_certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long = "postgres-key", value_name = "FILE", requires = "role_certificate")]
    pub role_key: Option<PathBuf>,
    /// Transactions at once.
    #[arg(long, value_name = "N", default_value_t = 2, requires = "server")]
    pub connections: usize,
    /// Hash partitions of the table of rows, when the tables are made.
    #[arg(long, value_name = "N", default_value_t = 16, requires = "server")]
    pub partitions: u16,
}

#[derive(Debug, Args)]
pub(super) struct ProveArgs {
    /// A folder on the disk that the box will use, such as the one above its state folder.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub dir: PathBuf,
    /// About how long it may take. What does not fit is left out and said; with --account that counts as not proved, and
    /// another run goes on.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub seconds: u64,
    /// Crash states to try, if the time allows.
    #[arg(long, value_name = "N", default_value_t = 4000)]
    pub states: u64,
    /// Processes to kill, if the time allows.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub kills: u64,
    /// Also run the writer with SQLite's `synchronous` at NORMAL and OFF, which must be caught: a proof that passes
    /// those proves nothing. Exit code 1 if they are not caught.
    #[arg(long)]
    pub negative_controls: bool,
    /// Keep the sums here and add to those of earlier runs of this program on this disk, until all states and kills
    /// are done. Exit code 1 while they are not.
    #[arg(long, value_name = "FILE")]
    pub account: Option<PathBuf>,
    /// What the disk's maker says it takes in its life, in terabytes written. Absent: 32, spelled out in the answer.
    #[arg(long, value_name = "TB")]
    pub endurance_tbw: Option<f64>,
    /// Rows a second on average, for the years that the disk will last.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    pub rate: f64,
    /// Bytes of one row.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub payload_bytes: u32,
    /// The answer as JSON.
    #[arg(long)]
    pub json: bool,
    /// Repeat the chances of an earlier run.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The process that is killed: writes without end.
    #[arg(long, hide = true)]
    pub child: bool,
    /// Submitters of that process.
    #[arg(long, hide = true, default_value_t = 8)]
    pub submitters: u64,
}

#[derive(Debug, Subcommand)]
pub(super) enum ModelCommand {
    /// One line a model: name, version, format, size, quality, problems.
    List(ModelsArgs),
    /// What an ONNX file says of itself, as a manifest to begin with, and which engine takes it. For a version folder:
    /// what each engine makes of the model and its golden samples.
    Inspect {
        /// The model file, or a folder MODELS/NAME/VERSION.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Measure a model on this box in every engine that takes it, check its answers, and say which engine to use.
    ///
    /// One thread, no server. Inputs are the manifest's golden samples, arrays of yours, or numbers by chance. Exit code 1 if no
    /// engine computes it, or if one gives something else than the golden samples.
    Bench(Box<BenchArgs>),
    /// Everything a manifest says.
    Show {
        /// Model name.
        name: String,
        /// Version; the newest if absent.
        #[arg(long, value_name = "N")]
        version: Option<u32>,
        #[command(flatten)]
        models: ModelsArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Name of a model (or NAME/VERSION), its folder, its version's folder, or a model file.
    #[arg(value_name = "NAME|PATH")]
    pub model: String,
    /// Version; the newest if absent.
    #[arg(long, value_name = "N")]
    pub version: Option<u32>,
    /// Folder with `<name>/<version>/manifest.toml`; the configuration's if one is given, or else `models`.
    #[arg(long, value_name = "FOLDER")]
    pub models: Option<PathBuf>,
    /// A configuration file, whose `[delegate]` has devices that are measured as well.
    #[arg(long, short, value_name = "FILE", env = "FOREBAY_CONFIG")]
    pub config: Option<PathBuf>,
    /// Rows of a request, each measured for itself.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 8], value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub batch: Vec<u32>,
    /// How long each batch size of each engine is measured; the engines take turns.
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    pub seconds: f64,
    /// Only these engines.
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub engines: Vec<String>,
    /// Inputs as `numpy.save` wrote them, with a row for each request: FILE for a model with one input, INPUT=FILE for each of several.
    #[arg(long, value_name = "[INPUT=]FILE")]
    pub samples: Vec<String>,
    /// The size of a free dimension behind the first, by its name in the file or as INPUT.AXIS; 64 if absent.
    #[arg(long, value_name = "NAME=SIZE", value_delimiter = ',', value_parser = size, conflicts_with = "samples")]
    pub shape: Vec<(String, usize)>,
    /// Of the numbers by chance.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// The answer as JSON.
    #[arg(long)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("expected seconds, given {text:?}"))?;
    if (0.001..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("expected 0.001 to 3600 seconds".to_owned()) }
}

fn size(text: &str) -> Result<(String, usize), String> {
    let parts = text.rsplit_once('=').and_then(|(name, size)| Some((name.to_owned(), size.parse().ok()?)));
    parts.ok_or_else(|| format!("expected NAME=SIZE such as tokens=128, given {text:?}"))
}

#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    /// Folder with `<name>/<version>/manifest.toml`.
    #[arg(long, value_name = "FOLDER", default_value = "models")]
    pub models: PathBuf,
}

/// Reads the arguments, does what they say, and gives the exit code.
#[allow(clippy::disallowed_methods, reason = "the environment is read here and nowhere below")]
pub fn main() -> ExitCode {
    memory::give_back_freed_memory_at_once();
    allocator::refuse_the_impossible();
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) => {
            note(format_args!("forebay: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the environment is read here and nowhere below")]
fn dispatch(command: Command) -> Result<ExitCode> {
    let overrides = || Overrides::from_environment(std::env::vars());
    match command {
        Command::Run(args) => {
            let under_journald = std::env::var_os("JOURNAL_STREAM").is_some();
            runtime()?.block_on(commands::run::run(&args, &overrides(), under_journald))
        }
        Command::Check(args) => Ok(commands::check::run(&args.config, &overrides())),
        Command::Doctor(args) => Ok(commands::doctor::run(&args.at.config, &overrides(), args.json)),
        Command::Prove(args) => commands::prove::run(&args),
        Command::Demo(args) => runtime()?.block_on(demo::run(&args)),
        Command::Replay(args) => {
            let password = std::env::var("FOREBAY_PASSWORD").ok();
            runtime()?.block_on(commands::replay::run(&args, password))
        }
        Command::Collect(args) if args.report => runtime()?.block_on(commands::collect::report(&args)),
        Command::Collect(args) => runtime()?.block_on(async {
            let stop = until_told_to_stop()?;
            commands::collect::run(&args, stop).await
        }),
        Command::Request(RequestCommand::Raw(args)) => runtime()?.block_on(commands::request::raw(&args)),
        Command::Lend(args) if args.check => commands::lend::check(&args),
        Command::Lend(args) if args.report => runtime()?.block_on(commands::lend::report(&args)),
        Command::Lend(args) => runtime()?.block_on(async {
            let stop = until_told_to_stop()?;
            commands::lend::run(&args, stop).await
        }),
        Command::Model(ModelCommand::List(args)) => commands::model::list(&args.models),
        Command::Model(ModelCommand::Inspect { file }) => commands::model::inspect(&file),
        Command::Model(ModelCommand::Bench(args)) => commands::bench::run(&args, &overrides()),
        Command::Model(ModelCommand::Show { name, version, models }) => {
            commands::model::show(&models.models, &name, version)
        }
        Command::Import(ImportCommand::Litellm { file, keys }) => {
            commands::import::run(&file, &keys, &|name| std::env::var(name).ok())
        }
        Command::Key { name } => commands::key::run(&name),
    }
}
