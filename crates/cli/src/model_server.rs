//! Model servers on this machine: which one answers, which models it has, and whether it
//! says that a model can call tools.

use std::time::Duration;

use config::BaseUrl;
use protocol::agent::ModelApi;
use serde_json::{Value, json};

use crate::http;

/// Where the usual servers listen.
pub(crate) const USUAL: [&str; 4] = [
    // Ollama
    "http://127.0.0.1:11434",
    // llama.cpp
    "http://127.0.0.1:8080",
    // LM Studio
    "http://127.0.0.1:1234",
    // vLLM
    "http://127.0.0.1:8000",
];

/// Long enough for a server that is loading a model, short enough for a person.
const LIMIT: Duration = Duration::from_secs(5);

/// The most models read from a list.
const MAX_MODELS: usize = 1000;

/// A server that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// What it speaks.
    pub(crate) api: ModelApi,
    /// The models it has, in its own order.
    pub(crate) models: Vec<String>,
}

/// What a server says of a model and tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToolSupport {
    /// It takes tool calls.
    Yes,
    /// It does not.
    No,
    /// It does not say.
    Unsaid,
}

/// Asks what is at this address; `None` if it is no model server.
pub(crate) fn at(base: &BaseUrl) -> Option<Server> {
    let base = without_v1(base);
    let list = |path: &str, read: fn(&Value) -> Option<Vec<String>>| read(&json_at(&base, path)?);
    if let Some(models) = list("/api/tags", |list| names(list, "models", "name")) {
        return Some(Server {
            api: ModelApi::Ollama,
            models,
        });
    }
    let models = list("/v1/models", |list| names(list, "data", "id"))?;
    Some(Server {
        api: ModelApi::Openai,
        models,
    })
}

/// The models of a server that speaks this; `None` if it does not answer so.
pub(crate) fn models(base: &BaseUrl, api: ModelApi) -> Option<Vec<String>> {
    let base = without_v1(base);
    match api {
        ModelApi::Ollama => names(&json_at(&base, "/api/tags")?, "models", "name"),
        ModelApi::Openai => names(&json_at(&base, "/v1/models")?, "data", "id"),
    }
}

/// Asks whether this model can call tools.
pub(crate) fn tools(base: &BaseUrl, api: ModelApi, model: &str) -> ToolSupport {
    let base = without_v1(base);
    let said = match api {
        ModelApi::Ollama => http::post(&base, "/api/show", &json!({"model": model}), LIMIT)
            .ok()
            .filter(|answer| answer.status == 200)
            .and_then(|answer| serde_json::from_slice(&answer.body).ok())
            .and_then(|shown: Value| ollama_says(&shown)),
        // llama.cpp tells what the model's chat template can do; others have no such page.
        ModelApi::Openai => json_at(&base, "/props").and_then(|props| llama_cpp_says(&props)),
    };
    match said {
        Some(true) => ToolSupport::Yes,
        Some(false) => ToolSupport::No,
        None => ToolSupport::Unsaid,
    }
}

fn ollama_says(shown: &Value) -> Option<bool> {
    let capabilities = shown.get("capabilities")?.as_array()?;
    Some(capabilities.iter().any(|capability| capability == "tools"))
}

fn llama_cpp_says(props: &Value) -> Option<bool> {
    props
        .get("chat_template_caps")?
        .get("supports_tools")?
        .as_bool()
}

fn names(list: &Value, key: &str, name: &str) -> Option<Vec<String>> {
    let entries = list.get(key)?.as_array()?;
    let name = |entry: &Value| Some(entry.get(name)?.as_str()?.to_owned());
    Some(entries.iter().take(MAX_MODELS).filter_map(name).collect())
}

fn json_at(base: &BaseUrl, path: &str) -> Option<Value> {
    let answer = http::get(base, path, LIMIT).ok()?;
    if answer.status != 200 {
        return None;
    }
    serde_json::from_slice(&answer.body).ok()
}

/// People copy the base address with or without `/v1`; the paths here bring their own.
fn without_v1(base: &BaseUrl) -> BaseUrl {
    let mut base = base.clone();
    if let Some(path) = base.path.strip_suffix("/v1") {
        base.path = path.to_owned();
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_both_kinds_are_read() {
        let ollama = json!({"models": [{"name": "qwen3:8b", "size": 1}, {"size": 2}]});
        assert_eq!(
            names(&ollama, "models", "name"),
            Some(vec!["qwen3:8b".to_owned()])
        );
        let openai = json!({"object": "list", "data": [{"id": "m", "object": "model"}]});
        assert_eq!(names(&openai, "data", "id"), Some(vec!["m".to_owned()]));
        assert_eq!(names(&json!({"error": "x"}), "data", "id"), None);
    }

    #[test]
    fn what_servers_say_of_tools_is_read_and_silence_is_no_answer() {
        assert_eq!(
            ollama_says(&json!({"capabilities": ["completion", "tools"]})),
            Some(true)
        );
        assert_eq!(
            ollama_says(&json!({"capabilities": ["completion"]})),
            Some(false)
        );
        assert_eq!(ollama_says(&json!({"details": {}})), None);
        let caps = json!({"chat_template_caps": {"supports_tools": false}});
        assert_eq!(llama_cpp_says(&caps), Some(false));
        assert_eq!(llama_cpp_says(&json!({"model_path": "/m"})), None);
    }

    #[test]
    fn v1_at_the_end_of_an_address_makes_no_difference() {
        let path = |url: &str| without_v1(&BaseUrl::parse(url).unwrap()).path;
        assert_eq!(path("http://127.0.0.1:1/v1"), "");
        assert_eq!(path("http://127.0.0.1:1/x/v1/"), "/x");
        assert_eq!(path("http://127.0.0.1:1/xv1"), "/xv1");
    }
}
