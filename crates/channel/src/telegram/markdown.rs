//! The agent's Markdown as styled text.
//!
//! Links and images are shown with their whole address and cannot be followed by a tap: an
//! address can carry away what the conversation holds. HTML is text.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::styled::{Code, Style, Styled};

/// The most that is read, in bytes; far more than is ever shown.
const MAX_SOURCE: usize = 256 * 1024;

/// Deeper lists are not indented further.
const MAX_INDENT: usize = 8;

/// Reads Markdown (CommonMark with tables, task lists and strikethrough).
pub(super) fn render(source: &str) -> Styled {
    let source = &source[..source.floor_char_boundary(MAX_SOURCE)];
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut writer = Writer::default();
    for event in Parser::new_ext(source, options) {
        writer.event(event);
    }
    writer.out.without_links()
}

#[derive(Default)]
struct Writer {
    out: Styled,
    bold: u32,
    italic: u32,
    struck: u32,
    quotes: u32,
    /// Counts quotations and blocks of code, to tell them apart.
    blocks: u32,
    code: Option<Code>,
    /// The next number of each open list; `None` for bullets.
    lists: Vec<Option<u64>>,
    /// Where the text of each open link or image begins, and its address.
    links: Vec<(usize, String)>,
    /// A list's marker was written, and nothing after it.
    after_marker: bool,
    /// A cell of this row was written already.
    in_row: bool,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => {
                self.text(&text)
            }
            Event::Code(text) => {
                let style = Style {
                    code: Code::Inline,
                    ..self.style()
                };
                self.push(&text, &style);
            }
            Event::SoftBreak | Event::HardBreak => self.text("\n"),
            Event::Rule => {
                self.gap(2);
                self.text("———");
            }
            Event::TaskListMarker(done) => self.text(if done { "☑ " } else { "☐ " }),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph | Tag::HtmlBlock | Tag::Table(_) => self.gap(2),
            Tag::Heading { .. } => {
                self.gap(2);
                self.bold += 1;
            }
            Tag::BlockQuote(_) => {
                self.gap(2);
                self.quotes += 1;
                self.blocks += u32::from(self.quotes == 1);
            }
            Tag::CodeBlock(kind) => self.start_code(kind),
            Tag::List(first) => {
                self.gap(if self.lists.is_empty() { 2 } else { 1 });
                self.lists.push(first);
            }
            Tag::Item => self.start_item(),
            Tag::TableHead => {
                self.in_row = false;
                self.bold += 1;
            }
            Tag::TableRow => {
                self.gap(1);
                self.in_row = false;
            }
            Tag::TableCell => {
                if std::mem::replace(&mut self.in_row, true) {
                    self.text(" | ");
                }
            }
            Tag::Emphasis => self.italic += 1,
            Tag::Strong => self.bold += 1,
            Tag::Strikethrough => self.struck += 1,
            Tag::Link { dest_url, .. } => self
                .links
                .push((self.out.text().len(), dest_url.into_string())),
            Tag::Image { dest_url, .. } => {
                self.text("image: ");
                self.links
                    .push((self.out.text().len(), dest_url.into_string()));
            }
            // Extensions that are not enabled.
            Tag::FootnoteDefinition(_)
            | Tag::DefinitionList
            | Tag::DefinitionListTitle
            | Tag::DefinitionListDefinition
            | Tag::Superscript
            | Tag::Subscript
            | Tag::MetadataBlock(_) => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) | TagEnd::Strong | TagEnd::TableHead => {
                self.bold = self.bold.saturating_sub(1)
            }
            TagEnd::BlockQuote(_) => self.quotes = self.quotes.saturating_sub(1),
            TagEnd::CodeBlock => self.code = None,
            TagEnd::List(_) => drop(self.lists.pop()),
            TagEnd::Item => self.after_marker = false,
            TagEnd::Emphasis => self.italic = self.italic.saturating_sub(1),
            TagEnd::Strikethrough => self.struck = self.struck.saturating_sub(1),
            TagEnd::Link | TagEnd::Image => self.end_link(),
            TagEnd::Paragraph
            | TagEnd::HtmlBlock
            | TagEnd::Table
            | TagEnd::TableRow
            | TagEnd::TableCell
            | TagEnd::FootnoteDefinition
            | TagEnd::DefinitionList
            | TagEnd::DefinitionListTitle
            | TagEnd::DefinitionListDefinition
            | TagEnd::Superscript
            | TagEnd::Subscript
            | TagEnd::MetadataBlock(_) => {}
        }
    }

    fn start_code(&mut self, kind: CodeBlockKind<'_>) {
        self.gap(2);
        self.blocks += 1;
        let language = match kind {
            CodeBlockKind::Fenced(info) => info.split([' ', ',', '{']).next().and_then(language),
            CodeBlockKind::Indented => None,
        };
        self.code = Some(Code::Block {
            id: self.blocks,
            language,
        });
    }

    fn start_item(&mut self) {
        self.gap(1);
        let indent = "  ".repeat(self.lists.len().saturating_sub(1).min(MAX_INDENT));
        let marker = match self.lists.last_mut() {
            Some(Some(number)) => {
                let marker = format!("{number}. ");
                *number = number.saturating_add(1);
                marker
            }
            Some(None) | None => "• ".to_owned(),
        };
        self.text(&format!("{indent}{marker}"));
        self.after_marker = true;
    }

    /// Writes the address after the label, unless it is the label.
    fn end_link(&mut self) {
        let Some((begin, address)) = self.links.pop() else {
            return;
        };
        let label = self.out.text().get(begin..).unwrap_or_default();
        if label != address && !address.is_empty() {
            let style = Style {
                code: Code::Inline,
                ..self.style()
            };
            self.text(" (");
            self.push(&address, &style);
            self.text(")");
        }
    }

    fn text(&mut self, text: &str) {
        let style = self.style();
        self.push(text, &style);
    }

    fn push(&mut self, text: &str, style: &Style) {
        self.after_marker = false;
        self.out.push(text, style);
    }

    fn style(&self) -> Style {
        Style {
            bold: self.bold > 0,
            italic: self.italic > 0,
            struck: self.struck > 0,
            code: self.code.clone().unwrap_or_default(),
            quote: (self.quotes > 0).then_some(self.blocks),
        }
    }

    /// Sees to so many line breaks before what follows.
    fn gap(&mut self, lines: usize) {
        if self.out.text().is_empty() || self.after_marker {
            return;
        }
        let there = self
            .out
            .text()
            .chars()
            .rev()
            .take_while(|c| *c == '\n')
            .count();
        let style = Style {
            code: Code::No,
            ..self.style()
        };
        self.out
            .push(&"\n".repeat(lines.saturating_sub(there)), &style);
    }
}

