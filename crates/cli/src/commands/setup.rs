//! `bulkhead setup`: which model, and which channel. Everything else has a safe default.

use clap::{Args, ValueEnum};
use config::{BaseUrl, Home};
use protocol::agent::{ModelApi, ToolCalling};

use super::{channel, up};
use crate::config_text::{ConfigText, quoted};
use crate::fault::Fault;
use crate::model_server::{self, Server, ToolSupport};
use crate::output;
use crate::terminal::{self, harmless_line};

/// What can be said with `setup`. Without any of it, the two questions are asked.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only list the models of the servers that answer on this machine: address, format and
    /// name with tabs between, one model a line.
    #[arg(long, conflicts_with_all = ["model_url", "model", "api", "tool_calls"])]
    list: bool,
    /// Address of the model server, like http://127.0.0.1:11434.
    #[arg(long, value_name = "URL")]
    model_url: Option<String>,
    /// Name of the model at the server.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// What the server speaks; otherwise it is asked.
    #[arg(long)]
    api: Option<Api>,
    /// How the model calls tools; otherwise the server is asked what it can do.
    #[arg(long)]
    tool_calls: Option<Calls>,
    /// The longest answer, in tokens.
    #[arg(long, value_name = "TOKENS")]
    answer_tokens: Option<u32>,
    /// The model's window, in tokens.
    #[arg(long, value_name = "TOKENS")]
    context_tokens: Option<u32>,
    /// The port of the web page on this machine.
    #[arg(long, value_name = "PORT")]
    web_port: Option<u16>,
}

/// The wire formats, as they are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Api {
    /// Ollama's own.
    Ollama,
    /// OpenAI's, which llama.cpp, LM Studio and vLLM speak.
    Openai,
}

/// The ways to call tools, as they are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Calls {
    /// The server's own tool calls.
    Native,
    /// Constrained decoding, for servers without tool calls.
    Schema,
}

/// A model that was chosen, with all that the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Choice {
    url: BaseUrl,
    api: ModelApi,
    name: String,
    calls: ToolCalling,
}

pub(crate) fn run(arguments: Arguments, home: &Home) -> Result<(), Fault> {
    if arguments.list {
        return list();
    }
    home.create()?;
    let asks = arguments.model_url.is_none() && terminal::can_ask();
    let choice = choose(&arguments)?;
    let mut text = ConfigText::read(home)?;
    write(&mut text, &choice, &arguments);
    let config = text.save(home)?;
    up::prepare(home, &config)?;
    output::line(format!(
        "Model: {} at {}, tool calls: {}",
        harmless_line(&choice.name),
        choice.url,
        match choice.calls {
            ToolCalling::Native => "native",
            ToolCalling::Schema => "by constrained decoding",
        }
    ))?;
    output::line(format!("Written to {:?}", home.config_file()))?;
    if asks {
        ask_for_telegram(home)?;
    }
    output::line("Next: bulkhead up")
}

fn list() -> Result<(), Fault> {
    for (url, server) in answering_now() {
        for model in &server.models {
            let (api, model) = (api_word(server.api), harmless_line(model));
            output::line(format!("{url}\t{api}\t{model}"))?;
        }
    }
    Ok(())
}

/// The usual servers that answer, one after the other as they are asked for.
fn answering_now() -> impl Iterator<Item = (BaseUrl, Server)> {
    model_server::USUAL.iter().filter_map(|url| {
        let url = BaseUrl::parse(url).ok()?;
        model_server::at(&url).map(|server| (url, server))
    })
}

fn api_word(api: ModelApi) -> &'static str {
    match api {
        ModelApi::Ollama => "ollama",
        ModelApi::Openai => "openai",
    }
}

fn write(text: &mut ConfigText, choice: &Choice, arguments: &Arguments) {
    let calls = match choice.calls {
        ToolCalling::Native => "native",
        ToolCalling::Schema => "schema",
    };
    text.set("model", "api", &quoted(api_word(choice.api)));
    text.set("model", "url", &quoted(&choice.url.to_string()));
    text.set("model", "name", &quoted(&choice.name));
    text.set("model", "tool_calls", &quoted(calls));
    let numbers = [
        ("answer_tokens", arguments.answer_tokens),
        ("context_tokens", arguments.context_tokens),
    ];
    for (key, value) in numbers {
        if let Some(value) = value {
            text.set("model", key, &value.to_string());
        }
    }
    if let Some(port) = arguments.web_port {
        text.set("channel.web", "port", &port.to_string());
    }
}

fn choose(arguments: &Arguments) -> Result<Choice, Fault> {
    let (url, server) = match &arguments.model_url {
        Some(text) => {
            let url = BaseUrl::parse(text)
                .map_err(|error| Fault::Usage(format!("--model-url: {error}")))?;
            let server = if url.is_loopback() {
                answering(&url, arguments.api)
            } else {
                None
            };
            (url, server)
        }
        None => find()?,
    };
    let api = api(arguments, &url, server.as_ref())?;
    let name = match &arguments.model {
        Some(name) => {
            warn_if_unknown(name, server.as_ref());
            name.clone()
        }
        None => pick(&url, server.map(|server| server.models).unwrap_or_default())?,
    };
    let calls = match arguments.tool_calls {
        Some(Calls::Native) => ToolCalling::Native,
        Some(Calls::Schema) => ToolCalling::Schema,
        None if url.is_loopback() => match model_server::tools(&url, api, &name) {
            ToolSupport::Yes | ToolSupport::Unsaid => ToolCalling::Native,
            ToolSupport::No => ToolCalling::Schema,
        },
        None => ToolCalling::Native,
    };
    Ok(Choice {
        url,
        api,
        name,
        calls,
    })
}

