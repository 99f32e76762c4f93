//! `[delegate]`: a second program that computes models with a vendor's libraries, on devices that this one cannot reach.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::base::{Digest, Name};

/// `[delegate]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The host program.
    pub program: PathBuf,
    /// ONNX Runtime's library.
    pub library: PathBuf,
    /// Its SHA-256 in hex. Absent: it must be the one of ONNX Runtime 1.28.0 from PyPI.
    #[serde(deserialize_with = "digest")]
    pub library_sha256: Option<Digest>,
    /// Folders with libraries that a provider needs, such as CUDA's.
    pub library_folders: Vec<PathBuf>,
    /// Where hosts have their home folders and models lie while they are loaded. Absent: `delegate` in the state folder.
    pub work_folder: Option<PathBuf>,
    /// How long a host may take to load a model, in milliseconds. TensorRT builds its engines in that time.
    pub load_timeout_ms: u64,
    /// How long it may take to compute a request before it is killed, in milliseconds.
    pub timeout_ms: u64,
    /// Most memory that a model's inputs and outputs are exchanged in, in bytes.
    pub shared_bytes_max: usize,
    /// A host that ended is started again after this, doubling with every failure, in milliseconds.
    pub restart_first_ms: u64,
    /// The longest wait between two starts, in milliseconds.
    pub restart_most_ms: u64,
    /// How often a host's memory is looked at, in milliseconds.
    pub watch_ms: u64,
    /// Lets a host run although nothing on this machine can keep it off the network.
    pub allow_network: bool,
    /// What may compute, tried in this order.
    pub device: Vec<Device>,
    /// Which models may be computed there.
    pub model: Vec<Rule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            program: PathBuf::from("/usr/lib/forebay/forebay-delegate"),
            library: PathBuf::from("/usr/lib/forebay/libonnxruntime.so.1.28.0"),
            library_sha256: None,
            library_folders: Vec::new(),
            work_folder: None,
            load_timeout_ms: 60_000,
            timeout_ms: 5_000,
            shared_bytes_max: 256 * 1024 * 1024,
            restart_first_ms: 100,
            restart_most_ms: 30_000,
            watch_ms: 250,
            allow_network: false,
            device: Vec::new(),
            model: Vec::new(),
        }
    }
}

/// `[[delegate.device]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// What rules call it.
    pub name: Name,
    /// ONNX Runtime's execution provider.
    pub provider: Provider,
    /// Which of the provider's devices: a number, or `CPU`, `GPU`, `NPU`. Absent: its first.
    #[serde(default)]
    pub device: Option<String>,
    /// The provider's own library, where it is not part of ONNX Runtime's.
    #[serde(default)]
    pub library: Option<PathBuf>,
    /// The provider's own settings, by its names for them.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Threads that compute within one request.
    #[serde(default = "one")]
    pub threads: usize,
    /// Memory of its own that a host may have before it is started anew between two requests, in bytes.
    #[serde(default = "gibibyte")]
    pub memory_limit_bytes: u64,
    /// Memory that it is not given, in bytes; it is killed above, also within a request. Absent: twice the limit.
    #[serde(default)]
    pub memory_hard_limit_bytes: Option<u64>,
}

/// `[[delegate.model]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A model's name, or `*` for all that have no rule of their own.
    pub name: String,
    /// Devices that may compute it.
    pub devices: Vec<Name>,
    /// An engine of this program is loaded, too, and answers while the host does not.
    #[serde(default = "yes")]
    pub stand_in: bool,
    /// Without golden inputs in its manifest nobody knows whether a device computes it right: it does not serve there.
    #[serde(default = "yes")]
    pub require_golden: bool,
    /// In place of `delegate.timeout_ms`.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

fn one() -> usize {
    1
}

fn gibibyte() -> u64 {
    1 << 30
}

fn yes() -> bool {
    true
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|_| de::Error::custom("a SHA-256 is 64 hex digits: `sha256sum FILE` prints it"))
}

