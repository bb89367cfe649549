//! Text with styles, as runs; the common form between Markdown and Telegram's messages.
//!
//! What is sent is plain text and, apart from it, a list of entities (offset, length, kind in
//! UTF-16 code units, <https://core.telegram.org/bots/api#messageentity>). Nothing in the text is
//! ever read as markup, so there is nothing to escape and nothing to inject.

use std::ops::Range;

use serde::Serialize;

/// A text whose every byte has a style.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Styled {
    text: String,
    /// Where each run ends, and its style; ends grow, the last is the text's length.
    runs: Vec<(usize, Style)>,
}

/// How a run looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    /// Bold.
    pub(super) bold: bool,
    /// Italic.
    pub(super) italic: bool,
    /// Struck through.
    pub(super) struck: bool,
    /// Whether it is code; code has no other style.
    pub(super) code: Code,
    /// The quotation that it belongs to.
    pub(super) quote: Option<u32>,
}

/// Whether a run is code. Platforms make no links inside code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Code {
    /// It is not.
    #[default]
    No,
    /// Within a line.
    Inline,
    /// A block of its own.
    Block {
        /// Tells blocks that follow one another apart.
        id: u32,
        /// The language, if it is one word of letters, digits and `+-#._`.
        language: Option<String>,
    },
}

/// What Telegram is sent of a style.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Entity {
    /// `bold`, `pre` ...
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// In UTF-16 code units.
    pub(super) offset: usize,
    /// In UTF-16 code units.
    pub(super) length: usize,
    /// Of `pre`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) language: Option<String>,
}

/// A message that Telegram takes as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its text.
    pub(super) text: String,
    /// What is marked up.
    pub(super) entities: Vec<Entity>,
}

impl Part {
    /// A text without markup.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            entities: Vec::new(),
        }
    }
}

impl Styled {
    /// Adds a run.
    pub(super) fn push(&mut self, text: &str, style: &Style) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        let end = self.text.len();
        match self.runs.last_mut() {
            Some((last, same)) if same == style => *last = end,
            _ => self.runs.push((end, style.clone())),
        }
    }

    /// The text alone.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The runs that lie in this range of bytes, cut to it.
    pub(super) fn runs(&self, range: Range<usize>) -> impl Iterator<Item = (Range<usize>, &Style)> {
        let first = self.runs.partition_point(|(end, _)| *end <= range.start);
        let mut start = range.start;
        self.runs[first..].iter().map_while(move |(end, style)| {
            let piece = start..(*end).min(range.end);
            start = piece.end;
            (!piece.is_empty()).then_some((piece, style))
        })
    }

    /// The style at this byte.
    pub(super) fn style_at(&self, at: usize) -> Option<&Style> {
        let run = self.runs.partition_point(|(end, _)| *end <= at);
        self.runs.get(run).map(|(_, style)| style)
    }

    /// The same text where words that apps would make links of are code, which they do not.
    pub(super) fn without_links(&self) -> Self {
        let mut result = Self::default();
        let mut at = 0;
        for word in self.text.split_inclusive(char::is_whitespace) {
            let whole = at..at + word.len();
            at = whole.end;
            let core =
                word.trim_matches(|c: char| c.is_whitespace() || "()[]{}<>\"'.,;:!?*".contains(c));
            let shielded = is_address(core).then(|| {
                let start = whole.start + (core.as_ptr().addr() - word.as_ptr().addr());
                start..start + core.len()
            });
            for (piece, style) in self.runs(whole) {
                self.copy_shielded(&mut result, piece, style, shielded.as_ref());
            }
        }
        result
    }

    fn copy_shielded(
        &self,
        to: &mut Self,
        piece: Range<usize>,
        style: &Style,
        shielded: Option<&Range<usize>>,
    ) {
        let shielded = shielded.cloned().unwrap_or(piece.end..piece.end);
        let from = shielded.start.clamp(piece.start, piece.end);
        let until = shielded.end.clamp(from, piece.end);
        let code = match style.code {
            Code::No => Style {
                code: Code::Inline,
                quote: style.quote,
                ..Style::default()
            },
            Code::Inline | Code::Block { .. } => style.clone(),
        };
        to.push(&self.text[piece.start..from], style);
        to.push(&self.text[from..until], &code);
        to.push(&self.text[until..piece.end], style);
    }

    /// This range of bytes as a message of its own.
    pub(super) fn part(&self, range: Range<usize>) -> Part {
        let text = self.text[range.clone()].to_owned();
        let mut open: Vec<Entity> = Vec::new();
        let mut entities = Vec::new();
        let mut offset = 0;
        let mut last: Option<&Style> = None;
        for (piece, style) in self.runs(range) {
            let length = utf16(&self.text[piece]);
            let mut now = Vec::new();
            for kind in kinds(style) {
                let goes_on = last.is_some_and(|last| continues(last, style, kind));
                match open
                    .iter()
                    .position(|entity| entity.kind == kind && goes_on)
                {
                    Some(at) => {
                        let mut entity = open.swap_remove(at);
                        entity.length += length;
                        now.push(entity);
                    }
                    None => now.push(Entity {
                        kind,
                        offset,
                        length,
                        language: language(style, kind),
                    }),
                }
            }
            entities.append(&mut open);
            open = now;
            offset += length;
            last = Some(style);
        }
        entities.append(&mut open);
        entities
            .sort_by_key(|entity| (entity.offset, std::cmp::Reverse(entity.length), entity.kind));
        Part { text, entities }
    }
}

