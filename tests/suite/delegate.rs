//! The delegate host with the real ONNX Runtime in it. `make test` builds it; without the feature there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use forebay::base::Tensor;
use forebay::engine::NamedTensor;
use forebay::engine::delegate::Phase;

use crate::delegate_fixture::{Plant, config, python};

const CPU: &str = "[[device]]\nname = \"cpu\"\nprovider = \"cpu\"\n[[model]]\nname = \"*\"\ndevices = [\"cpu\"]\n";

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_forebay-delegate"))
}

/// ONNX Runtime's library as the wheel has it.
fn library() -> PathBuf {
    let find = "import importlib.util as u, pathlib as p; \
                print(p.Path(u.find_spec('onnxruntime').origin).parent / 'capi/libonnxruntime.so.1.28.0')";
    let said = Command::new(python()).args(["-c", find]).output().unwrap();
    PathBuf::from(String::from_utf8(said.stdout).unwrap().trim())
}

fn plant(more: &str) -> Plant {
    Plant::new(config(program(), &library(), &format!("{more}\n{CPU}")))
}

fn integers(name: &str, shape: &[usize], first: i32) -> NamedTensor {
    let elements = i32::try_from(shape.iter().product::<usize>()).unwrap();
    NamedTensor::new(name, Tensor::new(shape, (first..first + elements).collect()).unwrap())
}

#[tokio::test]
async fn onnx_runtime_computes_in_a_process_of_its_own() {
    let plant = plant("");
    let handle = plant.load("simple").unwrap();
    assert_eq!(handle.engine(), "onnxruntime-cpu");
    let state = handle.delegate().unwrap();
    assert_eq!((state.phase, state.restarts), (Phase::Serving, 0));
    assert!(state.runtime.contains("1.28.0") && state.runtime.contains("CPU"), "{}", state.runtime);
    for rows in [1, 3, 3000] {
        let inputs = vec![integers("INPUT1", &[rows, 16], 1), integers("INPUT0", &[rows, 16], 100)];
        let outputs = handle.infer(inputs, None).await.unwrap();
        assert_eq!((outputs.engine, outputs.fallback), ("onnxruntime-cpu", None));
        let sum = outputs.tensors[0].tensor.as_slice::<i32>().unwrap();
        assert_eq!((sum.len(), sum[0], sum[15]), (rows * 16, 101, 131));
        assert!(outputs.tensors[1].tensor.as_slice::<i32>().unwrap().iter().all(|&element| element == 99));
    }
}
