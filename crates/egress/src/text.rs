//! Bytes as they come, cut into text between characters.

/// Turns pieces of bytes into pieces of text. A character that is cut waits for its rest.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// The beginning of a character: at most three bytes.
    waiting: Vec<u8>,
}

impl Pieces {
    /// The text that is complete now; bytes that are no UTF-8 read as U+FFFD.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        let mut joined = std::mem::take(&mut self.waiting);
        joined.extend_from_slice(bytes);
        let mut text = String::with_capacity(joined.len());
        let mut chunks = joined.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let bad = chunk.invalid();
            let cut = std::str::from_utf8(bad).is_err_and(|error| error.error_len().is_none());
            if cut && chunks.peek().is_none() {
                self.waiting = bad.to_vec();
            } else if !bad.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// What is left when no more bytes come.
    pub(crate) fn finish(&mut self) -> String {
        let cut = !std::mem::take(&mut self.waiting).is_empty();
        if cut {
            char::REPLACEMENT_CHARACTER.to_string()
        } else {
            String::new()
        }
    }
}

/// Splits between characters into pieces of at most `limit` bytes; `limit` is at least 4.
pub(crate) fn split(mut text: &str, limit: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (piece, rest) = text.split_at(text.floor_char_boundary(limit));
        text = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_anywhere_the_text_is_the_same() {
        let text = "aé€😀z";
        for cut in 0..=text.len() {
            let mut pieces = Pieces::default();
            let (left, right) = text.as_bytes().split_at(cut);
            let joined = pieces.push(left) + &pieces.push(right) + &pieces.finish();
            assert_eq!(joined, text, "{cut}");
        }
        let mut pieces = Pieces::default();
        let single: String = text.bytes().map(|byte| pieces.push(&[byte])).collect();
        assert_eq!(single, text);
    }

    #[test]
    fn bytes_that_are_no_text_read_as_the_replacement_character() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.push(b"a\xffb\xc3("), "a\u{fffd}b\u{fffd}(");
        assert_eq!(pieces.push(b"\xe2\x82"), "");
        assert_eq!(pieces.finish(), "\u{fffd}");
        assert_eq!(pieces.finish(), "");
    }

    #[test]
    fn long_text_is_split_between_characters() {
        let parts: Vec<&str> = split("aé€😀z", 4).collect();
        assert_eq!(parts, ["aé", "€", "😀", "z"]);
        assert_eq!(split("", 4).count(), 0);
    }
}
