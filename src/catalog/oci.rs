//! Models in an OCI image layout: a folder with `oci-layout`, `index.json` and `blobs/sha256`, as `oras` and `skopeo` write it.
//!
//! A model is an artifact whose layers are plain files with their names as annotations; one of them is `manifest.toml`.
//! They are read where they lie, by their digests: nothing is unpacked, so no name in an index leads anywhere and no
//! small file becomes a large one.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::Config;
use super::manifest::{FileEntry, Manifest};
use super::model::{FILE_BYTES_MAX, Model, open_regular, resolve, verify};
use super::scan::{MAX_MANIFEST_BYTES, Problem};
use crate::base::{Digest, Name};

const LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
const MANIFEST: &str = "manifest.toml";
/// The specification lets registries refuse manifests over 4 MiB.
const JSON_BYTES_MAX: u64 = 4 * 1024 * 1024;
const ARTIFACTS_MAX: usize = 1024;
const LAYERS_MAX: usize = 64;
/// Indexes within indexes.
const DEPTH_MAX: usize = 2;
const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Where a layer's file name stands: as `oras` and as the model specification of the CNCF write it.
const TITLES: [&str; 2] = ["org.opencontainers.image.title", "org.cncf.model.filepath"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    schema_version: u32,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What a layout holds.
#[derive(Default)]
pub(super) struct Found {
    pub(super) models: Vec<Model>,
    /// Versions whose manifest is sound and whose file is not.
    pub(super) broken: Vec<(Name, u32, String)>,
    pub(super) problems: Vec<Problem>,
}

/// Whether this folder is a layout.
pub(super) fn is_layout(folder: &Path) -> bool {
    folder.join(LAYOUT).is_file()
}

/// Reads every model of a layout, or those of one name. `root` is the resolved models folder.
pub(super) fn read(config: &Config, root: &Path, folder: &Path, only: Option<&Name>) -> Found {
    let mut reader = Reader { config, root, folder, only, found: Found::default(), artifacts: 0 };
    if let Err(what) = reader.layout() {
        reader.problem(what);
    }
    reader.found
}

struct Reader<'a> {
    config: &'a Config,
    root: &'a Path,
    folder: &'a Path,
    only: Option<&'a Name>,
    found: Found,
    artifacts: usize,
}

