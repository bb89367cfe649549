//! Text as a person has to see it: nothing cut, nothing invisible, nothing in disguise.

use std::fmt::Write as _;

use protocol::call::{Action, ToolCall};
use protocol::egress::HttpOrder;
use protocol::script::{Redirection, Script, Simple, Stream, Target, When};
use tools::text::is_hidden;

/// From so many on, equal spaces or hidden characters in a row are counted instead of shown.
const MAX_SPACES: usize = 16;
const MAX_HIDDEN: usize = 3;

/// The most characters of a title.
const MAX_TITLE: usize = 160;

/// A text with each hidden character as `<U+202E>` and long runs of white space counted,
/// `<U+0020 x 300>`. A line ends with `<U+000A>` and a line feed. A text that holds such a
/// mark itself shows it as `<U+003C>U+`.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let mut run = 1;
        if c == ' ' || is_hidden(c) {
            while rest.next_if_eq(&c).is_some() {
                run += 1;
            }
        }
        let looks_like_a_mark = c == '<' && rest.peek() == Some(&'U');
        match c {
            ' ' if run < MAX_SPACES => out.extend(std::iter::repeat_n(' ', run)),
            ' ' => mark(&mut out, c, run),
            '\n' => {
                mark(&mut out, c, run);
                out.push('\n');
            }
            c if is_hidden(c) && run < MAX_HIDDEN => (0..run).for_each(|_| mark(&mut out, c, 1)),
            c if is_hidden(c) || looks_like_a_mark => mark(&mut out, c, run),
            c => out.push(c),
        }
    }
    out
}

fn mark(out: &mut String, c: char, run: usize) {
    // Writing to a String does not fail.
    let _ = match run {
        1 => write!(out, "<U+{:04X}>", u32::from(c)),
        _ => write!(out, "<U+{:04X} x {run}>", u32::from(c)),
    };
}

/// All of an action, with warnings below it where letters are not what they look like.
pub fn action(action: &Action) -> String {
    let mut out = match action {
        Action::Argv { argv } => format!("run without a shell: {}", text(&words(argv))),
        Action::Script { script: understood } => {
            format!("run without a shell: {}", text(&script(understood)))
        }
        Action::Shell { script } => format!("run as a shell script: {}", text(script)),
        Action::Tool { call } => tool(call),
        Action::Fetch { order } => request(order),
    };
    for warning in lookalikes(action) {
        out.push_str("\nWARNING: ");
        out.push_str(&warning);
    }
    out
}

fn tool(call: &ToolCall) -> String {
    match call {
        ToolCall::ReadFile {
            path,
            first_line,
            lines,
        } => {
            format!(
                "read_file {}, {lines} lines from line {first_line}",
                text(path.as_str())
            )
        }
        ToolCall::WriteFile { path, content } => {
            format!(
                "write_file {}, new content of {} bytes:\n{}",
                text(path.as_str()),
                content.len(),
                text(content)
            )
        }
        ToolCall::EditFile { path, old, new } => {
            format!(
                "edit_file {}, replace:\n{}\nby:\n{}",
                text(path.as_str()),
                text(old),
                text(new)
            )
        }
        ToolCall::ListFiles { path, depth } => {
            format!("list_files {}, {depth} levels", text(path.as_str()))
        }
        ToolCall::SearchFiles { text: wanted, path } => {
            format!("search_files {} for: {}", text(path.as_str()), text(wanted))
        }
        ToolCall::Exec { command } => format!("exec {}", text(command)),
        ToolCall::HttpRequest {
            method, url, body, ..
        } => format!(
            "http_request {method} {}{}",
            text(url),
            sent(body.as_deref())
        ),
        ToolCall::WebFetch { url } => format!("web_fetch {}", text(url)),
    }
}

/// All that goes out, and to whom.
fn request(order: &HttpOrder) -> String {
    let mut out = format!("send to a host: {} {}", order.method, text(&order.url));
    for (name, value) in &order.headers {
        out.push_str(&format!("\n{}: {}", text(name), text(value)));
    }
    if let Some(secret) = &order.credential {
        out.push_str(&format!(
            "\nwith the secret `{secret}`, which egress attaches"
        ));
    }
    out.push_str(&sent(order.body.as_deref()));
    out
}

fn sent(body: Option<&str>) -> String {
    match body {
        None => String::new(),
        Some(body) => format!(", body of {} bytes:\n{}", body.len(), text(body)),
    }
}

