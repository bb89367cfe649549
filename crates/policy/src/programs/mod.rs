//! What is known about programs, and the judgement of one that is run by its words.
//!
//! The table is `programs.txt`. A program is allowed without asking only by an entry there
//! that lists every one of its options; what is not in the table is an ordinary program.

mod archives;
mod git;
mod options;
mod script;
mod table;
mod xargs;

use std::sync::LazyLock;

use protocol::call::{WORKSPACE, WorkspacePath};
use protocol::ids::Digest;
use protocol::script::{Redirection, Simple, Stream};

use crate::judge::Effects;
use crate::rules::Kind;
use options::{Args, Arguments};
use table::{Class, Grammar, Habit, Operands};

/// Counts the changes of what is found out about a call beside the table.
const RULES: u32 = 6;

/// How calls are understood: that number and the SHA-256 of the table.
pub(crate) fn version() -> &'static str {
    static VERSION: LazyLock<String> =
        LazyLock::new(|| format!("analysis {RULES}, programs {}", Digest::of(table::SOURCE)));
    &VERSION
}

/// What a program with its arguments is.
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) reason: String,
    pub(crate) effects: Effects,
}

/// What the standard input of a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Empty, or a file.
    Nothing,
    /// The output of another program.
    Pipe,
}

/// Judges a program by its words; the first is its name or path. Patterns are for programs that
/// only read: what others would do depends on names that nobody has seen yet.
pub(crate) fn judge(simple: &Simple, input: Input, workspace: &str) -> Finding {
    let finding = by_words(simple, input, workspace);
    match finding.kind {
        Kind::Ordinary
        | Kind::UnknownOption
        | Kind::PathOutside
        | Kind::OddPath
        | Kind::OddPipe
            if !simple.patterns.is_empty() =>
        {
            Finding {
                kind: Kind::Pattern,
                reason: format!(
                    "{}, and for which files its pattern stands is not known before it runs",
                    finding.reason
                ),
                ..finding
            }
        }
        _ => finding,
    }
}

/// Judges `xargs` behind the programs that give it names; none if nothing is certain about it.
pub(crate) fn handed(before: &[Simple], simple: &Simple, workspace: &str) -> Option<Finding> {
    let (path, args) = simple.argv.split_first()?;
    let from_file = |redirection: &Redirection| redirection.stream == Stream::Input;
    if !is_from_the_system(path, "xargs")
        || !simple.patterns.is_empty()
        || simple.redirections.iter().any(from_file)
    {
        return None;
    }
    let started = xargs::started(args)?;
    let effects = Effects {
        programs: vec![path.clone(), started.name.to_owned()],
        ..Effects::default()
    };
    let words = Args::plain(started.words);
    let finding = inspection(started.grammar, started.name, &words, workspace, effects);
    let names = xargs::yields_names(before, workspace);
    (names && finding.kind == Kind::Inspection).then_some(finding)
}

/// Whether what is known of a program says that it may be one of several commands.
pub(crate) fn is_fit_for_a_list(name: &str) -> bool {
    match table::find(name) {
        Some(Class::Inspect(grammar)) => !grammar.has(Habit::Alone),
        Some(Class::Guarded(_)) => matches!(name, "git" | "tar" | "unzip"),
        Some(Class::Interpreter | Class::Always { .. }) => name == "xargs",
        None => false,
    }
}

fn by_words(simple: &Simple, input: Input, workspace: &str) -> Finding {
    let (path, args) = simple
        .argv
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let name = path.rsplit('/').next().unwrap_or(path);
    let program = Program {
        name,
        effects: Effects {
            programs: vec![path.to_owned()],
            // What an ordinary program does is bounded by the box, where only the workspace stays.
            reads: vec![WORKSPACE.into()],
            writes: vec![WORKSPACE.into()],
            hosts: hosts(args),
            requests: Vec::new(),
            opaque: false,
        },
    };
    if is_from_the_system(path, name) && simple.patterns.is_empty() && input == Input::Nothing {
        if name == "git"
            && let Some(look) = git::look(args, workspace)
        {
            return looking(name, reads(&look.grammar.operands, &look.paths), program);
        }
        if let Some(archive) = archives::listed(name, args, workspace) {
            return looking(name, vec![archive.to_owned()], program);
        }
    }
    let usual = |b: u8| b.is_ascii_alphanumeric() || b"_-.+@%,:".contains(&b);
    if name != "[" && !name.bytes().all(usual) || name.starts_with('-') {
        let reason = format!("{name:?} is an odd name for a program");
        return program.is(Kind::OddName, reason);
    }
    match class(name) {
        Some((Class::Inspect(grammar), Name::Exact)) if is_from_the_system(path, name) => {
            let args = Args {
                words: args,
                // They are counted with the program, and it is none.
                patterns: (simple.patterns.iter())
                    .filter_map(|at| (*at as usize).checked_sub(1))
                    .collect(),
            };
            heard(
                grammar,
                name,
                input,
                inspection(grammar, name, &args, workspace, program.effects),
            )
        }
        Some((Class::Inspect(_), _)) => program.is(
            Kind::Ordinary,
            format!("{path} is not the {name} of the system"),
        ),
        Some((Class::Guarded(grammar), Name::Exact)) => program.guarded(grammar, args),
        Some((Class::Guarded(_), Name::Variant)) => {
            program.is(Kind::HighRisk, format!("{name} can start other programs"))
        }
        Some((Class::Interpreter, _)) if is_version(path, name, args) => program.told(),
        Some((Class::Interpreter, _)) => program.interpreter(args.first()),
        Some((Class::Always { because }, _)) => {
            program.is(Kind::HighRisk, format!("{name} {because}"))
        }
        None => program.ordinary(),
    }
}

