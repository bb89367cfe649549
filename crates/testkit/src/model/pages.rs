//! The pages by which a model server is recognised.

use protocol::agent::ToolCalling;
use serde_json::{Value, json};

use super::script::{Script, Speaks};
use super::wire::Format;

/// What a path is for.
pub(super) enum Page {
    /// An answer of the model, in this format.
    Chat(Format),
    /// A fixed page.
    Fixed(Value),
    /// Something asked about the model that the body names.
    Show,
    /// Nothing.
    Missing,
}

/// Finds what this server has at a path.
pub(super) fn page(script: &Script, method: &str, path: &str) -> Page {
    let speaks = |format| match (script.speaks, format) {
        (Speaks::Both, _) | (Speaks::Ollama, Format::Ollama) | (Speaks::Openai, Format::Openai) => {
            true
        }
        (Speaks::Ollama, Format::Openai) | (Speaks::Openai, Format::Ollama) => false,
    };
    let format = match path {
        "/v1/chat/completions" | "/v1/models" | "/props" | "/health" => Format::Openai,
        _ => Format::Ollama,
    };
    if !speaks(format) {
        return Page::Missing;
    }
    match (method, path) {
        ("POST", "/api/chat") => Page::Chat(Format::Ollama),
        ("POST", "/v1/chat/completions") => Page::Chat(Format::Openai),
        ("POST", "/api/show") => Page::Show,
        ("GET", "/api/version") => Page::Fixed(json!({ "version": "0.12.6" })),
        ("GET", "/api/tags") => Page::Fixed(tags(script)),
        ("GET", "/v1/models") => Page::Fixed(models(script)),
        ("GET", "/props") => Page::Fixed(props(script)),
        ("GET", "/health") => Page::Fixed(json!({ "status": "ok" })),
        _ => Page::Missing,
    }
}

fn tags(script: &Script) -> Value {
    json!({ "models": [{
        "name": script.model,
        "model": script.model,
        "modified_at": "2026-01-01T00:00:00Z",
        "size": 98_362_432,
        "digest": "0".repeat(64),
        "details": { "format": "gguf", "family": "scripted", "parameter_size": "0B", "quantization_level": "none" },
    }] })
}

/// Ollama's answer to `/api/show` for a model that is there.
pub(super) fn show(script: &Script) -> Value {
    let (capabilities, template) = match script.tool_calls {
        ToolCalling::Native => (
            json!(["completion", "tools"]),
            "{{ if .Tools }}{{ .Tools }}{{ end }}{{ .Prompt }}",
        ),
        ToolCalling::Schema => (json!(["completion"]), "{{ .Prompt }}"),
    };
    json!({
        "template": template,
        "capabilities": capabilities,
        "model_info": { "general.architecture": "scripted", "scripted.context_length": script.context_tokens },
    })
}

fn models(script: &Script) -> Value {
    json!({ "object": "list", "data": [{
        "id": script.model,
        "object": "model",
        "created": 1_767_225_600,
        "owned_by": "llamacpp",
        "meta": { "n_ctx_train": script.context_tokens },
    }] })
}

fn props(script: &Script) -> Value {
    let template = match script.tool_calls {
        ToolCalling::Native => {
            "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
        }
        ToolCalling::Schema => "{% for m in messages %}{{ m.content }}{% endfor %}",
    };
    json!({
        "default_generation_settings": { "n_ctx": script.context_tokens },
        "total_slots": 1,
        "model_path": format!("/models/{}.gguf", script.model),
        "chat_template": template,
        "chat_template_caps": { "supports_tools": script.tool_calls == ToolCalling::Native },
    })
}