/// A call in one line, for a list of calls. It may be cut, and then says so: nobody approves
/// by it.
pub fn title(call: &ToolCall) -> String {
    let whole = match call {
        ToolCall::Exec { command } => text(command),
        ToolCall::WriteFile { path, .. } => format!("write_file {}", text(path.as_str())),
        ToolCall::EditFile { path, .. } => format!("edit_file {}", text(path.as_str())),
        ToolCall::HttpRequest { method, url, .. } => format!("{method} {}", text(url)),
        ToolCall::ReadFile { .. }
        | ToolCall::ListFiles { .. }
        | ToolCall::SearchFiles { .. }
        | ToolCall::WebFetch { .. } => tool(call),
    }
    .replace('\n', " ");
    match whole.char_indices().nth(MAX_TITLE) {
        None => whole,
        Some((end, _)) => format!("{}… (cut)", &whole[..end]),
    }
}

/// A script in the shell's language, which reads it as the same script again.
pub(crate) fn script(script: &Script) -> String {
    let mut out = String::new();
    for (at, step) in script.steps.iter().enumerate() {
        out.push_str(match (at, step.when) {
            (0, _) => "",
            (_, When::Always) => "; ",
            (_, When::Succeeded) => " && ",
            (_, When::Failed) => " || ",
        });
        let programs: Vec<_> = step.pipeline.iter().map(simple).collect();
        out.push_str(&programs.join(" | "));
    }
    out
}

fn simple(simple: &Simple) -> String {
    let words = simple.argv.iter().enumerate().map(|(at, text)| {
        // Without quotes it is the pattern that it is.
        match simple.is_pattern(at) {
            true => text.clone(),
            false => word(text),
        }
    });
    let redirections = simple.redirections.iter().map(to);
    words.chain(redirections).collect::<Vec<_>>().join(" ")
}

fn to(redirection: &Redirection) -> String {
    let stream = match redirection.stream {
        Stream::Input | Stream::Output => "",
        Stream::Error => "2",
    };
    match &redirection.to {
        Target::Read { file } => format!("< {}", word(&file.to_string())),
        Target::Write { file } => format!("{stream}> {}", word(&file.to_string())),
        Target::Append { file } => format!("{stream}>> {}", word(&file.to_string())),
        Target::Join {
            stream: Stream::Error,
        } => format!("{stream}>&2"),
        Target::Join { .. } => format!("{stream}>&1"),
    }
}

/// Words as a shell would take them, so that it shows where one ends.
fn words(argv: &[String]) -> String {
    argv.iter()
        .map(|text| word(text))
        .collect::<Vec<_>>()
        .join(" ")
}

fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,+=@%^".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// What looks like something else, in words.
fn lookalikes(action: &Action) -> Vec<String> {
    let mut warnings = Vec::new();
    match action {
        Action::Argv { argv } => argv
            .iter()
            .for_each(|word| warn_of_all(word, &mut warnings)),
        Action::Script { script } => script
            .programs()
            .flat_map(|simple| {
                simple
                    .argv
                    .iter()
                    .cloned()
                    .chain(simple.redirections.iter().map(to))
            })
            .for_each(|word| warn_of_all(&word, &mut warnings)),
        Action::Shell { script } => warn_of_all(script, &mut warnings),
        Action::Tool { call } => match call {
            ToolCall::ReadFile { path, .. } | ToolCall::ListFiles { path, .. } => {
                warn_of_all(path.as_str(), &mut warnings);
            }
            ToolCall::WriteFile { path, content } => {
                warn_of_all(path.as_str(), &mut warnings);
                warn_of_words(content, &mut warnings);
            }
            ToolCall::EditFile { path, new, .. } => {
                warn_of_all(path.as_str(), &mut warnings);
                warn_of_words(new, &mut warnings);
            }
            ToolCall::SearchFiles { text, path } => {
                warn_of_all(path.as_str(), &mut warnings);
                warn_of_words(text, &mut warnings);
            }
            ToolCall::Exec { command } => warn_of_all(command, &mut warnings),
            ToolCall::HttpRequest { url, body, .. } => {
                warn_of_all(url, &mut warnings);
                warn_of_words(body.as_deref().unwrap_or_default(), &mut warnings);
            }
            ToolCall::WebFetch { url } => warn_of_all(url, &mut warnings),
        },
        Action::Fetch { order } => {
            warn_of_all(&order.url, &mut warnings);
            warn_of_words(order.body.as_deref().unwrap_or_default(), &mut warnings);
        }
    }
    warnings.sort();
    warnings.dedup();
    warnings
}

fn warn_of_all(part: &str, warnings: &mut Vec<String>) {
    warn_of_words(part, warnings);
    for c in part.chars().filter(|c| is_disguised_sign(*c)) {
        warnings.push(format!(
            "U+{:04X} ({c}) is not the sign it looks like",
            u32::from(c)
        ));
    }
}

