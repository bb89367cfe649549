//! Long texts as several messages: cut between paragraphs, lines or words where there are
//! some, never inside a character, and with each part marked up on its own.

use super::styled::{Code, Part, Styled, utf16, weight};

/// The longest message, in UTF-16 code units after entities are taken out.
pub(super) const MAX_UNITS: usize = 4096;

/// Telegram drops entities beyond 100 in a message without a word; some are left for luck.
const MAX_ENTITIES: usize = 90;

/// Messages of at most `units` UTF-16 code units; none if there is nothing but white space.
/// `units` has to be at least 64.
pub(super) fn split(styled: &Styled, units: usize) -> Vec<Part> {
    let text = styled.text();
    let mut parts = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = cut(styled, start, units);
        let part = trimmed(styled, start, end);
        if !part.text.is_empty() {
            parts.push(part);
        }
        start = after_break(styled, end);
    }
    parts
}

/// Where the message that begins at `start` ends.
fn cut(styled: &Styled, start: usize, units: usize) -> usize {
    let text = styled.text();
    let limit = reach(styled, start, units);
    if limit == text.len() {
        return limit;
    }
    // Not too early, so that no part is tiny.
    let early = text.floor_char_boundary(start + (limit - start) / 3);
    let window = &text[early..limit];
    let paragraphs = window.rmatch_indices("\n\n").map(|(at, _)| early + at);
    let mut paragraphs = paragraphs.filter(|at| !in_block(styled, *at));
    let line = || window.rfind('\n').map(|at| early + at);
    let word = || window.rfind(' ').map(|at| early + at);
    paragraphs
        .next()
        .or_else(line)
        .or_else(word)
        .unwrap_or_else(|| whole_character(text, start, limit))
}

/// How far `units` code units and the allowed entities reach.
fn reach(styled: &Styled, start: usize, units: usize) -> usize {
    let text = styled.text();
    let mut left = units;
    let mut entities = 0;
    for (piece, style) in styled.runs(start..text.len()) {
        entities += weight(style);
        if entities > MAX_ENTITIES {
            return piece.start;
        }
        let run = &text[piece.clone()];
        if utf16(run) <= left {
            left -= utf16(run);
            continue;
        }
        let fits = run
            .char_indices()
            .find(|(_, c)| match left.checked_sub(c.len_utf16()) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            });
        return piece.start + fits.map_or(run.len(), |(at, _)| at);
    }
    text.len()
}

/// The last place before `limit` that is not inside what people see as one character.
fn whole_character(text: &str, start: usize, limit: usize) -> usize {
    // Longer sequences than this are no emoji but an attack.
    const LONGEST: usize = 16;
    let mut at = limit;
    for c in text[start..limit].chars().rev().take(LONGEST) {
        let next = text[at..].chars().next();
        if !joined(&text[start..at], c, next) {
            return at;
        }
        at -= c.len_utf8();
    }
    limit
}

/// Whether the last character before a cut and the first after it are seen as one.
fn joined(part: &str, before: char, after: Option<char>) -> bool {
    let Some(after) = after else { return false };
    let extends = matches!(after,
        '\u{300}'..='\u{36F}' | '\u{200D}' | '\u{20E3}' | '\u{FE00}'..='\u{FE0F}'
        | '\u{1F3FB}'..='\u{1F3FF}' | '\u{E0020}'..='\u{E007F}');
    // Flags are pairs of letters, and follow one another without anything between.
    let flag = |c: &char| matches!(c, '\u{1F1E6}'..='\u{1F1FF}');
    let half_a_flag = || flag(&after) && part.chars().rev().take_while(flag).count() % 2 == 1;
    extends || before == '\u{200D}' || half_a_flag()
}

fn in_block(styled: &Styled, at: usize) -> bool {
    styled
        .style_at(at)
        .is_some_and(|style| matches!(style.code, Code::Block { .. }))
}

