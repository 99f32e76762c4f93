//! Reading the models folder: every sound model, and a problem for every broken one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::Config;
use super::manifest::Manifest;
use super::model::{Error, FILE_BYTES_MAX, GOLDEN_BYTES_MAX, Model, open_regular, resolve, verify};
use super::oci;
use super::parse::ManifestError;
use super::triton;
use crate::base::Name;

const MANIFEST: &str = "manifest.toml";
pub(super) const MAX_MANIFEST_BYTES: u64 = 1024 * 1024;
const MAX_MODELS: usize = 1024;
const MAX_VERSIONS: usize = 256;

/// A folder that is no usable model, and what to do about it. Prints as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The folder or file.
    pub path: PathBuf,
    /// Line and column in it, from 1, where there is one.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}; {}", self.what, self.advice)
    }
}

/// The models of one folder at the time of the scan. Immutable: scan again for a new one.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Versions in ascending order, at least one each.
    models: BTreeMap<Name, Vec<Arc<Model>>>,
    /// Version folders that are no usable model, with what is wrong.
    broken: BTreeMap<Name, BTreeMap<u32, String>>,
    problems: Vec<Problem>,
}

impl Catalog {
    /// Reads every model below `config.folder` and checks the digests. Never fails: what is broken is a problem.
    /// Reads the disk: not for an async thread.
    pub fn scan(config: &Config) -> Self {
        let mut catalog = Self::default();
        let root = match config.folder.canonicalize() {
            Ok(root) => root,
            Err(error) => {
                let advice = "make the folder, or set catalog.folder to where the models are";
                catalog.problem(&config.folder, format!("failed to open the models folder: {error}"), advice);
                return catalog;
            }
        };
        let Some(entries) = catalog.folders(&root, MAX_MODELS) else { return catalog };
        for path in entries.iter().filter(|path| !oci::is_layout(path)) {
            catalog.add_model(config, &root, path);
        }
        catalog.add_layouts(config, &root, None);
        catalog
    }

    /// Reads one model by its folder's name, as [`scan`](Self::scan) reads all of them.
    pub fn scan_model(config: &Config, name: &str) -> Self {
        let mut catalog = Self::default();
        // A name is one folder's: it cannot lead elsewhere.
        if let (Ok(name), Ok(root)) = (Name::new(name), config.folder.canonicalize()) {
            let path = root.join(name.as_str());
            if path.is_dir() && !oci::is_layout(&path) {
                catalog.add_model(config, &root, &path);
            }
            catalog.add_layouts(config, &root, Some(&name));
        }
        catalog
    }

    /// Names and versions of the folders that look like models, whatever is in them: nothing is read but names. Layouts are
    /// left out. Reads the disk: not for an async thread.
    pub fn listed(config: &Config) -> BTreeMap<Name, Vec<u32>> {
        // What is wrong with the folder was said when it was scanned.
        let mut problems = Self::default();
        let mut listed = BTreeMap::new();
        for path in problems.folders(&config.folder, MAX_MODELS).unwrap_or_default() {
            let Ok(name) = Name::new(&file_name(&path)) else { continue };
            if oci::is_layout(&path) {
                continue;
            }
            let versions = problems.folders(&path, MAX_VERSIONS).unwrap_or_default();
            let mut versions: Vec<u32> = versions.iter().filter_map(|path| version_number(&file_name(path))).collect();
            versions.sort_unstable();
            if !versions.is_empty() {
                listed.insert(name, versions);
            }
        }
        listed
    }

    /// Models in layouts come behind those in folders.
    fn add_layouts(&mut self, config: &Config, root: &Path, only: Option<&Name>) {
        for layout in oci::layouts(root) {
            let found = oci::read(config, root, &layout, only);
            self.problems.extend(found.problems);
            for (name, version, what) in found.broken {
                self.broken.entry(name).or_default().insert(version, format!("{}: {what}", layout.display()));
            }
            for model in found.models {
                let (name, version) = (model.manifest.model.name.clone(), model.manifest.model.version);
                let versions = self.models.entry(name.clone()).or_default();
                match versions.binary_search_by_key(&version, |model| model.manifest.model.version) {
                    Err(at) if versions.len() < MAX_VERSIONS => versions.insert(at, Arc::new(model)),
                    Err(_) => {
                        let what = format!("{name} has over {MAX_VERSIONS} versions, the others are left out");
                        self.problem(&layout, what, "move some elsewhere");
                    }
                    Ok(_) => {
                        let what = format!("{name} version {version} is there already");
                        self.problem(&layout, what, "give one of the two another version");
                    }
                }
            }
        }
    }

