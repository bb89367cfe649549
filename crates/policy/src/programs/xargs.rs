//! xargs, where it hands names of files of the workspace to a program that can only read.

use protocol::script::{Place, Redirection, Simple, Target};

use super::options::{self, Args};
use super::table::{self, Class, Grammar, Habit};
use super::{git, is_from_the_system};

/// The program that is started, and the words that it gets before the names.
pub(super) struct Started<'a> {
    pub(super) name: &'a str,
    pub(super) words: &'a [String],
    pub(super) grammar: &'static Grammar,
}

/// What `xargs` starts with these arguments, if it is certain what that is and that none of its
/// options does harm: a name can look like an option.
pub(super) fn started(args: &[String]) -> Option<Started<'_>> {
    let (program, words) = behind_options(args)?;
    let name = program.rsplit('/').next()?;
    match table::find(name) {
        Some(Class::Inspect(grammar))
            if grammar.has(Habit::Handed) && is_from_the_system(program, name) =>
        {
            Some(Started {
                name,
                words,
                grammar,
            })
        }
        _ => None,
    }
}

/// The program and its words. GNU xargs 4.9: its own options end before the program.
fn behind_options(mut args: &[String]) -> Option<(&String, &[String])> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    loop {
        let (word, rest) = args.split_first()?;
        args = match (word.as_str(), rest) {
            ("-0" | "-r" | "-0r" | "-r0" | "-x" | "--null" | "--no-run-if-empty", _) => rest,
            ("-n" | "-L" | "-P", [count, rest @ ..]) if number(count) => rest,
            ("-d", [mark, rest @ ..]) if mark == "\\n" => rest,
            // In the program's name the mark would be replaced as well.
            ("-I", [mark, rest @ ..]) if mark == "{}" || mark == "%" => rest,
            ("-I{}" | "-I%", _) => rest,
            (option, _) => match option.get(..2) {
                Some("-n" | "-L" | "-P") if number(&option[2..]) => rest,
                _ if option.starts_with('-') => return None,
                _ => return Some((word, rest)),
            },
        };
    }
}

/// Whether what comes out of these programs is names of files of the workspace. Nothing is: then
/// the names are none.
pub(super) fn yields_names(pipeline: &[Simple], workspace: &str) -> bool {
    match pipeline.split_first() {
        None => true,
        Some((first, filters)) => {
            let quiet = first.redirections.iter().all(goes_nowhere);
            // A filter that comes first has nothing to let through.
            let begins = quiet && is_source(first, workspace) || is_filter(first);
            begins && filters.iter().all(is_filter)
        }
    }
}

/// What a program complains about is no name.
fn goes_nowhere(redirection: &Redirection) -> bool {
    matches!(
        redirection.to,
        Target::Write {
            file: Place::Nowhere {}
        }
    )
}

fn is_source(simple: &Simple, workspace: &str) -> bool {
    let words = || simple.argv.iter().skip(1).map(String::as_str);
    let first_letters = |known: &str| {
        words()
            .map_while(|word| {
                let letters = word.strip_prefix('-')?;
                let usual = !letters.is_empty() && letters.chars().all(|c| known.contains(c));
                usual.then_some(letters)
            })
            .any(|letters| letters.contains('l'))
    };
    let long = |known: &[&str]| {
        let mut long = words().filter(|word| word.starts_with("--") && word.len() > 2);
        long.all(|word| known.iter().any(|known| word.starts_with(known)))
    };
    match simple.argv.first().map(String::as_str) {
        // What else it prints may be any text.
        Some("find") => !words().any(|word| word == "-printf" || word == "-ls"),
        Some("grep" | "egrep" | "fgrep") => {
            first_letters("rRilEFwxsIP") && long(&["--include=", "--exclude=", "--exclude-dir="])
        }
        Some("rg") => {
            let lists = words().next() == Some("--files") || first_letters("ilwFSs");
            lists && long(&["--files", "--glob="])
        }
        Some("git") => {
            let args = &simple.argv[1..];
            let plain = match args.first().map(String::as_str) {
                Some("ls-files") => !words().any(|word| word.starts_with('-') && word != "--"),
                Some("diff") => {
                    words().any(|word| word == "--name-only")
                        && words().all(|word| {
                            !word.starts_with('-')
                                || ["--name-only", "--cached", "--staged", "--"].contains(&word)
                        })
                }
                _ => false,
            };
            plain && simple.patterns.is_empty() && git::look(args, workspace).is_some()
        }
        _ => false,
    }
}

/// Whether it lets some of the lines through and adds nothing.
fn is_filter(simple: &Simple) -> bool {
    let Some((name, args)) = simple.argv.split_first() else {
        return false;
    };
    let known = match name.as_str() {
        "grep" | "egrep" | "fgrep" => "vieEFwx",
        "head" | "tail" => "nqz0123456789",
        "sort" => "urnVz",
        "uniq" => "uiz",
        _ => return false,
    };
    let options = args.iter().filter(|word| word.starts_with('-'));
    let usual = options.clone().all(|word| {
        let letters = &word[1..];
        !letters.is_empty()
            && letters
                .chars()
                .all(|c| known.contains(c) || c.is_ascii_digit())
    });
    match table::find(name) {
        Some(Class::Inspect(grammar)) => {
            let found = options::read(grammar, &Args::plain(args));
            usual && found.paths.is_empty() && simple.redirections.is_empty()
        }
        _ => false,
    }
}
