//! git, where it only looks at something.
//!
//! The table has an entry for each subcommand that reads, `git/log`, with the options that are
//! allowed there. What git starts by its configuration is bounded by the box, which has no
//! network and whose changes are thrown away for such a call.

use super::options::{self, Args};
use super::table::{self, Class, Grammar};
use super::{is_inside, is_odd_path};

/// What is looked at.
pub(super) struct Look<'a> {
    pub(super) grammar: &'static Grammar,
    pub(super) paths: Vec<&'a str>,
}

/// What git looks at with these arguments; none unless it is certain that it does no more, and
/// stays inside the workspace.
pub(super) fn look<'a>(args: &'a [String], workspace: &str) -> Option<Look<'a>> {
    let (grammar, words) = subcommand(own_options(args, workspace)?)?;
    // The program that checks signatures is one that the configuration names.
    if words
        .iter()
        .any(|word| word.contains("%G") || word.contains("signature"))
    {
        return None;
    }
    let mut behind = words.iter().skip_while(|word| *word != "--").skip(1);
    if behind.any(|word| word.starts_with('-')) {
        return None;
    }
    let found = options::read(grammar, &Args::plain(words));
    let known = found.danger.is_none() && found.unknown.is_none();
    let usual = |path: &&str| is_inside(path, workspace) && !is_odd_path(path);
    (known && found.paths.iter().all(usual)).then_some(Look {
        grammar,
        paths: found.paths,
    })
}

/// What stands behind the options of git itself: a folder inside, no pager, no locks.
fn own_options<'a>(mut args: &'a [String], workspace: &str) -> Option<&'a [String]> {
    loop {
        args = match args {
            [first, rest @ ..] if first == "--no-pager" || first == "--no-optional-locks" => rest,
            [first, folder, rest @ ..] if first == "-C" => {
                let usual = is_inside(folder, workspace) && !is_odd_path(folder);
                (usual && !folder.starts_with('-')).then_some(rest)?
            }
            _ => return Some(args),
        };
    }
}

/// How a subcommand of one or two words is read, and the words behind it.
fn subcommand(args: &[String]) -> Option<(&'static Grammar, &[String])> {
    let (first, rest) = args.split_first()?;
    // `git branch x` makes one, `git branch --list x` shows it.
    let lists = matches!(first.as_str(), "branch" | "tag");
    let second = rest.first().map(|second| match second.as_str() {
        "-l" if lists => "--list",
        second => second,
    });
    let entry = |words: &[&str]| {
        let is_word = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        let name = words
            .iter()
            .fold("git".to_owned(), |name, word| format!("{name}/{word}"));
        match table::find(&name) {
            Some(Class::Inspect(grammar)) if words.iter().all(is_word) => Some(grammar),
            _ => None,
        }
    };
    let both = second.and_then(|second| entry(&[first, second]));
    match both {
        Some(grammar) => Some((grammar, &rest[1..])),
        None => {
            let grammar = entry(&[first])?;
            // A word without a dot may be a verb of newer versions.
            let verb = first == "config" && rest.iter().any(|word| is_verb(word));
            (!verb).then_some((grammar, rest))
        }
    }
}

fn is_verb(word: &str) -> bool {
    !word.starts_with('-') && !word.contains('.')
}
