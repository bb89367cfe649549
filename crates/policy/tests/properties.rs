//! What holds for commands of all kinds, put together from pieces by a generator that makes
//! the same ones on every run.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use bulkhead_policy::command::{Analysis, analyse};
use bulkhead_policy::{Rules, Session, visible};
use protocol::call::{Action, ToolCall, Verdict, WORKSPACE};
use protocol::ids::AgentId;
use protocol::time::Millis;

const NOW: Millis = Millis(1_795_651_200_000);

/// Numbers that look like chance: xorshift64*.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % most
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const PROGRAMS: &[&str] = &[
    "ls",
    "cat a",
    "grep -n x a",
    "sort",
    "wc -l",
    "echo 'a b'",
    "cp a b",
    "cargo build",
    "rm a",
    "sh",
    "python3 x.py",
    "python3",
    "make -f -",
    "find . -name '*.x'",
    "sed -n 1p a",
    "sed -i s/a/b/ a",
    "./run",
    "/bin/ls -l",
    "/tmp/ls",
    "env ls",
    "curl http://h",
    "cat /etc/passwd",
    "cat ../x",
    "ls $x",
    "cat *",
    "wc -l src/*.rs",
    "cp *.x y",
    "grep * a",
    "'' a",
    "A=1 ls",
    "cd x",
    "cd ..",
    "cd /workspace/src",
    "xargs rm",
    "xargs cat",
    "find . -type f",
    "git log",
    "git status -s",
    "git branch x",
    "git push",
    "pwd",
    "sleep 1",
    "head -n 3 \"a\\\"b\"",
    "tr a-z A-Z",
    "ls -Q '$(id)'",
];
const REDIRECTIONS: &[&str] = &[
    "> out",
    ">> out",
    "< a",
    "2> /dev/null",
    "2>&1",
    ">&2",
    "&> out",
    "&>> x/out",
    "> .git/config",
    "> /etc/x",
    "< /etc/shadow",
    "> /tmp/x",
    "> 'a b'",
    "2>>err",
    ">out",
    "3> x",
    "> ../x",
    ">&-",
    "<<< a",
    "> $x",
];
const BETWEEN: &[&str] = &[
    "; ", " && ", " || ", " | ", "\n", ";", "&&", "||", "|", " & ",
];

fn verdict(command: &str) -> Verdict {
    let call = ToolCall::Exec {
        command: command.to_owned(),
    };
    let session = Session {
        principal: &"owner".parse().unwrap(),
        channel: &"web".parse().unwrap(),
        agent: &AgentId::main(),
        labels: &[],
    };
    Rules::shipped()
        .judge(&call, WORKSPACE, &session, NOW)
        .verdict
}

fn simple(numbers: &mut Numbers) -> String {
    let mut simple = numbers.one(PROGRAMS).to_owned();
    for _ in 0..numbers.below(3) {
        simple.push(' ');
        simple.push_str(numbers.one(REDIRECTIONS));
    }
    simple
}

#[test]
fn a_command_of_several_parts_is_at_least_as_strict_as_each_of_them() {
    let mut numbers = Numbers(0x5eed_0001);
    for _ in 0..20_000 {
        let mut whole = simple(&mut numbers);
        let mut strictest = verdict(&whole);
        for _ in 0..=numbers.below(4) {
            let part = simple(&mut numbers);
            strictest = strictest.max(verdict(&part));
            whole = format!("{whole}{}{part}", numbers.one(BETWEEN));
            assert!(verdict(&whole) >= strictest, "{whole:?}");
        }
    }
}

#[test]
fn a_redirection_never_lowers_a_verdict() {
    for program in PROGRAMS {
        for redirection in REDIRECTIONS {
            let both = format!("{program} {redirection}");
            assert!(verdict(&both) >= verdict(program), "{both}");
        }
    }
}

#[test]
fn what_is_shown_of_a_script_is_read_as_the_same_script_again() {
    let mut numbers = Numbers(0x5eed_0002);
    let mut scripts = 0;
    for _ in 0..20_000 {
        let mut command = simple(&mut numbers);
        for _ in 0..numbers.below(4) {
            command.push_str(numbers.one(BETWEEN));
            command.push_str(&simple(&mut numbers));
        }
        if let Analysis::Understood(script) = analyse(&command, WORKSPACE) {
            let action = Action::Script {
                script: script.clone(),
            };
            let shown = visible::action(&action);
            let shown = shown.strip_prefix("run without a shell: ").unwrap();
            assert_eq!(
                analyse(shown, WORKSPACE),
                Analysis::Understood(script),
                "{command:?}"
            );
            scripts += 1;
        }
    }
    assert!(scripts > 1000, "{scripts}");
}

#[test]
fn no_sequence_of_signs_brings_the_readers_down_or_is_allowed_with_a_sign_that_expands() {
    const SIGNS: &[&str] = &[
        "ls", " ", "a", "|", "&", ";", "<", ">", "'", "\"", "\\", "\n", "$", "`", "(", ")", "{",
        "}", "*", "?", "[", "]", "~", "#", "!", "=", "1", "2", "-", "/", ".", "\t", "\r", "\u{1b}",
        "\u{202e}", "\u{200b}", "é", "if", "%",
    ];
    let mut numbers = Numbers(0x5eed_0003);
    let mut understood = 0;
    for _ in 0..100_000 {
        let mut command = String::from("ls ");
        for _ in 0..numbers.below(12) {
            command.push_str(numbers.one(SIGNS));
        }
        if let Analysis::Understood(script) = analyse(&command, WORKSPACE) {
            understood += 1;
            let unquoted = without_quotes(&command);
            assert!(
                !unquoted.contains(['$', '`', '(', ')', '{', '}', '#', '!', '\r']),
                "{command:?}"
            );
            // Within a word a tilde is nothing special.
            let within =
                |(at, _)| unquoted[..at].ends_with(|c: char| c.is_alphanumeric() || c == '~');
            assert!(unquoted.match_indices('~').all(within), "{command:?}");
            let patterns = script.programs().any(|simple| !simple.patterns.is_empty());
            // An option is never one.
            let holds_one = unquoted.contains(['*', '?', '[', ']']);
            assert!(holds_one || !patterns, "{command:?}");
            // Alone a bracket is a word like others.
            let mut words = unquoted.split([' ', '\t', '\n', '|', '&', ';', '<', '>']);
            let alone = words.any(|word| word == "[" || word == "]");
            assert!(
                !holds_one || patterns || alone || command.contains('-'),
                "{command:?}"
            );
            assert!(
                !command
                    .chars()
                    .any(|c| c != '\n' && c != '\t' && tools::text::is_hidden(c)),
                "{command:?}"
            );
        }
    }
    assert!(understood > 1000, "{understood}");
}

/// The command without what stands in single quotes, in double quotes if it is literal there, or behind a backslash.
fn without_quotes(command: &str) -> String {
    let mut out = String::new();
    let mut chars = command.chars();
    let mut within = None;
    while let Some(c) = chars.next() {
        match (within, c) {
            (Some('\''), '\'') | (Some('"'), '"') => within = None,
            (Some('"') | None, '\\') => drop(chars.next()),
            (None, '\'' | '"') => within = Some(c),
            (Some('"'), '$' | '`') | (None, _) => out.push(c),
            (Some(_), _) => {}
        }
    }
    out
}
