//! `bulkhead channel`: chat platforms.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use config::{Config, Home, TERMINAL, ensure_key};
use protocol::ids::ChannelId;
use protocol::operator::{OperatorReply, OperatorRequest};
use protocol::passkey::RP_ID;
use protocol::vault::{NewDate, SecretText, Subject, Terms};
use serde::Serialize;
use serde_json::json;

use crate::config_text::{ConfigText, Removed};
use crate::connect::{Operator, Supervisor};
use crate::fault::Fault;
use crate::vault_link::VaultLink;
use crate::{output, secrets};

/// What can be said with `channel`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON, one channel a line.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Connect a chat platform. Asks for the bot's token, or reads it from a pipe or a file.
    Add {
        /// Which platform.
        platform: Platform,
        /// Read the bot's token from this file.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// The channels, and whether they are connected.
    List,
    /// Disconnect a chat platform and forget its token and key.
    Remove {
        /// Which platform.
        platform: Platform,
    },
}

/// The platforms that can be added.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Platform {
    /// A bot, made with @BotFather.
    Telegram,
}

impl Platform {
    fn channel(self) -> &'static str {
        match self {
            Self::Telegram => "telegram",
        }
    }
}

pub(crate) fn run(arguments: Arguments, home: &Home) -> Result<(), Fault> {
    match arguments.action.unwrap_or(Action::List) {
        Action::Add {
            platform: Platform::Telegram,
            token_file,
        } => {
            // Before a token is asked for in vain.
            Config::load(home)?;
            let token = secrets::of(token_file.as_deref(), "Token of the bot (not shown): ")?;
            add_telegram(home, token)?;
            let restart = takes_a_restart(home);
            let words = [
                "Telegram is added.",
                restart.note(),
                "Write to your bot then; it answers with a code for `bulkhead pair approve CODE`.",
            ];
            let facts = json!({ "done": "added", "channel": "telegram", "restart": restart });
            output::done(arguments.json, &in_lines(&words), &facts)
        }
        Action::List => list(home, arguments.json),
        Action::Remove { platform } => remove(home, platform, arguments.json),
    }
}

/// Keeps the token, makes the channel's key and switches the channel on.
pub(crate) fn add_telegram(home: &Home, token: SecretText) -> Result<(), Fault> {
    if !looks_like_a_token(token.expose()) {
        return Err(Fault::Usage(
            "that is not a bot's token. @BotFather gives one like 123456789:AAE...".to_owned(),
        ));
    }
    let channel = channel(Platform::Telegram)?;
    let mut text = ConfigText::read(home)?;
    text.add_section("channel.telegram");
    let config = text.check(home)?;
    let Some(telegram) = config.telegram else {
        return Err(Fault::Refused(format!(
            "{:?} does not read as expected; add [channel.telegram] by hand",
            home.config_file()
        )));
    };
    let mut vault = VaultLink::unlocked(home, None)?;
    let entries = vault.ask(|vault| vault.list())?;
    let subject = Subject::Channel(channel.clone());
    match entries.iter().find(|entry| entry.name == telegram.token) {
        None => vault.ask(|vault| vault.add(telegram.token, subject, Terms::default(), token))?,
        Some(entry) if entry.subject == subject => {
            let same = NewDate::SameSpan;
            vault.ask(|vault| vault.rotate(telegram.token, token, same, same))?;
        }
        Some(entry) => {
            return Err(Fault::Refused(format!(
                "the secret {} is for {} already; remove it, or name another `token` under \
                 [channel.telegram]",
                entry.name, entry.subject
            )));
        }
    }
    ensure_key(home, &channel)?;
    text.save(home)?;
    Ok(())
}

/// `digits:letters`, as @BotFather gives it.
fn looks_like_a_token(token: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    token.split_once(':').is_some_and(|(bot, key)| {
        !bot.is_empty()
            && bot.bytes().all(|byte| byte.is_ascii_digit())
            && !key.is_empty()
            && key.chars().all(letter)
    })
}

