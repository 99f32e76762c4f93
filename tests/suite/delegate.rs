//! The delegate host with the real ONNX Runtime in it. `make test` builds it; without the feature there is none.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use forebay::base::Tensor;
use forebay::engine::delegate::{Config, Phase, probe};
use forebay::engine::{Handle, NamedTensor};

use crate::delegate_fixture::{Adder, DEVICE, Plant, ask, is_running, python, settings, signal, wait_for_restart};
use crate::gateway::{Gateway, PRESS, Setup, poll};

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_forebay-delegate"))
}

/// A file of a package that the tests' Python has. None where it has no such package.
fn in_package(package: &str, file: &str) -> Option<PathBuf> {
    let find = format!(
        "import importlib.util as u, pathlib as p; s = u.find_spec('{package}'); \
         print(p.Path(s.origin).parent / '{file}' if s else '')"
    );
    let said = Command::new(python()).args(["-c", &find]).output().unwrap();
    let path = String::from_utf8(said.stdout).unwrap();
    Some(PathBuf::from(path.trim())).filter(|path| path.is_file())
}

fn library() -> PathBuf {
    in_package("onnxruntime", "capi/libonnxruntime.so.1.28.0").expect("make test installs onnxruntime 1.28.0")
}

fn real(more: &str) -> String {
    settings(program(), &library(), more)
}

fn plant(more: &str) -> Plant {
    Plant::new(&real(&format!("{more}\n{DEVICE}")), vec![Arc::new(Adder)])
}

fn environment(pid: u32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let mut variables: Vec<_> =
        bytes.split(|&byte| byte == 0).map(|v| String::from_utf8_lossy(v).into_owned()).collect();
    variables.retain(|variable| !variable.is_empty());
    variables.sort();
    variables
}

#[test]
fn onnx_runtime_computes_in_a_process_of_its_own() {
    let plant = plant("");
    let handle = plant.load("simple").unwrap();
    assert_eq!((handle.engine(), handle.stand_in()), ("onnxruntime-cpu", Some("adder")));
    let state = handle.delegate().unwrap();
    assert_eq!((state.phase, state.restarts), (Phase::Serving, 0));
    assert!(state.runtime.starts_with("ONNX Runtime 1.28.0 on CPUExecutionProvider CPU"), "{}", state.runtime);
    assert!(state.placement.starts_with("CPUExecutionProvider "), "{}", state.placement);
    for rows in [1, 3, 3000, 1, 200_000] {
        let outputs = ask(&handle, 100, rows).unwrap();
        assert_eq!((outputs.engine, outputs.fallback), ("onnxruntime-cpu", None));
    }
}

#[test]
fn floats_and_free_dimensions_go_through_it() {
    let plant = plant("");
    let handle = plant.load("dense").unwrap();
    assert_eq!(handle.engine(), "onnxruntime-cpu", "{:?}", handle.passed_over());
    let rows = |rows: usize| {
        let x = Tensor::new([rows, 64], (0..rows * 64).map(|at| (at % 64) as f32 / 64.0).collect()).unwrap();
        let outputs = handle.infer_blocking(vec![NamedTensor::new("x", x)], None).unwrap();
        outputs.tensors[0].tensor.clone()
    };
    let (one, many) = (rows(1), rows(5));
    assert_eq!(many.shape(), [5, 64]);
    for row in 0..5 {
        let row = many.row(row).unwrap();
        let pairs = one.as_slice::<f32>().unwrap().iter().zip(row.as_slice::<f32>().unwrap());
        assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 1e-5), "{one:?} {row:?}");
    }
    let empty = Tensor::new([0, 64], Vec::<f32>::new()).unwrap();
    let outputs = handle.infer_blocking(vec![NamedTensor::new("x", empty)], None).unwrap();
    assert_eq!((outputs.tensors[0].tensor.shape(), outputs.fallback), (&[0, 64][..], None));
}

