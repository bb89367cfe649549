//! Reading a command as the machine will take it.
//!
//! Only one kind of command is understood: a single simple command whose words say
//! literally what they are. It is run by its words, without a shell, so that there is no
//! second reading that could differ from this one. Whatever else a shell could make of a
//! text, this makes nothing of it: the whole is opaque.

mod split;

/// The longest command that is looked at, in bytes.
const MAX_LENGTH: usize = 64 * 1024;

/// The most words.
const MAX_WORDS: usize = 4096;

/// What a command is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Analysis {
    /// One program with its arguments, to be run exactly so.
    Understood {
        /// The program's name or path, then its arguments; at least one word, the first not empty.
        argv: Vec<String>,
    },
    /// Something else, which only a shell can make sense of.
    Opaque {
        /// What was not understood, for the person who is asked.
        why: String,
    },
}

/// Reads a command.
pub fn analyse(command: &str) -> Analysis {
    let opaque = |why: &str| Analysis::Opaque {
        why: format!("the command is not understood: {why}"),
    };
    if command.len() > MAX_LENGTH {
        return opaque("it is very long");
    }
    let argv = match split::words(command) {
        Ok(argv) => argv,
        Err(why) => return opaque(&why),
    };
    match argv.first() {
        None => opaque("it has no words"),
        Some(_) if argv.len() > MAX_WORDS => opaque("it has very many words"),
        Some(first) if first.is_empty() => opaque("its program has no name"),
        Some(first) if first.contains('=') => opaque("it begins with an assignment"),
        Some(first) if SHELL_WORDS.contains(&first.as_str()) => {
            opaque(&format!("{first} is a word of the shell"))
        }
        Some(_) => Analysis::Understood { argv },
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
