//! Our own reader: words without anything in them that a shell would expand, and what stands
//! between them. POSIX.1-2024, 2.2 Quoting, 2.3 Token Recognition, 2.10 Shell Grammar.

use std::iter::Peekable;
use std::str::Chars;

use protocol::call::{WORKSPACE, WorkspacePath};
use protocol::script::{Place, Redirection, Script, Simple, Step, Stream, Target, When};
use tools::text::is_hidden;

use super::MAX_LENGTH;

/// Signs that are nothing but themselves outside quotes. Letters, digits and characters
/// beyond ASCII that show are, too.
const PLAIN: &str = "_-./:,+=@%^";

/// Signs of a pattern for names of files.
const PATTERN: &str = "*?[]";

/// What a command does, or why that cannot be said.
pub(super) fn read(command: &str, workspace: &str) -> Result<Script, String> {
    if command.len() > MAX_LENGTH {
        return Err("it is very long".to_owned());
    }
    let mut tokens = tokens(command)?.into_iter().peekable();
    lines(&mut tokens);
    let mut steps = Vec::new();
    let mut when = When::Always;
    loop {
        let pipeline = pipeline(&mut tokens, workspace)?;
        steps.push(Step { when, pipeline });
        when = match tokens.next() {
            None => break,
            Some(Token::Then | Token::Line) => {
                lines(&mut tokens);
                if tokens.peek().is_none() {
                    break;
                }
                When::Always
            }
            Some(Token::And) => When::Succeeded,
            Some(Token::Or) => When::Failed,
            Some(Token::Word(_) | Token::Pipe | Token::Redirect { .. } | Token::Join { .. }) => {
                return Err(odd());
            }
        };
        lines(&mut tokens);
    }
    Ok(Script { steps })
}

/// A piece of a command that is one word, without its quotes.
pub(super) fn one_word(piece: &str) -> Result<Word, String> {
    match tokens(piece)?.as_slice() {
        [Token::Word(word)] => Ok(word.clone()),
        _ => Err("a word is more than a word".to_owned()),
    }
}

/// The file that a redirection may name.
pub(super) fn place(path: &str, workspace: &str) -> Result<Place, String> {
    let elsewhere = || "a redirection to or from a place outside the workspace".to_owned();
    if path == "/dev/null" {
        return Ok(Place::Nowhere {});
    }
    if let Some(below) = path.strip_prefix("/tmp/")
        && !path.starts_with(&format!("{}/", workspace.trim_end_matches('/')))
        && !path.starts_with(&format!("{WORKSPACE}/"))
    {
        // Without its slashes it is relative, whatever it begins with.
        let path = WorkspacePath::parse(below.trim_start_matches('/')).map_err(|_| elsewhere())?;
        return match path.as_str() {
            "." => Err(elsewhere()),
            _ => Ok(Place::Temporary { path }),
        };
    }
    let path = WorkspacePath::parse_below(path, workspace).map_err(|_| elsewhere())?;
    match path.as_str() {
        "." => Err("a redirection to or from a folder".to_owned()),
        _ => Ok(Place::Workspace { path }),
    }
}

type Tokens = Peekable<std::vec::IntoIter<Token>>;

fn lines(tokens: &mut Tokens) {
    while tokens.next_if_eq(&Token::Line).is_some() {}
}

fn odd() -> String {
    "its operators stand where none belong".to_owned()
}

fn pipeline(tokens: &mut Tokens, workspace: &str) -> Result<Vec<Simple>, String> {
    let mut pipeline = vec![simple(tokens, workspace)?];
    while tokens.next_if_eq(&Token::Pipe).is_some() {
        lines(tokens);
        pipeline.push(simple(tokens, workspace)?);
    }
    Ok(pipeline)
}

