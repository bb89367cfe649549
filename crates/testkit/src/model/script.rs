//! What a scripted model answers. All of it can be written as JSON.

use std::collections::{BTreeMap, VecDeque};

use protocol::agent::ToolCalling;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What begins a message that stands with the role of the person and that the agent wrote;
/// `model::FRAME` of the other side.
const FRAME: &str = "[bulkhead: ";

/// What a server answers, and what it says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// The model's name.
    pub model: String,
    /// Which of the two formats it speaks; the other one's paths are 404.
    pub speaks: Speaks,
    /// What it says about tool calls. It makes native ones whatever is asked of it.
    pub tool_calls: ToolCalling,
    /// The window it names, in tokens.
    pub context_tokens: u32,
    /// Looked at first, in this order.
    pub rules: Vec<Rule>,
    /// For requests that no rule is for: one for each, in this order.
    pub steps: VecDeque<Step>,
    /// When the steps are used up.
    pub then: Then,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            model: "scripted".to_owned(),
            speaks: Speaks::Both,
            tool_calls: ToolCalling::Native,
            context_tokens: 8192,
            rules: Vec::new(),
            steps: VecDeque::new(),
            then: Then::Fail,
        }
    }
}

impl Script {
    /// These steps, then status 500.
    pub fn steps(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Repeats what the person wrote.
    pub fn echo() -> Self {
        Self {
            then: Then::Echo,
            ..Self::default()
        }
    }

    /// Asks for this tool again and again.
    pub fn endless(name: &str, args: Value) -> Self {
        Self {
            then: Then::Repeat,
            ..Self::steps([Step::call(name, args)])
        }
    }
}

/// Which formats a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaks {
    /// Both.
    Both,
    /// Only Ollama's.
    Ollama,
    /// Only the OpenAI-compatible one.
    Openai,
}

/// Answers to a message of the person, whatever else was asked before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The last message of the person holds this.
    pub contains: String,
    /// The first for the message itself, the next one after the first answer with calls,
    /// and so on; after the last one the last one again.
    pub steps: Vec<Step>,
}

/// What comes when the steps are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// Status 500.
    Fail,
    /// What the person wrote, word by word.
    Echo,
    /// The last step again.
    Repeat,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A text.
    Text {
        /// Its pieces, each an event of its own.
        tokens: Vec<String>,
        /// Milliseconds before each piece.
        #[serde(default)]
        delay_ms: u64,
        /// Thinking that comes first, as models with reasoning stream it.
        #[serde(default)]
        thinking: Vec<String>,
        /// `length` for an answer that reached its limit.
        #[serde(default = "stop")]
        finish: String,
    },
    /// Tool calls. If a schema was asked for, the first one alone.
    ToolCalls {
        /// The text before them.
        #[serde(default)]
        said: String,
        /// In this order.
        calls: Vec<ScriptedCall>,
    },
    /// This body with status 200, whatever it is.
    Raw {
        /// The body.
        body: String,
    },
    /// This status.
    Status {
        /// The status.
        code: u16,
        /// Further headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The body.
        #[serde(default)]
        body: String,
    },
    /// The connection breaks after these pieces.
    CutOff {
        /// The pieces.
        tokens: Vec<String>,
    },
    /// The body ends in order after these pieces, but the answer does not.
    EndEarly {
        /// The pieces.
        tokens: Vec<String>,
    },
    /// Nothing comes for a while after these pieces; then the answer ends in order.
    Stall {
        /// The pieces.
        tokens: Vec<String>,
        /// Milliseconds.
        ms: u64,
    },
    /// Not even the status comes for a while; then this text.
    Late {
        /// Milliseconds.
        ms: u64,
        /// The text.
        text: String,
    },
    /// A line that is not JSON after these pieces.
    BrokenJson {
        /// The pieces.
        tokens: Vec<String>,
    },
    /// The server reports an error after these pieces.
    ErrorInStream {
        /// The pieces.
        tokens: Vec<String>,
        /// Its words.
        message: String,
    },
    /// The connection is closed without an answer.
    HangUp,
}

fn stop() -> String {
    "stop".to_owned()
}

/// A tool call of a scripted model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments; a text is sent as it is, JSON or not.
    pub args: Value,
}

impl ScriptedCall {
    /// The arguments as the model writes them.
    pub(super) fn written(&self) -> String {
        self.args
            .as_str()
            .map_or_else(|| self.args.to_string(), str::to_owned)
    }
}

impl Step {
    /// A text, word by word, at once.
    pub fn text(text: &str) -> Self {
        Self::slow_text(text, 0)
    }

    /// A text, word by word, with so many milliseconds before each.
    pub fn slow_text(text: &str, delay_ms: u64) -> Self {
        Self::Text {
            tokens: words(text),
            delay_ms,
            thinking: Vec::new(),
            finish: stop(),
        }
    }

    /// One tool call.
    pub fn call(name: &str, args: Value) -> Self {
        Self::calls([(name, args)])
    }