#[test]
fn the_host_has_no_network_no_rights_and_nothing_of_ours() {
    let plant = plant("");
    let handle = plant.load("simple").unwrap();
    let state = handle.delegate().unwrap();
    assert!(state.isolation.holds(), "{:?}", state.isolation);
    let pid = state.pid.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:"), field("CapEff:")), ("2", "1", "0000000000000000"));
    if state.isolation.namespace {
        let interfaces = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
        assert!(interfaces.lines().skip(2).all(|line| line.trim().starts_with("lo:")), "{interfaces}");
    }
    let environment = environment(pid);
    let home = environment[0].strip_prefix("HOME=").unwrap();
    assert!(home.starts_with(plant.folder.path().to_str().unwrap()));
    assert_eq!(environment[1..], ["ORT_DISABLE_TELEMETRY=1".to_owned(), format!("TMPDIR={home}")]);
    ask(&handle, 1, 10).unwrap();
    assert_eq!(std::fs::read_dir(home).unwrap().count(), 0, "it wrote into its home");
    let files: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|file| std::fs::read_link(file.unwrap().path()).unwrap().to_string_lossy().into_owned())
        .collect();
    // Its end of the socket twice, an error stream, nothing to write to, and nothing of the test's.
    assert!(
        files.iter().all(|file| file.starts_with("socket:") || file.starts_with("pipe:") || file == "/dev/null"),
        "{files:?}"
    );
    assert_eq!(files.iter().filter(|file| file.starts_with("socket:")).count(), 2, "{files:?}");
}

#[test]
fn onnx_runtime_asks_for_no_connection_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (calls, traced) = (folder.path().join("calls"), folder.path().join("traced"));
    // The tracer is nobody's parent here: the host must see the gateway as its own.
    let script = format!(
        "#!/bin/sh\nexec strace -DD -f -q -e trace=network,%file -o {} {} \"$@\"\n",
        calls.display(),
        program().display()
    );
    std::fs::write(&traced, script).unwrap();
    assert!(Command::new("chmod").arg("755").arg(&traced).status().unwrap().success());
    let plant = Plant::new(&settings(&traced, &library(), DEVICE), vec![Arc::new(Adder)]);
    let handle = plant.load("simple").unwrap();
    assert_eq!(handle.engine(), "onnxruntime-cpu", "{:?}", handle.passed_over());
    for first in 0..20 {
        assert_eq!(ask(&handle, first, 10).unwrap().fallback, None);
    }
    let pid = handle.delegate().unwrap().pid.unwrap();
    drop(handle);
    // The tracer ends after the host, with everything written.
    let told = poll("the trace", || {
        let told = std::fs::read_to_string(&calls).unwrap_or_default();
        // A short number is followed by more than one space.
        let ended = |line: &str| line.split_ascii_whitespace().take(2).eq([pid.to_string().as_str(), "+++"]);
        told.lines().any(ended).then_some(told)
    });
    assert!(told.contains("recvmsg("), "nothing was traced: {told}");
    let asked: Vec<_> = told.lines().filter(|line| line.contains(" socket(") || line.contains(" connect(")).collect();
    assert!(asked.is_empty(), "{asked:?}");
    let made: Vec<_> = told.lines().filter(|line| line.contains("O_CREAT") || line.contains(" mkdir")).collect();
    assert!(made.is_empty(), "{made:?}");
}

#[test]
fn a_host_that_is_killed_or_stopped_is_replaced_and_no_answer_is_lost() {
    let plant = plant("timeout_ms = 1000");
    let handle = plant.load("simple").unwrap();
    for (restart, (how, words)) in
        [("KILL", "ended"), ("ABRT", "aborted"), ("STOP", "within 1000 ms")].iter().enumerate()
    {
        let state = handle.delegate().unwrap();
        assert_eq!(ask(&handle, 1, 1).unwrap().fallback, None);
        signal(how, state.pid.unwrap());
        poll("a stand-in or a new host", || {
            ask(&handle, 1, 1).unwrap();
            (handle.delegate().unwrap().pid != state.pid).then_some(())
        });
        let after = wait_for_restart(&handle, restart as u64 + 1);
        assert!(after.reason.clone().unwrap().contains(words), "{after:?}");
        assert!(!is_running(state.pid.unwrap()));
    }
}

#[test]
fn a_host_that_is_stopped_dies_with_its_gateway() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let section = real(&DEVICE.replace("\"*\"", "\"dense\""));
    let section = section.replace("[[device]]", "[[delegate.device]]").replace("[[model]]", "[[delegate.model]]");
    let more = format!("[delegate]\n{section}\n{PRESS}");
    let mut gateway = Gateway::with(&Setup { models: Some(&models), more: &more, ..Setup::default() });
    let told = gateway.get("/api/v1/models");
    let dense = told["models"].as_array().unwrap().iter().find(|model| model["name"] == "dense").unwrap().clone();
    let pid = u32::try_from(dense["delegate"]["pid"].as_u64().unwrap_or_else(|| panic!("{dense}"))).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    // The gateway does without, and a child inherits that.
    assert!(status.contains("THP_enabled:\t1"), "its weights are not on huge pages: {status}");
    signal("STOP", pid);
    gateway.kill();
    poll("the host's end", || (!is_running(pid)).then_some(()));
}

