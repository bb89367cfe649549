//! Which way of calling tools a model server can do, from what it says of itself.

use protocol::agent::ToolCalling;
use serde_json::Value;

/// From llama.cpp's `GET /props`: its own judgement of the model's template where it gives one,
/// otherwise whether the template speaks of tools. `None` if the answer says neither.
pub fn tool_calling_from_props(body: &str) -> Option<ToolCalling> {
    let props: Value = serde_json::from_str(body).ok()?;
    if let Some(caps) = props
        .get("chat_template_caps")
        .and_then(|caps| caps.get("supports_tools"))
        .and_then(Value::as_bool)
    {
        return Some(if caps {
            ToolCalling::Native
        } else {
            ToolCalling::Schema
        });
    }
    let own = props.get("chat_template_tool_use").and_then(Value::as_str);
    let template = props.get("chat_template").and_then(Value::as_str);
    match (own, template) {
        (Some(_), _) => Some(ToolCalling::Native),
        (None, Some(template)) => Some(from_template(template)),
        (None, None) => None,
    }
}

/// From Ollama's `POST /api/show`: its list of capabilities, or whether the template of an older
/// version speaks of tools. `None` if the answer has neither.
pub fn tool_calling_from_show(body: &str) -> Option<ToolCalling> {
    let show: Value = serde_json::from_str(body).ok()?;
    if let Some(capabilities) = show.get("capabilities").and_then(Value::as_array) {
        let has = capabilities.iter().any(|capability| capability == "tools");
        return Some(if has {
            ToolCalling::Native
        } else {
            ToolCalling::Schema
        });
    }
    Some(from_template(show.get("template")?.as_str()?))
}

/// Jinja templates name the variable `tools`, Ollama's Go templates the field `.Tools`.
fn from_template(template: &str) -> ToolCalling {
    let words = template.split(|c: char| !c.is_alphanumeric() && c != '_');
    match words
        .into_iter()
        .any(|word| matches!(word, "tools" | "Tools"))
    {
        true => ToolCalling::Native,
        false => ToolCalling::Schema,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_cpp_s_own_judgement_comes_first_then_its_template() {
        let props = |text| tool_calling_from_props(text);
        assert_eq!(
            props(
                r#"{"chat_template_caps":{"supports_tools":false},"chat_template":"{% if tools %}"}"#
            ),
            Some(ToolCalling::Schema)
        );
        assert_eq!(
            props(r#"{"chat_template_caps":{"supports_tools":true},"chat_template":""}"#),
            Some(ToolCalling::Native)
        );
        assert_eq!(
            props(r#"{"chat_template":"{%- if tools is defined %}"}"#),
            Some(ToolCalling::Native)
        );
        assert_eq!(
            props(
                r#"{"chat_template":"{% for m in messages %}<|im_start|>{{ m.role }} no toolset"}"#
            ),
            Some(ToolCalling::Schema)
        );
        assert_eq!(
            props(r#"{"chat_template":"x","chat_template_tool_use":"y"}"#),
            Some(ToolCalling::Native)
        );
        assert_eq!(props(r#"{"total_slots":1}"#), None);
        assert_eq!(props("<html>"), None);
    }

    #[test]
    fn ollama_lists_what_a_model_can_do() {
        let show = |text| tool_calling_from_show(text);
        assert_eq!(
            show(r#"{"capabilities":["completion","tools"]}"#),
            Some(ToolCalling::Native)
        );
        assert_eq!(
            show(r#"{"capabilities":["completion"],"template":"{{ .Tools }}"}"#),
            Some(ToolCalling::Schema)
        );
        assert_eq!(
            show(r#"{"template":"{{ if .Tools }}"}"#),
            Some(ToolCalling::Native)
        );
        assert_eq!(
            show(r#"{"template":"{{ .Prompt }}"}"#),
            Some(ToolCalling::Schema)
        );
        assert_eq!(show(r#"{"error":"model not found"}"#), None);
    }
}
