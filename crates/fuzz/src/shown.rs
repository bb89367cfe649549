//! What a person is shown.

/// Characters that are notorious for not showing or for changing what others look like: control
/// characters, soft hyphen, zero width, bidirectional (UAX 9), fillers, variation selectors, tags.
/// A list of its own, so that one missing in `tools::text` is found.
fn is_notorious(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{e0000}'..='\u{e01ef}')
}

/// Nothing in it is invisible; lines end as lines do.
pub(crate) fn assert_shows(text: &str) {
    let hidden = |c: &char| *c != '\n' && (tools::text::is_hidden(*c) || is_notorious(*c));
    assert_eq!(text.chars().find(hidden), None, "does not show in {text:?}");
}