impl Reader<'_> {
    fn problem(&mut self, what: String) {
        let advice =
            "make the layout anew, with the model's files as single layers; docs/models.md says how".to_owned();
        self.found.problems.push(Problem { path: self.folder.to_owned(), position: None, what, advice });
    }

    fn layout(&mut self) -> Result<(), String> {
        let Layout { image_layout_version } = self.json(&self.folder.join(LAYOUT), LAYOUT)?;
        if !image_layout_version.starts_with("1.") {
            return Err(format!("{LAYOUT} has version {image_layout_version:?}, known is 1.0.0"));
        }
        let index: Index = self.json(&self.folder.join(INDEX), INDEX)?;
        self.index(index, INDEX, 1)
    }

    fn index(&mut self, index: Index, name: &str, depth: usize) -> Result<(), String> {
        if index.schema_version != 2 {
            return Err(format!("{name} has schemaVersion {}, known is 2", index.schema_version));
        }
        for descriptor in index.manifests {
            self.artifacts += 1;
            if self.artifacts > ARTIFACTS_MAX {
                return Err(format!("it has over {ARTIFACTS_MAX} artifacts, the others are left out"));
            }
            // One that is broken leaves the others served.
            let read = if descriptor.media_type == IMAGE_INDEX {
                self.inner(&descriptor, depth)
            } else {
                self.artifact(&descriptor)
            };
            if let Err(what) = read {
                self.problem(format!("{}: {what}", short(&descriptor.digest)));
            }
        }
        Ok(())
    }

    fn inner(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(), String> {
        if depth == DEPTH_MAX {
            return Err(format!("indexes lie over {DEPTH_MAX} deep"));
        }
        let index = self.json(&self.blob(descriptor, JSON_BYTES_MAX)?, "an index")?;
        self.index(index, &short(&descriptor.digest), depth + 1)
    }

    fn artifact(&mut self, descriptor: &Descriptor) -> Result<(), String> {
        let artifact: Artifact = self.json(&self.blob(descriptor, JSON_BYTES_MAX)?, "an artifact's manifest")?;
        if artifact.schema_version != 2 || artifact.layers.len() > LAYERS_MAX {
            let (schema, layers) = (artifact.schema_version, artifact.layers.len());
            return Err(format!(
                "it has schemaVersion {schema} and {layers} layers, known is 2 with at most {LAYERS_MAX}"
            ));
        }
        let mut files: BTreeMap<&str, &Descriptor> = BTreeMap::new();
        for layer in &artifact.layers {
            let Some(title) = TITLES.iter().find_map(|title| layer.annotations.get(*title)) else { continue };
            if files.insert(title, layer).is_some() {
                return Err(format!("two layers are called {title:?}"));
            }
        }
        let Some(layer) = files.get(MANIFEST) else {
            let names = files.keys().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            return Err(format!(
                "no layer is called {MANIFEST}; there is {}",
                if names.is_empty() { "none with a name" } else { &names }
            ));
        };
        let manifest = self.manifest(layer)?;
        let about = &manifest.model;
        if self.only.is_some_and(|only| *only != about.name) {
            return Ok(());
        }
        let (name, version) = (about.name.clone(), about.version);
        let plain = |file: &str, sha256, what: &str, most| match files.get(file) {
            None => Err(format!("no layer is called {file:?}, {what}")),
            Some(layer) if unpacked(&layer.media_type) => self.plain_file(layer, sha256, most),
            Some(layer) => Err(format!("layer {file:?} is {}, and only plain files are read", layer.media_type)),
        };
        let read = plain(&about.file, about.sha256, "the model's file", self.config.model_bytes_max);
        let other = |entry: &FileEntry| {
            let read = plain(&entry.name, entry.sha256, "a file of [[file]]", FILE_BYTES_MAX);
            read.map(|(place, _)| place)
        };
        let beside = manifest.files.iter().map(other).collect::<Result<Vec<_>, _>>();
        let read = read.and_then(|(file, size_bytes)| Ok((file, size_bytes, beside?)));
        match read {
            Ok((file, size_bytes, beside)) => {
                let (folder, bytes_max) = (self.folder.to_owned(), self.config.model_bytes_max);
                self.found.models.push(Model { manifest, folder, size_bytes, file, triton: None, beside, bytes_max });
                Ok(())
            }
            Err(what) => {
                let what = format!("{name} version {version}: {what}");
                self.found.broken.push((name, version, what.clone()));
                Err(what)
            }
        }
    }

    fn manifest(&self, layer: &Descriptor) -> Result<Manifest, String> {
        let text = self.text(&self.blob(layer, MAX_MANIFEST_BYTES)?, MAX_MANIFEST_BYTES)?;
        Manifest::parse(&text).map_err(|error| format!("{MANIFEST}: {error}"))
    }

    fn plain_file(&self, layer: &Descriptor, declared: Digest, most: u64) -> Result<(PathBuf, u64), String> {
        if digest(layer)? != declared {
            return Err(format!("its file has {}, {MANIFEST} says {declared}", short(&layer.digest)));
        }
        let file = self.blob(layer, most)?;
        Ok((file, layer.size))
    }

    /// The place of a blob with the size and the digest that its descriptor says.
    fn blob(&self, descriptor: &Descriptor, most: u64) -> Result<PathBuf, String> {
        let digest = digest(descriptor)?;
        let path = self.folder.join("blobs/sha256").join(digest.to_string());
        let path = resolve(self.root, &path).map_err(|error| with_cause(&error))?;
        if descriptor.size > most {
            return Err(format!("{} has {} bytes, the most is {most}", short(&descriptor.digest), descriptor.size));
        }
        let size = verify(&path, digest, most).map_err(|error| with_cause(&error))?;
        if size != descriptor.size {
            let said = descriptor.size;
            return Err(format!("{} has {size} bytes, its descriptor says {said}", short(&descriptor.digest)));
        }
        Ok(path)
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, path: &Path, what: &str) -> Result<T, String> {
        let path = resolve(self.root, path).map_err(|error| with_cause(&error))?;
        let text = self.text(&path, JSON_BYTES_MAX)?;
        serde_json::from_str(&text).map_err(|error| format!("failed to read {what}: {error}"))
    }

    fn text(&self, path: &Path, most: u64) -> Result<String, String> {
        let (file, _) = open_regular(path, most).map_err(|error| with_cause(&error))?;
        let mut text = String::new();
        let read = file.take(most).read_to_string(&mut text);
        read.map(|_| text).map_err(|error| format!("failed to read {}: {error}", path.display()))
    }
}

/// Names of folders below `root` that are layouts.
pub(super) fn layouts(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut layouts: Vec<PathBuf> = entries.filter(|path| is_layout(path)).take(ARTIFACTS_MAX).collect();
    layouts.sort();
    layouts
}

/// A digest is 64 hex digits, so it is no path either.
fn digest(descriptor: &Descriptor) -> Result<Digest, String> {
    let hex = descriptor.digest.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
    hex.ok_or_else(|| format!("{:?} is no digest of the form sha256:HEX", descriptor.digest))
}

