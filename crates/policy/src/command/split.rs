//! Words of one simple command without anything in it that a shell would expand.

use tools::text::is_hidden;

/// Signs that are nothing but themselves outside quotes. Letters, digits and characters
/// beyond ASCII that show are, too.
const PLAIN: &str = "_-./:,+=@%^";

/// The words of a command, or why it is not just words. POSIX.1-2024, 2.2 Quoting.
pub(super) fn words(command: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    // White space around a command means nothing, a newline at its end included.
    let mut chars = command.trim_matches([' ', '\t', '\n']).chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => single_quoted(&mut chars, word.get_or_insert_default())?,
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => {
                let next = chars.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(shown(next)?);
            }
            c if c.is_ascii_alphanumeric() || PLAIN.contains(c) => {
                word.get_or_insert_default().push(c)
            }
            c if !c.is_ascii() => word.get_or_insert_default().push(shown(c)?),
            c => return Err(special(c)),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    loop {
        match chars.next().ok_or("a single quote has no end")? {
            '\'' => return Ok(()),
            c => word.push(shown(c)?),
        }
    }
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
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
        ] {
            assert_eq!(words(command).unwrap(), expected, "{command}");
        }
    }

    #[test]
    fn all_that_a_shell_could_expand_is_refused() {
        for c in
            "|;&<>$`()*?[]{}~#!\r\n\0\u{1b}\u{7f}\u{a0}\u{200b}\u{202e}\u{feff}\u{e0041}".chars()
        {
            assert!(words(&format!("ls a{c}b")).is_err(), "{c:?}");
        }
        for command in [
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
