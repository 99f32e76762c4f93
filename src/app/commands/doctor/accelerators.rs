//! Accelerators of this machine as the kernel shows them, the libraries that make use of them, and where those come from.

use std::path::{Path, PathBuf};

use super::{Finding, State};

/// What makes a kind of device usable.
struct Kind {
    what: &'static str,
    /// PCI vendor of a device in these folders of `/sys/class`, or None where another file tells.
    pci: Option<(&'static str, &'static str)>,
    /// Files that are there when the device is.
    files: &'static [&'static str],
    /// A word of the device tree's `compatible`.
    compatible: &'static str,
    /// One that tells another kind with the same files; "" for none.
    but: &'static str,
    provider: &'static str,
    /// Libraries that the provider loads, by the beginning of their names.
    libraries: &'static [&'static str],
    get: &'static str,
}

const ROCKCHIP: &[&str] = &["dev/rknpu", "sys/module/rknpu"];

const KINDS: [Kind; 7] = [
    Kind {
        what: "nvidia",
        pci: None,
        files: &["dev/nvidiactl", "dev/nvgpu", "dev/nvhost-gpu"],
        compatible: "",
        but: "",
        provider: "cuda, tensorrt",
        libraries: &["libcuda.so.1", "libcudart.so.", "libcublasLt.so.", "libcudnn.so.", "libnvinfer.so."],
        get: "libcuda comes with NVIDIA's driver; pip install onnxruntime-gpu==1.28.0 nvidia-cuda-runtime-cu12 nvidia-cublas-cu12 nvidia-cudnn-cu12 tensorrt has the others",
    },
    Kind {
        what: "intel gpu",
        pci: Some(("drm", "0x8086")),
        files: &[],
        compatible: "",
        but: "",
        provider: "openvino with device = \"GPU\"",
        libraries: &["libOpenCL.so.1", "libze_loader.so.1"],
        get: "apt install intel-opencl-icd ocl-icd-libopencl1; pip install onnxruntime-ep-openvino has the provider",
    },
    Kind {
        what: "intel npu",
        pci: Some(("accel", "0x8086")),
        files: &[],
        compatible: "",
        but: "",
        provider: "openvino with device = \"NPU\"",
        libraries: &["libze_loader.so.1", "libze_intel_npu.so.1"],
        get: "Intel's linux-npu-driver release has both; pip install onnxruntime-ep-openvino has the provider",
    },
    Kind {
        what: "qualcomm npu",
        pci: None,
        files: &["dev/fastrpc-cdsp", "dev/fastrpc-cdsp-secure", "dev/adsprpc-smd"],
        compatible: "",
        but: "",
        provider: "qnn",
        libraries: &["libQnnHtp.so", "libQnnSystem.so"],
        get: "Qualcomm's AI Engine Direct SDK (QNN) has them; build ONNX Runtime 1.28.0 with --use_qnn",
    },
    Kind {
        what: "rockchip rk1808",
        pci: None,
        files: ROCKCHIP,
        compatible: "rk1808",
        but: "",
        provider: "rknpu",
        libraries: &["librknpu_ddk.so"],
        get: "Rockchip's RKNPU DDK has librknpu_ddk.so; build ONNX Runtime 1.28.0 with --use_rknpu",
    },
    Kind {
        what: "rockchip npu",
        pci: None,
        files: ROCKCHIP,
        compatible: "rockchip",
        but: "rk1808",
        provider: "none in ONNX Runtime, whose rknpu is for RK1808 alone",
        libraries: &[],
        get: "models compute on its ARM cores: without a delegate, or with provider = \"cpu\" or \"acl\"; rknn-toolkit2 with librknnrt.so is a runtime of its own, which a delegate does not load",
    },
    Kind {
        what: "amd gpu",
        pci: Some(("drm", "0x1002")),
        files: &[],
        compatible: "",
        but: "",
        provider: "none here",
        libraries: &[],
        get: "ONNX Runtime's MIGraphX provider is not among those that a delegate takes",
    },
];

/// Where libraries lie.
const FOLDERS: [&str; 12] = [
    "usr/lib",
    "usr/lib64",
    "lib",
    "usr/local/lib",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/aarch64-linux-gnu/nvidia",
    "usr/local/cuda/lib64",
    "usr/local/cuda/targets/x86_64-linux/lib",
    "usr/local/cuda/targets/aarch64-linux/lib",
    "usr/lib/wsl/lib",
    "vendor/lib64",
];

/// One line a kind of device, whether it is there or not.
pub(super) fn findings(root: &Path) -> Vec<Finding> {
    KINDS.iter().map(|kind| finding(root, kind)).collect()
}

fn finding(root: &Path, kind: &Kind) -> Finding {
    let what = kind.what;
    let Some(device) = device(root, kind) else {
        return Finding { state: State::Absent, what, text: "none on this machine".to_owned(), advice: None };
    };
    let mut there = Vec::new();
    let mut missing = Vec::new();
    for library in kind.libraries {
        match find(root, library) {
            Some(path) => there.push(path.display().to_string()),
            None => missing.push(library.trim_end_matches('.')),
        }
    }
    let mut text = format!("{device}; provider: {}", kind.provider);
    if !there.is_empty() {
        text += &format!("; there: {}", there.join(", "));
    }
    if missing.is_empty() && !kind.libraries.is_empty() {
        return Finding { state: State::Ok, what, text, advice: None };
    }
    if !missing.is_empty() {
        text += &format!("; not in the usual places: {}", missing.join(", "));
    }
    Finding { state: State::Absent, what, text, advice: Some(kind.get.to_owned()) }
}