/// Asks what answers there; in the format that was named, if one was.
fn answering(url: &BaseUrl, api: Option<Api>) -> Option<Server> {
    match api.map(ModelApi::from) {
        None => model_server::at(url),
        Some(api) => model_server::models(url, api).map(|models| Server { api, models }),
    }
}

fn api(arguments: &Arguments, url: &BaseUrl, server: Option<&Server>) -> Result<ModelApi, Fault> {
    match (arguments.api, server) {
        (Some(api), _) => Ok(api.into()),
        (None, Some(server)) => Ok(server.api),
        (None, None) => Err(Fault::Refused(format!(
            "no model server answers at {url}, so what it speaks is not known. Start it, or say \
             --api ollama or --api openai"
        ))),
    }
}

impl From<Api> for ModelApi {
    fn from(api: Api) -> Self {
        match api {
            Api::Ollama => Self::Ollama,
            Api::Openai => Self::Openai,
        }
    }
}

/// The first of the usual servers that answers.
fn find() -> Result<(BaseUrl, Option<Server>), Fault> {
    let found = answering_now().next();
    let Some((url, server)) = found else {
        return Err(Fault::Refused(
            "no model server answers on this machine. Start Ollama, llama.cpp, LM Studio or \
             vLLM, or name its address with --model-url; ./quickstart installs a small model to \
             try things out"
                .to_owned(),
        ));
    };
    output::line(format!("Found a model server at {url}."))?;
    Ok((url, Some(server)))
}

fn warn_if_unknown(name: &str, server: Option<&Server>) {
    let Some(server) = server else { return };
    // Ollama shows the tag `latest`, which nobody types.
    let known = |model: &String| model == name || model.strip_suffix(":latest") == Some(name);
    if !server.models.is_empty() && !server.models.iter().any(known) {
        eprintln!(
            "warning: the server does not list a model {}; it has {}",
            harmless_line(name),
            harmless_line(&server.models.join(", "))
        );
    }
}

/// The only model, or the one that the person chooses.
fn pick(url: &BaseUrl, models: Vec<String>) -> Result<String, Fault> {
    match models.as_slice() {
        [] => Err(Fault::Refused(format!(
            "the server at {url} names no model; load one there, or say --model NAME"
        ))),
        [only] => Ok(only.clone()),
        several if terminal::can_ask() => {
            eprintln!("Which model?");
            for (number, model) in several.iter().enumerate() {
                eprintln!("  {}  {}", number + 1, harmless_line(model));
            }
            loop {
                let Some(line) = terminal::ask_line("Number: ")? else {
                    return Err(Fault::Refused("no model was chosen".to_owned()));
                };
                let chosen = line
                    .parse::<usize>()
                    .ok()
                    .and_then(|n| several.get(n.checked_sub(1)?));
                if let Some(model) = chosen {
                    return Ok(model.clone());
                }
            }
        }
        several => Err(Fault::Usage(format!(
            "the server has several models; say --model with one of: {}",
            harmless_line(&several.join(", "))
        ))),
    }
}

fn ask_for_telegram(home: &Home) -> Result<(), Fault> {
    let wants = "Talk to it on Telegram too? You need a bot's token from @BotFather.";
    if terminal::ask_yes_no(wants)? == terminal::YesNo::No {
        return output::line("Later: bulkhead channel add telegram");
    }
    let token = terminal::ask_secret("Token of the bot (not shown): ")?;
    channel::add_telegram(home, token)?;
    output::line(
        "Telegram is added. Write to your bot when everything runs; it answers with a code.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> Arguments {
        Arguments {
            list: false,
            model_url: None,
            model: None,
            api: None,
            tool_calls: None,
            answer_tokens: Some(256),
            context_tokens: None,
            web_port: Some(5000),
        }
    }

    #[test]
    fn what_is_written_reads_as_what_was_chosen_and_setting_up_again_changes_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        home.create().unwrap();
        let mut choice = Choice {
            url: BaseUrl::parse("http://127.0.0.1:18080").unwrap(),
            api: ModelApi::Openai,
            name: "a \"model\"".to_owned(),
            calls: ToolCalling::Schema,
        };
        let mut text = ConfigText::read(&home).unwrap();
        write(&mut text, &choice, &arguments());
        let config = text.save(&home).unwrap();
        assert_eq!(config.model.name, choice.name);
        assert_eq!(config.model.tool_calls, ToolCalling::Schema);
        assert_eq!(config.model.answer_tokens, 256);
        assert_eq!(config.route.port, 18080);
        assert_eq!(config.web.unwrap().port, 5000);

        choice.url.port = 18081;
        let mut text = ConfigText::read(&home).unwrap();
        write(&mut text, &choice, &arguments());
        assert_eq!(text.save(&home).unwrap().route.port, 18081);
    }

    #[test]
    fn a_model_is_never_guessed_among_several() {
        let url = BaseUrl::parse("http://127.0.0.1:1").unwrap();
        assert_eq!(pick(&url, vec!["m".to_owned()]).unwrap(), "m");
        assert!(matches!(pick(&url, Vec::new()), Err(Fault::Refused(_))));
    }
}
