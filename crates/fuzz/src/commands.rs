//! Commands: what is understood of them, and how strictly they are judged.

use policy::command::{Analysis, analyse};
use policy::{Judgement, Label, visible};
use protocol::call::{Action, ToolCall, Verdict, WORKSPACE};
use protocol::ids::Digest;
use protocol::script::{Place, Script, Simple, Stream, Target as To, When};

use crate::reading::{self, Piece, Reading};
use crate::shown::assert_shows;
use crate::{Target, calls, kind, rules};

pub(crate) const TARGET: Target = Target {
    name: "commands",
    check,
    seeds,
    words: &[
        b" ",
        b"; ",
        b" && ",
        b" || ",
        b" | ",
        b"\n",
        b"'",
        b"\"",
        b"\\",
        b" > x",
        b" >> a/b",
        b" < x",
        b" 2>&1",
        b" 2> /dev/null",
        b" &> x",
        b" > /tmp/x",
        b" <<E\nx\nE\n",
        b"$(id)",
        b"`id`",
        b"${x}",
        b"*",
        b"?",
        b"[a-z]",
        b"{a,b}",
        b"~",
        b"#",
        b"!",
        b"&",
        b"(",
        b")",
        b"A=1 ",
        b"ls",
        b"cat a",
        b"sh",
        b"rm -rf x",
        b"git log",
        b"sed -n 1p",
        b"awk '{print $1}'",
        b"find . -exec",
        b"xargs ",
        b"/etc/passwd",
        b"../",
        b".git/config",
        b"/workspace/a",
        b"/home/o/w/a",
        b"--",
        b"-",
        b"\0",
        b"\r",
        b"\t",
        b"\x1b[2J",
        "\u{202e}".as_bytes(),
        "\u{200b}".as_bytes(),
        "\u{a0}".as_bytes(),
        "\u{430}".as_bytes(),
        b"<U+000A>",
        b"if ",
        b"cd ",
        b"-o x",
        b"=",
    ],
};

/// A workspace on the host.
const ON_THE_HOST: &str = "/home/o/w";

/// The longest command that is looked at: one that is shown may have more quotes than the one that was written.
const LONGEST: usize = 4096;

/// The most places at which a command is divided.
const PLACES: usize = 4;

/// Every way to quote, and every sign that is understood.
const OWN: [&str; 3] = [
    r#"grep -n "a\b \"c\" \\" 'd e' f\ g ''"#,
    "sort < a 2>> b | cat > 'c d' 2>&1 && ls || ls -l; wc -l *.x\n\nls",
    "cat /tmp/a /workspace/b /home/o/w/c &>> ./d/../e",
];

/// The commands of the corpus and some more.
fn seeds() -> Vec<Vec<u8>> {
    let command = |call: serde_json::Value| call["args"]["command"].as_str().map(Vec::from);
    let own = OWN.map(Vec::from);
    // What takes a grammar long.
    let long = format!("ls \"{}\"", "{".repeat(20_000)).into_bytes();
    let own = own.into_iter().chain([long]);
    calls::corpus().filter_map(command).chain(own).collect()
}

/// What the rules say of a command, and what it is for them.
struct Read<'a> {
    command: &'a str,
    workspace: &'a str,
    analysis: Analysis,
    judgement: Judgement,
}

fn check(input: &[u8]) -> String {
    let command = String::from_utf8_lossy(input);
    let workspace = match input.len() % 2 {
        0 => WORKSPACE,
        _ => ON_THE_HOST,
    };
    let read = Read {
        command: &command,
        workspace,
        analysis: analyse(&command, workspace),
        judgement: judge(&command, workspace, &[]),
    };
    let reading = reading::read(&command);
    read.is_the_same_again();
    read.is_judged_as_what_it_is();
    read.is_shown();
    read.gets_stricter_with_more(&reading);
    match &read.analysis {
        Analysis::Understood(script) => {
            read.is_what_a_shell_reads(script, &reading);
            read.is_read_as_it_is_shown(script);
        }
        Analysis::Opaque { .. } => {}
    }
    read.outcome()
}