/// What tells that the device is there, in a few words.
fn device(root: &Path, kind: &Kind) -> Option<String> {
    if let Some((class, vendor)) = kind.pci {
        let devices = std::fs::read_dir(root.join("sys/class").join(class)).ok()?;
        let mut names: Vec<_> = devices
            .flatten()
            .filter(|device| text(&device.path().join("device/vendor")).is_some_and(|text| text == vendor))
            .map(|device| device.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.contains('-') && !name.starts_with("card"))
            .collect();
        names.sort();
        return (!names.is_empty()).then(|| names.join(", "));
    }
    let file = kind.files.iter().find(|file| root.join(file).exists())?;
    let tells = |word: &str| text(&root.join("proc/device-tree/compatible")).is_some_and(|text| text.contains(word));
    if (!kind.compatible.is_empty() && !tells(kind.compatible)) || (!kind.but.is_empty() && tells(kind.but)) {
        return None;
    }
    if kind.what != "nvidia" {
        return Some(format!("/{file}"));
    }
    let driver = text(&root.join("proc/driver/nvidia/version"));
    let driver = driver.and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default();
    let boards = std::fs::read_dir(root.join("proc/driver/nvidia/gpus")).into_iter().flatten().flatten();
    let model = |board: std::fs::DirEntry| {
        let about = text(&board.path().join("information"))?;
        about.lines().find_map(|line| line.strip_prefix("Model:")).map(|model| model.trim().to_owned())
    };
    let models: Vec<_> = boards.filter_map(model).collect();
    let models = if models.is_empty() { format!("/{file}") } else { models.join(", ") };
    Some(if driver.is_empty() { models } else { format!("{models}; {driver}") })
}

fn text(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The first file whose name begins with `library`.
fn find(root: &Path, library: &str) -> Option<PathBuf> {
    FOLDERS.iter().find_map(|folder| {
        let folder = root.join(folder);
        let files = std::fs::read_dir(&folder).ok()?;
        let mut names: Vec<_> =
            files.flatten().map(|file| file.path()).filter(|path| named(path).starts_with(library)).collect();
        names.sort();
        names.into_iter().next()
    })
}

fn named(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), text.as_bytes()).unwrap();
        }
        root
    }

    fn of(root: &Path, what: &str) -> Finding {
        findings(root).into_iter().find(|finding| finding.what == what).unwrap()
    }

    #[test]
    fn a_machine_without_accelerators_says_so_for_each_kind() {
        let root = machine(&[]);
        let findings = findings(root.path());
        assert_eq!(findings.len(), KINDS.len());
        assert!(findings.iter().all(|finding| finding.state == State::Absent && finding.advice.is_none()));
    }

    #[test]
    fn a_gpu_without_its_libraries_says_which_and_where_they_come_from() {
        let root = machine(&[
            ("dev/nvidiactl", ""),
            ("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86\nGCC"),
            ("proc/driver/nvidia/gpus/0000:01/information", "Model: \t NVIDIA L4\nIRQ: 5"),
            ("usr/lib/x86_64-linux-gnu/libcuda.so.1", ""),
        ]);
        let finding = of(root.path(), "nvidia");
        assert!(finding.text.starts_with("NVIDIA L4; NVRM version"), "{}", finding.text);
        assert!(finding.text.contains("there: ") && finding.text.contains("libcuda.so.1"), "{}", finding.text);
        assert!(
            finding.text.ends_with("not in the usual places: libcudart.so, libcublasLt.so, libcudnn.so, libnvinfer.so")
        );
        assert!(finding.advice.unwrap().contains("onnxruntime-gpu"));
    }

    #[test]
    fn devices_are_told_apart_by_who_made_them() {
        let root = machine(&[
            ("sys/class/drm/renderD128/device/vendor", "0x8086\n"),
            ("sys/class/drm/card0-HDMI/device/vendor", "0x8086\n"),
            ("usr/lib/libOpenCL.so.1", ""),
            ("usr/lib/libze_loader.so.1", ""),
        ]);
        let gpu = of(root.path(), "intel gpu");
        assert_eq!((gpu.state, gpu.text.split(';').next()), (State::Ok, Some("renderD128")));
        assert_eq!(of(root.path(), "amd gpu").text, "none on this machine");
    }

    #[test]
    fn an_npu_without_a_provider_says_so_and_what_computes_instead() {
        let board = |word: &str| machine(&[("dev/rknpu", ""), ("proc/device-tree/compatible", word)]);
        for word in ["rockchip,rk3588\0", "rockchip,rk3568-evb\0rockchip,rk3568\0"] {
            let root = board(word);
            let npu = of(root.path(), "rockchip npu");
            assert_eq!((npu.state, npu.text.contains("none in ONNX Runtime")), (State::Absent, true), "{}", npu.text);
            assert!(npu.advice.as_ref().unwrap().contains("provider = \"cpu\" or \"acl\""), "{:?}", npu.advice);
            assert_eq!(of(root.path(), "rockchip rk1808").text, "none on this machine");
        }
        let root = board("rockchip,rk1808\0");
        assert!(of(root.path(), "rockchip rk1808").text.contains("librknpu_ddk.so"));
        assert_eq!(of(root.path(), "rockchip npu").text, "none on this machine");
    }
}
