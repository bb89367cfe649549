//! `bulkhead.toml`: what it may say, and what it may not mean.

use std::net::IpAddr;
use std::path::{Component, Path};

use config::{BaseUrl, Config, ConfigError, Home};
use protocol::control::{Reach, Scheme};
use protocol::frame;

use crate::{Target, kind};

pub(crate) const TARGET: Target = Target {
    name: "config",
    check,
    seeds,
    words: &[
        b"[model]\n",
        b"[model.remote]\n",
        b"[workspace]\n",
        b"[channel.web]\n",
        b"[channel.telegram]\n",
        b"[approvals]\n",
        b"[agent]\n",
        b"[box]\n",
        b"api = \"ollama\"\n",
        b"api = \"openai\"\n",
        b"url = \"http://127.0.0.1:1\"\n",
        b"https://models.example.com",
        b"http://[::1]:8080/v1",
        b"http://localhost.example.com",
        b"http://127.0.0.1@example.com",
        b"http://0.0.0.0",
        b"name = \"m\"\n",
        b"host = \"models.example.com\"\n",
        b"secret = \"k\"\n",
        b"path = \"/w\"\n",
        b"path = \"/h\"\n",
        b"path = \"/h/b/history/../..\"\n",
        b"enabled = false\n",
        b"port = 0\n",
        b"token = \"t\"\n",
        b"spare = 17\n",
        b"pids = 8\n",
        b"memory_mib = 18446744073709551615\n",
        b"-1",
        b"0x7f",
        b"1e9",
        b"nan",
        b"true",
        b"\"\"\"",
        b"'",
        b"\"",
        b"#",
        b"=",
        b".",
        b"\n",
        b"\r\n",
        b"\\u0000",
        b"\\u202e",
        b"[[",
        b"]]",
        b"{}",
        b"..",
        b"/",
    ],
};

