//! Constrained decoding, for servers that cannot do tool calls: the answer is one JSON
//! object, `{"reply": ".."}` or `{"tool": "NAME", "arguments": {..}}`, and the server holds
//! the model to that schema while it writes. The text of a reply is handed on as it comes.

use protocol::agent::ToolSpec;
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::Call;
use crate::decoder::{ModelEvent, Stop};

/// The longest string in an answer, in characters. Without a bound a small model writes on
/// to its limit; llama.cpp refuses a bound of 2,000.
const MAX_STRING: u64 = 1_500;

/// The most elements of a list in an answer.
const MAX_ITEMS: u64 = 32;

/// So much of an unreadable answer is kept, in bytes.
const KEPT: usize = 2_000;

/// An answer that is a reply.
#[derive(Serialize)]
pub(crate) struct ReplyAnswer<'a> {
    pub(crate) reply: &'a str,
}

/// An answer that is a call.
#[derive(Serialize)]
pub(crate) struct CallAnswer<'a> {
    pub(crate) tool: &'a str,
    pub(crate) arguments: Value,
}

/// What the model is told of the form of its answers, and of the tools.
pub(crate) fn instructions(tools: &[ToolSpec]) -> String {
    let mut text = String::from(
        "Answer with one JSON object and nothing else. To answer the person: {\"reply\": \"your answer\"}",
    );
    if tools.is_empty() {
        return text;
    }
    text.push_str("\nTo use a tool: {\"tool\": \"name\", \"arguments\": {..}}; its result comes with the next message.\nThe tools:");
    for tool in tools {
        text.push_str(&format!(
            "\n- {}({}): {}",
            tool.name,
            parameters(&tool.parameters),
            tool.description
        ));
    }
    text
}

/// `path: string, lines?: integer`
fn parameters(schema: &Value) -> String {
    let required = required(schema);
    let shown = |(name, of): (&String, &Value)| {
        let optional = if required.contains(&name.as_str()) {
            ""
        } else {
            "?"
        };
        let kind = of.get("type").and_then(Value::as_str).unwrap_or("any");
        format!("{name}{optional}: {kind}")
    };
    ordered(schema)
        .into_iter()
        .map(shown)
        .collect::<Vec<_>>()
        .join(", ")
}

fn required(schema: &Value) -> Vec<&str> {
    schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// The properties, required ones first and in the order of that list: a model writes them
/// in the order of the schema, and JSON objects have lost theirs.
fn ordered(schema: &Value) -> Vec<(&String, &Value)> {
    let required = required(schema);
    let place = |name: &str| {
        required
            .iter()
            .position(|other| *other == name)
            .unwrap_or(required.len())
    };
    let mut all: Vec<_> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .collect();
    all.sort_by_key(|(name, _)| place(name));
    all
}

/// The schema of an answer, with these tools.
pub(crate) struct AnswerSchema<'a>(pub(crate) &'a [ToolSpec]);

impl Serialize for AnswerSchema<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Object<P, const N: usize> {
            #[serde(rename = "type")]
            kind: &'static str,
            properties: P,
            #[serde(with = "names")]
            required: [&'static str; N],
            additional_properties: bool,
        }
        #[derive(Serialize)]
        struct ReplyParts {
            reply: Value,
        }
        #[derive(Serialize)]
        struct CallParts<'a> {
            tool: Value,
            arguments: Bounded<'a>,
        }
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Branch<'a> {
            Reply(Object<ReplyParts, 1>),
            Call(Object<CallParts<'a>, 2>),
        }
        let reply = Branch::Reply(Object {
            kind: "object",
            properties: ReplyParts {
                reply: json!({ "type": "string", "maxLength": MAX_STRING }),
            },
            required: ["reply"],
            additional_properties: false,
        });
        let calls = self.0.iter().map(|tool| {
            Branch::Call(Object {
                kind: "object",
                properties: CallParts {
                    tool: json!({ "type": "string", "enum": [tool.name] }),
                    arguments: Bounded(&tool.parameters),
                },
                required: ["tool", "arguments"],
                additional_properties: false,
            })
        });
        let mut map = to.serialize_map(Some(1))?;
        map.serialize_entry(
            "anyOf",
            &std::iter::once(reply).chain(calls).collect::<Vec<_>>(),
        )?;
        map.end()
    }
}

