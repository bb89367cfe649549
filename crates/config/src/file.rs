//! `bulkhead.toml`: the form that is written, and the form that programs use.

use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use protocol::agent::{ModelApi, ModelSpec, ToolCalling};
use protocol::control::{HistoryLimits, MemoryPolicy, ModelRoute, Reach, Scheme};
use protocol::freeze::PanicWord;
use protocol::ids::SecretName;
use protocol::rules::OwnerRules;
use protocol::runner::{Backend, Limits};
use serde::Deserialize;
use toml::Spanned;

use crate::egress::{RuleFile, egress_rules};
use crate::rules::{PolicyFile, owner_rules};
use crate::{BadUrl, BaseUrl, Home};

/// The largest file read, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// The most files with certificates.
const MAX_ROOTS: usize = 16;

/// The configuration, checked and complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What an agent knows of the model.
    pub model: ModelSpec,
    /// What egress knows of it.
    pub route: ModelRoute,
    /// Where tools work.
    pub workspace: PathBuf,
    /// The web page, if there is one.
    pub web: Option<Web>,
    /// Telegram, if it is used.
    pub telegram: Option<Telegram>,
    /// Seconds until an approval that nobody answered counts as no.
    pub approval_seconds: u32,
    /// The most model calls in one turn.
    pub max_rounds: u32,
    /// Seconds until an agent without work is stopped.
    pub agent_idle_seconds: u32,
    /// Bounds of each run in a box.
    pub limits: Limits,
    /// Which kind of box.
    pub backend: Backend,
    /// Where the container engine listens; none for the usual places.
    pub engine_socket: Option<PathBuf>,
    /// What to do where nothing holds the memory of a box as a whole.
    pub memory: MemoryPolicy,
    /// How many boxes are kept ready, of each kind.
    pub spare_boxes: u32,
    /// How much of the workspace's past is kept.
    pub history: HistoryLimits,
    /// What the owner adds to the rules that are shipped.
    pub rules: OwnerRules,
    /// Certificate authorities that egress trusts beside Mozilla's, in PEM.
    pub extra_roots: Vec<String>,
    /// The message that freezes everything, if the owner chose one.
    pub panic_word: Option<PanicWord>,
}

/// The web page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// On the loopback addresses.
    pub port: u16,
}

