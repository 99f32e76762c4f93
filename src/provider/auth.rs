//! How a request shows whose it is: a header with a key, a signature, an access token.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderName};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method};

use super::credential::{Key, KeyFile};
use super::error::{Class, Failure};
use super::google::Tokens;
use super::kind::{Kind, Wire};
use super::sigv4::{self, Scope};
use crate::base::{Clock, Name};

/// What proves who we are.
#[derive(Debug)]
pub(super) enum Proof {
    /// Nothing: the provider lets everybody in.
    None,
    /// A key in a header; for AWS with its keys a signature.
    Key { file: KeyFile, scope: Option<Scope> },
    /// A service account and its access tokens.
    Google { file: KeyFile, tokens: Box<Tokens> },
}

impl Proof {
    /// Puts what is needed into `headers`. Gives the key that it used, for [`is_stale`](Self::is_stale).
    pub(super) async fn show(
        &self,
        request: Showing<'_>,
        headers: &mut HeaderMap,
    ) -> Result<Option<Arc<Key>>, Failure> {
        let wrong = |reason: String| Failure::unsent(request.provider, Class::Auth, reason);
        let other = || wrong("its key file holds another kind of key than it did".to_owned());
        match self {
            Self::None => Ok(None),
            Self::Key { file, scope } => {
                let key = file.key();
                match (&*key, scope) {
                    (Key::Text { plain, bearer }, _) => match plain_header(request.kind, request.wire) {
                        Some(name) => headers.insert(name, plain.clone()),
                        None => headers.insert(AUTHORIZATION, bearer.clone()),
                    },
                    (Key::Aws(keys), Some(scope)) => {
                        let Showing { method, path, body, clock, .. } = request;
                        sigv4::sign(keys, scope, method, path, headers, body, clock.wall_ms()).map_err(wrong)?;
                        None
                    }
                    _ => return Err(other()),
                };
                Ok(Some(key))
            }
            Self::Google { file, tokens } => {
                let key = file.key();
                let Key::Google(account) = &*key else { return Err(other()) };
                // Elsewhere: a token is fetched once an hour, and every request would carry the room for it.
                headers.insert(AUTHORIZATION, Box::pin(tokens.token(account)).await?);
                Ok(Some(key))
            }
        }
    }

    /// It was refused: whether there is another by now, so that asking once more makes sense.
    pub(super) fn is_stale(&self, used: Option<&Arc<Key>>) -> bool {
        match (self, used) {
            (Self::Key { file, .. }, Some(used)) => !Arc::ptr_eq(&file.key_now(), used),
            // A token may be taken back before its end.
            (Self::Google { tokens, .. }, Some(_)) => tokens.forget(),
            _ => false,
        }
    }
}

/// What a signature covers.
#[derive(Clone, Copy)]
pub(super) struct Showing<'a> {
    pub(super) provider: &'a Name,
    pub(super) kind: Kind,
    pub(super) wire: Wire,
    pub(super) method: &'a Method,
    pub(super) path: &'a PathAndQuery,
    pub(super) body: &'a Bytes,
    pub(super) clock: &'a dyn Clock,
}

/// The header that takes the key as it is; none: `Authorization: Bearer`.
fn plain_header(kind: Kind, wire: Wire) -> Option<HeaderName> {
    match (kind, wire) {
        (Kind::Anthropic, _) => Some(HeaderName::from_static("x-api-key")),
        (Kind::AzureOpenai, _) => Some(HeaderName::from_static("api-key")),
        (Kind::Gemini, Wire::Gemini) => Some(HeaderName::from_static("x-goog-api-key")),
        _ => None,
    }
}
