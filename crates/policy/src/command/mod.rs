//! Reading a command as the machine will take it.
//!
//! Two readers look at it: one of our own, which knows little and refuses the rest
//! ([`plain`]), and a grammar of the shell ([`grammar`]). Understood is only what both read
//! alike: words that say literally what they are, pipes, `&&`, `||`, `;`, lines, and
//! redirections of the standard streams. It is run by what was read, without a shell, so
//! that there is no third reading that could differ. Whatever else a shell could make of a
//! text, this makes nothing of it: the whole is opaque.

mod folder;
mod grammar;
mod plain;

use protocol::script::Script;

/// The longest command that is looked at, in bytes. The time that the grammar takes grows with the
/// square of what stands in quotes there: 30 ms for this much, seconds for what a call can hold.
const MAX_LENGTH: usize = 4 * 1024;

/// The most words.
const MAX_WORDS: usize = 1024;

/// The most programs in one command.
const MAX_PROGRAMS: usize = 50;

/// What a command is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Analysis {
    /// Programs with their arguments, to be run exactly so.
    Understood(Script),
    /// Something else, which only a shell can make sense of.
    Opaque {
        /// What was not understood, for the person who is asked.
        why: String,
    },
}

/// Reads a command. `workspace` is where the workspace is on the host.
pub fn analyse(command: &str, workspace: &str) -> Analysis {
    let understood = plain::read(command, workspace).and_then(|script| {
        limits(&script)?;
        // What gets here holds no brackets, expansions or reserved words, so that the grammar
        // has nothing to nest: its stack and its time are bounded by the length.
        match grammar::read(command, workspace)? == script {
            true => {
                let mut script = script;
                folder::settle(&mut script, workspace)?;
                Ok(script)
            }
            false => Err("two readers of the shell's language do not agree about it".to_owned()),
        }
    });
    match understood {
        Ok(script) => Analysis::Understood(script),
        Err(why) => Analysis::Opaque {
            why: format!("the command is not understood: {why}"),
        },
    }
}

fn limits(script: &Script) -> Result<(), String> {
    let words = |simple: &protocol::script::Simple| simple.argv.len() + simple.redirections.len();
    if script.programs().count() > MAX_PROGRAMS {
        return Err(format!("it has more than {MAX_PROGRAMS} parts"));
    }
    if script.programs().map(words).sum::<usize>() > MAX_WORDS {
        return Err("it has very many words".to_owned());
    }
    let mut programs = script.steps.iter().flat_map(|step| match step.folder() {
        Some(_) => &[],
        None => step.pipeline.as_slice(),
    });
    match programs.find_map(|simple| no_program(simple.argv.first()?)) {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

/// Why a word in the place of a program is none.
fn no_program(first: &str) -> Option<String> {
    match first {
        "" => Some("a program has no name".to_owned()),
        first if first.contains('=') => Some("it holds an assignment".to_owned()),
        first if SHELL_WORDS.contains(&first) => Some(format!("{first} is a word of the shell")),
        _ => None,
    }
}

/// Words that mean something to a shell where a program's name stands: reserved words, and
/// builtins that are no programs or work on the shell itself (POSIX, dash, bash).
const SHELL_WORDS: [&str; 81] = [
    "!",
    ".",
    ":",
    "[[",
    "]]",
    "alias",
    "autoload",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cd",
    "chdir",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "fc",
    "fg",
    "fi",
    "for",
    "foreach",
    "function",
    "getopts",
    "hash",
    "history",
    "if",
    "in",
    "jobs",
    "let",
    "local",
    "logout",
    "mapfile",
    "newgrp",
    "noglob",
    "popd",
    "pushd",
    "read",
    "readarray",
    "readonly",
    "repeat",
    "return",
    "select",
    "set",
    "setopt",
    "shift",
    "shopt",
    "source",
    "suspend",
    "then",
    "time",
    "times",
    "trap",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "while",
    "{",
    "}",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_one_of_the_readers_understands_is_not_understood() {
        // For a shell `;&` is one sign, which stands only in `case`; `]a` is one word.
        for command in ["ls ;&>out cat", "ls ]a", "ls | cat ]]b"] {
            let plain = plain::read(command, "/workspace");
            assert!(plain.is_ok(), "{command}");
            assert_ne!(grammar::read(command, "/workspace"), plain, "{command}");
            let opaque = matches!(analyse(command, "/workspace"), Analysis::Opaque { .. });
            assert!(opaque, "{command}");
        }
        for command in ["ls {a}", "ls a#b", "ls \\\n-l", "ls a\\bc", "ls >& out"] {
            assert!(plain::read(command, "/workspace").is_err(), "{command}");
            let opaque = matches!(analyse(command, "/workspace"), Analysis::Opaque { .. });
            assert!(opaque, "{command}");
        }
    }
}
