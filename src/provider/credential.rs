//! Keys from files: read when first needed, read again when the file changes, never shown.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::HeaderValue;
use serde::Deserialize;

use super::error::Error;
use super::google::ServiceAccount;
use super::sigv4::AwsKeys;
use crate::base::{Clock, Name};

/// No key is longer; a service account's JSON has some 2 KiB.
const KEY_BYTES_MAX: u64 = 64 * 1024;
/// How often the file is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a key file is expected to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// A text for a header.
    Text,
    /// An AWS credentials file (this profile of it), or JSON as `credential_process` prints it; with `bearer` also a text,
    /// which is a Bedrock API key.
    Aws { profile: String, bearer: bool },
    /// A service account's JSON.
    Google,
}

/// What a key file holds.
pub(super) enum Key {
    /// As the value of `x-api-key` and the like, and behind `Bearer `.
    Text {
        plain: HeaderValue,
        bearer: HeaderValue,
    },
    Aws(AwsKeys),
    Google(Box<ServiceAccount>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text { .. } => "Key::Text(..)",
            Self::Aws(_) => "Key::Aws(..)",
            Self::Google(_) => "Key::Google(..)",
        })
    }
}

/// Which state of a file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

#[derive(Debug)]
struct State {
    key: Arc<Key>,
    stamp: Stamp,
    looked: Duration,
}

/// A key in a file.
#[derive(Debug)]
pub(super) struct KeyFile {
    provider: Name,
    setting: &'static str,
    path: PathBuf,
    form: Form,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl KeyFile {
    /// Reads it, so that a missing or empty file is known at once.
    pub(super) fn open(
        provider: Name,
        setting: &'static str,
        path: PathBuf,
        form: Form,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let (key, stamp) = read(&provider, setting, &path, &form)?;
        let state = Mutex::new(State { key: Arc::new(key), stamp, looked: clock.since_boot() });
        Ok(Self { provider, setting, path, form, clock, state })
    }

    /// The key as the file has it, no older than a second. While the file cannot be read, the last good one stays.
    pub(super) fn key(&self) -> Arc<Key> {
        self.look(LOOK_EVERY)
    }

    /// The key as the file has it at this moment.
    pub(super) fn key_now(&self) -> Arc<Key> {
        self.look(Duration::ZERO)
    }

    fn look(&self, every: Duration) -> Arc<Key> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.since_boot();
        if now.saturating_sub(state.looked) < every {
            return state.key.clone();
        }
        state.looked = now;
        let changed = match std::fs::metadata(&self.path) {
            Ok(metadata) => Stamp::of(&metadata) != state.stamp,
            // Somebody is exchanging it, or took it away; reading says which.
            Err(_) => true,
        };
        if changed {
            match read(&self.provider, self.setting, &self.path, &self.form) {
                Ok((key, stamp)) => {
                    tracing::info!(provider.name = %self.provider, "the key changed and was read again");
                    (state.key, state.stamp) = (Arc::new(key), stamp);
                }
                Err(error) => tracing::warn!(%error, "the provider keeps the key it had"),
            }
        }
        state.key.clone()
    }
}

fn read(provider: &Name, setting: &'static str, path: &Path, form: &Form) -> Result<(Key, Stamp), Error> {
    let failed = |source: io::Error| Error::File { provider: provider.clone(), setting, path: path.to_owned(), source };
    let wrong =
        |problem: String| Error::Content { provider: provider.clone(), setting, path: path.to_owned(), problem };
    let file = File::open(path).map_err(failed)?;
    // Of the file that was opened, not of the one that has its name by now.
    let stamp = Stamp::of(&file.metadata().map_err(failed)?);
    let mut text = String::new();
    let length = file.take(KEY_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if length as u64 > KEY_BYTES_MAX {
        return Err(wrong(format!("it has more than {KEY_BYTES_MAX} bytes: it must hold the key and nothing else")));
    }
    Ok((parse(text.trim(), form).map_err(wrong)?, stamp))
}

fn parse(text: &str, form: &Form) -> Result<Key, String> {
    if text.is_empty() {
        return Err("it is empty: write the key into it".to_owned());
    }
    match form {
        Form::Text => plain(text),
        Form::Aws { bearer: true, .. } if !text.starts_with('{') && !text.contains("aws_access_key_id") => plain(text),
        Form::Aws { profile, .. } => aws(text, profile).map(Key::Aws),
        Form::Google => ServiceAccount::parse(text).map(|account| Key::Google(Box::new(account))),
    }
}

fn plain(text: &str) -> Result<Key, String> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it must hold one key of printable characters without spaces, and nothing else".to_owned());
    }
    let value = |text: &str| {
        let mut value = HeaderValue::from_str(text).map_err(|_| "no header takes it".to_owned())?;
        value.set_sensitive(true);
        Ok::<_, String>(value)
    };
    Ok(Key::Text { plain: value(text)?, bearer: value(&format!("Bearer {text}"))? })
}

/// As `credential_process` prints it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Process {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