/// Whether an interpreter of the system is asked for its version and nothing else.
fn is_version(path: &str, name: &str, args: &[String]) -> bool {
    is_from_the_system(path, name) && matches!(args, [only] if only == "--version")
}

/// A program that may do more than to look.
struct Program<'a> {
    name: &'a str,
    effects: Effects,
}

impl Program<'_> {
    fn is(self, kind: Kind, reason: String) -> Finding {
        Finding {
            kind,
            reason,
            effects: self.effects,
        }
    }

    /// It tells its version and reads nothing.
    fn told(self) -> Finding {
        Finding {
            kind: Kind::Inspection,
            reason: format!("{} tells its version", self.name),
            effects: Effects {
                programs: self.effects.programs,
                ..Effects::default()
            },
        }
    }

    fn ordinary(self) -> Finding {
        let reason = format!("{} is an ordinary program", self.name);
        self.is(Kind::Ordinary, reason)
    }

    fn guarded(self, grammar: &Grammar, args: &[String]) -> Finding {
        let Some(word) = unguarded(grammar, args) else {
            return self.ordinary();
        };
        let reason = format!(
            "{} can start other programs, and {word:?} is not known to be harmless",
            self.name
        );
        self.is(Kind::HighRisk, reason)
    }

    /// It runs the script that is its first word, or else code that nobody sees.
    fn interpreter(self, first: Option<&String>) -> Finding {
        let name = self.name;
        let how = match first {
            Some(script) if !script.starts_with('-') && !is_device(script) => {
                return self.is(Kind::Ordinary, format!("{name} runs a script"));
            }
            Some(word) => format!("and {word:?} can give it code"),
            None => "which reads code from its input".to_owned(),
        };
        self.is(
            Kind::InterpreterCode,
            format!("{name} is an interpreter, {how}"),
        )
    }
}

/// Nobody pipes anything into a program that does not read it, but to have it run.
fn heard(grammar: &Grammar, name: &str, input: Input, finding: Finding) -> Finding {
    match finding.kind {
        Kind::Inspection if grammar.has(Habit::Deaf) && input == Input::Pipe => Finding {
            kind: Kind::OddPipe,
            reason: format!("{name} does not read what is piped into it"),
            ..finding
        },
        _ => finding,
    }
}

/// How a name was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Exact,
    /// Without a version or an ending: `python3.11`, `mkfs.ext4`.
    Variant,
}

fn class(name: &str) -> Option<(&'static Class, Name)> {
    let versionless = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    let stem = name.split('.').next().unwrap_or(name);
    let stem_versionless = stem.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
    let variants = [versionless, stem, stem_versionless];
    table::find(name)
        .map(|class| (class, Name::Exact))
        .or_else(|| {
            let variant = variants.iter().find_map(|name| table::find(name));
            variant.map(|class| (class, Name::Variant))
        })
}

/// Whether the program is the one that the box takes from the host's system.
pub(crate) fn is_from_the_system(program: &str, name: &str) -> bool {
    program == name
        || ["/bin/", "/usr/bin/", "/usr/local/bin/"]
            .iter()
            .any(|folder| program.strip_prefix(folder) == Some(name))
}

fn inspection(
    grammar: &Grammar,
    name: &str,
    args: &Args<'_>,
    workspace: &str,
    effects: Effects,
) -> Finding {
    let arguments = options::read(grammar, args);
    let changing = Effects {
        hosts: Vec::new(),
        ..effects
    };
    if let Some((kind, reason)) = more_than_looking(grammar, name, &arguments) {
        return Finding {
            kind,
            reason,
            effects: changing,
        };
    }
    let (kind, reason) = where_it_looks(name, &arguments.paths, workspace);
    Finding {
        kind,
        reason,
        effects: Effects {
            reads: reads(&grammar.operands, &arguments.paths),
            writes: Vec::new(),
            ..changing
        },
    }
}

