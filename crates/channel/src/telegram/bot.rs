//! Calls of the Bot API: the token comes from the vault, and again after it was refused.

use std::sync::Arc;
use std::time::Duration;

use protocol::ids::{ChannelId, SecretName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::api::Envelope;
use super::http::{Connection, HttpError, Server};
use super::peers::{NoToken, Vault};
use super::token::Token;

/// How long the answer to an ordinary call may take.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(30);

/// What is waited for when a 429 does not say.
const DEFAULT_RETRY_AFTER: u64 = 5;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// No answer; it may or may not have been done.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// 429: nothing of this kind before so long.
    #[error("Telegram wants {} s of silence", .0.as_secs())]
    TooMany(Duration),
    /// 409: another program polls, or a webhook is set.
    #[error(
        "another program polls this bot, or it has a webhook; only one of them gets each message"
    )]
    Conflict,
    /// 400, 403 and the like: asking again will not help.
    #[error("Telegram refuses it ({code})")]
    Refused {
        /// The code.
        code: u16,
        /// What Telegram says; may quote what was sent, so it stays out of logs.
        description: String,
        /// The group has this id now.
        migrated_to: Option<i64>,
    },
    /// 5xx, or an answer that is not the Bot API's.
    #[error("Telegram has trouble ({0})")]
    Trouble(u16),
    /// There is no token now; the vault may have it later.
    #[error("no token: {0}")]
    NoToken(#[from] NoToken),
    /// The token is refused, and the vault has no other.
    #[error(
        "Telegram refuses the token of channel {channel}; put a new one in with `bulkhead vault rotate {name}`, then run `bulkhead down` and `bulkhead up`"
    )]
    BadToken {
        /// Whose.
        channel: ChannelId,
        /// The token's name.
        name: SecretName,
    },
}

/// The bot, for all of its connections.
pub(super) struct Bot {
    channel: ChannelId,
    server: Server,
    vault: Arc<Vault>,
    token: Mutex<Option<Arc<Token>>>,
}

impl Bot {
    pub(super) fn new(channel: ChannelId, server: Server, vault: Arc<Vault>) -> Self {
        Self {
            channel,
            server,
            vault,
            token: Mutex::new(None),
        }
    }

    async fn token(&self) -> Result<Arc<Token>, NoToken> {
        let mut current = self.token.lock().await;
        if let Some(token) = &*current {
            return Ok(Arc::clone(token));
        }
        let token = Arc::new(self.vault.token().await?);
        *current = Some(Arc::clone(&token));
        Ok(token)
    }

    /// After this token was refused: asks the vault for it again, unless that was done meanwhile.
    async fn refused(&self, old: &Arc<Token>) -> Result<(), CallError> {
        let mut current = self.token.lock().await;
        if current.as_ref().is_some_and(|token| !token.is(old)) {
            return Ok(());
        }
        let token = self.vault.token().await?;
        if token.is(old) {
            return Err(CallError::BadToken {
                channel: self.channel.clone(),
                name: self.vault.name().clone(),
            });
        }
        *current = Some(Arc::new(token));
        Ok(())
    }
}

/// A connection of the bot that is made anew when it breaks. One call at a time.
pub(super) struct Line {
    bot: Arc<Bot>,
    connection: Option<Connection>,
}

impl Line {
    pub(super) fn new(bot: Arc<Bot>) -> Self {
        Self {
            bot,
            connection: None,
        }
    }

    /// Calls a method. When this future is dropped, the connection is closed with it.
    pub(super) async fn call<R: DeserializeOwned>(
        &mut self,
        method: &'static str,
        parameters: &impl Serialize,
        limit: Duration,
    ) -> Result<R, CallError> {
        loop {
            let token = self.bot.token().await?;
            match self.try_call(&token, method, parameters, limit).await {
                // A path with a malformed token is not found.
                Err(CallError::Refused {
                    code: 401 | 404, ..
                }) => self.bot.refused(&token).await?,
                result => return result,
            }
        }
    }

    async fn try_call<R: DeserializeOwned>(
        &mut self,
        token: &Token,
        method: &'static str,
        parameters: &impl Serialize,
        limit: Duration,
    ) -> Result<R, CallError> {
        let mut connection = match self.connection.take().filter(Connection::is_open) {
            Some(connection) => connection,
            None => self.bot.server.connect().await?,
        };
        // Own types of text and numbers only; nothing in them can fail to be JSON.
        let body = serde_json::to_vec(parameters).expect("parameters are JSON");
        let (status, answer) = connection.post(&token.path(method), body, limit).await?;
        self.connection = Some(connection);
        understand(status, &answer)
    }
}

fn understand<R: DeserializeOwned>(status: u16, answer: &[u8]) -> Result<R, CallError> {
    let Ok(envelope) = serde_json::from_slice::<Envelope<R>>(answer) else {
        return Err(CallError::Trouble(status));
    };
    if let (true, Some(result)) = (envelope.ok, envelope.result) {
        return Ok(result);
    }
    let hints = envelope.parameters.unwrap_or_default();
    match envelope.error_code.unwrap_or(status) {
        429 => Err(CallError::TooMany(Duration::from_secs(
            hints.retry_after.unwrap_or(DEFAULT_RETRY_AFTER),
        ))),
        409 => Err(CallError::Conflict),
        code @ 400..500 => Err(CallError::Refused {
            code,
            description: envelope.description.unwrap_or_default(),
            migrated_to: hints.migrate_to_chat_id,
        }),
        code => Err(CallError::Trouble(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, answer: &str) -> CallError {
        understand::<bool>(status, answer.as_bytes()).unwrap_err()
    }

    #[test]
    fn answers_are_told_apart() {
        assert!(understand::<bool>(200, br#"{"ok":true,"result":true}"#).unwrap());
        let flood =
            r#"{"ok":false,"error_code":429,"description":"x","parameters":{"retry_after":7}}"#;
        assert!(matches!(error(429, flood), CallError::TooMany(wait) if wait.as_secs() == 7));
        assert!(matches!(
            error(409, r#"{"ok":false,"error_code":409}"#),
            CallError::Conflict
        ));
        assert!(matches!(
            error(400, r#"{"ok":false,"error_code":400}"#),
            CallError::Refused { code: 400, .. }
        ));
        assert!(matches!(
            error(500, r#"{"ok":false,"error_code":500}"#),
            CallError::Trouble(500)
        ));
        for junk in [
            "",
            "<html>",
            r#"{"ok":true}"#,
            r#"{"ok":true,"result":"x"}"#,
            "[]",
        ] {
            assert!(
                matches!(error(200, junk), CallError::Trouble(200)),
                "{junk}"
            );
        }
    }
}