fn aws(text: &str, profile: &str) -> Result<AwsKeys, String> {
    if text.starts_with('{') {
        let process: Process =
            serde_json::from_str(text).map_err(|_| "it is JSON without AccessKeyId and SecretAccessKey".to_owned())?;
        return Ok(AwsKeys {
            access_key_id: process.access_key_id,
            secret_access_key: process.secret_access_key,
            session_token: process.session_token,
        });
    }
    let (mut inside, mut id, mut secret, mut token) = (profile == "default", None, None, None);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = section.trim() == profile;
        } else if inside && let Some((name, value)) = line.split_once('=') {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    match (id, secret) {
        (Some(access_key_id), Some(secret_access_key)) => {
            Ok(AwsKeys { access_key_id, secret_access_key, session_token: token })
        }
        _ => Err(format!("it has no aws_access_key_id and aws_secret_access_key in [{profile}]")),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write key files as people do")]
mod tests {
    use super::*;
    use crate::base::ManualClock;

    fn open(path: &Path, clock: &Arc<ManualClock>) -> Result<KeyFile, Error> {
        let clock: Arc<dyn Clock> = clock.clone();
        KeyFile::open(Name::new("o").unwrap(), "key_file", path.to_owned(), Form::Text, clock)
    }

    fn shown(key: &Key) -> &str {
        match key {
            Key::Text { bearer, .. } => bearer.to_str().unwrap(),
            _ => panic!("another form"),
        }
    }

    #[test]
    fn a_key_that_changes_is_taken_up_and_a_bad_file_leaves_the_last_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "sk-one\n").unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let file = open(&path, &clock).unwrap();
        assert_eq!(shown(&file.key()), "Bearer sk-one");
        std::fs::write(&path, "sk-other\n").unwrap();
        assert_eq!(shown(&file.key()), "Bearer sk-one", "within a second nobody looks");
        clock.advance(LOOK_EVERY);
        assert_eq!(shown(&file.key()), "Bearer sk-other");
        for bad in ["", "two words", "\u{1}"] {
            std::fs::write(&path, bad).unwrap();
            clock.advance(LOOK_EVERY);
            assert_eq!(shown(&file.key()), "Bearer sk-other", "{bad:?}");
        }
        std::fs::remove_file(&path).unwrap();
        clock.advance(LOOK_EVERY);
        assert_eq!(shown(&file.key()), "Bearer sk-other");
        std::fs::write(&path, "sk-third").unwrap();
        clock.advance(LOOK_EVERY);
        assert_eq!(shown(&file.key()), "Bearer sk-third");
    }

    #[test]
    fn an_exchanged_file_of_the_same_length_and_time_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "sk-a").unwrap();
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let file = open(&path, &clock).unwrap();
        let beside = folder.path().join("key.new");
        std::fs::write(&beside, "sk-b").unwrap();
        File::options().write(true).open(&beside).unwrap().set_modified(time).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        clock.advance(LOOK_EVERY);
        assert_eq!(shown(&file.key()), "Bearer sk-b");
    }

    #[test]
    fn a_missing_empty_or_huge_file_is_named_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(0));
        let path = folder.path().join("key");
        assert!(open(&path, &clock).unwrap_err().to_string().starts_with("failed to read key_file /"));
        std::fs::write(&path, " \n").unwrap();
        assert!(open(&path, &clock).unwrap_err().to_string().contains("it is empty"));
        std::fs::write(&path, "sk-secret with more").unwrap();
        let error = format!("{:?}", open(&path, &clock).unwrap_err());
        assert!(!error.contains("sk-secret"), "{error}");
        std::fs::write(&path, "x".repeat(KEY_BYTES_MAX as usize + 1)).unwrap();
        assert!(open(&path, &clock).unwrap_err().to_string().contains("more than 65536 bytes"));
    }

    #[test]
    fn a_key_does_not_show_itself_in_logs() {
        for text in ["ABSKhidden==", "bedrock-api-key-hidden="] {
            let key = parse(text, &Form::Aws { profile: "default".to_owned(), bearer: true }).unwrap();
            assert!(!format!("{key:?}").contains("hidden"));
            let Key::Text { plain, bearer } = &key else { panic!("a text") };
            assert!(!format!("{plain:?} {bearer:?}").contains("hidden"));
        }
    }

    #[test]
    fn aws_keys_are_read_from_a_profile_or_from_json() {
        let text = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=S=\n\n[plant]\naws_access_key_id=B\naws_secret_access_key=T\naws_session_token = U==\nregion=eu\n";
        let of = |profile: &str| aws(text, profile);
        assert_eq!(of("default").unwrap().secret_access_key, "S=");
        assert_eq!(of("plant").unwrap().session_token.as_deref(), Some("U=="));
        assert!(of("other").err().unwrap().contains("[other]"));
        let json = "{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"SessionToken\":\"T\",\"Expiration\":\"x\"}";
        assert_eq!(aws(json, "default").unwrap().access_key_id, "A");
        assert!(aws("{}", "default").is_err());
        assert!(parse("just-a-text", &Form::Aws { profile: "default".to_owned(), bearer: false }).is_err());
    }
}