/// Where the next message begins after a cut at `end`: one line break in code is enough,
/// elsewhere all white space goes.
fn after_break(styled: &Styled, end: usize) -> usize {
    let rest = &styled.text()[end..];
    if in_block(styled, end) {
        return end + usize::from(rest.starts_with('\n'));
    }
    let mut at = end;
    for c in rest.chars() {
        if !c.is_whitespace() || in_block(styled, at) {
            break;
        }
        at += c.len_utf8();
    }
    at
}

/// The part without white space at its rim: Telegram would cut it too, and count differently.
fn trimmed(styled: &Styled, start: usize, end: usize) -> Part {
    let text = &styled.text()[start..end];
    let end = start + text.trim_end().len();
    styled.part(start..end.max(start))
}

#[cfg(test)]
mod tests {
    use super::super::styled::Style;
    use super::*;

    fn plain(text: &str) -> Styled {
        let mut styled = Styled::default();
        styled.push(text, &Style::default());
        styled
    }

    fn texts(parts: &[Part]) -> Vec<&str> {
        parts.iter().map(|part| part.text.as_str()).collect()
    }

    #[test]
    fn cuts_are_between_paragraphs_then_lines_then_words() {
        let a = "a".repeat(50);
        assert_eq!(
            texts(&split(&plain(&format!("{a}\n\nb\nc d {a}")), 64)),
            [a.as_str(), &format!("b\nc d {a}")]
        );
        assert_eq!(
            texts(&split(&plain(&format!("{a}\nb c {a}")), 64)),
            [a.as_str(), &format!("b c {a}")]
        );
        assert_eq!(
            texts(&split(&plain(&format!("{a} b {a}")), 64)),
            [&format!("{a} b"), &a]
        );
        assert_eq!(split(&plain(" \n "), 64), []);
    }

    #[test]
    fn no_part_is_over_the_limit_and_nothing_is_lost() {
        for text in [
            "😀".repeat(5000),
            "x".repeat(10_000),
            "ab cd\n".repeat(3000),
            "é".repeat(9000),
        ] {
            let parts = split(&plain(&text), MAX_UNITS);
            assert!(
                parts
                    .iter()
                    .all(|part| part.text.encode_utf16().count() <= MAX_UNITS)
            );
            let squeezed = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeezed(&texts(&parts).concat()), squeezed(&text));
        }
    }

    #[test]
    fn what_is_seen_as_one_character_stays_whole() {
        let family = "👨‍👩‍👧";
        let parts = split(&plain(&family.repeat(30)), 65);
        assert!(parts.len() > 1);
        assert!(
            parts
                .iter()
                .all(|part| part.text.starts_with('👨') && part.text.ends_with('👧')),
            "{parts:?}"
        );
        let flags = split(&plain(&"🇩🇪".repeat(40)), 66);
        assert!(flags.iter().all(|part| part.text.chars().count() % 2 == 0));
    }

    #[test]
    fn code_goes_on_as_code_in_the_next_part() {
        let mut styled = plain("look:\n\n");
        let block = Style {
            code: Code::Block {
                id: 1,
                language: Some("rust".to_owned()),
            },
            ..Style::default()
        };
        styled.push(&"    let x = 1;\n".repeat(20), &block);
        let parts = split(&styled, 128);
        assert!(parts.len() > 2);
        for part in &parts[1..] {
            assert!(part.text.starts_with("    let"), "{part:?}");
            let [entity] = part.entities.as_slice() else {
                panic!("{part:?}")
            };
            assert_eq!(
                (entity.kind, entity.offset, entity.length),
                ("pre", 0, part.text.len())
            );
            assert_eq!(entity.language.as_deref(), Some("rust"));
        }
    }

    #[test]
    fn a_part_has_no_more_entities_than_telegram_keeps() {
        let mut styled = Styled::default();
        for _ in 0..500 {
            styled.push(
                "x",
                &Style {
                    code: Code::Inline,
                    ..Style::default()
                },
            );
            styled.push(" ", &Style::default());
        }
        let parts = split(&styled, MAX_UNITS);
        assert!(parts.len() > 4 && parts.iter().all(|part| part.entities.len() <= 100));
    }
}