fn simple(tokens: &mut Tokens, workspace: &str) -> Result<Simple, String> {
    let mut simple = Simple::plain(Vec::new());
    loop {
        match tokens.next_if(|token| !token.ends_a_program()) {
            Some(Token::Word(word)) => add(&mut simple, word)?,
            Some(Token::Redirect { streams, way }) => {
                let Some(Token::Word(Word::Text(path))) = tokens.next() else {
                    return Err("a redirection that is not to or from one file".to_owned());
                };
                redirect(
                    &mut simple.redirections,
                    streams,
                    way,
                    place(&path, workspace)?,
                );
            }
            Some(Token::Join { stream, to }) => simple.redirections.push(Redirection {
                stream,
                to: Target::Join { stream: to },
            }),
            Some(Token::Pipe | Token::And | Token::Or | Token::Then | Token::Line) | None => break,
        }
    }
    match simple.argv.is_empty() {
        true if simple.redirections.is_empty() => Err(odd()),
        true => Err("a redirection without a program".to_owned()),
        false => Ok(simple),
    }
}

/// Adds a word to a program.
pub(super) fn add(simple: &mut Simple, word: Word) -> Result<(), String> {
    let text = match word {
        Word::Text(text) => text,
        // An option is what it says. A shell would say the same, unless a file has such a name.
        Word::Pattern(option) if option.starts_with('-') => option,
        Word::Pattern(pattern) => {
            // What it stands for is a name below a folder that can be told.
            let leads_up = pattern.split('/').any(|part| part == "..");
            let (Ok(at @ 1..), false) = (u32::try_from(simple.argv.len()), leads_up) else {
                return Err("it holds an odd pattern for file names".to_owned());
            };
            simple.patterns.push(at);
            pattern
        }
    };
    simple.argv.push(text);
    Ok(())
}

fn redirect(all: &mut Vec<Redirection>, streams: Streams, way: Way, file: Place) {
    let to = match way {
        Way::Read => Target::Read { file },
        Way::Write => Target::Write { file },
        Way::Append => Target::Append { file },
    };
    let (stream, error) = match streams {
        Streams::One(stream) => (stream, None),
        Streams::Both => (Stream::Output, Some(Stream::Error)),
    };
    all.push(Redirection { stream, to });
    all.extend(error.map(|stream| Redirection {
        stream,
        to: Target::Join {
            stream: Stream::Output,
        },
    }));
}

/// What a text is made of. `2>` is one sign, `2 >` a word and a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(Word),
    Pipe,
    And,
    Or,
    Then,
    Line,
    Redirect { streams: Streams, way: Way },
    Join { stream: Stream, to: Stream },
}

/// A word without its quotes, or one that stands for names of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Text(String),
    Pattern(String),
}

