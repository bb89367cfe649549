//! Texts of a server, made fit to be shown.

/// One line of at most `max` characters and an ellipsis: white space runs become one space;
/// control characters and those that are invisible or change the direction are left out.
pub(crate) fn shorten(words: &str, max: usize) -> String {
    let mut line = String::new();
    let mut count = 0;
    for word in words.split_whitespace() {
        let shown = word
            .chars()
            .filter(|c| !c.is_control() && !is_invisible(*c));
        let space = if line.is_empty() { None } else { Some(' ') };
        let mut fresh = shown.peekable();
        if fresh.peek().is_none() {
            continue;
        }
        for c in space.into_iter().chain(fresh) {
            if count == max {
                line.push('…');
                return line;
            }
            line.push(c);
            count += 1;
        }
    }
    line
}

/// Zero-width, bidirectional and tag characters (Unicode 15, general category Cf and fillers).
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}
