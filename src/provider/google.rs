//! Google Cloud: a service account signs a statement, and gets an access token for it.
//!
//! After "Using OAuth 2.0 for Server to Server Applications" (RFC 7523, RS256). A token is good for an hour and is kept
//! until five minutes before its end; then one request fetches the next, and the others go on with the old one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::address::Origin;
use super::body::{Bounds, ReplyBody};
use super::classify::class_of;
use super::config::is_loopback;
use super::error::{Class, Failure};
use super::metrics::Counters;
use super::pool::Pool;
use crate::base::{Clock, Name};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const LIFE_S: i64 = 3600;
/// A new token is fetched this long before the old one ends.
const EARLY: Duration = Duration::from_secs(300);
/// And this long before its end the old one is not used any more.
const LAST: Duration = Duration::from_secs(10);
/// After a failure nobody asks again for this time.
const PAUSE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Who signs. Of its JSON only what is needed is kept.
pub(super) struct ServiceAccount {
    email: String,
    key_id: Option<String>,
    key: RsaKeyPair,
    pub(super) project: Option<String>,
    pub(super) token_uri: String,
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount").field("email", &self.email).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct AccountFile {
    #[serde(rename = "type")]
    kind: String,
    client_email: Option<String>,
    private_key: Option<String>,
    private_key_id: Option<String>,
    project_id: Option<String>,
    #[serde(default = "token_uri")]
    token_uri: String,
}

fn token_uri() -> String {
    "https://oauth2.googleapis.com/token".to_owned()
}

impl ServiceAccount {
    /// The error says what is wrong, without the text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: AccountFile =
            serde_json::from_str(text).map_err(|_| "it is not the JSON of a service account's key".to_owned())?;
        let (Some(email), Some(pem)) = (file.client_email, file.private_key) else {
            return Err(format!("it is of the type {:?}; a key of the type \"service_account\" is needed", file.kind));
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "its private_key is no PEM of PKCS #8".to_owned())?;
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map_err(|error| format!("its private_key is no RSA key that can be used: {error}"))?;
        let origin = Origin::parse(&file.token_uri).map_err(|problem| format!("its token_uri {problem}"))?;
        if !origin.tls && !is_loopback(&origin.host) {
            return Err("its token_uri must be https".to_owned());
        }
        let (key_id, project, token_uri) = (file.private_key_id, file.project_id, file.token_uri);
        Ok(Self { email, key_id, key, project, token_uri })
    }

    /// A signed statement that is good for an hour.
    fn assertion(&self, wall_ms: i64) -> Result<String, String> {
        let now_s = wall_ms.div_euclid(1000);
        let header = serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": self.key_id});
        let claims = serde_json::json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_uri, "iat": now_s, "exp": now_s + LIFE_S,
        });
        let mut text = URL_SAFE_NO_PAD.encode(header.to_string());
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        // The signature does not depend on chance: ring blinds its arithmetic with it.
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| "the service account's key does not sign".to_owned())?;
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(text)
    }
}

#[derive(Clone)]
struct Token {
    value: HeaderValue,
    /// Since boot.
    until: Duration,
    of: Option<String>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    failed: Option<(Duration, Failure)>,
}

/// The access tokens of one provider.
pub(super) struct Tokens {
    provider: Name,
    clock: Arc<dyn Clock>,
    pool: Arc<Pool>,
    path: String,
    limit: Duration,
    counters: Counters,
    state: Mutex<State>,
    fetching: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("pool", &self.pool).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

impl Tokens {
    /// `pool` leads to the origin of the account's `token_uri`, `path` is the rest of it.
    pub(super) fn new(
        provider: Name,
        clock: Arc<dyn Clock>,
        pool: Arc<Pool>,
        path: String,
        limit: Duration,
        counters: Counters,
    ) -> Self {
        let (state, fetching) = (Mutex::default(), tokio::sync::Mutex::new(()));
        Self { provider, clock, pool, path, limit, counters, state, fetching }
    }