/// The length of a text as Telegram counts it.
pub(super) fn utf16(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// How many entities a run can begin.
pub(super) fn weight(style: &Style) -> usize {
    kinds(style).count()
}

fn kinds(style: &Style) -> impl Iterator<Item = &'static str> {
    let code = match style.code {
        Code::No => None,
        Code::Inline => Some("code"),
        Code::Block { .. } => Some("pre"),
    };
    let plain = code.is_none();
    [
        // A block of code in a quotation ends the quotation: the API nests neither in the other.
        (style.quote.is_some() && code != Some("pre")).then_some("blockquote"),
        code,
        (plain && style.bold).then_some("bold"),
        (plain && style.italic).then_some("italic"),
        (plain && style.struck).then_some("strikethrough"),
    ]
    .into_iter()
    .flatten()
}

/// Whether an entity of the run before goes on in this one.
fn continues(before: &Style, now: &Style, kind: &str) -> bool {
    match kind {
        "blockquote" => before.quote == now.quote,
        "pre" => before.code == now.code,
        _ => true,
    }
}

fn language(style: &Style, kind: &str) -> Option<String> {
    match &style.code {
        Code::Block { language, .. } if kind == "pre" => language.clone(),
        Code::Block { .. } | Code::Inline | Code::No => None,
    }
}

/// Whether some app would make a link of this word: a scheme, or a name with a top level.
fn is_address(word: &str) -> bool {
    word.contains("://")
        || word
            .split(|c: char| !c.is_alphanumeric() && !"-._".contains(c))
            .any(is_host)
}

fn is_host(name: &str) -> bool {
    let Some((rest, top)) = name.trim_matches('.').rsplit_once('.') else {
        return false;
    };
    let letters = top.chars().count() >= 2 && top.chars().all(char::is_alphabetic);
    let numbers =
        name.split('.').count() == 4 && name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    !rest.is_empty() && (letters || top.starts_with("xn--") || numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bold() -> Style {
        Style {
            bold: true,
            ..Style::default()
        }
    }

    fn entity(kind: &'static str, offset: usize, length: usize) -> Entity {
        Entity {
            kind,
            offset,
            length,
            language: None,
        }
    }

    #[test]
    fn entities_are_counted_in_utf16_and_go_on_over_runs() {
        let mut styled = Styled::default();
        styled.push("😀", &Style::default());
        styled.push("ab", &bold());
        styled.push(
            "cd",
            &Style {
                italic: true,
                ..bold()
            },
        );
        let part = styled.part(0..styled.text().len());
        assert_eq!(
            part.entities,
            [entity("bold", 2, 4), entity("italic", 4, 2)]
        );
        let tail = styled.part(5..styled.text().len());
        assert_eq!(
            (tail.text.as_str(), tail.entities),
            ("bcd", vec![entity("bold", 0, 3), entity("italic", 1, 2)])
        );
    }

    #[test]
    fn an_address_is_code_even_where_markup_cuts_it() {
        let mut styled = Styled::default();
        styled.push("go to (https://ev", &Style::default());
        styled.push("il", &bold());
        styled.push(".example/?q=secret) now", &Style::default());
        let safe = styled.without_links();
        assert_eq!(safe.text(), styled.text());
        let part = safe.part(0..safe.text().len());
        assert_eq!(part.entities, [entity("code", 7, 30)]);
    }

    #[test]
    fn names_with_a_top_level_are_addresses_and_numbers_are_not() {
        for address in [
            "evil.com",
            "a.b.co/x",
            "x://y",
            "user@mail.example",
            "пример.рф",
            "1.2.3.4",
            "x|evil.com",
            "a.xn--p1ai",
        ] {
            assert!(is_address(address), "{address}");
        }
        for word in ["3.14", "e.g", "hello", "...", "v1.2.3", "a.", ".b", "U.S"] {
            assert!(!is_address(word), "{word}");
        }
    }
}