macro_rules! providers {
    ($($variant:ident $word:literal $engine:literal $name:literal $about:literal),* $(,)?) => {
        /// An execution provider of ONNX Runtime.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Provider {
            $(#[doc = $about] $variant,)*
        }

        impl Provider {
            /// All of them.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];
            const WORDS: &'static [&'static str] = &[$($word),*];

            /// The configuration's word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The engine's name in answers, logs and manifests.
            pub fn engine(self) -> &'static str {
                match self { $(Self::$variant => $engine,)* }
            }

            /// ONNX Runtime's name for it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

providers! {
    Cpu "cpu" "onnxruntime-cpu" "CPUExecutionProvider" "ONNX Runtime's own kernels.",
    Cuda "cuda" "onnxruntime-cuda" "CUDAExecutionProvider" "NVIDIA GPUs.",
    TensorRt "tensorrt" "onnxruntime-tensorrt" "TensorrtExecutionProvider" "NVIDIA GPUs, with engines built for the very model.",
    OpenVino "openvino" "onnxruntime-openvino" "OpenVINOExecutionProvider" "Intel CPUs, GPUs and NPUs.",
    Qnn "qnn" "onnxruntime-qnn" "QNNExecutionProvider" "Qualcomm's NPUs.",
    Rknpu "rknpu" "onnxruntime-rknpu" "RknpuExecutionProvider" "The NPU of Rockchip's RK1808, and of no other.",
    Acl "acl" "onnxruntime-acl" "ACLExecutionProvider" "Arm's Compute Library.",
    Xnnpack "xnnpack" "onnxruntime-xnnpack" "XnnpackExecutionProvider" "XNNPACK's kernels.",
    CoreMl "coreml" "onnxruntime-coreml" "CoreMLExecutionProvider" "Apple's devices.",
    DirectMl "directml" "onnxruntime-directml" "DmlExecutionProvider" "GPUs under Windows.",
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        if word == "rknn" {
            return Err(de::Error::custom(
                "ONNX Runtime has no provider for the NPUs of RK3588, RK356x and their like, whose runtime is RKNN; expected \
                 `cpu` or `acl`, which compute on their ARM cores (`rknpu` is for RK1808 alone)",
            ));
        }
        let known = Self::ALL.into_iter().find(|provider| provider.as_str() == word);
        known.ok_or_else(|| de::Error::unknown_variant(&word, Self::WORDS))
    }
}

impl Provider {
    /// Which of a device's keys this provider has no setting for, and why: it would be silently without effect.
    pub(super) fn refuses(
        self,
        device: Option<&str>,
        options: &BTreeMap<String, String>,
    ) -> Option<(&'static str, String)> {
        let word = self.as_str();
        let no_device =
            || device.map(|device| ("device", format!("{word} has no devices to choose from, given {device}")));
        let no_option = |known: &[&str]| {
            let unknown = options.keys().find(|key| !known.contains(&key.as_str()))?;
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("expected {}", known.join(", ")) };
            Some(("options", format!("{word} has no option {unknown}; {known}")))
        };
        match self {
            Self::Rknpu => no_device().or_else(|| no_option(&[])),
            Self::Xnnpack => no_device(),
            Self::Acl => no_device().or_else(|| no_option(&[FAST_MATH])).or_else(|| {
                let value = options.get(FAST_MATH).filter(|value| truth(value).is_none())?;
                Some(("options", format!("{FAST_MATH} of {word} is {value:?}, expected \"0\" or \"1\"")))
            }),
            Self::DirectMl => no_option(&[]).or_else(|| {
                let device = device.filter(|device| device.parse::<i32>().is_err())?;
                Some(("device", format!("{word} has no device {device}, expected a number")))
            }),
            Self::Cpu | Self::Cuda | Self::TensorRt | Self::OpenVino | Self::Qnn | Self::CoreMl => None,
        }
    }
}

/// Arm's Compute Library rounds more than it must.
pub(super) const FAST_MATH: &str = "enable_fast_math";

/// As ONNX Runtime's settings write it.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

impl Config {
    /// The same on a box whose models compute on `threads_max` threads: a device with more would take them from everything else,
    /// and has no more than these.
    #[must_use]
    pub fn within(mut self, threads_max: usize) -> Self {
        for device in self.device.iter_mut().filter(|device| device.threads > threads_max) {
            let threads = device.threads;
            tracing::warn!(device = %device.name, threads, threads_max, "delegate.device.threads is over engine.threads: the device gets as many as there are");
            device.threads = threads_max;
        }
        self
    }