fn remove(home: &Home, platform: Platform, json: bool) -> Result<(), Fault> {
    let token = match platform {
        Platform::Telegram => Config::load(home)?.telegram.map(|telegram| telegram.token),
    };
    let mut text = ConfigText::read(home)?;
    let section = format!("channel.{}", platform.channel());
    if text.remove_section(&section) == Removed::WasNotThere {
        return Err(Fault::Refused(format!(
            "there is no channel {}",
            platform.channel()
        )));
    }
    text.save(home)?;
    if let Some(token) = token {
        let mut vault = VaultLink::unlocked(home, None)?;
        let entries = vault.ask(|vault| vault.list())?;
        if entries.iter().any(|entry| entry.name == token) {
            vault.ask(|vault| vault.remove(token))?;
        }
    }
    for half in ["key", "pub"] {
        let path = home.keys().join(format!("{}.{half}", platform.channel()));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Fault::io(format!("remove {path:?}"))(error));
            }
            _ => {}
        }
    }
    let (name, restart) = (platform.channel(), takes_a_restart(home));
    let facts = json!({ "done": "removed", "channel": name, "restart": restart });
    let words = [&format!("{name} is removed."), restart.note()];
    output::done(json, &in_lines(&words), &facts)
}

fn channel(platform: Platform) -> Result<ChannelId, Fault> {
    ChannelId::parse(platform.channel()).map_err(|error| Fault::Usage(error.to_string()))
}

/// Whether what runs has to be started anew before a change counts.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Restart {
    Needed,
    NothingRuns,
}

impl Restart {
    /// For people; empty if there is nothing to do.
    fn note(self) -> &'static str {
        match self {
            Self::Needed => "It takes effect when Bulkhead starts anew: bulkhead down, bulkhead up",
            Self::NothingRuns => "",
        }
    }
}

/// Channels are started with everything else.
fn takes_a_restart(home: &Home) -> Restart {
    match Supervisor::connect(home) {
        Ok(_) => Restart::Needed,
        Err(_) => Restart::NothingRuns,
    }
}

fn in_lines(sentences: &[&str]) -> String {
    let said: Vec<&str> = sentences
        .iter()
        .copied()
        .filter(|sentence| !sentence.is_empty())
        .collect();
    said.join("\n")
}

/// A channel as `list` shows it.
#[derive(Debug, Serialize)]
struct Entry {
    channel: String,
    detail: String,
    connected: Option<bool>,
}

fn list(home: &Home, json: bool) -> Result<(), Fault> {
    let config = Config::load(home)?;
    let connected = match Operator::connect(home).and_then(|it| it.ask(&OperatorRequest::Status)) {
        Ok(OperatorReply::Status { channels, .. }) => Some(channels),
        Ok(_) => return Err(Fault::Unexpected("the gateway")),
        // The list is of the configuration; who is connected is known only while it runs.
        Err(_) => None,
    };
    let is_connected = |name: &str| {
        let channels = connected.as_ref()?;
        let named = channels
            .iter()
            .find(|status| status.channel.as_str() == name);
        Some(named.is_some_and(|status| status.connected))
    };
    let mut entries = vec![(
        TERMINAL.to_owned(),
        "bulkhead ask, bulkhead chat".to_owned(),
    )];
    if let Some(web) = &config.web {
        entries.push(("web".to_owned(), format!("http://{RP_ID}:{}", web.port)));
    }
    if let Some(telegram) = &config.telegram {
        let detail = format!("{}, token in the vault: {}", telegram.api, telegram.token);
        entries.push(("telegram".to_owned(), detail));
    }
    let entries: Vec<Entry> = entries
        .into_iter()
        .map(|(channel, detail)| Entry {
            connected: is_connected(&channel),
            channel,
            detail,
        })
        .collect();
    if json {
        return entries.iter().try_for_each(output::json);
    }
    let rows: Vec<_> = entries
        .into_iter()
        .map(|entry| {
            let state = match entry.connected {
                Some(true) => "connected",
                Some(false) => "not connected",
                None => "Bulkhead is not running",
            };
            [entry.channel, state.to_owned(), entry.detail]
        })
        .collect();
    output::table(["CHANNEL", "STATE", "DETAIL"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_not_kept() {
        assert!(looks_like_a_token("123456789:AAE_x-9"));
        for bad in [
            "",
            "123",
            "123:",
            ":abc",
            "abc:def",
            "123:a b",
            "https://t.me/x",
        ] {
            assert!(!looks_like_a_token(bad), "{bad:?}");
        }
    }
}