fn language(word: &str) -> Option<String> {
    let fits = !word.is_empty()
        && word.len() <= 32
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-#._".contains(c));
    fits.then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::split::{MAX_UNITS, split};
    use super::super::styled::Part;
    use super::*;

    fn part(source: &str) -> Part {
        let mut parts = split(&render(source), MAX_UNITS);
        assert_eq!(parts.len(), 1, "{parts:?}");
        parts.remove(0)
    }

    /// Each entity as its kind and the text it covers.
    fn marked(part: &Part) -> Vec<(&'static str, String)> {
        let units: Vec<u16> = part.text.encode_utf16().collect();
        let covered = |entity: &super::super::styled::Entity| {
            String::from_utf16(&units[entity.offset..entity.offset + entity.length]).unwrap()
        };
        part.entities
            .iter()
            .map(|entity| (entity.kind, covered(entity)))
            .collect()
    }

    #[test]
    fn ordinary_markdown_looks_as_it_should() {
        let part = part(
            "# Title\n\nSome **bold**, *slanted* and ~~gone~~ `code`.\n\n- one\n- two\n  1. deep\n\n> said\n> again\n\n```rust\nfn main() {}\n```\n\nend",
        );
        assert_eq!(
            part.text,
            "Title\n\nSome bold, slanted and gone code.\n\n• one\n• two\n  1. deep\n\nsaid\nagain\n\nfn main() {}\n\nend"
        );
        let expected = [
            ("bold", "Title"),
            ("bold", "bold"),
            ("italic", "slanted"),
            ("strikethrough", "gone"),
            ("code", "code"),
            ("blockquote", "said\nagain"),
            ("pre", "fn main() {}\n"),
        ];
        assert_eq!(
            marked(&part),
            expected.map(|(kind, text)| (kind, text.to_owned()))
        );
        assert_eq!(part.entities[6].language.as_deref(), Some("rust"));
    }

    #[test]
    fn tables_are_lines() {
        assert_eq!(
            part("| a | b |\n|---|---|\n| 1 | 2 |\n").text,
            "a | b\n1 | 2"
        );
    }

    #[test]
    fn html_is_text() {
        let text =
            "<a href=\"https://x.example\">click</a> <b>x</b> <script>alert(1)</script> &lt;i&gt;";
        let part = part(text);
        assert_eq!(
            part.text,
            "<a href=\"https://x.example\">click</a> <b>x</b> <script>alert(1)</script> <i>"
        );
        assert!(
            marked(&part).iter().all(|(kind, _)| *kind == "code"),
            "{part:?}"
        );
    }

    #[test]
    fn links_show_their_address_and_are_code() {
        let part = part(
            "[your bank](https://evil.example/?d=secret) ![p](http://evil.example/x.png) [x](tg://user?id=1) <https://a.example>",
        );
        assert_eq!(
            part.text,
            "your bank (https://evil.example/?d=secret) image: p (http://evil.example/x.png) x (tg://user?id=1) https://a.example"
        );
        let expected = [
            "https://evil.example/?d=secret",
            "http://evil.example/x.png",
            "tg://user?id=1",
            "https://a.example",
        ];
        assert_eq!(
            marked(&part),
            expected.map(|text| ("code", text.to_owned()))
        );
    }

    #[test]
    fn hostile_nesting_ends() {
        for text in [
            "[".repeat(50_000),
            "> ".repeat(20_000),
            "*a ".repeat(50_000),
            "- ".repeat(20_000),
            "`".repeat(99_999),
        ] {
            split(&render(&text), MAX_UNITS);
        }
    }
}