    /// What cannot be right, with the key that says it.
    pub fn check(&self) -> Result<(), (String, String)> {
        let wrong = |key: String, problem: String| Err((key, problem));
        for (at, device) in self.device.iter().enumerate() {
            if self.device[..at].iter().any(|other| other.name == device.name) {
                return wrong(format!("device[{at}].name"), format!("two devices are called {}", device.name));
            }
            if device.threads == 0 {
                return wrong(format!("device[{at}].threads"), "must be at least 1".to_owned());
            }
            if let Some((key, problem)) = device.provider.refuses(device.device.as_deref(), &device.options) {
                return wrong(format!("device[{at}].{key}"), problem);
            }
            let hard = device.hard_limit_bytes();
            if device.memory_limit_bytes == 0 || hard < device.memory_limit_bytes {
                let problem = format!("{hard} is below memory_limit_bytes, {}", device.memory_limit_bytes);
                return wrong(format!("device[{at}].memory_hard_limit_bytes"), problem);
            }
        }
        for (at, rule) in self.model.iter().enumerate() {
            if self.model[..at].iter().any(|other| other.name == rule.name) {
                return wrong(format!("model[{at}].name"), format!("two rules are for {}", rule.name));
            }
            if let Some(unknown) = rule.devices.iter().find(|name| !self.device.iter().any(|d| d.name == **name)) {
                let known = self.device.iter().map(|device| device.name.to_string()).collect::<Vec<_>>().join(", ");
                let known = if known.is_empty() { "there is no [[delegate.device]]".to_owned() } else { known };
                return wrong(format!("model[{at}].devices"), format!("no device {unknown}; {known}"));
            }
        }
        Ok(())
    }

    /// With paths that mean the same in a host, which works in a folder of its own.
    pub(super) fn absolute(mut self) -> Self {
        let plugins = self.device.iter_mut().filter_map(|device| device.library.as_mut());
        for path in [&mut self.program, &mut self.library].into_iter().chain(plugins).chain(&mut self.library_folders) {
            if let Ok(absolute) = std::path::absolute(&*path) {
                *path = absolute;
            }
        }
        self
    }

    /// The rule for a model.
    pub(super) fn rule(&self, model: &Name) -> Option<&Rule> {
        let named = self.model.iter().find(|rule| rule.name == model.as_str());
        named.or_else(|| self.model.iter().find(|rule| rule.name == "*"))
    }

    pub(super) fn timeout(&self, rule: Option<&Rule>) -> Duration {
        Duration::from_millis(rule.and_then(|rule| rule.timeout_ms).unwrap_or(self.timeout_ms))
    }
}

impl Device {
    pub(super) fn hard_limit_bytes(&self) -> u64 {
        self.memory_hard_limit_bytes.unwrap_or(self.memory_limit_bytes.saturating_mul(2))
    }

