//! `forebay lend`

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::{lent, link, note, say};
use crate::app::cli::LendArgs;
use crate::app::config::{Diagnosis, place, read_text};
use crate::base::{Clock, Name, SystemClock};
use crate::flows::lend::{self, Budget, BudgetReport, Lend, LendConfig, LendParts};
use crate::quota::Calendar;
use crate::store::{self, Reader, Store};
use crate::telemetry;
use crate::uplink::{AnyUplink, Ears};

/// What there is to lend.
struct Read {
    calendar: Calendar,
    budgets: Vec<Budget>,
    ask_every: Duration,
}

fn read(path: &Path) -> Result<Read, Diagnosis> {
    let file = path.display().to_string();
    let text = read_text(path, &file)?;
    let config: LendConfig = toml::from_str(&text).map_err(|error| Diagnosis::of_toml(&file, &text, &error))?;
    let (calendar, budgets) = config.budgets().map_err(|(key, problem)| match place(&text, &key) {
        Some(span) => Diagnosis::at(&file, &text, span, &problem, None),
        None => Diagnosis::whole(&file, problem, None),
    })?;
    Ok(Read { calendar, budgets, ask_every: Duration::from_secs(config.ask_every_s) })
}

fn file(args: &LendArgs) -> Result<&Path> {
    args.file.as_deref().context("name the file that says what there is to lend")
}

/// Says what is wrong with the file.
pub(crate) fn check(args: &LendArgs) -> Result<ExitCode> {
    let file = file(args)?;
    Ok(match read(file) {
        Ok(Read { budgets, .. }) => {
            let gateways = budgets.iter().map(|budget| budget.config.gateways.len()).sum::<usize>();
            say(format_args!("{}: fine; budgets: {}; shares: {gateways}", file.display(), budgets.len()));
            ExitCode::SUCCESS
        }
        Err(diagnosis) => {
            say(format_args!("error: {diagnosis}"));
            ExitCode::FAILURE
        }
    })
}

/// Lends until `stop`.
pub(crate) async fn run(args: &LendArgs, stop: CancellationToken) -> Result<ExitCode> {
    telemetry::start(&telemetry::Config { filter: "warn,forebay=info".to_owned(), ..Default::default() }, false)?;
    let Read { calendar, budgets, ask_every } = match read(file(args)?) {
        Ok(read) => read,
        Err(diagnosis) => {
            note(format_args!("error: {diagnosis}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    let tenant = Name::new(&args.link.tenant).context("failed to use that tenant")?;
    let clock = Arc::new(SystemClock::new());
    let mut config = link(&args.link, &args.nats)?;
    if let Some(nats) = &mut config.nats {
        // What it says it says again: a gateway that comes back hears it, and letterboxes have room for what is said once.
        nats.keep_requests = false;
    }
    let ears = Ears { filters: vec![format!("fleet/v1/{tenant}/+/response")], response_topic: None, answers: None };
    let uplink = AnyUplink::new(config, &args.client_id, Arc::clone(&clock) as _)?.listening(ears);
    let (opening, state) = (Arc::clone(&clock), args.state.clone());
    let (store, is_set_aside) =
        tokio::task::spawn_blocking(move || open(&state, &opening)).await.context("failed to open the store")??;
    let is_lost = is_set_aside && !args.begin_anew;
    let mut books = store.reader().read(lend::read).await.context("failed to read what is lent")?;
    if args.begin_anew {
        books.clear();
    }
    let from = args.nats.nats.as_ref().unwrap_or(&args.link.broker);
    note(format_args!(
        "lending parts of {} budgets to gateways of tenant {tenant} over {from}, kept in {}",
        budgets.len(),
        args.state.display()
    ));
    let clock: Arc<dyn Clock> = clock;
    let rng = StdRng::from_os_rng();
    let flow = Lend::new(LendParts {
        uplink,
        tenant,
        calendar,
        budgets,
        known: books,
        is_lost,
        ask_every,
        writer: store.writer(),
        clock,
        rng,
    });
    let metrics = flow.metrics().clone();
    flow.run(stop).await;
    tokio::task::spawn_blocking(move || store.close()).await.context("failed to close the store")?;
    say(format_args!("{} leases lent or made longer, {} closed", metrics.lent.get(), metrics.closed.get()));
    Ok(ExitCode::SUCCESS)
}

/// The store, and whether an earlier file was set aside, so that what was lent is not known.
fn open(state: &Path, clock: &Arc<SystemClock>) -> Result<(Store, bool)> {
    let config = store::Config::at(state);
    let (store, opened) = Store::open(&config, &[lend::SCHEMA], Arc::clone(clock) as _)?;
    clock.raise_floor(opened.last_wall_ms);
    if let Some(file) = &opened.quarantined {
        note(format_args!(
            "the database was damaged and set aside as {}: what it had lent counts as used until the next period; \
             --begin-anew lends the budgets again from their whole",
            file.display()
        ));
    }
    Ok((store, opened.quarantined.is_some()))
}

/// How each budget stands.
pub(crate) async fn report(args: &LendArgs) -> Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    if !args.state.join("forebay.db").exists() {
        bail!("nothing was lent from {} yet", args.state.display());
    }
    let reader = Reader::of_another_process(&store::Config::at(&args.state), Arc::clone(&clock))?;
    let books = reader.read(lend::read).await.context("failed to read what is lent")?;
    let reports: Vec<_> = books.into_iter().map(|(key, book)| BudgetReport::of(key, &book)).collect();
    lent::show(&reports, args.json, clock.wall_ms());
    Ok(ExitCode::SUCCESS)
}
