//! The token counts that a model server puts at the end of its answer, for the record only.

use protocol::event::Tokens;

/// How much of the end of an answer is looked at, in bytes.
const KEPT: usize = 16 * 1024;

/// The end of an answer as it comes.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    /// Adds bytes and forgets what is no longer near the end.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0
            .extend_from_slice(&bytes[bytes.len().saturating_sub(KEPT)..]);
        // Moves the rest only once in a while.
        if self.0.len() > 2 * KEPT {
            self.0.drain(..self.0.len() - KEPT);
        }
    }

    /// The counts, if the server gave both: Ollama's names, else those of OpenAI.
    pub(crate) fn tokens(&self) -> Option<Tokens> {
        let end = &self.0[self.0.len().saturating_sub(KEPT)..];
        let pair = |prompt: &str, answer: &str| {
            Some(Tokens {
                prompt: last_number(end, prompt)?,
                answer: last_number(end, answer)?,
            })
        };
        pair("\"prompt_eval_count\"", "\"eval_count\"")
            .or_else(|| pair("\"prompt_tokens\"", "\"completion_tokens\""))
    }
}

/// The number after the last `key`. Inside a string of the answer the closing quote of the
/// key would be escaped, so what the model wrote cannot look like one.
fn last_number(bytes: &[u8], key: &str) -> Option<u64> {
    let at = bytes
        .windows(key.len())
        .rposition(|window| window == key.as_bytes())?;
    let after = bytes[at + key.len()..]
        .trim_ascii_start()
        .strip_prefix(b":")?
        .trim_ascii_start();
    let digits = after
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    std::str::from_utf8(&after[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Option<(u64, u64)> {
        let mut tail = Tail::default();
        // Cut into pieces, as it comes.
        text.as_bytes().chunks(7).for_each(|piece| tail.push(piece));
        tail.tokens().map(|tokens| (tokens.prompt, tokens.answer))
    }

    #[test]
    fn both_forms_are_found() {
        assert_eq!(
            tokens(r#"{"done":true,"prompt_eval_count":26,"eval_count":298}"#),
            Some((26, 298))
        );
        let usage = r#"data: {"usage": {"prompt_tokens": 9, "completion_tokens" : 12}}"#;
        assert_eq!(tokens(usage), Some((9, 12)));
        let late = format!("{}{usage}\n\ndata: [DONE]", "x".repeat(100_000));
        assert_eq!(tokens(&late), Some((9, 12)));
    }

    #[test]
    fn what_is_not_there_or_no_number_is_none() {
        for text in [
            "",
            r#"{"prompt_tokens":9}"#,
            r#"{"prompt_tokens":"9","completion_tokens":1}"#,
            r#"{"prompt_tokens":-9,"completion_tokens":1}"#,
            r#"{"prompt_tokens":99999999999999999999999,"completion_tokens":1}"#,
            r#"{"prompt_tokens":null,"completion_tokens":null}"#,
            r#"{"content":"{\"prompt_tokens\":1,\"completion_tokens\":1}"}"#,
            r#""prompt_tokens""#,
        ] {
            assert_eq!(tokens(text), None, "{text}");
        }
        let early = format!(
            "{}{}",
            r#""prompt_tokens":1,"completion_tokens":1"#,
            "x".repeat(100_000)
        );
        assert_eq!(tokens(&early), None);
    }
}