impl Token {
    fn ends_a_program(&self) -> bool {
        match self {
            Self::Pipe | Self::And | Self::Or | Self::Then | Self::Line => true,
            Self::Word(_) | Self::Redirect { .. } | Self::Join { .. } => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streams {
    One(Stream),
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Read,
    Write,
    Append,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.peek().copied() {
        tokens.push(match c {
            ' ' | '\t' => {
                chars.next();
                continue;
            }
            '|' | '&' | ';' | '\n' => operator(&mut chars)?,
            '<' | '>' => redirection(&mut chars, None)?,
            _ => {
                let (word, bare) = word(&mut chars)?;
                match (chars.peek(), &word) {
                    (Some('<' | '>'), Word::Text(text))
                        if bare && text.bytes().all(|b| b.is_ascii_digit()) =>
                    {
                        redirection(&mut chars, Some(text))?
                    }
                    _ => Token::Word(word),
                }
            }
        });
    }
    Ok(tokens)
}

fn operator(chars: &mut Peekable<Chars<'_>>) -> Result<Token, String> {
    let first = chars.next().unwrap_or_default();
    Ok(match (first, chars.peek()) {
        ('|', Some('|')) => doubled(chars, Token::Or),
        ('|', Some('&')) => return Err("it holds a pipe of both outputs (|&)".to_owned()),
        ('|', _) => Token::Pipe,
        ('&', Some('&')) => doubled(chars, Token::And),
        ('&', Some('>')) => {
            chars.next();
            let way = match chars.next_if_eq(&'>') {
                Some(_) => Way::Append,
                None => Way::Write,
            };
            let streams = Streams::Both;
            file_follows(chars, Token::Redirect { streams, way })?
        }
        ('&', _) => return Err("it holds a background job (&)".to_owned()),
        (';', Some(';')) => return Err(odd()),
        (';', _) => Token::Then,
        _ => Token::Line,
    })
}

fn doubled(chars: &mut Peekable<Chars<'_>>, token: Token) -> Token {
    chars.next();
    token
}

/// `<`, `>`, `>>`, `>&1`, `>&2`, with or without a descriptor in front.
fn redirection(chars: &mut Peekable<Chars<'_>>, number: Option<&str>) -> Result<Token, String> {
    let sign = chars.next().unwrap_or_default();
    let stream = match (number, sign) {
        (None | Some("0"), '<') => Stream::Input,
        (None | Some("1"), '>') => Stream::Output,
        (Some("2"), '>') => Stream::Error,
        _ => return Err("it redirects another descriptor than the usual".to_owned()),
    };
    let streams = Streams::One(stream);
    let way = match sign {
        '<' => Way::Read,
        _ if chars.next_if_eq(&'>').is_some() => Way::Append,
        _ if chars.next_if_eq(&'&').is_some() => return join(chars, stream),
        _ => Way::Write,
    };
    file_follows(chars, Token::Redirect { streams, way })
}

fn join(chars: &mut Peekable<Chars<'_>>, stream: Stream) -> Result<Token, String> {
    let to = match chars.next() {
        Some('1') => Stream::Output,
        Some('2') => Stream::Error,
        _ => return Err("it copies another descriptor than the usual".to_owned()),
    };
    match chars.peek() {
        None | Some(' ' | '\t' | '\n' | ';' | '|') => Ok(Token::Join { stream, to }),
        Some('&') => Ok(Token::Join { stream, to }),
        Some(_) => Err("it copies another descriptor than the usual".to_owned()),
    }
}

/// Behind the sign of a redirection stands a word, not another sign: here documents, here
/// strings, `>|`, `<>`, `<&`, process substitutions are not known here.
fn file_follows(chars: &mut Peekable<Chars<'_>>, token: Token) -> Result<Token, String> {
    while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
    match chars.peek() {
        None | Some('<' | '>' | '|' | '&' | ';' | '(' | '\n') => {
            Err("it holds a redirection that is not to or from a plain file".to_owned())
        }
        Some(_) => Ok(token),
    }
}

/// A word, and whether it had no quotes.
fn word(chars: &mut Peekable<Chars<'_>>) -> Result<(Word, bool), String> {
    let mut word = String::new();
    let mut bare = true;
    let mut pattern = None;
    while let Some(c) = chars.next_if(|c| !" \t\n|&;<>".contains(*c)) {
        bare &= !matches!(c, '\'' | '"' | '\\');
        match c {
            '\'' => single_quoted(chars, &mut word)?,
            '"' => double_quoted(chars, &mut word)?,
            '\\' => word.push(escaped(chars.next().ok_or("it ends with a backslash")?)?),
            c if c.is_ascii_alphanumeric() || PLAIN.contains(c) => word.push(c),
            '~' if bare && is_within(&word) => word.push(c),
            c if PATTERN.contains(c) => {
                pattern = Some(c);
                word.push(c);
            }
            c if !c.is_ascii() => word.push(shown(c)?),
            c => return Err(special(c)),
        }
    }
    match pattern {
        None => Ok((Word::Text(word), bare)),
        // Alone it is the name of a program, or the word that ends its arguments.
        Some(_) if bare && (word == "[" || word == "]") => Ok((Word::Text(word), bare)),
        Some(_) if bare => Ok((Word::Pattern(word), bare)),
        // Which of its signs are quoted would have to be told, too.
        Some(c) => Err(special(c)),
    }
}

/// Whether a tilde behind this is a sign like others: shells look for one where a word begins, and
/// behind `=` and `:` of what could be an assignment.
fn is_within(word: &str) -> bool {
    word.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '^' || c == '~')
        && !word.contains(['=', ':'])
}

/// What stands behind a backslash. Before a letter or a digit a backslash means nothing, so
/// that whoever wrote it had something else in mind than what would run.
fn escaped(c: char) -> Result<char, String> {
    match c.is_alphanumeric() {
        true => Err("it holds a backslash that means nothing".to_owned()),
        false => shown(c),
    }
}

fn single_quoted(chars: &mut Peekable<Chars<'_>>, word: &mut String) -> Result<(), String> {
    loop {
        match chars.next().ok_or("a single quote has no end")? {
            '\'' => return Ok(()),
            c => word.push(shown(c)?),
        }
    }
}

fn double_quoted(chars: &mut Peekable<Chars<'_>>, word: &mut String) -> Result<(), String> {
    let end = "a double quote has no end";
    loop {
        match chars.next().ok_or(end)? {
            '"' => return Ok(()),
            '\\' => match chars.next().ok_or(end)? {
                c @ ('"' | '\\' | '$' | '`') => word.push(c),
                c => {
                    word.push('\\');
                    word.push(shown(c)?);
                }
            },
            c @ ('$' | '`') => return Err(special(c)),
            c => word.push(shown(c)?),
        }
    }
}

/// The character, if it shows.
fn shown(c: char) -> Result<char, String> {
    match is_hidden(c) {
        true => Err(special(c)),
        false => Ok(c),
    }
}

/// What a shell would make of a character, in words.
fn special(c: char) -> String {
    let what = match c {
        '|' => "a pipe (|)",
        ';' => "several commands (;)",
        '&' => "a background job or several commands (&)",
        '<' | '>' => "a redirection",
        '$' => "an expansion ($)",
        '`' => "a command substitution (`)",
        '(' | ')' => "a subshell or function",
        '*' | '?' | '[' | ']' => "a pattern for file names",
        '{' | '}' => "a brace expansion or group",
        '~' => "a home directory (~)",
        '#' => "a comment (#)",
        '!' => "a negation or history (!)",
        '\n' => "several lines",
        c => return format!("it holds U+{:04X}, which does not show", u32::from(c)),
    };
    format!("it holds {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Result<Vec<String>, String> {
        let script = read(command, WORKSPACE)?;
        script
            .single()
            .map(<[_]>::to_vec)
            .ok_or_else(|| "more than words".to_owned())
    }

    #[test]
    fn words_are_what_a_shell_makes_of_them() {
        for (command, expected) in [
            ("ls -la", vec!["ls", "-la"]),
            ("  ls\t a  \n", vec!["ls", "a"]),
            (
                "grep 'a b' \"c d\" e\\ f",
                vec!["grep", "a b", "c d", "e f"],
            ),
            (
                r#"x '' "" '\' "\\\"\$\`\a""#,
                vec!["x", "", "", "\\", "\\\"$`\\a"],
            ),
            ("a'b'\"c\"d", vec!["abcd"]),
            (
                "x '$HOME;|&<>(){}*?[]~#!'",
                vec!["x", "$HOME;|&<>(){}*?[]~#!"],
            ),
            (
                r"find . \( -name \*.rs \)",
                vec!["find", ".", "(", "-name", "*.rs", ")"],
            ),
            ("ls é/日本", vec!["ls", "é/日本"]),
            ("\n ls -* a\\ \n", vec!["ls", "-*", "a "]),
            ("git diff HEAD~2 a~", vec!["git", "diff", "HEAD~2", "a~"]),
        ] {
            assert_eq!(words(command).unwrap(), expected, "{command}");
        }
    }

    #[test]
    fn a_redirection_names_one_file_whatever_the_name_begins_with() {
        assert!(read("ls > -a", WORKSPACE).is_ok());
        for command in ["ls > -*", "ls < -?", "ls &> -[a]", "ls 2>> *"] {
            assert!(read(command, WORKSPACE).is_err(), "{command:?}");
        }
    }

    #[test]
    fn all_that_a_shell_could_expand_is_refused() {
        for c in
            "|;&<>$`()*?[]{}#!\r\n\0\u{1b}\u{7f}\u{a0}\u{200b}\u{202e}\u{feff}\u{e0041}".chars()
        {
            assert!(words(&format!("ls a{c}b")).is_err(), "{c:?}");
        }
        for command in [
            "ls ~b",
            "ls ~",
            "ls ''~b",
            "ls a=~b",
            "ls a:~b",
            "ls ./~b",
            "ls \"$x\"",
            "ls \"`x`\"",
            "ls 'a",
            "ls \"a",
            "ls a\\",
            "ls \"a\\",
            "ls 'a\nb'",
            "ls a\\\nb",
            "ls \"a\\\nb\"",
            "ls 'a\tb'",
            "ls \"\u{202e}\"",
            "ls \\\u{200b}",
        ] {
            assert!(words(command).is_err(), "{command:?}");
        }
    }
}
