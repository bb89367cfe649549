//! The model and its server.

use std::io;
use std::net::IpAddr;

use config::{BaseUrl, Config};
use protocol::agent::{ModelApi, ToolCalling};
use protocol::control::{Reach, Scheme};

use super::{Check, listeners};
use crate::model_server::{self, ToolSupport};

/// Models that are known to call tools well on ordinary machines.
const CAPABLE: &str = "qwen3:8b, llama3.1:8b, mistral-small, gpt-oss:20b";

/// The checks of the model that is configured.
pub(super) fn all(config: &Config) -> Vec<Check> {
    match config.route.reach {
        Reach::Loopback => {
            let base = base(config);
            let models = model_server::models(&base, config.model.api);
            let answers = models.is_some();
            let port = config.route.port;
            let mut checks = vec![
                reachable(config, &base, models),
                bound(port, listeners::on(port)),
            ];
            if answers {
                let says = model_server::tools(&base, config.model.api, &config.model.name);
                checks.push(tool_calls(config.model.tool_calls, says));
            }
            checks
        }
        Reach::Remote { .. } => vec![Check::warn(
            "model",
            format!(
                "{} is on another machine, {}; what you write leaves this one. It was not asked \
                 here, since only bulkhead-egress may",
                config.model.name, config.route.host
            ),
            "nothing, if [model.remote] is what you want; otherwise run a model here",
        )],
    }
}

/// The address without the path of the chat endpoint.
fn base(config: &Config) -> BaseUrl {
    let endpoint = match config.model.api {
        ModelApi::Ollama => "/api/chat",
        ModelApi::Openai => "/v1/chat/completions",
    };
    let path = config.route.path.strip_suffix(endpoint).unwrap_or_default();
    BaseUrl {
        scheme: Scheme::Http,
        host: config.route.host.clone(),
        port: config.route.port,
        path: path.to_owned(),
    }
}

fn reachable(config: &Config, base: &BaseUrl, models: Option<Vec<String>>) -> Check {
    let name = &config.model.name;
    if config.route.scheme == Scheme::Https {
        return Check::ok("model", format!("{name} at {base} by TLS; not asked here"));
    }
    let Some(models) = models else {
        return Check::fail(
            "model",
            format!("no model server answers at {base}"),
            "start it, or choose another with `bulkhead setup`",
        );
    };
    let known = |model: &String| model == name || model.strip_suffix(":latest") == Some(name);
    if models.iter().any(known) {
        return Check::ok("model", format!("{name} at {base}"));
    }
    let fix = match config.model.api {
        ModelApi::Ollama => format!("ollama pull {name}, or choose another with `bulkhead setup`"),
        ModelApi::Openai => "load it there, or choose another with `bulkhead setup`".to_owned(),
    };
    let has = match models.is_empty() {
        true => "none".to_owned(),
        false => models.join(", "),
    };
    Check::fail(
        "model",
        format!("{base} does not have {name}; it has {has}"),
        fix,
    )
}

/// Whether others on the network reach the model server: tutorials for containers have
/// people bind it to every address.
fn bound(port: u16, listening: io::Result<Vec<IpAddr>>) -> Check {
    let open: Vec<String> = match listening {
        Ok(found) => found
            .iter()
            .filter(|address| !listeners::is_loopback(address))
            .map(ToString::to_string)
            .collect(),
        Err(error) => {
            return Check::warn(
                "model-bind",
                format!("who listens on port {port} cannot be read from /proc/net: {error}"),
                "see for yourself: ss -ltn",
            );
        }
    };
    match open.is_empty() {
        true => Check::ok(
            "model-bind",
            format!("port {port} listens on loopback only"),
        ),
        false => Check::warn(
            "model-bind",
            format!(
                "port {port} listens on {}; everybody who reaches this machine can use the model \
                 and read what it is asked",
                open.join(", ")
            ),
            "bind it to 127.0.0.1 (Ollama: OLLAMA_HOST=127.0.0.1; llama.cpp, vLLM: --host 127.0.0.1)",
        ),
    }
}