/// Words that mix Latin letters with letters of other alphabets that look like them.
fn warn_of_words(part: &str, warnings: &mut Vec<String>) {
    for word in part.split(|c: char| !c.is_alphanumeric()) {
        let latin = word.chars().any(|c| c.is_ascii_alphabetic());
        let foreign = |c: &char| is_styled_latin(*c) || (latin && is_lookalike_letter(*c));
        if let Some(c) = word.chars().find(foreign) {
            warnings.push(format!(
                "U+{:04X} ({c}) in “{}” is not the letter it looks like",
                u32::from(c),
                text(word)
            ));
        }
    }
}

/// Letters of alphabets that have some in common with Latin, by their looks.
fn is_lookalike_letter(c: char) -> bool {
    matches!(c,
        '\u{250}'..='\u{2af}' | '\u{370}'..='\u{52f}' | '\u{530}'..='\u{58f}' | '\u{13a0}'..='\u{13ff}'
        | '\u{1c80}'..='\u{1c8f}' | '\u{1d00}'..='\u{1dbf}' | '\u{1f00}'..='\u{1fff}' | '\u{2c80}'..='\u{2cff}'
        | '\u{a4d0}'..='\u{a4ff}' | '\u{a640}'..='\u{a69f}' | '\u{ab30}'..='\u{abbf}' | '\u{10280}'..='\u{1031f}')
}

/// Latin letters and digits in another dress.
fn is_styled_latin(c: char) -> bool {
    matches!(c, '\u{2100}'..='\u{218f}' | '\u{2460}'..='\u{24ff}' | '\u{ff10}'..='\u{ff5a}' | '\u{1d400}'..='\u{1d7ff}' | '\u{1f100}'..='\u{1f1ff}')
}

/// Signs that look like the ones that mean something in a path or a command.
fn is_disguised_sign(c: char) -> bool {
    matches!(c,
        '\u{2b9}'..='\u{2bf}' | '\u{37e}' | '\u{589}' | '\u{5c3}' | '\u{2010}'..='\u{201f}' | '\u{2024}'..='\u{2027}'
        | '\u{2032}'..='\u{203a}' | '\u{2044}' | '\u{204f}' | '\u{2212}' | '\u{2215}'..='\u{2217}' | '\u{2223}'
        | '\u{2236}' | '\u{223c}' | '\u{29f8}' | '\u{29f9}' | '\u{fe50}'..='\u{fe6f}' | '\u{ff01}'..='\u{ff0f}'
        | '\u{ff1a}'..='\u{ff20}' | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> String {
        action(&Action::Argv {
            argv: words.iter().map(|word| (*word).to_owned()).collect(),
        })
    }

    #[test]
    fn hidden_characters_have_a_number() {
        assert_eq!(text("a\u{1b}[2Jb"), "a<U+001B>[2Jb");
        assert_eq!(
            text("\u{202e}\u{200b}\u{200b}\u{e0041}"),
            "<U+202E><U+200B><U+200B><U+E0041>"
        );
        assert_eq!(text("a\nb\r\n"), "a<U+000A>\nb<U+000D><U+000A>\n");
        assert_eq!(text("é ж 日 😀"), "é ж 日 😀");
    }

    #[test]
    fn padding_is_counted_and_nothing_is_cut() {
        let padded = format!("ls{}; rm -rf ~{}tail", " ".repeat(5000), "\n".repeat(400));
        assert_eq!(
            text(&padded),
            "ls<U+0020 x 5000>; rm -rf ~<U+000A x 400>\ntail"
        );
        let long = format!("{}THE END", "a".repeat(60_000));
        assert!(action(&Action::Shell { script: long }).ends_with("aTHE END"));
    }

    #[test]
    fn a_text_cannot_pretend_to_be_a_mark() {
        assert_eq!(text("<U+000A>"), "<U+003C>U+000A>");
        assert_ne!(text("<U+000A>\n"), text("\n"));
    }

    #[test]
    fn words_show_where_they_end() {
        assert_eq!(
            argv(&["ls", "-l", "a b", "", "it's"]),
            r"run without a shell: ls -l 'a b' '' 'it'\''s'"
        );
        assert_ne!(argv(&["rm", "a b"]), argv(&["rm", "a", "b"]));
    }

    #[test]
    fn lookalikes_are_named() {
        assert!(argv(&["ls", "p\u{430}ypal"]).contains("WARNING: U+0430"));
        assert!(argv(&["ls", "\u{ff45}tc"]).contains("WARNING: U+FF45"));
        assert!(argv(&["ls", "a\u{2215}b"]).contains("WARNING: U+2215"));
        assert!(!argv(&["ls", "привет", "naïve", "日本語"]).contains("WARNING"));
    }

    #[test]
    fn titles_are_one_line() {
        let call = ToolCall::Exec {
            command: "a\n\u{1b}b".repeat(100),
        };
        let title = title(&call);
        assert!(
            !title.contains(['\n', '\u{1b}']) && title.ends_with("(cut)"),
            "{title}"
        );
    }
}