    /// Whether the hard limit is also the kernel's. A GPU's driver reserves address space far beyond what it uses.
    pub(super) fn kernel_limits_memory(&self) -> bool {
        matches!(self.provider, Provider::Cpu | Provider::Xnnpack | Provider::Acl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_rule_by_name_goes_before_the_one_for_all() {
        let config = config(
            r#"
            [[device]]
            name = "gpu"
            provider = "cuda"
            device = "0"
            [[model]]
            name = "*"
            devices = ["gpu"]
            [[model]]
            name = "press"
            devices = []
            timeout_ms = 7
            "#,
        );
        assert_eq!(config.check(), Ok(()));
        let rule = |name: &str| config.rule(&Name::new(name).unwrap()).unwrap();
        assert!(rule("press").devices.is_empty());
        assert_eq!(config.timeout(Some(rule("press"))), Duration::from_millis(7));
        assert_eq!(rule("other").devices.len(), 1);
        assert!(rule("other").stand_in && rule("other").require_golden);
    }

    #[test]
    fn what_cannot_be_right_is_named_with_its_key() {
        let twice =
            config("[[device]]\nname = \"a\"\nprovider = \"cpu\"\n[[device]]\nname = \"a\"\nprovider = \"qnn\"");
        assert_eq!(twice.check().unwrap_err(), ("device[1].name".into(), "two devices are called a".into()));
        let unknown =
            config("[[device]]\nname = \"a\"\nprovider = \"cpu\"\n[[model]]\nname = \"*\"\ndevices = [\"b\"]");
        assert_eq!(unknown.check().unwrap_err(), ("model[0].devices".into(), "no device b; a".into()));
        let limits = "[[device]]\nname = \"a\"\nprovider = \"cpu\"\nmemory_hard_limit_bytes = 5";
        assert_eq!(config(limits).check().unwrap_err().0, "device[0].memory_hard_limit_bytes");
        let provider: Result<Config, _> = toml::from_str("[[device]]\nname = \"a\"\nprovider = \"gpu\"");
        assert!(provider.unwrap_err().to_string().contains("expected one of `cpu`, `cuda`, `tensorrt`"));
    }

    #[test]
    fn a_setting_that_a_provider_does_not_have_is_refused_and_not_dropped() {
        let device =
            |provider: &str, more: &str| format!("[[device]]\nname = \"a\"\nprovider = \"{provider}\"\n{more}");
        for (provider, more, key, says) in [
            ("rknpu", "device = \"0\"", "device", "rknpu has no devices to choose from, given 0"),
            ("rknpu", "options = { a = \"1\" }", "options", "rknpu has no option a; it has none"),
            ("acl", "device = \"GPU\"", "device", "acl has no devices"),
            (
                "acl",
                "options = { fast_math = \"1\" }",
                "options",
                "acl has no option fast_math; expected enable_fast_math",
            ),
            ("acl", "options = { enable_fast_math = \"yes\" }", "options", "is \"yes\", expected \"0\" or \"1\""),
            ("xnnpack", "device = \"0\"", "device", "xnnpack has no devices"),
            ("directml", "options = { a = \"1\" }", "options", "directml has no option a"),
            ("directml", "device = \"GPU\"", "device", "directml has no device GPU, expected a number"),
        ] {
            let (told, problem) = config(&device(provider, more)).check().unwrap_err();
            assert_eq!(told, format!("device[0].{key}"), "{provider} {more}");
            assert!(problem.contains(says), "{provider} {more}: {problem}");
        }
        for (provider, more) in [
            ("acl", "options = { enable_fast_math = \"1\" }"),
            ("directml", "device = \"1\""),
            ("cuda", "device = \"1\"\noptions = { cudnn_conv_algo_search = \"HEURISTIC\" }"),
        ] {
            assert_eq!(config(&device(provider, more)).check(), Ok(()), "{provider} {more}");
        }
    }

    #[test]
    fn rknn_is_no_provider_and_the_error_says_what_to_do_instead() {
        let error = toml::from_str::<Config>("[[device]]\nname = \"a\"\nprovider = \"rknn\"").unwrap_err().to_string();
        for says in ["no provider for the NPUs of RK3588", "`cpu` or `acl`", "line 3"] {
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_device_has_no_more_threads_than_the_box_gives_to_models() {
        let text = "[[device]]\nname = \"a\"\nprovider = \"cpu\"\nthreads = 64\n[[device]]\nname = \"b\"\nprovider = \"cpu\"\nthreads = 2";
        let threads: Vec<_> = config(text).within(3).device.iter().map(|device| device.threads).collect();
        assert_eq!(threads, [3, 2]);
    }

    #[test]
    fn paths_mean_the_same_in_a_folder_of_a_hosts_own() {
        let text = "program = \"a/host\"\nlibrary_folders = [\"/b\"]\n[[device]]\nname = \"a\"\nprovider = \"qnn\"\nlibrary = \"c.so\"";
        let config = config(text).absolute();
        let here = std::env::current_dir().unwrap();
        assert_eq!((config.program, config.library_folders), (here.join("a/host"), vec![PathBuf::from("/b")]));
        assert_eq!(config.device[0].library, Some(here.join("c.so")));
    }

    #[test]
    fn every_provider_is_read_by_its_word() {
        for provider in Provider::ALL {
            let text = format!("[[device]]\nname = \"a\"\nprovider = \"{}\"", provider.as_str());
            assert_eq!(config(&text).device[0].provider, provider);
            assert_eq!(provider.engine(), format!("onnxruntime-{}", provider.as_str()));
        }
    }
}