fn tool_calls(used: ToolCalling, says: ToolSupport) -> Check {
    let check = "tool-calls";
    match (used, says) {
        (ToolCalling::Native, ToolSupport::Yes) => {
            Check::ok(check, "native; the server says that the model can")
        }
        (ToolCalling::Native, ToolSupport::Unsaid) => Check::ok(
            check,
            "native; the server does not say whether the model can",
        ),
        (ToolCalling::Native, ToolSupport::No) => Check::warn(
            check,
            "native, but the server says that this model cannot; it will talk and call nothing",
            format!(
                "use a model that can ({CAPABLE}), or `bulkhead setup --tool-calls schema` with \
                 the other options as before"
            ),
        ),
        (ToolCalling::Schema, ToolSupport::Yes) => Check::warn(
            check,
            "constrained decoding (response_format: json_schema), though the server says that \
             the model can call tools by itself",
            "set tool_calls = \"native\" under [model]; answers come sooner",
        ),
        (ToolCalling::Schema, ToolSupport::No | ToolSupport::Unsaid) => Check::ok(
            check,
            "constrained decoding (response_format: json_schema), since the server does not say \
             that the model can call tools",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use config::Home;

    use super::*;
    use crate::checks::Status;

    fn config(rest: &str) -> Config {
        let home = Home::at(Path::new("/h")).unwrap();
        Config::parse(&format!("[model]\n{rest}"), &home, Path::new("x")).unwrap()
    }

    #[test]
    fn a_server_that_is_down_or_lacks_the_model_fails() {
        let config = config("api = \"ollama\"\nurl = \"http://127.0.0.1:9/x\"\nname = \"qwen3\"\n");
        let base = base(&config);
        assert_eq!(base.path, "/x");
        assert_eq!(reachable(&config, &base, None).status, Status::Fail);
        let others = Some(vec!["llama3".to_owned()]);
        let check = reachable(&config, &base, others);
        assert!(check.status == Status::Fail && check.fix.contains("ollama pull qwen3"));
        let latest = Some(vec!["qwen3:latest".to_owned()]);
        assert_eq!(reachable(&config, &base, latest).status, Status::Ok);
    }

    #[test]
    fn a_model_server_on_every_address_is_warned_about() {
        let on = |addresses: &[&str]| {
            let listening = addresses.iter().map(|text| text.parse().unwrap()).collect();
            bound(11434, Ok(listening))
        };
        assert_eq!(on(&["127.0.0.1", "::1"]).status, Status::Ok);
        for open in ["0.0.0.0", "::", "10.0.0.1"] {
            let check = on(&["127.0.0.1", open]);
            assert_eq!(check.status, Status::Warn);
            assert!(
                check.detail.contains(&format!("on {open};")),
                "{}",
                check.detail
            );
        }
    }

    #[test]
    fn what_is_used_for_tool_calls_is_said_beside_what_the_server_says() {
        let check = |used, says| tool_calls(used, says).status;
        assert_eq!(check(ToolCalling::Native, ToolSupport::Yes), Status::Ok);
        assert_eq!(check(ToolCalling::Native, ToolSupport::No), Status::Warn);
        assert_eq!(check(ToolCalling::Schema, ToolSupport::No), Status::Ok);
        assert_eq!(check(ToolCalling::Schema, ToolSupport::Yes), Status::Warn);
    }

    #[test]
    fn a_model_on_another_machine_is_said_and_not_asked() {
        let config = config(
            "api = \"openai\"\nurl = \"https://models.example.com\"\nname = \"m\"\n[model.remote]\nhost = \"models.example.com\"\n",
        );
        let checks = all(&config);
        assert!(checks.len() == 1 && checks[0].detail.contains("models.example.com"));
    }
}