    fn add_model(&mut self, config: &Config, root: &Path, path: &Path) {
        let folder = file_name(path);
        let name = match Name::new(&folder) {
            Ok(name) => name,
            Err(error) => return self.problem(path, error.to_string(), "rename the folder"),
        };
        if path.join(MANIFEST).exists() {
            let advice = format!("move it with its model file into a version folder such as {folder}/1");
            self.problem(&path.join(MANIFEST), "a manifest belongs into a version folder".to_owned(), &advice);
        }
        let Some(entries) = self.folders(path, MAX_VERSIONS) else { return };
        let triton = match triton::read(root, path, &name) {
            Ok(triton) => triton.map(Arc::new),
            Err(failure) => {
                let problem = of_triton(&path.join(triton::FILE), &failure);
                let broken = self.broken.entry(name).or_default();
                let versions = entries.iter().filter_map(|path| version_number(&file_name(path)));
                broken.extend(versions.map(|version| (version, problem.to_string())));
                return self.problems.push(*problem);
            }
        };
        let mut versions = Vec::new();
        for path in entries {
            let manifest = path.join(MANIFEST);
            match version_number(&file_name(&path)) {
                Some(version) => match read_model(config, root, &path, &name, version) {
                    Ok(model) => versions.push(Arc::new(Model { triton: triton.clone(), ..model })),
                    Err(problem) => {
                        self.broken.entry(name.clone()).or_default().insert(version, problem.to_string());
                        self.problems.push(*problem);
                    }
                },
                // A folder of notes or data beside the versions is nobody's mistake.
                None if !manifest.exists() => {}
                None => {
                    let what = "a version folder is named by a whole number from 1".to_owned();
                    self.problem(&path, what, "rename it, such as 1 or 2");
                }
            }
        }
        versions.sort_by_key(|model| model.manifest.model.version);
        if !versions.is_empty() {
            self.models.insert(name, versions);
        }
    }

    /// The folders in `path` by name, hidden ones left out.
    fn folders(&mut self, path: &Path, most: usize) -> Option<Vec<PathBuf>> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => {
                self.problem(path, format!("failed to list it: {error}"), "check its permissions");
                return None;
            }
        };
        let hidden = |path: &Path| file_name(path).starts_with(['.', '_']);
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        let mut folders: Vec<_> = paths.filter(|path| path.is_dir() && !hidden(path)).take(most + 1).collect();
        if folders.len() > most {
            folders.truncate(most);
            self.problem(path, format!("has over {most} folders, the others are left out"), "move some elsewhere");
        }
        folders.sort();
        Some(folders)
    }

    fn problem(&mut self, path: &Path, what: String, advice: &str) {
        self.problems.push(Problem { path: path.to_owned(), position: None, what, advice: advice.to_owned() });
    }

    /// A version of a model; the newest one if none is named.
    pub fn model(&self, name: &str, version: Option<u32>) -> Option<&Arc<Model>> {
        let versions = self.versions(name);
        match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|model| model.manifest.model.version == version),
        }
    }

    /// All versions of a model in ascending order; none if there is no such model.
    pub fn versions(&self, name: &str) -> &[Arc<Model>] {
        let name = Name::new(name).ok();
        name.and_then(|name| self.models.get(&name)).map_or(&[], Vec::as_slice)
    }

    /// Every version of every model, by name and ascending version.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.values().flatten()
    }

    /// Version folders that are no usable model, by name and version, with what is wrong.
    pub fn broken(&self) -> &BTreeMap<Name, BTreeMap<u32, String>> {
        &self.broken
    }

    /// What is broken, in the order of the folders.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn version_number(text: &str) -> Option<u32> {
    let version: u32 = text.parse().ok()?;
    (version > 0 && version.to_string() == text).then_some(version)
}