/// An inspection that is one, whatever else is asked.
fn looking(name: &str, reads: Vec<String>, program: Program<'_>) -> Finding {
    Finding {
        kind: Kind::Inspection,
        reason: format!("{name} only reads, inside the workspace"),
        effects: Effects {
            reads,
            programs: program.effects.programs,
            ..Effects::default()
        },
    }
}

/// What an inspection program does beyond reading, if it may.
fn more_than_looking(
    grammar: &Grammar,
    name: &str,
    arguments: &Arguments<'_>,
) -> Option<(Kind, String)> {
    let only_prints: fn(&str) -> bool = match grammar.operands {
        Operands::Sed => script::sed_only_prints,
        Operands::Awk => script::awk_only_prints,
        Operands::Jq => script::jq_only_prints,
        _ => |_| true,
    };
    if let Some(word) = arguments.danger {
        let reason = format!("with {word:?} {name} can execute or write");
        return Some((Kind::HighRisk, reason));
    }
    let mut scripts = arguments.scripts.iter();
    if let Some(script) = scripts.find(|script| !only_prints(script)) {
        let reason = format!("{name} can execute or write by the script {script:?}");
        return Some((Kind::HighRisk, reason));
    }
    arguments.unknown.map(|word| {
        let reason = format!("{word:?} is not known to be harmless for {name}");
        (Kind::UnknownOption, reason)
    })
}

fn where_it_looks(name: &str, paths: &[&str], workspace: &str) -> (Kind, String) {
    if let Some(path) = paths.iter().find(|path| !is_inside(path, workspace)) {
        let reason = format!("{path:?} is outside the workspace");
        return (Kind::PathOutside, reason);
    }
    if let Some(odd) = paths.iter().find_map(|path| odd_path(path)) {
        return odd;
    }
    let reason = format!("{name} only reads, inside the workspace");
    (Kind::Inspection, reason)
}

/// What a guarded program must not be given, if it is.
fn unguarded<'a>(grammar: &Grammar, args: &'a [String]) -> Option<&'a str> {
    let first = args.first().map(String::as_str);
    let found = options::read(grammar, &Args::plain(args));
    let words = args.iter().map(String::as_str);
    let by_kind = match &grammar.operands {
        // Options before the subcommand belong to the program itself.
        Operands::Sub(known) => first.filter(|word| !known.contains(word)),
        Operands::Sources => words
            .clone()
            .find(|word| word.contains(',') || word.contains("plugin")),
        // `host:file` makes tar start a remote shell.
        Operands::Bundle => words.clone().find(|word| word.contains(':')),
        _ => None,
    };
    // What comes from its input nobody sees: rules for make, source for a compiler.
    let unseen = words.clone().find(|word| *word == "-" || is_device(word));
    found.danger.or(by_kind).or(found.unknown).or(unseen)
}

/// Whether a word can name a descriptor of the program itself, such as `/dev/stdin`, also as
/// the value of an option.
fn is_device(word: &str) -> bool {
    let named = ["/dev/", "/proc/"]
        .iter()
        .any(|folder| word.contains(folder));
    let is_inside = !word.starts_with('-') && WorkspacePath::parse(word).is_ok();
    word == "-" || named && !is_inside
}

/// Whether nobody means such a path as one.
pub(crate) fn is_odd_path(path: &str) -> bool {
    path.contains(SHELL_SIGNS)
}

/// What a path is that nobody means as one.
pub(crate) fn odd_path(path: &str) -> Option<(Kind, String)> {
    is_odd_path(path).then(|| {
        let reason = format!("{path:?} is odd for a path: it looks like something for a shell");
        (Kind::OddPath, reason)
    })
}

/// Signs that do not stand in a path that somebody means as one.
const SHELL_SIGNS: [char; 13] = [
    '|', '&', ';', '<', '>', '$', '`', '(', ')', '{', '}', '"', '\'',
];

/// What is read: without a path the folder in which it runs.
fn reads(operands: &Operands, paths: &[&str]) -> Vec<String> {
    match (operands, paths) {
        (Operands::Paths { .. } | Operands::Pattern, []) => vec![".".into()],
        _ => paths
            .iter()
            .filter(|path| **path != "-")
            .map(|path| (*path).to_owned())
            .collect(),
    }
}

/// Whether a path is in the workspace, or nowhere: `/dev/null`, standard input.
pub(crate) fn is_inside(path: &str, workspace: &str) -> bool {
    path == "-" || path == "/dev/null" || WorkspacePath::parse_below(path, workspace).is_ok()
}

/// The hosts of the URLs among the arguments.
fn hosts(args: &[String]) -> Vec<String> {
    let host = |arg: &String| {
        let (_, rest) = arg.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        authority
            .rsplit('@')
            .next()
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
    };
    args.iter().filter_map(host).collect()
}