#[test]
fn memory_beyond_the_hard_limit_is_not_given() {
    let limits = "provider = \"cpu\"\nmemory_limit_bytes = 8000000\nmemory_hard_limit_bytes = 8000000";
    let plant = Plant::new(&real(&DEVICE.replace("provider = \"cpu\"", limits)), vec![Arc::new(Adder)]);
    let handle = plant.load("simple").unwrap();
    assert_eq!(handle.engine(), "adder", "ONNX Runtime does not fit into 8 MB");
}

#[test]
fn a_host_looks_for_devices_and_says_what_there_is() {
    let config: Config = toml::from_str(&real("")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (found, isolation) = probe(&config, folder.path()).unwrap();
    assert_eq!((found.runtime.as_str(), found.problems.as_slice()), ("1.28.0", &[][..]));
    assert!(found.providers.contains(&"cpu".to_owned()), "{:?}", found.providers);
    assert!(found.devices.iter().any(|device| device.provider == "CPUExecutionProvider"), "{:?}", found.devices);
    assert!(isolation.holds());
}

#[test]
fn a_file_that_is_no_model_is_refused_in_onnx_runtimes_words() {
    let plant = Plant::new(&real(DEVICE), Vec::new());
    let mut spec = crate::delegate_fixture::spec("simple");
    spec.bytes = Arc::from(&b"no model"[..]);
    let error = plant.pool.load(&spec).unwrap_err().to_string();
    assert!(error.contains("with onnxruntime-cpu: its host says: "), "{error}");
}

#[test]
fn a_provider_that_the_library_lacks_says_so_and_the_next_engine_serves() {
    let plant = Plant::new(
        &real(&DEVICE.replace("provider = \"cpu\"", "provider = \"cuda\"\ndevice = \"0\"")),
        vec![Arc::new(Adder)],
    );
    let handle = plant.load("simple").unwrap();
    assert_eq!((handle.engine(), handle.passed_over()[0].engine), ("adder", "onnxruntime-cuda"));
    assert!(ask(&handle, 1, 1).unwrap().fallback.unwrap().contains("its host says: "));
}

/// None where the plugin is not installed.
fn open_vino_settings(device: &str, options: &str) -> Option<String> {
    let plugin = in_package("onnxruntime_ep_openvino", "libonnxruntime_providers_openvino_plugin.so")?;
    let provider = format!(
        "provider = \"openvino\"\ndevice = \"{device}\"\nlibrary = {plugin:?}\n{options}\nmemory_limit_bytes = 4000000000"
    );
    Some(real(&DEVICE.replace("provider = \"cpu\"", &provider)))
}

fn open_vino(model: &str, device: &str, options: &str) -> Option<(Plant, Handle)> {
    let plant = Plant::new(&open_vino_settings(device, options)?, vec![Arc::new(Adder)]);
    let handle = plant.load(model).unwrap();
    Some((plant, handle))
}

#[test]
fn open_vinos_plugin_computes_on_the_device_that_was_named() {
    let Some((_plant, handle)) = open_vino("simple", "CPU", "") else {
        // Intel's wheel is for x86_64 only.
        if cfg!(target_arch = "x86_64") {
            panic!("make test installs onnxruntime-ep-openvino");
        }
        return;
    };
    assert_eq!(handle.engine(), "onnxruntime-openvino", "{:?}", handle.passed_over());
    let state = handle.delegate().unwrap();
    assert!(state.placement.contains("OpenVINOExecutionProvider") && state.isolation.holds(), "{state:?}");
    for rows in [1, 7] {
        assert_eq!(ask(&handle, 3, rows).unwrap().fallback, None);
    }
    let (_plant, handle) = open_vino("simple", "NPU", "").unwrap();
    assert_eq!(handle.engine(), "adder");
    assert!(
        handle.passed_over()[0].reason.contains("OpenVINOExecutionProvider has no NPU"),
        "{:?}",
        handle.passed_over()
    );
    // On a CPU with bfloat16 it computes in that, and the golden inputs notice; asked for 32 bits, it is right everywhere.
    let precise = r#"options = { load_config = '{"CPU":{"INFERENCE_PRECISION_HINT":"f32"}}' }"#;
    let (_plant, handle) = open_vino("dense", "CPU", precise).unwrap();
    assert_eq!(handle.engine(), "onnxruntime-openvino", "{:?}", handle.passed_over());
    let refused =
        Plant::new(&open_vino_settings("CPU", "").unwrap(), Vec::new()).load("dense").map_err(|e| e.to_string());
    assert!(
        refused.as_ref().is_ok() || refused.as_ref().is_err_and(|error| error.contains("than sample 1 has")),
        "{refused:?}"
    );
}