fn read_model(config: &Config, root: &Path, path: &Path, name: &Name, version: u32) -> Result<Model, Box<Problem>> {
    let folder = resolve(root, path).map_err(|error| from_error(path, &error))?;
    let manifest_path = folder.join(MANIFEST);
    // A model without one may be anybody's: its digest is what is trusted, and its licence what it may be used for.
    if let (false, Some(file)) = (manifest_path.exists(), model_file(&folder)) {
        let advice =
            format!("`forebay model inspect {}` prints one: fill in name, licence and what you know", file.display());
        return Err(Box::new(Problem { path: manifest_path, position: None, what: "is not there".to_owned(), advice }));
    }
    let manifest = read_manifest(root, &manifest_path)?;
    let about = &manifest.model;
    if about.name != *name || about.version != version {
        let what = format!("the manifest is of {} version {}", about.name, about.version);
        let advice = format!("its folder is {name}/{version}: make the two agree");
        return Err(Box::new(Problem { path: manifest_path, position: None, what, advice }));
    }
    let beside = folder.join(&about.file);
    let file = resolve(root, &beside).map_err(|error| from_error(&beside, &error))?;
    let size_bytes =
        verify(&file, about.sha256, config.model_bytes_max).map_err(|error| from_error(&beside, &error))?;
    let mut rest = GOLDEN_BYTES_MAX;
    for golden in manifest.golden.iter().flat_map(super::golden::Golden::files) {
        let beside = folder.join(&golden.file);
        let real = resolve(&folder, &beside).map_err(|error| from_error(&beside, &error))?;
        match verify(&real, golden.sha256, rest) {
            Ok(bytes) => rest -= bytes,
            Err(Error::TooLarge { bytes, .. }) => {
                let what = format!("has {bytes} bytes, golden files have at most {GOLDEN_BYTES_MAX} together");
                let advice = "take fewer or smaller samples".to_owned();
                return Err(Box::new(Problem { path: beside, position: None, what, advice }));
            }
            Err(error) => return Err(from_error(&beside, &error)),
        }
    }
    let mut beside = Vec::new();
    for entry in &manifest.files {
        let path = folder.join(&entry.name);
        let real = resolve(root, &path).map_err(|error| from_error(&path, &error))?;
        verify(&real, entry.sha256, FILE_BYTES_MAX).map_err(|error| from_error(&path, &error))?;
        beside.push(real);
    }
    Ok(Model { manifest, folder, size_bytes, file, triton: None, beside, bytes_max: config.model_bytes_max })
}

/// A model file under its usual name.
fn model_file(folder: &Path) -> Option<PathBuf> {
    ["model.onnx", "model.safetensors", "model.gguf"]
        .map(|name| folder.join(name))
        .into_iter()
        .find(|path| path.is_file())
}

fn of_triton(path: &Path, failure: &triton::Failure) -> Box<Problem> {
    let wrong = match failure {
        triton::Failure::File(error) => return from_error(path, error),
        triton::Failure::Text(wrong) => wrong,
    };
    let advice = "correct it or take it away; docs/models.md says what of Triton's configuration can be had".to_owned();
    let position = Some((wrong.at.line, wrong.at.column));
    Box::new(Problem { path: path.to_owned(), position, what: wrong.what.clone(), advice })
}

fn read_manifest(root: &Path, path: &Path) -> Result<Manifest, Box<Problem>> {
    let failed = |error: &Error| from_error(path, error);
    let real = resolve(root, path).map_err(|error| failed(&error))?;
    let (file, _) = open_regular(&real, MAX_MANIFEST_BYTES).map_err(|error| failed(&error))?;
    let mut text = String::new();
    file.take(MAX_MANIFEST_BYTES)
        .read_to_string(&mut text)
        .map_err(|source| failed(&Error::Read { path: path.to_owned(), source }))?;
    Manifest::parse(&text).map_err(|error| {
        let ManifestError { line, column, message } = error;
        let advice = "correct the manifest; docs/models.md describes every field".to_owned();
        Box::new(Problem { path: path.to_owned(), position: Some((line, column)), what: message, advice })
    })
}