/// Telegram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telegram {
    /// The Bot API server.
    pub api: BaseUrl,
    /// The bot's token in the vault.
    pub token: SecretName,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is none yet.
    #[error("there is no {0:?} yet; run `bulkhead setup` (or ./quickstart) to make one")]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("cannot read {path:?}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Too large to be a configuration.
    #[error("{0:?} has more than {MAX_FILE} bytes")]
    TooLarge(PathBuf),
    /// Not TOML, an unknown key, or a value of the wrong kind; with its place.
    #[error("{path:?}: {error}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Place and cause.
        error: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("{key}: {problem}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// An egress rule that contradicts itself or allows more than it seems to.
    #[error("line {line}: {rule}")]
    Egress {
        /// Where it begins, counted from 1.
        line: usize,
        /// Which, and what is wrong.
        rule: outbound::BadRule,
    },
    /// The model is on another machine, and nobody said that it may be.
    #[error(
        "model.url: {0} is not this machine. What you write would leave it. If you mean it, \
         add a section [model.remote] with host = \"{0}\""
    )]
    NotLoopback(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Model,
    #[serde(default)]
    workspace: WorkspaceFile,
    #[serde(default)]
    channel: Channels,
    #[serde(default)]
    approvals: Approvals,
    #[serde(default)]
    agent: Agent,
    #[serde(default, rename = "box")]
    in_box: BoxFile,
    #[serde(default)]
    policy: PolicyFile,
    #[serde(default)]
    egress: Vec<Spanned<RuleFile>>,
    #[serde(default)]
    network: NetworkFile,
    #[serde(default)]
    panic: PanicFile,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    #[serde(default)]
    extra_roots: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PanicFile {
    word: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    api: ModelApi,
    url: String,
    name: String,
    #[serde(default = "native")]
    tool_calls: ToolCalling,
    #[serde(default = "context_tokens")]
    context_tokens: u32,
    #[serde(default = "answer_tokens")]
    answer_tokens: u32,
    #[serde(default = "idle_seconds")]
    idle_seconds: u32,
    remote: Option<Remote>,
}

fn native() -> ToolCalling {
    ToolCalling::Native
}

fn context_tokens() -> u32 {
    8192
}

fn answer_tokens() -> u32 {
    1024
}

fn idle_seconds() -> u32 {
    180
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remote {
    host: String,
    secret: Option<SecretName>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkspaceFile {
    path: Option<PathBuf>,
    history_mib: Option<u64>,
    history_days: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Channels {
    #[serde(default)]
    web: WebFile,
    telegram: Option<TelegramFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WebFile {
    enabled: bool,
    port: u16,
}

impl Default for WebFile {
    fn default() -> Self {
        Self {
            enabled: true,
            port: 4880,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TelegramFile {
    api: String,
    token: SecretName,
}

impl Default for TelegramFile {
    fn default() -> Self {
        Self {
            api: "https://api.telegram.org".to_owned(),
            token: SecretName::parse("telegram-token").expect("it has only letters and a dash"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Approvals {
    expire_seconds: u32,
}

impl Default for Approvals {
    fn default() -> Self {
        Self {
            expire_seconds: 900,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Agent {
    max_rounds: u32,
    idle_seconds: u32,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            max_rounds: 20,
            idle_seconds: 60,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BoxFile {
    backend: Backend,
    engine_socket: Option<PathBuf>,
    memory: MemoryPolicy,
    spare: u32,
    wall_seconds: u32,
    cpu_seconds: u32,
    memory_mib: u64,
    pids: u32,
    output_kib: u32,
    tmp_mib: u64,
    workspace_mib: u64,
}

impl Default for BoxFile {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            backend: Backend::default(),
            engine_socket: None,
            memory: MemoryPolicy::default(),
            spare: 1,
            wall_seconds: limits.wall_seconds,
            cpu_seconds: limits.cpu_seconds,
            memory_mib: limits.memory_bytes >> 20,
            pids: limits.pids,
            output_kib: limits.output_bytes >> 10,
            tmp_mib: limits.tmp_bytes >> 20,
            workspace_mib: limits.workspace_bytes >> 20,
        }
    }
}

impl Config {
    /// Reads the file of this home.
    pub fn load(home: &Home) -> Result<Self, ConfigError> {
        let path = home.config_file();
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => ConfigError::Missing(path.clone()),
            _ => ConfigError::Io {
                path: path.clone(),
                error,
            },
        };
        if fs::metadata(&path).map_err(failed)?.len() > MAX_FILE {
            return Err(ConfigError::TooLarge(path));
        }
        let text = fs::read_to_string(&path).map_err(failed)?;
        Self::parse(&text, home, &path)
    }

    /// Reads this text as the file `path` of this home.
    pub fn parse(text: &str, home: &Home, path: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            error: Box::new(error),
        })?;
        let route = route(&file.model)?;
        Ok(Self {
            route,
            history: history(&file.workspace)?,
            workspace: workspace(file.workspace, home)?,
            web: web(&file.channel.web)?,
            telegram: file.channel.telegram.map(telegram).transpose()?,
            approval_seconds: within(
                "approvals.expire_seconds",
                file.approvals.expire_seconds,
                10,
                86_400,
            )?,
            max_rounds: within("agent.max_rounds", file.agent.max_rounds, 1, 20)?,
            agent_idle_seconds: within("agent.idle_seconds", file.agent.idle_seconds, 1, 86_400)?,
            limits: limits(&file.in_box)?,
            backend: file.in_box.backend,
            engine_socket: engine_socket(file.in_box.engine_socket)?,
            memory: file.in_box.memory,
            rules: owner_rules(file.policy, egress_rules(file.egress, text)?, &home.rules())?,
            extra_roots: extra_roots(&file.network.extra_roots)?,
            panic_word: panic_word(file.panic)?,
            spare_boxes: within("box.spare", file.in_box.spare, 0, 16)?,
            model: ModelSpec {
                api: file.model.api,
                name: file.model.name,
                tool_calls: file.model.tool_calls,
                context_tokens: within(
                    "model.context_tokens",
                    file.model.context_tokens,
                    1024,
                    10_000_000,
                )?,
                answer_tokens: within(
                    "model.answer_tokens",
                    file.model.answer_tokens,
                    16,
                    1_000_000,
                )?,
            },
        })
    }
}

/// The certificates in these files, as texts. Whether they are some, egress says.
fn extra_roots(paths: &[PathBuf]) -> Result<Vec<String>, ConfigError> {
    const KEY: &str = "network.extra_roots";
    let wrong = |problem: String| ConfigError::Value { key: KEY, problem };
    if paths.len() > MAX_ROOTS {
        return Err(wrong(format!("at most {MAX_ROOTS} files are taken")));
    }
    let read = |path: &PathBuf| {
        if !path.is_absolute() {
            return Err(wrong(format!("{path:?} is not an absolute path")));
        }
        let failed = |error: io::Error| wrong(format!("cannot read {path:?}: {error}"));
        let is_small = fs::metadata(path).map_err(failed)?.len() <= MAX_FILE;
        let text = match is_small {
            true => fs::read_to_string(path).map_err(failed)?,
            false => return Err(wrong(format!("{path:?} is larger than {MAX_FILE} bytes"))),
        };
        match text.contains("-----BEGIN CERTIFICATE-----") {
            true => Ok(text),
            false => Err(wrong(format!("{path:?} holds no certificate in PEM"))),
        }
    };
    paths.iter().map(read).collect()
}

/// The number, if it lies in this range.
fn within<T: PartialOrd + std::fmt::Display + Copy>(
    key: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    if value < least || value > most {
        return Err(ConfigError::Value {
            key,
            problem: format!("{value} is not from {least} to {most}"),
        });
    }
    Ok(value)
}

fn route(model: &Model) -> Result<ModelRoute, ConfigError> {
    let bad = |problem: BadUrl| ConfigError::Value {
        key: "model.url",
        problem: problem.to_string(),
    };
    let url = BaseUrl::parse(&model.url).map_err(bad)?;
    if model.name.is_empty() || model.name.len() > 200 || model.name.chars().any(char::is_control) {
        return Err(ConfigError::Value {
            key: "model.name",
            problem: "a model's name has 1 to 200 printable bytes".to_owned(),
        });
    }
    let reach = match (&model.remote, url.is_loopback()) {
        (None, true) => Reach::Loopback,
        (Some(_), true) => {
            let problem = "model.url is this machine; remove this section".to_owned();
            return Err(ConfigError::Value {
                key: "model.remote",
                problem,
            });
        }
        (Some(remote), false) if remote.host.to_ascii_lowercase() == url.host => {
            if url.scheme != Scheme::Https {
                let problem = "a model on another machine is reached by https:// only".to_owned();
                return Err(ConfigError::Value {
                    key: "model.url",
                    problem,
                });
            }
            Reach::Remote {
                secret: remote.secret.clone(),
            }
        }
        (_, false) => return Err(ConfigError::NotLoopback(url.host)),
    };
    // People copy the base address from either kind of documentation, with or without `/v1`.
    let base = url.path.trim_end_matches("/v1");
    let path = match model.api {
        ModelApi::Ollama => format!("{base}/api/chat"),
        ModelApi::Openai => format!("{base}/v1/chat/completions"),
    };
    Ok(ModelRoute {
        name: model.name.clone(),
        scheme: url.scheme,
        host: url.host,
        port: url.port,
        path,
        reach,
        idle_seconds: within("model.idle_seconds", model.idle_seconds, 1, 3600)?,
    })
}

fn workspace(file: WorkspaceFile, home: &Home) -> Result<PathBuf, ConfigError> {
    let path = file.path.unwrap_or_else(|| home.default_workspace());
    let problem = if !path.is_absolute() {
        "has to be an absolute path"
    } else if path.parent().is_none() {
        "must not be the root folder"
    } else if path.components().any(|part| part == Component::ParentDir) {
        "must not go up by `..`"
    } else if home.own().iter().any(|own| own.starts_with(&path)) {
        "must not hold Bulkhead's own files"
    } else if home.own().iter().any(|own| path.starts_with(own)) {
        "must not lie in a folder of Bulkhead's own"
    } else {
        return Ok(path);
    };
    Err(ConfigError::Value {
        key: "workspace.path",
        problem: problem.to_owned(),
    })
}

fn web(file: &WebFile) -> Result<Option<Web>, ConfigError> {
    let port = within("channel.web.port", file.port, 1, u16::MAX)?;
    Ok(file.enabled.then_some(Web { port }))
}

fn telegram(file: TelegramFile) -> Result<Telegram, ConfigError> {
    let bad = |problem: String| ConfigError::Value {
        key: "channel.telegram.api",
        problem,
    };
    let api = BaseUrl::parse(&file.api).map_err(|error| bad(error.to_string()))?;
    if api.scheme == Scheme::Http && !api.is_loopback() {
        return Err(bad(
            "the token would go over the network in the clear; use https://".to_owned(),
        ));
    }
    if !api.path.is_empty() {
        return Err(bad("has no path".to_owned()));
    }
    Ok(Telegram {
        api,
        token: file.token,
    })
}

fn limits(file: &BoxFile) -> Result<Limits, ConfigError> {
    Ok(Limits {
        wall_seconds: within("box.wall_seconds", file.wall_seconds, 1, 86_400)?,
        cpu_seconds: within("box.cpu_seconds", file.cpu_seconds, 1, 86_400)?,
        memory_bytes: within("box.memory_mib", file.memory_mib, 64, 1 << 20)? << 20,
        pids: within("box.pids", file.pids, 8, 4096)?,
        output_bytes: within("box.output_kib", file.output_kib, 1, 64)? << 10,
        tmp_bytes: within("box.tmp_mib", file.tmp_mib, 1, 1 << 20)? << 20,
        workspace_bytes: within("box.workspace_mib", file.workspace_mib, 1, 1 << 20)? << 20,
    })
}

fn engine_socket(path: Option<PathBuf>) -> Result<Option<PathBuf>, ConfigError> {
    match path {
        Some(path) if !path.is_absolute() => Err(ConfigError::Value {
            key: "box.engine_socket",
            problem: format!("{path:?} is not an absolute path"),
        }),
        other => Ok(other),
    }
}

fn panic_word(file: PanicFile) -> Result<Option<PanicWord>, ConfigError> {
    let bad = |error: protocol::freeze::BadWord| ConfigError::Value {
        key: "panic.word",
        problem: error.to_string(),
    };
    file.word
        .map(|word| PanicWord::parse(&word).map_err(bad))
        .transpose()
}

fn history(file: &WorkspaceFile) -> Result<HistoryLimits, ConfigError> {
    let usual = HistoryLimits::default();
    let mib = file.history_mib.unwrap_or(usual.bytes >> 20);
    let days = file.history_days.unwrap_or(usual.days);
    Ok(HistoryLimits {
        bytes: within("workspace.history_mib", mib, 16, 1 << 20)? << 20,
        days: within("workspace.history_days", days, 1, 3650)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str =
        "[model]\napi = \"ollama\"\nurl = \"http://127.0.0.1:11434\"\nname = \"m\"\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(
            text,
            &Home::at(Path::new("/h")).unwrap(),
            Path::new("bulkhead.toml"),
        )
    }

    fn complaint(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_model_is_all_that_has_to_be_said() {
        let config = parse(LEAST).unwrap();
        assert_eq!(config.route.path, "/api/chat");
        assert_eq!(config.route.reach, Reach::Loopback);
        assert_eq!(config.workspace, Path::new("/h/workspace"));
        assert_eq!(config.web, Some(Web { port: 4880 }));
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn a_misspelt_key_is_an_error_with_its_place() {
        let error = complaint(&format!("{LEAST}tool_call = \"native\"\n"));
        assert!(
            error.contains("tool_call") && error.contains("line 5"),
            "{error}"
        );
        assert!(
            complaint(&format!("{LEAST}[approval]\nexpire_seconds = 1\n")).contains("approval")
        );
    }

    #[test]
    fn a_model_elsewhere_has_to_be_named_twice_and_reached_by_tls() {
        let elsewhere =
            "[model]\napi = \"openai\"\nurl = \"https://models.example.com/v1\"\nname = \"m\"\n";
        assert!(
            matches!(parse(elsewhere), Err(ConfigError::NotLoopback(host)) if host == "models.example.com")
        );
        let other = format!("{elsewhere}[model.remote]\nhost = \"example.com\"\n");
        assert!(matches!(parse(&other), Err(ConfigError::NotLoopback(_))));
        let named = format!(
            "{elsewhere}[model.remote]\nhost = \"models.example.com\"\nsecret = \"model-key\"\n"
        );
        let config = parse(&named).unwrap();
        assert_eq!(config.route.path, "/v1/chat/completions");
        assert!(matches!(
            config.route.reach,
            Reach::Remote { secret: Some(_) }
        ));
        assert!(complaint(&named.replace("https", "http")).contains("https"));
    }

    #[test]
    fn a_word_that_freezes_is_there_only_if_it_was_chosen_and_is_long_enough() {
        assert_eq!(parse(LEAST).unwrap().panic_word, None);
        let with = |word: &str| format!("{LEAST}[panic]\nword = \"{word}\"\n");
        let word = parse(&with("red herring")).unwrap().panic_word.unwrap();
        assert!(word.is("red herring") && !word.is("red"));
        let error = complaint(&with("short"));
        assert!(
            error.contains("panic.word") && error.contains("at least 8"),
            "{error}"
        );
        assert!(!error.contains("short"), "{error}");
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_name() {
        assert!(
            complaint(&format!("{LEAST}[box]\nwall_seconds = 0\n")).contains("box.wall_seconds")
        );
        assert!(
            complaint(&format!("{LEAST}[agent]\nmax_rounds = 21\n")).contains("agent.max_rounds")
        );
        assert!(complaint(&format!("{LEAST}[workspace]\npath = \"/h\"\n")).contains("own files"));
        assert!(complaint(&format!("{LEAST}[workspace]\npath = \"w\"\n")).contains("absolute"));
        for (path, why) in [
            ("/h/history/w", "lie in a folder"),
            ("/h/history", "own files"),
            ("/h/w/../history", "`..`"),
        ] {
            let error = complaint(&format!("{LEAST}[workspace]\npath = \"{path}\"\n"));
            assert!(error.contains(why), "{path}: {error}");
        }
        assert!(
            complaint(&format!(
                "{LEAST}[channel.telegram]\napi = \"http://api.example.com\"\n"
            ))
            .contains("https")
        );
    }
}
