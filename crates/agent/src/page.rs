//! Web pages as text for the model.
//!
//! What a page says is what a stranger wrote. Here it is read by a parser that takes any
//! bytes; if it should end in a panic all the same, the call has a result that says so.

use std::thread;

use protocol::agent::Told;

/// Characters in a line, wide enough that tables stay readable.
const WIDTH: usize = 100;

/// For documents with elements in elements in elements.
const STACK: usize = 16 * 1024 * 1024;

/// Elements open at once; a document that has more is not read. Time and memory of layout grow
/// with the depth.
const MAX_DEPTH: usize = 512;

/// What the model is told, as text.
pub(crate) fn told(result: Told) -> String {
    match result {
        Told::Text { text } => text,
        Told::Page { about, html } => format!("{about}\n{}", text(html)),
    }
}

/// The text of a page, its links as numbers with their addresses below.
fn text(html: String) -> String {
    if depth(&html) > MAX_DEPTH {
        return format!(
            "[the page cannot be read: more than {MAX_DEPTH} elements lie in one another]"
        );
    }
    let reading = thread::Builder::new().stack_size(STACK).spawn(move || {
        let config = html2text::config::plain().link_footnotes(true);
        config.string_from_read(html.as_bytes(), WIDTH)
    });
    let read = reading.ok().and_then(|reading| reading.join().ok());
    match read {
        Some(Ok(text)) => text,
        Some(Err(_)) | None => "[the page cannot be read: its HTML cannot be laid out]".to_owned(),
    }
}

/// The most elements that could be open at once: an estimate from its tags that is never too low
/// for elements that have to be closed.
fn depth(html: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for (at, _) in html.match_indices('<') {
        match html.as_bytes().get(at + 1) {
            Some(b'/') => open = open.saturating_sub(1),
            Some(letter) if letter.is_ascii_alphabetic() && !is_void(&html[at + 1..]) => {
                open += 1;
                most = most.max(open);
            }
            Some(_) | None => {}
        }
    }
    most
}

/// Whether an element of this name has no end tag (HTML, 13.1.2), or often goes without one.
fn is_void(rest: &str) -> bool {
    const WITHOUT_END: &[&str] = &[
        "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source",
        "track", "wbr", "p", "li", "dt", "dd", "tr", "td", "th", "option",
    ];
    let end = rest
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(rest.len());
    WITHOUT_END
        .iter()
        .any(|name| rest[..end].eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_page_reads_as_its_text_with_its_links() {
        let html = "<html><head><title>T</title><style>p{color:red}</style><script>alert(1)</script></head>\
            <body><h1>Weather</h1><p>Rain &amp; wind in <a href=\"https://example.com/berlin\">Berlin</a>.</p>\
            <table><tr><td>Mon</td><td>12</td></tr></table></body></html>";
        let text = text(html.to_owned());
        assert!(
            text.contains("Weather") && text.contains("Rain & wind in"),
            "{text}"
        );
        assert!(text.contains("https://example.com/berlin"), "{text}");
        assert!(text.contains("Mon") && text.contains("12"), "{text}");
        assert!(!text.contains("alert") && !text.contains("color"), "{text}");
    }

    #[test]
    fn no_page_takes_long_or_ends_the_agent() {
        let deep = |element: &str, times: usize| format!("<{element}>").repeat(times);
        let pages = [
            deep("div", 100_000),
            deep("b", 100_000),
            deep("table", 10_000),
            deep("table><tr><td", 400),
            deep("p", 100_000),
            deep("ul><li", 400),
            deep("font color=red", 500),
            "<".repeat(500_000),
            "&".repeat(500_000),
            format!("<a href='{}'>x</a>", "x".repeat(500_000)),
            "<td>x".repeat(50_000),
            "<a href=x>y</a>".repeat(20_000),
            "<!--".repeat(100_000),
            "\0\u{202e}<\u{0}script>".repeat(20_000),
            String::new(),
        ];
        for page in pages {
            let begin = Instant::now();
            let start: String = page.chars().take(30).collect();
            let _ = text(page);
            assert!(begin.elapsed() < Duration::from_secs(20), "{start}");
        }
    }
}
