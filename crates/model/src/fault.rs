//! What can be wrong with an answer, and what a server says when it refuses.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

use crate::text;

/// The longest message of a server that is passed on, in characters.
const MAX_MESSAGE: usize = 300;

/// The server does not keep to the wire format, or to the bounds. The answer is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelFault {
    /// A line of the stream is not JSON.
    #[error("a line of the stream is not JSON")]
    NotJson,
    /// A line is JSON, but not of this wire format.
    #[error("a line of the stream is not of the wire format: {0}")]
    WrongShape(&'static str),
    /// Longer than any line of these formats has to be.
    #[error("a line of the stream is over {0} bytes")]
    LineTooLong(usize),
    /// Text and calls together are too long.
    #[error("the answer is over {0} bytes")]
    AnswerTooLong(usize),
    /// All that was sent is too long.
    #[error("the stream is over {0} bytes")]
    StreamTooLong(usize),
    /// Too many in one answer.
    #[error("the answer has over {0} tool calls")]
    TooManyCalls(usize),
    /// The server reported an error in the middle of the stream.
    #[error("the server reported an error: {message}")]
    Reported {
        /// An HTTP status, if the server gave one with it.
        status: Option<u16>,
        /// Its words, shortened and without control characters.
        message: String,
    },
}

/// The stream ended before the server said that the answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream ended before the answer was complete")]
pub struct CutOff;

/// The message in the body of an error answer: the server's own words, shortened, without
/// control and invisible characters. Knows the forms `{"error": {"message"}}` (OpenAI,
/// llama.cpp), `{"error": ".."}` (Ollama), `{"message"}` and `{"detail"}` (vLLM).
pub fn error_message(status: u16, body: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(body).ok();
    let words = parsed.as_ref().and_then(message_in).unwrap_or(body);
    match text::shorten(words, MAX_MESSAGE) {
        message if message.is_empty() => format!("status {status} without a message"),
        message => message,
    }
}

/// What an `error` field in the stream says.
pub(crate) fn reported(error: &Value) -> ModelFault {
    let status = error
        .get("code")
        .and_then(Value::as_u64)
        .and_then(|code| u16::try_from(code).ok());
    let words = error
        .as_str()
        .or_else(|| error.get("message")?.as_str())
        .unwrap_or("no message");
    ModelFault::Reported {
        status: status.filter(|code| (400..600).contains(code)),
        message: text::shorten(words, MAX_MESSAGE),
    }
}

/// Reads a piece of a stream, telling JSON of another form from what is no JSON.
pub(crate) fn parse<T: DeserializeOwned>(
    text: &str,
    otherwise: &'static str,
) -> Result<T, ModelFault> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => ModelFault::WrongShape(otherwise),
        Category::Syntax | Category::Eof | Category::Io => ModelFault::NotJson,
    })
}

fn message_in(body: &Value) -> Option<&str> {
    let error = body.get("error");
    error
        .and_then(|error| error.as_str().or_else(|| error.get("message")?.as_str()))
        .or_else(|| body.get("message")?.as_str())
        .or_else(|| body.get("detail")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_own_words_are_found_in_every_known_form() {
        for body in [
            r#"{"error":{"code":400,"message":"too long","type":"x"}}"#,
            r#"{"error":"too long"}"#,
            r#"{"object":"error","message":"too long"}"#,
            r#"{"detail":"too long"}"#,
            "too long\n",
        ] {
            assert_eq!(error_message(400, body), "too long", "{body}");
        }
        assert_eq!(error_message(500, ""), "status 500 without a message");
        assert_eq!(
            error_message(500, " \u{200b}\n"),
            "status 500 without a message"
        );
    }

    #[test]
    fn a_message_is_shortened_and_holds_nothing_invisible() {
        let message = error_message(
            500,
            &format!("a\u{1b}[31m\u{202e}b\r\n{}", "x".repeat(5_000)),
        );
        assert!(message.starts_with("a[31mb x"), "{message}");
        assert!(message.ends_with('…') && message.chars().count() <= MAX_MESSAGE + 1);
    }
}