fn seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../../etc/bulkhead.toml");
    // What begins with `#` and a key is a default that can be set. Without remarks a change hits more often.
    let set = |line: &'static str| {
        let is_default = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase());
        let line = line.strip_prefix('#').filter(is_default).unwrap_or(line);
        line.split('#').next().map(str::trim_end)
    };
    let defaults: Vec<_> = example.lines().filter_map(set).collect();
    let least = "[model]\napi = \"ollama\"\nurl = \"http://127.0.0.1:11434\"\nname = \"m\"\n";
    let remote = concat!(
        "[model]\napi = \"openai\"\nurl = \"https://models.example.com/v1\"\nname = \"m\"\n",
        "[model.remote]\nhost = \"models.example.com\"\nsecret = \"k\"\n",
    );
    let telegram = "[channel.telegram]\napi = \"http://127.0.0.1:1\"\ntoken = \"t\"\n";
    [
        example.to_owned(),
        defaults.join("\n"),
        least.to_owned(),
        remote.to_owned(),
        least.replace("127.0.0.1", "localhost.example.com"),
        least.replace("127.0.0.1", "127.0.0.1.example.com"),
        format!("{least}{telegram}"),
        format!("{least}[workspace]\npath = \"/h\"\n"),
        format!("{least}[workspace]\npath = \"/w/../x\"\n"),
        format!("{least}[workspace]\npath = \"/w\"\n[box]\nengine_socket = \"/run/s\"\n"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// Where Bulkhead's own files are.
const HOME: &str = "/h/b";

fn parse(text: &str) -> Result<Config, ConfigError> {
    let home = Home::at(Path::new(HOME)).expect("it is absolute");
    Config::parse(text, &home, Path::new("bulkhead.toml"))
}

fn check(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let quoted = text.lines().filter_map(|line| line.split('"').nth(1));
    quoted.for_each(address);
    match parse(&text) {
        Ok(config) => {
            means_nothing_unsaid(&config);
            is_read_whole(&text, &config);
            format!(
                "{:?} {} {} {:?}",
                std::mem::discriminant(&config.route.reach),
                config.web.is_some(),
                config.telegram.is_some(),
                config.backend
            )
        }
        Err(error) => says_where(&error),
    }
}

/// The bounds that nothing in the file can lift.
fn means_nothing_unsaid(config: &Config) {
    let this_machine = |host: &str| {
        let address = host.parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    match config.route.reach {
        Reach::Loopback => assert!(this_machine(&config.route.host), "{:?}", config.route),
        Reach::Remote { .. } => {
            assert_eq!(config.route.scheme, Scheme::Https, "{:?}", config.route);
            assert!(!this_machine(&config.route.host), "{:?}", config.route);
        }
    }
    if let Some(telegram) = &config.telegram {
        let is_clear = telegram.api.scheme == Scheme::Http;
        assert!(
            !is_clear || this_machine(&telegram.api.host),
            "{telegram:?}"
        );
    }
    let workspace = &config.workspace;
    let leads_up = workspace
        .components()
        .any(|part| part == Component::ParentDir);
    let own = Path::new(HOME);
    assert!(workspace.is_absolute() && !leads_up, "{workspace:?}");
    assert!(!own.starts_with(workspace), "{workspace:?} holds the home");
    assert!((10..=86_400).contains(&config.approval_seconds));
    assert!((1..=20).contains(&config.max_rounds));
    assert!(config.limits.pids >= 8 && config.limits.memory_bytes >= 64 << 20);
    assert!(config.limits.pids <= 4096 && config.limits.memory_bytes <= 1 << 40);
}

/// Nothing in the file is passed over, and programs get what it says.
fn is_read_whole(text: &str, config: &Config) {
    let again = parse(text).map_err(|error| error.to_string());
    assert_eq!(again.as_ref(), Ok(config), "the same every time");
    let remark = parse(&format!("{text}\n# a remark\n\n"));
    assert_eq!(remark.ok().as_ref(), Some(config), "remarks mean nothing");
    // In whichever section it ends up.
    for odd in ["unheard_of = 1", "[unheard_of]", "[box.unheard_of]"] {
        let odd = format!("{text}\n{odd}\n");
        assert!(
            parse(&odd).is_err(),
            "what is not known is refused: {odd:?}"
        );
    }
    let sent = frame::encode(&config.route).expect("a route fits into a frame");
    let route = frame::decode(&sent[4..]).expect("it is read again");
    assert_eq!(config.route, route, "what egress is told");
    let sent = frame::encode(&config.limits).expect("limits fit into a frame");
    let limits = frame::decode(&sent[4..]).expect("they are read again");
    assert_eq!(config.limits, limits, "what the runner is told");
}

/// An error has a place, and words. Gives its kind.
fn says_where(error: &ConfigError) -> String {
    let text = error.to_string();
    match error {
        ConfigError::Syntax { error, .. } => {
            assert!(!error.message().is_empty(), "no words: {text}");
            let has_line = text.contains("at line ") && text.contains("column ");
            // What is missing is missing nowhere, and what nests too deep is not read to its place.
            let is_of_the_whole = ["missing field", "recursion limit"];
            let is_of_the_whole =
                (is_of_the_whole.iter()).any(|words| error.message().starts_with(words));
            assert!(has_line || is_of_the_whole, "no place: {text}");
            kind(error.message())
        }
        ConfigError::Egress { line, rule } => {
            assert!(*line > 0 && !rule.to_string().is_empty(), "{text}");
            "egress".to_owned()
        }
        ConfigError::Value { key, problem } => {
            let is_key = |c: char| c.is_ascii_lowercase() || c == '.' || c == '_';
            assert!(key.contains('.') && key.chars().all(is_key), "{key}");
            assert!(problem.len() > 10, "{key}: {problem}");
            (*key).to_owned()
        }
        ConfigError::NotLoopback(host) => {
            assert!(
                !host.is_empty() && text.contains("[model.remote]"),
                "{text}"
            );
            "elsewhere".to_owned()
        }
        ConfigError::Missing(_) | ConfigError::Io { .. } | ConfigError::TooLarge(_) => {
            panic!("no file was read: {text}")
        }
    }
}

/// An address is shown as it is read.
fn address(text: &str) {
    if let Ok(url) = BaseUrl::parse(text) {
        let shown = url.to_string();
        assert_eq!(BaseUrl::parse(&shown).as_ref(), Ok(&url), "{shown}");
        assert!(!shown.contains(['@', '?', '#', ' ']), "{shown}");
    }
}