    /// Tool calls in one answer.
    pub fn calls<'a>(calls: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let call = |(name, args): (&str, Value)| ScriptedCall {
            name: name.to_owned(),
            args,
        };
        Self::ToolCalls {
            said: String::new(),
            calls: calls.into_iter().map(call).collect(),
        }
    }

    /// A status with an error message, in a form that both formats know.
    pub fn status(code: u16, message: &str) -> Self {
        let body = serde_json::json!({ "error": { "code": code, "message": message } }).to_string();
        Self::Status {
            code,
            headers: BTreeMap::new(),
            body,
        }
    }

    /// 429 with `Retry-After` in seconds.
    pub fn busy(retry_after: u32) -> Self {
        let headers = BTreeMap::from([("retry-after".to_owned(), retry_after.to_string())]);
        Self::Status {
            code: 429,
            headers,
            body: "{\"error\":\"busy\"}".to_owned(),
        }
    }
}

/// The words of a text, each with the space behind it.
fn words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

/// Where a script is.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) script: Script,
    last: Option<Step>,
}

impl Cursor {
    pub(super) fn new(script: Script) -> Self {
        Self { script, last: None }
    }

    pub(super) fn push(&mut self, step: Step) {
        self.script.steps.push_back(step);
    }

    /// The answer to a request with this body.
    pub(super) fn next(&mut self, body: &Value) -> Step {
        let (asked, answers) = last_message(body);
        if let Some(rule) = self
            .script
            .rules
            .iter()
            .find(|rule| asked.contains(&rule.contains))
            && let Some(step) = rule.steps.get(answers).or(rule.steps.last())
        {
            return step.clone();
        }
        if let Some(step) = self.script.steps.pop_front() {
            self.last = Some(step.clone());
            return step;
        }
        match (self.script.then, &self.last) {
            (Then::Echo, _) => Step::text(&format!("You said: {asked}")),
            (Then::Repeat, Some(last)) => last.clone(),
            (Then::Repeat, None) | (Then::Fail, _) => Step::status(500, "the script is over"),
        }
    }
}

/// What the person wrote last, and how many answers came since.
fn last_message(body: &Value) -> (String, usize) {
    let mut answers = 0;
    for message in body["messages"].as_array().into_iter().flatten().rev() {
        let content = message["content"].as_str().unwrap_or_default();
        match message["role"].as_str() {
            Some("user") if !content.starts_with(FRAME) => return (content.to_owned(), answers),
            Some("assistant") => answers += 1,
            _ => {}
        }
    }
    (String::new(), answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(messages: &[(&str, &str)]) -> Value {
        let all: Vec<Value> = messages
            .iter()
            .map(|(role, text)| json!({ "role": role, "content": text }))
            .collect();
        json!({ "messages": all })
    }

    #[test]
    fn steps_are_used_up_and_then_comes_what_the_script_says() {
        let mut cursor = Cursor::new(Script::steps([Step::text("a"), Step::text("b")]));
        let body = asked(&[("user", "x")]);
        assert_eq!(
            [cursor.next(&body), cursor.next(&body)],
            [Step::text("a"), Step::text("b")]
        );
        assert!(matches!(cursor.next(&body), Step::Status { code: 500, .. }));
        cursor.script.then = Then::Repeat;
        assert_eq!(
            [cursor.next(&body), cursor.next(&body)],
            [Step::text("b"), Step::text("b")]
        );
        cursor.script.then = Then::Echo;
        assert_eq!(cursor.next(&body), Step::text("You said: x"));
        cursor.push(Step::text("c"));
        assert_eq!(cursor.next(&body), Step::text("c"));
    }

    #[test]
    fn a_rule_looks_at_the_last_message_of_the_person_and_counts_the_answers_since() {
        let rule = Rule {
            contains: "weather".to_owned(),
            steps: vec![Step::text("one"), Step::text("two")],
        };
        let mut cursor = Cursor::new(Script {
            rules: vec![rule],
            then: Then::Echo,
            ..Script::default()
        });
        let mut messages = vec![("system", "weather"), ("user", "the weather?")];
        assert_eq!(cursor.next(&asked(&messages)), Step::text("one"));
        messages.extend([("assistant", ""), ("tool", "rain")]);
        assert_eq!(cursor.next(&asked(&messages)), Step::text("two"));
        messages.extend([
            ("assistant", "{}"),
            ("user", "[bulkhead: result of x]\nrain"),
        ]);
        assert_eq!(cursor.next(&asked(&messages)), Step::text("two"));
        messages.extend([("assistant", "it rains"), ("user", "thanks")]);
        assert_eq!(
            cursor.next(&asked(&messages)),
            Step::text("You said: thanks")
        );
    }

    #[test]
    fn a_script_can_be_written_as_json() {
        let text = r#"{
            "then": "echo",
            "rules": [{ "contains": "x", "steps": ["hang_up", { "cut_off": { "tokens": ["a"] } }] }],
            "steps": [
                { "text": { "tokens": ["Hel", "lo"], "delay_ms": 5 } },
                { "tool_calls": { "calls": [{ "name": "exec", "args": { "command": "ls" } }] } },
                { "status": { "code": 429, "headers": { "retry-after": "3" } } }
            ]
        }"#;
        let script: Script = serde_json::from_str(text).unwrap();
        assert_eq!(
            script.steps[1],
            Step::call("exec", json!({ "command": "ls" }))
        );
        assert_eq!(script.rules[0].steps[0], Step::HangUp);
        let again: Script = serde_json::from_str(&serde_json::to_string(&script).unwrap()).unwrap();
        assert_eq!(again, script);
        assert!(serde_json::from_str::<Script>(r#"{ "stepz": [] }"#).is_err());
    }
}