    /// `Bearer ...`.
    pub(super) async fn token(&self, account: &ServiceAccount) -> Result<HeaderValue, Failure> {
        if let Some(value) = self.kept(account, EARLY) {
            return Ok(value);
        }
        let _alone = match self.fetching.try_lock() {
            Ok(alone) => alone,
            // Somebody is at it; the old one is good enough until then.
            Err(_) => match self.kept(account, LAST) {
                Some(value) => return Ok(value),
                None => self.fetching.lock().await,
            },
        };
        if let Some(value) = self.kept(account, EARLY) {
            return Ok(value);
        }
        let now = self.clock.since_boot();
        let failure = {
            let state = self.state();
            state.failed.as_ref().filter(|(at, _)| now.saturating_sub(*at) < PAUSE).map(|(_, failure)| failure.clone())
        };
        let failure = match failure {
            Some(failure) => failure,
            None => match self.fetch(account).await {
                Ok(token) => {
                    let value = token.value.clone();
                    *self.state() = State { token: Some(token), failed: None };
                    return Ok(value);
                }
                Err(failure) => {
                    self.state().failed = Some((now, failure.clone()));
                    failure
                }
            },
        };
        self.kept(account, LAST).ok_or(failure)
    }

    /// It was refused: the next request fetches another. Whether there was one.
    pub(super) fn forget(&self) -> bool {
        self.state().token.take().is_some()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, account: &ServiceAccount, before: Duration) -> Option<HeaderValue> {
        let now = self.clock.since_boot();
        let state = self.state();
        let token = state.token.as_ref()?;
        (token.of == account.key_id && now + before < token.until).then(|| token.value.clone())
    }

    async fn fetch(&self, account: &ServiceAccount) -> Result<Token, Failure> {
        let unsent = |class, reason: String| Failure::unsent(&self.provider, class, reason);
        self.counters.tokens.inc();
        let assertion = account.assertion(self.clock.wall_ms()).map_err(|reason| unsent(Class::Auth, reason))?;
        // Nothing in it needs to be escaped but the colons.
        let form = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
        let request = Request::post(&self.path)
            .header(HOST, self.pool.origin().host_header())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))
            .map_err(|error| unsent(Class::Auth, format!("the token_uri has no path that works: {error}")))?;
        let asked = self.clock.since_boot();
        // Whatever goes wrong here, the request itself has not been sent.
        let (status, body) = self.exchange(request).await.map_err(|failure| Failure {
            sent: false,
            reason: format!("no access token for it: {}", failure.reason),
            ..failure
        })?;
        if status != 200 {
            let class = match class_of(status, &body) {
                // "invalid_grant": a wrong key, or a clock that is wrong.
                Class::BadRequest | Class::NotFound | Class::TooLong => Class::Auth,
                class => class,
            };
            let reason = format!("{} gave no access token but status {status}", self.pool.origin().far_side());
            return Err(unsent(class, reason));
        }
        let wrong = || unsent(Class::Malformed, "the answer to the request for an access token holds none".to_owned());
        let granted: Granted = serde_json::from_slice(&body).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", granted.access_token)).map_err(|_| wrong())?;
        value.set_sensitive(true);
        let life = Duration::from_secs(granted.expires_in.min(24 * 3600));
        Ok(Token { value, until: asked + life, of: account.key_id.clone() })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), Failure> {
        let answer = self.pool.send(request, self.limit).await?;
        let (head, exchange) = answer.into_parts();
        let bounds = Bounds { idle: self.limit, total: self.limit, bytes: ANSWER_BYTES_MAX };
        let body = ReplyBody::of_wire(exchange, self.provider.clone(), bounds, None, Counters::default(), None);
        Ok((head.status.as_u16(), body.collect().await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    /// A key of nobody, made for this test.
    const ACCOUNT: &str = include_str!("../../tests/fixtures/provider/service-account.json");

    #[test]
    fn the_statement_is_signed_by_the_accounts_key_and_ends_after_an_hour() {
        let account = ServiceAccount::parse(ACCOUNT).unwrap();
        let text = account.assertion(1_700_000_000_999).unwrap();
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, account.key.public().as_ref());
        public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let read = |part| serde_json::from_slice::<serde_json::Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(read(header)["alg"], "RS256");
        let claims = read(claims);
        assert_eq!((claims["iat"].as_i64(), claims["exp"].as_i64()), (Some(1_700_000_000), Some(1_700_003_600)));
        assert_eq!(claims["aud"], account.token_uri);
        assert_eq!(claims["scope"], SCOPE);
    }

    #[test]
    fn what_is_no_service_account_is_refused_without_being_shown() {
        let other = ACCOUNT.replace("http://127.0.0.1:1/token", "http://token.example/");
        let cases = [
            ("{", "not the JSON"),
            ("{\"type\":\"authorized_user\",\"refresh_token\":\"hidden\"}", "authorized_user"),
            ("{\"type\":\"service_account\",\"client_email\":\"a\",\"private_key\":\"hidden\"}", "no PEM"),
            (other.as_str(), "token_uri must be https"),
        ];
        for (text, expected) in cases {
            let error = ServiceAccount::parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hidden"), "{error}");
        }
    }
}