fn judge(command: &str, workspace: &str, labels: &[Label]) -> Judgement {
    let command = command.to_owned();
    rules::judged(&ToolCall::Exec { command }, workspace, labels)
}

impl Read<'_> {
    fn verdict_of(&self, command: &str) -> Verdict {
        judge(command, self.workspace, &[]).verdict
    }

    fn is_the_same_again(&self) {
        let again = analyse(self.command, self.workspace);
        assert_eq!(again, self.analysis, "the same reading every time");
        let again = judge(self.command, self.workspace, &[]);
        assert_eq!(again, self.judgement, "the same judgement every time");
        let labels = [Label::Private, Label::Untrusted];
        let labelled = judge(self.command, self.workspace, &labels).verdict;
        assert!(
            labelled >= self.judgement.verdict,
            "a label makes it no laxer"
        );
    }

    fn is_judged_as_what_it_is(&self) {
        let Judgement {
            verdict,
            key,
            effects,
            action,
            ..
        } = &self.judgement;
        if self.command.contains('\0') {
            assert_eq!(*verdict, Verdict::Deny, "no program can be given a NUL");
        }
        match (&self.analysis, action) {
            (Analysis::Opaque { .. }, Action::Shell { script }) => {
                assert!(
                    *verdict >= Verdict::AskAlways,
                    "not understood: {verdict:?}"
                );
                assert!(effects.opaque, "nobody knows what it does");
                assert_eq!(script, self.command, "byte for byte");
                let digest = Digest::of(self.command).to_string();
                assert!(key.ends_with(&digest), "{key} names the whole of it");
            }
            (Analysis::Understood(script), Action::Argv { argv }) => {
                assert_eq!(script.single(), Some(argv.as_slice()), "runs what was read");
            }
            (Analysis::Understood(script), Action::Script { script: runs }) => {
                assert_eq!(
                    (script, None),
                    (runs, script.single()),
                    "runs what was read"
                );
            }
            (analysis, action) => panic!("{analysis:?} runs as {action:?}"),
        }
        if *verdict == Verdict::Allow {
            assert!(!effects.opaque && effects.hosts.is_empty(), "{effects:?}");
        }
    }

    fn is_shown(&self) {
        let shown = visible::action(&self.judgement.action);
        for shown in [&shown, &self.judgement.reason, &self.judgement.key] {
            assert_shows(shown);
        }
        let command = self.command.to_owned();
        let title = visible::title(&ToolCall::Exec { command });
        assert_shows(&title);
        assert!(!title.contains('\n'), "a title is one line: {title:?}");
    }

    /// A command is at least as strict as each part of it, and no text that is added makes it laxer.
    fn gets_stricter_with_more(&self, reading: &Reading) {
        let verdict = self.judgement.verdict;
        let between = reading.pieces.iter().filter(|piece| piece.is_between());
        for piece in between.take(PLACES) {
            let Piece::Sign { at, .. } = piece else {
                continue;
            };
            let parts = [&self.command[..at.start], &self.command[at.end..]];
            for part in parts.into_iter().filter(|part| !is_half(part)) {
                let of_part = self.verdict_of(part);
                assert!(
                    verdict >= of_part,
                    "{verdict:?}, though its part {part:?} is {of_part:?}"
                );
            }
        }
        if self.command.trim().is_empty() {
            return;
        }
        let Self { command, .. } = self;
        let before = ["ls; ", "ls && ", "ls | ", "ls\n"].map(|more| format!("{more}{command}"));
        let after = ["; ls", " && ls", " || ls", " | cat", "\nls"];
        let after = after.map(|more| format!("{command}{more}"));
        // What is added at the end of a half would complete it.
        let is_half = reading.is_open || is_half(command);
        let after = after.iter().filter(|_| !is_half);
        for longer in before.iter().chain(after) {
            let of_longer = self.verdict_of(longer);
            assert!(
                of_longer >= verdict,
                "{verdict:?} became {of_longer:?} as {longer:?}"
            );
        }
    }

    /// The words and the signs are those that a reading without refusals finds, and nothing in them
    /// would have been expanded.
    fn is_what_a_shell_reads(&self, script: &Script, reading: &Reading) {
        assert!(script.is_whole(), "{script:?}");
        assert!(script.programs().count() <= 50, "{script:?}");
        assert!(!reading.is_open, "a quote is open");
        assert_eq!(
            self.as_read(reading),
            self.as_understood(script),
            "what a shell reads, and what was understood"
        );
        let is_blank = |c: &char| matches!(c, '\n' | '\t');
        let hidden = self.command.chars().filter(|c| !is_blank(c));
        hidden.for_each(|c| assert_shows(c.encode_utf8(&mut [0; 4])));
    }

    /// What was understood, piece by piece.
    fn as_understood(&self, script: &Script) -> Vec<String> {
        let mut pieces = Vec::new();
        for (at, step) in script.steps.iter().enumerate() {
            let sign = match step.when {
                When::Always => ";",
                When::Succeeded => "&&",
                When::Failed => "||",
            };
            pieces.extend((at > 0).then(|| sign.to_owned()));
            for (at, simple) in step.pipeline.iter().enumerate() {
                pieces.extend((at > 0).then(|| "|".to_owned()));
                pieces.extend(self.of_simple(simple));
            }
        }
        pieces
    }

    fn of_simple(&self, simple: &Simple) -> Vec<String> {
        let word = |(at, text)| match simple.is_pattern(at) {
            true => format!("pattern {text}"),
            false => format!("word {text}"),
        };
        let mut pieces: Vec<_> = simple.argv.iter().enumerate().map(word).collect();
        self.where_it_goes(&mut pieces);
        for redirection in &simple.redirections {
            let number = match redirection.stream {
                Stream::Input => 0,
                Stream::Output => 1,
                Stream::Error => 2,
            };
            pieces.push(match &redirection.to {
                To::Read { file } => format!("{number}< {}", self.of_place(file)),
                To::Write { file } => format!("{number}> {}", self.of_place(file)),
                To::Append { file } => format!("{number}>> {}", self.of_place(file)),
                To::Join { stream } => match stream {
                    Stream::Error => format!("{number}>& 2"),
                    Stream::Input | Stream::Output => format!("{number}>& 1"),
                },
            });
        }
        pieces
    }

    fn of_place(&self, place: &Place) -> String {
        match place {
            Place::Workspace { path } => format!("{}/{path}", self.workspace),
            Place::Temporary { path } => format!("/tmp/{path}"),
            Place::Nowhere {} => "/dev/null".to_owned(),
        }
    }

    /// What a shell reads, in the same form: of each program first the words, then the redirections.
    fn as_read(&self, reading: &Reading) -> Vec<String> {
        let mut pieces = Vec::new();
        let mut programs = reading.pieces.split(Piece::is_between);
        let mut signs = reading.pieces.iter().filter(|piece| piece.is_between());
        loop {
            let program = programs.next().unwrap_or_default();
            pieces.extend(self.of_program(program));
            let Some(Piece::Sign { sign, .. }) = signs.next() else {
                break;
            };
            let sign = match sign.as_str() {
                "\n" => ";",
                sign => sign,
            };
            // A line that ends behind a sign ends nothing, and empty lines are none.
            let is_blank = program.is_empty() && sign == ";";
            pieces.extend((!is_blank).then(|| sign.to_owned()));
        }
        if pieces.last().is_some_and(|piece| piece == ";") {
            pieces.pop();
        }
        pieces
    }

    fn of_program(&self, program: &[Piece]) -> Vec<String> {
        let (mut words, mut redirections) = (Vec::new(), Vec::new());
        let mut pieces = program.iter();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Word {
                    text,
                    expands,
                    is_quoted,
                } => words.push(word(text, expands, *is_quoted)),
                Piece::Sign { sign, .. } => {
                    let Some(Piece::Word { text, expands, .. }) = pieces.next() else {
                        panic!("no word behind {sign:?}");
                    };
                    assert_eq!(expands, "", "in {text:?}");
                    redirections.extend(self.redirection(sign, text));
                }
            }
        }
        self.where_it_goes(&mut words);
        words.extend(redirections);
        words
    }

    /// A folder that is gone to has two names, on the host and in the box.
    fn where_it_goes(&self, words: &mut [String]) {
        if let [cd, folder] = words
            && cd == "word cd"
            && let Some(path) = folder.strip_prefix("word ")
        {
            *folder = self.absolute(path);
        }
    }

    fn redirection(&self, sign: &str, target: &str) -> Vec<String> {
        let place = || self.absolute(target);
        match sign {
            "<" | "0<" => vec![format!("0< {}", place())],
            ">" | "1>" => vec![format!("1> {}", place())],
            ">>" | "1>>" => vec![format!("1>> {}", place())],
            "2>" | "2>>" => vec![format!("{sign} {}", place())],
            ">&" | "1>&" => vec![format!("1>& {target}")],
            "2>&" => vec![format!("2>& {target}")],
            "&>" => vec![format!("1> {}", place()), "2>& 1".to_owned()],
            "&>>" => vec![format!("1>> {}", place()), "2>& 1".to_owned()],
            _ => panic!("{sign:?} is no redirection that is understood"),
        }
    }

    /// The path on the host; what stands in the box below its workspace is in this one.
    fn absolute(&self, path: &str) -> String {
        let in_box = path.strip_prefix(WORKSPACE);
        let path = match in_box.filter(|rest| rest.starts_with('/')) {
            Some(rest) => format!("{}/{rest}", self.workspace),
            None if path.starts_with('/') => path.to_owned(),
            None => format!("{}/{path}", self.workspace),
        };
        let mut parts = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }

    /// A person who reads what would run reads the same script.
    fn is_read_as_it_is_shown(&self, script: &Script) {
        let shown = visible::action(&self.judgement.action);
        let shown = shown.split("\nWARNING: ").next().unwrap_or_default();
        let shown = shown.strip_prefix("run without a shell: ");
        let shown = shown.expect("what was understood is run without a shell");
        // Marks are for eyes, and quotes can make it longer than what is looked at.
        if !shown.contains("<U+") && shown.len() <= LONGEST {
            let again = analyse(shown, self.workspace);
            assert_eq!(again, Analysis::Understood(script.clone()), "{shown:?}");
        }
    }

    fn outcome(&self) -> String {
        let Judgement { verdict, rule, .. } = &self.judgement;
        match &self.analysis {
            Analysis::Opaque { why } => {
                let what = why.rsplit_once(": ").map_or("", |(_, what)| what);
                format!("{verdict:?} {rule} {}", kind(what))
            }
            Analysis::Understood(script) => {
                let of_program = |simple: &Simple| {
                    let (words, redirections) = (simple.argv.len(), simple.redirections.len());
                    let patterns = simple.patterns.len();
                    [words, redirections, patterns].map(|number| number.min(3))
                };
                let programs: Vec<_> = script.programs().take(2).map(of_program).collect();
                format!("{verdict:?} {rule} {programs:?}")
            }
        }
    }
}

/// Whether what is added behind it would complete it.
fn is_half(part: &str) -> bool {
    part.trim().is_empty() || part.trim_end().ends_with(['|', '&'])
}

/// A word as it has to have been understood.
fn word(text: &str, expands: &str, is_quoted: bool) -> String {
    match expands.chars().find(|c| !"*?[]".contains(*c)) {
        Some(c) => panic!("{c} is expanded in {text:?}"),
        // An option is what it says, and so is the program with that name and its last word.
        None if expands.is_empty()
            || (matches!(text, "[" | "]") && !is_quoted)
            || (text.starts_with('-') && !is_quoted) =>
        {
            format!("word {text}")
        }
        None => format!("pattern {text}"),
    }
}