fn from_error(path: &Path, error: &Error) -> Box<Problem> {
    let (what, advice) = match error {
        Error::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            ("is not there".to_owned(), "put the file there, or remove the version folder")
        }
        Error::Read { source, .. } => (format!("failed to read: {source}"), "check its permissions and content"),
        Error::NotAFile(_) => ("is not a regular file".to_owned(), "put the file itself there"),
        Error::Outside(_) => ("leads out of the models folder".to_owned(), "copy what it points to into the folder"),
        Error::TooLarge { bytes, most, .. } => {
            (format!("has {bytes} bytes, the most is {most}"), "raise catalog.model_bytes_max or use a smaller file")
        }
        Error::Digest { expected, found, .. } => (
            format!("has SHA-256 {found}, the manifest says {expected}"),
            "fetch the model again, or correct the sha256 in the manifest if the change was meant",
        ),
        Error::Golden { what, .. } => (what.clone(), "write it with numpy.save"),
    };
    Box::new(Problem { path: path.to_owned(), position: None, what, advice: advice.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;
    use std::os::unix::fs::symlink;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, path: &str, bytes: &[u8]) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            crate::base::replace_file(&path, bytes).unwrap();
        }

        fn model(&self, name: &str, version: u32) {
            self.put(&format!("{name}/{version}/model.onnx"), b"weights");
            self.put(&format!("{name}/{version}/manifest.toml"), manifest(name, version, b"weights").as_bytes());
        }

        fn scan(&self) -> Catalog {
            Catalog::scan(&Config { folder: self.0.path().to_owned(), model_bytes_max: 1000, ..Config::default() })
        }

        /// The only problem, as it prints, without the temporary folder.
        fn problem(&self) -> String {
            let catalog = self.scan();
            assert_eq!(catalog.problems().len(), 1, "{:?}", catalog.problems());
            let root = self.0.path().canonicalize().unwrap();
            catalog.problems()[0].to_string().replace(&format!("{}/", root.display()), "")
        }
    }

    fn manifest(name: &str, version: u32, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes);
        format!(
            "[model]\nname = \"{name}\"\nversion = {version}\nfile = \"model.onnx\"\nsha256 = \"{digest}\"\n\
             format = \"onnx\"\nlicense = \"MIT\"\n\
             [[input]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [-1, 2]\n\
             [[output]]\nname = \"y\"\ndatatype = \"FP32\"\nshape = [-1, 1]\n"
        )
    }

    #[test]
    fn the_newest_version_is_served_by_number_not_by_spelling() {
        let folder = Folder::new();
        for version in [9, 10, 2] {
            folder.model("press", version);
        }
        folder.put("press/README.md", b"notes");
        folder.put("press/data/readings.csv", b"1");
        let catalog = folder.scan();
        assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
        assert_eq!(catalog.model("press", None).unwrap().manifest.model.version, 10);
        assert_eq!(catalog.model("press", Some(2)).unwrap().manifest.model.version, 2);
        assert!(catalog.model("press", Some(3)).is_none());
        assert!(catalog.model("drill", None).is_none());
        assert_eq!(catalog.model("press", None).unwrap().read().unwrap()[..], *b"weights");
    }

    #[test]
    fn a_broken_model_leaves_the_others_served() {
        let folder = Folder::new();
        folder.model("drill", 1);
        folder.model("press", 1);
        folder.model("press", 2);
        folder.put("press/2/manifest.toml", b"[model]\nname = 7\n");
        let catalog = folder.scan();
        assert_eq!(catalog.models().count(), 2);
        assert_eq!(catalog.model("press", None).unwrap().manifest.model.version, 1);
        let problem = folder.problem();
        assert!(problem.starts_with("press/2/manifest.toml:2:8: invalid type: integer `7`"), "{problem}");
    }

    #[test]
    fn another_digest_is_refused_at_the_scan_and_again_when_read() {
        let folder = Folder::new();
        folder.model("press", 1);
        let catalog = folder.scan();
        folder.put("press/1/model.onnx", b"other weights");
        let model = catalog.model("press", None).unwrap();
        assert!(matches!(model.read(), Err(Error::Digest { .. })));
        assert!(folder.problem().contains("the manifest says"));
    }

    #[test]
    fn links_and_paths_out_of_the_folder_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        crate::base::replace_file(&outside.path().join("secret"), b"weights").unwrap();
        let folder = Folder::new();
        folder.put("press/1/manifest.toml", manifest("press", 1, b"weights").as_bytes());
        symlink(outside.path().join("secret"), folder.0.path().join("press/1/model.onnx")).unwrap();
        assert!(folder.problem().starts_with("press/1/model.onnx: leads out of the models folder"));

        let folder = Folder::new();
        folder.model("press", 1);
        symlink("1", folder.0.path().join("press/2")).unwrap();
        assert!(folder.problem().contains("the manifest is of press version 1"), "a link inside is only a wrong name");
    }

    #[test]
    fn what_is_no_usable_file_says_what_to_do() {
        let missing = Folder::new();
        missing.put("press/1/manifest.toml", manifest("press", 1, b"weights").as_bytes());
        assert_eq!(
            missing.problem(),
            "press/1/model.onnx: is not there; put the file there, or remove the version folder"
        );

        let directory = Folder::new();
        directory.put("press/1/manifest.toml", manifest("press", 1, b"weights").as_bytes());
        fs::create_dir(directory.0.path().join("press/1/model.onnx")).unwrap();
        assert!(directory.problem().contains("is not a regular file"));

        let large = Folder::new();
        large.put("press/1/model.onnx", &[0; 1001]);
        large.put("press/1/manifest.toml", manifest("press", 1, &[0; 1001]).as_bytes());
        assert!(large.problem().contains("has 1001 bytes, the most is 1000"));

        let no_manifest = Folder::new();
        no_manifest.put("press/1/model.onnx", b"weights");
        let problem = no_manifest.problem();
        assert!(
            problem.starts_with(
                "press/1/manifest.toml: is not there; `forebay model inspect press/1/model.onnx` prints one"
            ),
            "{problem}"
        );
        // Triton's own layout is not enough: nobody vouches for the file.
        no_manifest.put("press/config.pbtxt", b"name: \"press\" platform: \"onnxruntime_onnx\"");
        assert_eq!(no_manifest.problem(), problem);

        let misspelt = Folder::new();
        misspelt.model("press", 1);
        misspelt.model("press", 2);
        misspelt.put("press/config.pbtxt", b"name: \"press\"\nmax_bach_size: 8\n");
        let problem = misspelt.problem();
        assert!(problem.starts_with("press/config.pbtxt:2:1: max_bach_size: there is no such field"), "{problem}");
        assert_eq!(misspelt.scan().broken()[&Name::new("press").unwrap()].len(), 2, "neither version is served");

        let bloated = Folder::new();
        bloated.put("press/1/manifest.toml", &vec![b'#'; 1024 * 1024 + 1]);
        assert!(bloated.problem().contains("the most is 1048576"));

        let not_text = Folder::new();
        not_text.put("press/1/manifest.toml", &[0xff, 0xfe]);
        assert!(not_text.problem().contains("failed to read"));

        let misnamed = Folder::new();
        misnamed.put("press/v1/manifest.toml", manifest("press", 1, b"weights").as_bytes());
        assert!(misnamed.problem().contains("named by a whole number from 1"));

        let flat = Folder::new();
        flat.put("press/manifest.toml", manifest("press", 1, b"weights").as_bytes());
        assert!(flat.problem().contains("move it with its model file"));
    }

    #[test]
    fn a_file_beside_the_model_is_handed_out_as_its_manifest_describes_it() {
        let folder = Folder::new();
        folder.put("press/1/model.onnx", b"weights");
        folder.put("press/1/labels.txt", b"good\nbad\n");
        let listed = format!("[[file]]\nname = \"labels.txt\"\nsha256 = \"{}\"\n", Digest::of(b"good\nbad\n"));
        let text = manifest("press", 1, b"weights") + &listed;
        folder.put("press/1/manifest.toml", text.as_bytes());
        let catalog = folder.scan();
        assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
        let model = catalog.model("press", None).unwrap();
        assert_eq!(model.read_file("labels.txt").unwrap().unwrap(), b"good\nbad\n");
        assert!(model.read_file("model.onnx").is_none());
        folder.put("press/1/labels.txt", b"bad\ngood\n");
        assert!(matches!(model.read_file("labels.txt"), Some(Err(Error::Digest { .. }))));
        assert!(folder.problem().starts_with("press/1/labels.txt: has SHA-256"));
    }

    #[test]
    fn a_missing_models_folder_is_one_problem_and_no_failure() {
        let catalog = Catalog::scan(&Config { folder: "/nowhere/at/all".into(), ..Config::default() });
        assert_eq!(catalog.models().count(), 0);
        assert!(catalog.problems()[0].to_string().contains("set catalog.folder"));
    }
}
