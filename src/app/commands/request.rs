//! `forebay request`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;

use super::{link, note, say};
use crate::app::cli::RawArgs;
use crate::base::{Clock, Name, SystemClock};
use crate::flows::{Address, Ask, CloudAnswer, CloudRequest, Outcome};
use crate::uplink::{self, Answer, AnyUplink, CloudMessage, Ears, Message, Uplink};

/// A question without an answer is asked again after this long, and so is a broker that cannot be reached.
const AGAIN: Duration = Duration::from_secs(5);

/// Asks for raw readings and prints the answer as JSON.
pub(crate) async fn raw(args: &RawArgs) -> Result<ExitCode> {
    let name = |text: &str| Name::new(text).with_context(|| format!("failed to use {text:?} as a name"));
    let (gateway, tenant) = (name(&args.gateway)?, name(&args.link.tenant)?);
    let mut rng = StdRng::from_os_rng();
    let request = CloudRequest {
        v: 1,
        id: args.id.clone().unwrap_or_else(|| format!("cli-{:016x}", rng.random::<u64>())),
        what: Ask::RawWindow,
        stream: name(&args.stream)?,
        from_ms: args.from.as_deref().map(time_ms).transpose()?,
        to_ms: args.to.as_deref().map(time_ms).transpose()?,
        alarm: args.alarm,
        before: args.before,
        after: args.after,
    };
    let question = Message { topic: Address::requests(&tenant, &gateway), payload: request.to_json() };
    let answers = Address::responses(&tenant, &gateway);
    let client_id = format!("forebay-request-{:08x}", rng.random::<u32>());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let ears = Ears { filters: vec![answers], response_topic: None, answers: None };
    let mut link = AnyUplink::new(link(&args.link, &args.nats)?, &client_id, clock)?.listening(ears);
    note(format_args!("asking {gateway} of tenant {tenant}, request {}", request.id));
    let limit = Duration::from_secs(args.timeout_s);
    let asking = ask(&mut link, &question, &request.id);
    let Ok(answer) = tokio::time::timeout(limit, asking).await else {
        let kept = if args.nats.nats.is_some() { "; the request waits in its letterbox" } else { "" };
        bail!("{gateway} did not answer within {} s{kept}; ask again with --id {}", args.timeout_s, request.id);
    };
    link.close().await;
    say(serde_json::to_string(&answer).context("failed to write the answer")?);
    Ok(match answer.outcome {
        Outcome::Queued | Outcome::Repeated => ExitCode::SUCCESS,
        Outcome::Later | Outcome::Refused => ExitCode::FAILURE,
    })
}

/// Asks until there is an answer.
async fn ask(link: &mut AnyUplink, question: &Message, id: &str) -> CloudAnswer {
    let mut heard = link.cloud_messages();
    loop {
        match over_one_connection(link, &mut heard, question, id).await {
            Ok(answer) => return answer,
            Err(lost) => note(format_args!("{lost}; trying again")),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn over_one_connection(
    link: &mut AnyUplink,
    heard: &mut Option<mpsc::Receiver<CloudMessage>>,
    question: &Message,
    id: &str,
) -> Result<CloudAnswer, uplink::Lost> {
    link.connect().await?;
    let mut ticket = 0;
    loop {
        ticket += 1;
        link.submit(ticket, question.clone())?;
        let again = tokio::time::sleep(AGAIN);
        tokio::pin!(again);
        let mut told = false;
        loop {
            tokio::select! {
                () = &mut again, if told => break,
                Some(message) = hear(heard) => {
                    if let Some(answer) = CloudAnswer::from_json(&message.payload).filter(|answer| answer.id == id) {
                        return Ok(answer);
                    }
                }
                answer = link.answer() => {
                    told = true;
                    match answer?.1 {
                        Answer::Acknowledged => {}
                        Answer::NoSubscriber => note("the gateway is not connected to this broker; waiting for it"),
                        Answer::Refused { reason } => note(format_args!("the request is not taken: {reason}")),
                        Answer::TooLarge { .. } => note("the broker takes no message that large"),
                    }
                }
            }
        }
    }
}

async fn hear(heard: &mut Option<mpsc::Receiver<CloudMessage>>) -> Option<CloudMessage> {
    match heard {
        Some(heard) => heard.recv().await,
        None => std::future::pending().await,
    }
}

/// Milliseconds since 1970, or a time with its zone.
fn time_ms(text: &str) -> Result<i64> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let time: jiff::Timestamp = text.parse().with_context(|| {
        format!("failed to read the time {text:?}; write it as 2026-11-21T06:00:00Z or in milliseconds since 1970")
    })?;
    Ok(time.as_millisecond())
}