mod names {
    use serde::Serializer;

    pub(super) fn serialize<S: Serializer, const N: usize>(
        names: &[&'static str; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(names)
    }
}

/// A schema with a bound on every string and list, no unknown properties, and the
/// properties in their order.
struct Bounded<'a>(&'a Value);

impl Serialize for Bounded<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => bounded_object(self.0, map, to),
            Value::Array(items) => to.collect_seq(items.iter().map(Bounded)),
            plain => plain.serialize(to),
        }
    }
}

fn bounded_object<S: Serializer>(
    schema: &Value,
    map: &Map<String, Value>,
    to: S,
) -> Result<S::Ok, S::Error> {
    struct Properties<'a>(&'a Value);
    impl Serialize for Properties<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.collect_map(
                ordered(self.0)
                    .into_iter()
                    .map(|(name, of)| (name, Bounded(of))),
            )
        }
    }
    let kind = map.get("type").and_then(Value::as_str);
    let bound = match kind {
        Some("string") if !map.contains_key("enum") && !map.contains_key("const") => {
            Some(("maxLength", MAX_STRING))
        }
        Some("array") => Some(("maxItems", MAX_ITEMS)),
        _ => None,
    };
    let mut out = to.serialize_map(None)?;
    for (key, value) in map {
        match key.as_str() {
            key if bound.is_some_and(|(name, _)| name == key) => {}
            "properties" => out.serialize_entry(key, &Properties(schema))?,
            "enum" | "const" | "default" | "examples" | "required" => {
                out.serialize_entry(key, value)?
            }
            _ => out.serialize_entry(key, &Bounded(value))?,
        }
    }
    if let Some((name, most)) = bound {
        let wanted = map.get(name).and_then(Value::as_u64).unwrap_or(most);
        out.serialize_entry(name, &wanted.min(most))?;
    }
    if kind == Some("object") && !map.contains_key("additionalProperties") {
        out.serialize_entry("additionalProperties", &false)?;
    }
    out.end()
}

/// Reads an answer that keeps to the schema, as it comes.
#[derive(Debug, Default)]
pub(crate) struct Extractor {
    raw: String,
    key: String,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Before the first brace.
    #[default]
    Start,
    /// Before the quote of the first name.
    BeforeKey,
    /// In the first name.
    Key,
    /// Before the colon.
    AfterKey,
    /// Before the quote of the reply.
    BeforeReply,
    /// In the reply.
    Reply(Unescape),
    /// Before the last brace.
    AfterReply,
    /// Behind it: only white space.
    End,
    /// A call; read when it is complete.
    Call,
    /// Not of the schema.
    Bad(&'static str),
}

impl Extractor {
    /// Takes a piece and gives what of it is text of a reply.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        self.raw.push_str(piece);
        let mut text = String::new();
        for c in piece.chars() {
            self.state = std::mem::take(&mut self.state).next(c, &mut self.key, &mut text);
        }
        text
    }

    /// The answer is complete: the call, or what is wrong. A reply that reached the limit
    /// stays a reply.
    pub(crate) fn finish(&mut self, stop: Stop) -> Option<ModelEvent> {
        let why = match (&self.state, stop) {
            // Nothing at all is an empty answer in every format.
            (State::End, _) | (State::Reply(_) | State::AfterReply, Stop::Length) => return None,
            (State::Start, _) if self.raw.trim().is_empty() => return None,
            (State::Call, _) => match call(&self.raw) {
                Some(call) => return Some(ModelEvent::Call(call)),
                None if stop == Stop::Length => "it reached its limit before the call was complete",
                None => "a call is {\"tool\": \"name\", \"arguments\": {..}} and nothing else",
            },
            (State::Bad(why), _) => why,
            (
                State::Start | State::BeforeKey | State::Key | State::AfterKey | State::BeforeReply,
                _,
            )
            | (State::Reply(_) | State::AfterReply, Stop::Complete) => {
                "the JSON object is not complete"
            }
        };
        let mut text = std::mem::take(&mut self.raw);
        text.truncate(text.floor_char_boundary(KEPT));
        Some(ModelEvent::Unreadable { text, why })
    }
}