/// Whether a layer is the file itself.
fn unpacked(media_type: &str) -> bool {
    let packed = |word: &str| media_type.contains(word);
    !["tar", "zip", "zstd"].into_iter().any(packed)
}

fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

fn with_cause(error: &super::model::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;
    use crate::base::replace_file;
    use crate::catalog::Catalog;

    struct Made(tempfile::TempDir);

    fn manifest(name: &str, version: u32, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes);
        format!(
            "[model]\nname = \"{name}\"\nversion = {version}\nfile = \"model.onnx\"\nsha256 = \"{digest}\"\n\
             format = \"onnx\"\nlicense = \"MIT\"\n\
             [[input]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [-1, 2]\n\
             [[output]]\nname = \"y\"\ndatatype = \"FP32\"\nshape = [-1, 1]\n"
        )
    }

    impl Made {
        fn new() -> Self {
            let made = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(made.path("layout/blobs/sha256")).unwrap();
            made.put("layout/oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
            made
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn put(&self, path: &str, bytes: &[u8]) {
            replace_file(&self.path(path), bytes).unwrap();
        }

        /// A blob with its descriptor.
        fn blob(&self, bytes: &[u8], title: Option<&str>) -> serde_json::Value {
            let digest = Digest::of(bytes);
            self.put(&format!("layout/blobs/sha256/{digest}"), bytes);
            let annotations = title.map_or_else(|| json!({}), |title| json!({ (TITLES[0]): title }));
            json!({
                "mediaType": "application/octet-stream",
                "digest": format!("sha256:{digest}"),
                "size": bytes.len(),
                "annotations": annotations,
            })
        }

        fn artifact(&self, layers: &[serde_json::Value]) -> serde_json::Value {
            self.blob(&serde_json::to_vec(&json!({ "schemaVersion": 2, "layers": layers })).unwrap(), None)
        }

        fn model(&self, name: &str, version: u32, bytes: &[u8]) -> serde_json::Value {
            let manifest = self.blob(manifest(name, version, bytes).as_bytes(), Some(MANIFEST));
            self.artifact(&[manifest, self.blob(bytes, Some("model.onnx"))])
        }

        fn index(&self, manifests: &[serde_json::Value]) {
            let index = json!({ "schemaVersion": 2, "manifests": manifests });
            self.put("layout/index.json", &serde_json::to_vec(&index).unwrap());
        }

        fn config(&self) -> Config {
            Config { folder: self.0.path().to_owned(), model_bytes_max: 1000, ..Config::default() }
        }

        fn scan(&self) -> Catalog {
            Catalog::scan(&self.config())
        }

        /// The only problem, which leaves a sound model served.
        fn problem(&self, bad: serde_json::Value) -> String {
            self.index(&[bad, self.model("sound", 1, b"sound")]);
            let catalog = self.scan();
            assert_eq!(catalog.problems().len(), 1, "{:?}", catalog.problems());
            assert!(catalog.model("sound", None).is_some());
            assert_eq!(catalog.models().count(), 1);
            catalog.problems()[0].to_string()
        }
    }

    #[test]
    fn artifacts_are_models_beside_those_in_folders() {
        let made = Made::new();
        made.index(&[made.model("press", 2, b"two"), made.model("drill", 1, b"drill")]);
        fs::create_dir_all(made.path("press/1")).unwrap();
        made.put("press/1/manifest.toml", manifest("press", 1, b"one").as_bytes());
        made.put("press/1/model.onnx", b"one");
        let catalog = made.scan();
        assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
        let versions = |name: &str| catalog.versions(name).iter().map(|m| m.manifest.model.version).collect::<Vec<_>>();
        assert_eq!((versions("press"), versions("drill")), (vec![1, 2], vec![1]));
        assert_eq!(catalog.model("press", None).unwrap().read().unwrap()[..], *b"two");
        let press = Catalog::scan_model(&made.config(), "press");
        assert_eq!((press.versions("press").len(), press.versions("drill").len()), (2, 0));
        assert_eq!(Catalog::scan_model(&made.config(), "layout").models().count(), 0);
    }

    #[test]
    fn an_index_within_an_index_is_read_and_one_that_goes_on_is_not() {
        let made = Made::new();
        let index = |of: serde_json::Value| {
            let mut index =
                made.blob(&serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [of] })).unwrap(), None);
            index["mediaType"] = IMAGE_INDEX.into();
            index
        };
        let one = index(made.model("press", 1, b"one"));
        made.index(std::slice::from_ref(&one));
        assert!(made.scan().model("press", None).is_some());
        assert!(made.problem(index(index(one))).contains("indexes lie over 2 deep"));
    }

    #[test]
    fn the_same_version_twice_is_a_problem_and_the_folder_counts() {
        let made = Made::new();
        made.index(&[made.model("press", 1, b"layout"), made.model("press", 1, b"again")]);
        fs::create_dir_all(made.path("press/1")).unwrap();
        made.put("press/1/manifest.toml", manifest("press", 1, b"folder").as_bytes());
        made.put("press/1/model.onnx", b"folder");
        let catalog = made.scan();
        assert_eq!(catalog.model("press", None).unwrap().read().unwrap()[..], *b"folder");
        assert_eq!(catalog.problems().len(), 2);
        assert!(catalog.problems()[0].to_string().contains("press version 1 is there already"));
    }

    #[test]
    fn what_is_not_what_its_digest_says_is_refused_and_the_others_are_served() {
        let made = Made::new();
        let press = made.model("press", 1, b"weights");
        made.put(&format!("layout/blobs/sha256/{}", Digest::of(b"weights")), b"weighty");
        let problem = made.problem(press);
        assert!(problem.contains("press version 1") && problem.contains("has SHA-256"), "{problem}");
        let catalog = made.scan();
        assert!(catalog.broken().values().any(|versions| versions.contains_key(&1)));

        let made = Made::new();
        let mut long = made.model("press", 1, b"weights");
        long["size"] = 7.into();
        assert!(made.problem(long).contains("its descriptor says 7"));
        let other = made.blob(manifest("press", 1, b"one").as_bytes(), Some(MANIFEST));
        let layers = [other, made.blob(b"another", Some("model.onnx"))];
        assert!(made.problem(made.artifact(&layers)).contains("manifest.toml says"));
    }

    #[test]
    fn names_and_digests_lead_nowhere() {
        let made = Made::new();
        made.put("secret", b"weights");
        for digest in ["sha256:../../../secret", "sha256:", "sha512:00", "../../secret", "sha256:%2e%2e"] {
            let descriptor = json!({ "digest": digest, "size": 7 });
            assert!(made.problem(descriptor).contains("is no digest"), "{digest}");
        }
        let title =
            made.blob(manifest("press", 1, b"x").replace("model.onnx", "../../secret").as_bytes(), Some(MANIFEST));
        let layers = [title, made.blob(b"x", Some("../../secret"))];
        assert!(made.problem(made.artifact(&layers)).contains("plain name"));
        let outside = tempfile::tempdir().unwrap();
        replace_file(&outside.path().join("secret"), b"weights").unwrap();
        let press = made.model("press", 1, b"weights");
        let blob = made.path(&format!("layout/blobs/sha256/{}", Digest::of(b"weights")));
        fs::remove_file(&blob).unwrap();
        symlink(outside.path().join("secret"), &blob).unwrap();
        assert!(made.problem(press).contains("leads out of the models folder"));
    }

    #[test]
    fn what_is_packed_too_large_or_torn_says_so() {
        let made = Made::new();
        let press = || made.blob(manifest("press", 1, b"packed").as_bytes(), Some(MANIFEST));
        let mut packed = made.blob(b"packed", Some("model.onnx"));
        packed["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
        assert!(made.problem(made.artifact(&[press(), packed])).contains("only plain files are read"));
        let twice = [press(), made.blob(b"packed", Some("model.onnx")), made.blob(b"other", Some("model.onnx"))];
        assert!(made.problem(made.artifact(&twice)).contains("two layers are called \"model.onnx\""));
        assert!(made.problem(made.artifact(&[press()])).contains("no layer is called \"model.onnx\""));
        assert!(made.problem(made.artifact(&[])).contains("there is none with a name"));
        assert!(made.problem(made.model("press", 1, &[0; 1001])).contains("has 1001 bytes, the most is 1000"));
        assert!(made.problem(made.artifact(&vec![press(); 65])).contains("65 layers"));
        assert!(made.problem(made.blob(b"{", None)).contains("failed to read an artifact's manifest"));
        let broken = made.blob(b"[model]\nname = 7\n", Some(MANIFEST));
        assert!(made.problem(made.artifact(&[broken])).contains("manifest.toml: line 2, column 8"));
        for (file, text, says) in [
            ("layout/index.json", "[", "failed to read index.json"),
            ("layout/index.json", r#"{"schemaVersion":1,"manifests":[]}"#, "schemaVersion 1"),
            ("layout/oci-layout", r#"{"imageLayoutVersion":"9"}"#, "has version \"9\""),
        ] {
            made.put(file, text.as_bytes());
            let problem = made.scan().problems()[0].to_string();
            assert!(problem.contains(says), "{problem}");
        }
    }
}
