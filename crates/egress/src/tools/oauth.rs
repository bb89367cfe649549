//! Access tokens that a refresh token gets (RFC 6749, section 6), kept in memory until they end.
//!
//! Such a secret is JSON: `{"refresh_token", "client_id", "client_secret"?, "scope"?}`. A server
//! may answer with a new refresh token in the place of the old one. The vault takes no secrets from
//! egress, so the new one is kept in memory too: after a restart the owner may have to add
//! one again, which is said.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use outbound::{Allowed, Terms, Url};
use protocol::egress::FetchFault;
use protocol::ids::{Digest, SecretName};
use protocol::outbound::{Credential, TokenUrl};
use protocol::vault::SecretText;
use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::credential::{Draft, encoded, secret_value, wiped};
use crate::tools::attempt::Attempt;

/// The longest answer of a token endpoint, in bytes.
pub(crate) const MAX_ANSWER: u64 = 64 * 1024;

/// How much earlier than it says a token counts as at its end.
const EARLY: Duration = Duration::from_secs(30);

/// How long a token counts that does not say.
const UNSAID: u64 = 300;

/// What a secret of this kind holds.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub(crate) struct Client {
    pub(crate) refresh_token: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<String>,
    scope: Option<String>,
}

/// What the endpoint answers (RFC 6749, section 5.1).
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Granted {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
}

/// What was got, by secret and endpoint. A clone is another handle on the same.
#[derive(Clone, Default)]
pub(crate) struct Tokens(Arc<Mutex<HashMap<(SecretName, String), Kept>>>);

struct Kept {
    /// Of the secret as the vault has it: another one ends what was got with it.
    of: Digest,
    access: String,
    ends: Instant,
    /// In the place of the one in the vault.
    refresh: Option<String>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.access.zeroize();
        self.refresh.zeroize();
    }
}

impl Client {
    /// Reads the text of a secret.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Tokens {
    fn access(&self, key: &(SecretName, String), of: Digest, now: Instant) -> Option<SecretText> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get(key).filter(|kept| kept.of == of && now < kept.ends);
        kept.map(|kept| SecretText::new(kept.access.clone()))
    }

    fn refresh(&self, key: &(SecretName, String), of: Digest) -> Option<SecretText> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get(key).filter(|kept| kept.of == of)?;
        kept.refresh.clone().map(SecretText::new)
    }

    /// All that is kept, by the secret that got it.
    pub(crate) fn all(&self) -> Vec<(SecretName, SecretText)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let each = all.iter().flat_map(|((name, _), kept)| {
            let texts = [Some(&kept.access), kept.refresh.as_ref()];
            let texts = texts.into_iter().flatten().cloned();
            texts.map(|text| (name.clone(), SecretText::new(text)))
        });
        each.collect()
    }

    fn keep(&self, key: (SecretName, String), kept: Kept) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(key, kept);
    }
}

impl Attempt<'_> {
    /// A token for the request: one that is kept, or a new one from the endpoint.
    pub(crate) async fn access_token(
        &self,
        credential: &Credential,
        endpoint: &TokenUrl,
        secret: &SecretText,
        terms: &Terms,
    ) -> Result<SecretText, FetchFault> {
        let name = &credential.secret;
        let key = (name.clone(), endpoint.to_string());
        // Of the secret itself nobody but this program could make use.
        let of = Digest::of(secret.expose());
        if let Some(access) = self.door.tokens.access(&key, of, Instant::now()) {
            return Ok(access);
        }
        let failed = |reason: &str| FetchFault::Credential {
            reason: reason.to_owned(),
        };
        let url = Url::parse(endpoint.as_str())
            .map_err(|bad| failed(&format!("the rule's token endpoint: {bad}")))?;
        // The vault has to have it bound to that host as well.
        self.open(credential, &url).await?;
        let client = Client::parse(secret.expose()).ok_or_else(|| {
            failed("for `oauth2` the secret has to be JSON with refresh_token and client_id")
        })?;
        let rotated = self.door.tokens.refresh(&key, of);
        let draft = draft(&client, rotated.as_ref(), &url).map_err(|why| failed(&why))?;
        let terms = Terms {
            allowed: Allowed::Public,
            ..terms.clone()
        };
        let answer = self.side_request(&url, draft, &terms, name).await?;
        let status = answer.status.as_u16();
        if status != 200 {
            return Err(failed(&format!(
                "{} answered with status {status}; the refresh token may have ended",
                url.host()
            )));
        }
        let mut body = answer.body;
        let granted = serde_json::from_slice::<Granted>(&body);
        body.zeroize();
        // What a parser says could hold what it read.
        let mut granted = granted.map_err(|_| failed("the answer is none of a token endpoint"))?;
        if !granted.token_type.eq_ignore_ascii_case("bearer") {
            return Err(failed("the token is no bearer token"));
        }
        let refresh = granted.refresh_token.take();
        if refresh.is_some() {
            protocol::log!(
                "bulkhead-egress: {} gave a new refresh token for the secret {name}; it lasts until \
                 a restart, then add the secret again if it is refused",
                url.host()
            );
        }
        let lasts = Duration::from_secs(granted.expires_in.unwrap_or(UNSAID));
        self.door.tokens.keep(
            key,
            Kept {
                of,
                access: granted.access_token.clone(),
                ends: Instant::now() + lasts.saturating_sub(EARLY).min(Duration::from_secs(86_400)),
                refresh: refresh.or_else(|| rotated.map(|it| it.expose().to_owned())),
            },
        );
        // From now on they are looked for, as what the vault holds is.
        self.door.leaks.begin_anew();
        self.door.leaks.refresh().await;
        Ok(SecretText::new(std::mem::take(&mut granted.access_token)))
    }
}

/// The request of RFC 6749, section 6; a client with a secret proves itself as in 2.3.1.
fn draft(client: &Client, rotated: Option<&SecretText>, url: &Url) -> Result<Draft, String> {
    let refresh = rotated.map_or(client.refresh_token.as_str(), SecretText::expose);
    let mut form = format!(
        "grant_type=refresh_token&refresh_token={}",
        encoded(refresh, b"")
    );
    if let Some(scope) = &client.scope {
        form.push_str(&format!("&scope={}", encoded(scope, b"")));
    }
    let mut headers = HeaderMap::new();
    let id = encoded(&client.client_id, b"");
    match &client.client_secret {
        None => form.push_str(&format!("&client_id={id}")),
        Some(secret) => {
            let pair = SecretText::new(format!("{id}:{}", encoded(secret, b"")));
            let value = secret_value(format!("Basic {}", STANDARD.encode(pair.expose())));
            let value = value.ok_or_else(|| "the client's secret fits no header".to_owned())?;
            headers.insert(AUTHORIZATION, value);
        }
    }
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(CONTENT_TYPE, form_type);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(Draft {
        method: "POST",
        authority: url.authority(),
        path: url.path().to_owned(),
        query: None,
        headers,
        body: wiped(form),
    })
}