impl State {
    fn next(self, c: char, key: &mut String, text: &mut String) -> Self {
        const NO_OBJECT: &str = "it must be one JSON object, {\"reply\": \"your answer\"} or {\"tool\": \"name\", \"arguments\": {..}}";
        let space = matches!(c, ' ' | '\t' | '\r' | '\n');
        match (self, c) {
            (state @ (Self::Call | Self::Bad(_)), _) => state,
            (Self::Key, '"') => Self::AfterKey,
            (Self::Key, c) if key.len() < 16 => {
                key.push(c);
                Self::Key
            }
            (Self::Reply(unescape), c) => unescape.next(c, text),
            (state, _) if space && !matches!(state, Self::Key) => state,
            (Self::Start, '{') => Self::BeforeKey,
            (Self::BeforeKey, '"') => Self::Key,
            (Self::AfterKey, ':') => match key.as_str() {
                "reply" => Self::BeforeReply,
                "tool" | "arguments" => Self::Call,
                _ => Self::Bad("the object holds neither \"reply\" nor \"tool\""),
            },
            (Self::BeforeReply, '"') => Self::Reply(Unescape::default()),
            (Self::BeforeReply, _) => Self::Bad("\"reply\" must be a text"),
            (Self::AfterReply, '}') => Self::End,
            (Self::AfterReply | Self::End, _) => Self::Bad("nothing may follow the reply"),
            (Self::Start | Self::BeforeKey | Self::Key | Self::AfterKey, _) => Self::Bad(NO_OBJECT),
        }
    }
}

/// The inside of a JSON string (RFC 8259, section 7), a character at a time.
#[derive(Debug, Default)]
struct Unescape {
    at: Escape,
    /// The first half of a surrogate pair, waiting for the second.
    high: Option<u16>,
}

#[derive(Debug, Default)]
enum Escape {
    #[default]
    None,
    Backslash,
    Hex {
        digits: u8,
        value: u16,
    },
}

impl Unescape {
    fn next(mut self, c: char, text: &mut String) -> State {
        match (&mut self.at, c) {
            (Escape::None, '"') => {
                self.lone(text);
                return State::AfterReply;
            }
            (Escape::None, '\\') => self.at = Escape::Backslash,
            (Escape::None, '\0'..='\u{1f}') => {
                return State::Bad("control characters in a JSON text are written as escapes");
            }
            (Escape::None, c) => self.plain(c, text),
            (Escape::Backslash, 'u') => {
                self.at = Escape::Hex {
                    digits: 0,
                    value: 0,
                }
            }
            (Escape::Backslash, c) => {
                let plain = match c {
                    '"' | '\\' | '/' => c,
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    _ => return State::Bad("an unknown escape in a JSON text"),
                };
                self.at = Escape::None;
                self.plain(plain, text);
            }
            (Escape::Hex { digits, value }, c) => {
                // A hexadecimal digit is below 16, four of them fit.
                let Some(digit) = c.to_digit(16).and_then(|digit| u16::try_from(digit).ok()) else {
                    return State::Bad("an escape \\u without four hexadecimal digits");
                };
                *value = *value << 4 | digit;
                *digits += 1;
                if *digits == 4 {
                    let unit = *value;
                    self.at = Escape::None;
                    self.unit(unit, text);
                }
            }
        }
        State::Reply(self)
    }

    fn plain(&mut self, c: char, text: &mut String) {
        self.lone(text);
        text.push(c);
    }

    /// A UTF-16 code unit.
    fn unit(&mut self, unit: u16, text: &mut String) {
        let units = [self.high.take(), Some(unit)].into_iter().flatten();
        for decoded in char::decode_utf16(units) {
            match decoded {
                Ok(c) => text.push(c),
                Err(half)
                    if half.unpaired_surrogate() == unit && (0xd800..0xdc00).contains(&unit) =>
                {
                    self.high = Some(unit)
                }
                Err(_) => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
    }

    /// Half a pair that stands alone.
    fn lone(&mut self, text: &mut String) {
        if self.high.take().is_some() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

fn call(raw: &str) -> Option<Call> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        tool: String,
        arguments: Box<RawValue>,
    }
    let written: Written = serde_json::from_str(raw).ok()?;
    Some(Call {
        name: written.tool,
        args: written.arguments.get().to_owned(),
    })
}
