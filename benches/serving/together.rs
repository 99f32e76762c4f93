//! What models cost that are asked together: steps of a pipeline, and requests of callers who come at the same time.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use forebay::base::Digest;

use crate::case::Case;
use crate::servers::{Contender, Server, Way, gateway, is_ready};
use crate::wire::{Http, post};
use crate::{CPU, median};

/// Callers who each wait for their answer before they ask again.
const CALLERS: usize = 8;

/// A gateway over `models` whose configuration ends with `more`.
fn start(program: &Path, models: &Path, work: &Path, name: &str, more: &str) -> (Server, std::net::SocketAddr) {
    let (mut server, http, _) = gateway(program, models, work, name, more);
    let log = || std::fs::read_to_string(work.join(format!("{name}.log"))).unwrap();
    assert!(is_ready(&mut server, http, "/readyz"), "it did not start: {}", log());
    (server, http)
}

/// Pipelines over a model beside requests to the model itself, in turns: CPU of a request, and what a step costs.
pub(crate) fn pipelines(program: &Path, folder: &Path, work: &Path, cases: &[Case], rounds: u32, seconds: f64) {
    println!("\nCPU of the gateway for a request with binary tensors in us, and what a pipeline adds");
    println!(
        "\n| model, batch | alone | asked itself | pipeline of 1 step | adds | of 3 models and their mean | adds to 3 x alone | a step |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for case in cases {
        let models = work.join(format!("models-{}-{}", case.model, case.batch));
        let from = folder.join("models").join(&case.model).join("1");
        let own = models.join(&case.model).join("1");
        std::fs::create_dir_all(&own).unwrap();
        for file in ["manifest.toml", "model.onnx"] {
            std::fs::copy(from.join(file), own.join(file)).unwrap();
        }
        pipeline(&models, case, "one", 1);
        pipeline(&models, case, "three", 3);
        let (server, http) = start(program, &models, work, &format!("pipelines-{}-{}", case.model, case.batch), "");
        let mut alone = Vec::new();
        let mut cpu = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..rounds {
            alone.push(case.alone(seconds));
            for (asked, cpu) in [case.model.as_str(), "one", "three"].into_iter().zip(&mut cpu) {
                let way = Way::Binary(Http::connect(http), http);
                let mut contender = Contender { name: asked.to_owned(), way, group: server.group() };
                let case = case.asking(asked);
                contender.check(&case);
                cpu.push(contender.turn(&case, seconds).unwrap().cpu_us);
            }
        }
        let (alone, [itself, one, three]) = (median(alone), cpu.map(median));
        let (adds, adds_three) = (one - itself, three - itself - 2.0 * alone);
        println!(
            "| {} | {alone:.1} | {itself:.1} | {one:.1} | {adds:.1} | {three:.1} | {adds_three:.1} | {:.1} |",
            case.title(),
            adds_three / 4.0
        );
    }
}

/// A pipeline that asks the case's model `times` times at once, and gives the mean where that is more than once.
fn pipeline(models: &Path, case: &Case, name: &str, times: usize) {
    let port = |kind: &str, named: &forebay::engine::NamedTensor| {
        let rest: String = named.tensor.shape()[1..].iter().map(|dim| format!(", {dim}")).collect();
        let (name, datatype) = (&named.name, named.tensor.datatype());
        format!("[[{kind}]]\nname = \"{name}\"\ndatatype = \"{datatype}\"\nshape = [-1{rest}]\n")
    };
    let output = case.expected.last().unwrap();
    let inputs: Vec<String> = case.inputs.iter().map(|input| format!("{0} = \"{0}\"", input.name)).collect();
    let step = |at: usize| {
        format!("[[step]]\nname = \"m{at}\"\nmodel = \"{}\"\ninput = {{ {} }}\n", case.model, inputs.join(", "))
    };
    let mut graph: String = (0..times).map(step).collect();
    let last = if times == 1 {
        format!("m0.{}", output.name)
    } else {
        let all: Vec<String> = (0..times).map(|at| format!("\"m{at}.{}\"", output.name)).collect();
        graph.push_str(&format!("[[step]]\nname = \"all\"\nstep = \"mean\"\ninput = [{}]\n", all.join(", ")));
        "all".to_owned()
    };
    graph.push_str(&format!("[output]\n{} = \"{last}\"\n", output.name));
    let ports: String = case.inputs.iter().map(|input| port("input", input)).chain([port("output", output)]).collect();
    let manifest = format!(
        "[model]\nname = \"{name}\"\nversion = 1\nfile = \"pipeline.toml\"\nsha256 = \"{}\"\nformat = \"pipeline\"\n\
         license = \"Apache-2.0 OR MIT\"\n{ports}",
        Digest::of(graph.as_bytes())
    );
    let version = models.join(name).join("1");
    std::fs::create_dir_all(&version).unwrap();
    std::fs::write(version.join("pipeline.toml"), graph).unwrap();
    std::fs::write(version.join("manifest.toml"), manifest).unwrap();
}

/// Requests of one row by several callers at the same time, computed each for itself and together, in turns.
pub(crate) fn batches(program: &Path, folder: &Path, work: &Path, cases: &[Case], rounds: u32, seconds: f64) {
    println!(
        "\n{CALLERS} callers at the same time, one row each, binary tensors: requests a second, time to the answer and CPU in us"
    );
    println!("\n| model | batching | requests/s | half of them | 99 of 100 | CPU a request |");
    println!("|---|---|---|---|---|---|");
    for case in cases.iter().filter(|case| case.batch == 1) {
        let kinds = ["off", "auto", "on"];
        let servers = kinds.map(|kind| {
            let more = format!("[catalog.models.{}.serving]\nbatching = \"{kind}\"\n", case.model);
            start(program, &folder.join("models"), work, &format!("batching-{}-{kind}", case.model), &more)
        });
        let mut measured = kinds.map(|_| (Vec::new(), Vec::new(), Vec::new()));
        for _ in 0..rounds {
            for ((server, http), (rate, latency, cpu)) in servers.iter().zip(&mut measured) {
                let before = CPU.group(server.group());
                let (times, took) = at_once(*http, case, seconds);
                rate.push(times.len() as f64 / took);
                cpu.push((CPU.group(server.group()) - before) / times.len() as f64);
                latency.extend(times);
            }
        }
        for (kind, (rate, mut latency, cpu)) in kinds.into_iter().zip(measured) {
            latency.sort_by(f64::total_cmp);
            let at = |part: usize| latency.get(latency.len() * part / 100).copied().unwrap_or(f64::NAN);
            let (rate, cpu) = (median(rate), median(cpu));
            println!("| {} | {kind} | {rate:.0} | {:.0} | {:.0} | {cpu:.0} |", case.model, at(50), at(99));
        }
    }
}

/// Every caller's times to an answer in us, and how long it took all in all, in seconds.
fn at_once(http: std::net::SocketAddr, case: &Case, seconds: f64) -> (Vec<f64>, f64) {
    let request = post(http, &format!("/v2/models/{}/infer", case.model), Some(case.binary.0), &case.binary.1);
    let (began, lasts) = (Instant::now(), Duration::from_secs_f64(seconds));
    let call = || {
        let (mut connection, mut times) = (Http::connect(http), Vec::new());
        while began.elapsed() < lasts {
            let start = Instant::now();
            assert_eq!(connection.ask(&request).0, 200);
            times.push(start.elapsed().as_nanos() as f64 / 1000.0);
        }
        times
    };
    let times = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    (times, began.elapsed().as_secs_f64())
}
