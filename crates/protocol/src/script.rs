//! Commands that were understood, as they run: by their words, without a shell.

use serde::{Deserialize, Serialize};

use crate::call::WorkspacePath;

/// Tells the program of the tools that its standard input holds a [`Script`] as JSON.
pub const SCRIPT_FLAG: &str = "--script";

/// The word that goes to a folder. It is no program: a step that holds it and the folder alone makes
/// the folder the one that the steps behind it run in.
pub const GO: &str = "cd";

/// Pipelines, one after another. What a shell would make of the text is written out here: the words
/// without their quotes, and where each output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// At least one; the first is always run.
    pub steps: Vec<Step>,
}

/// One pipeline of a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Whether it runs at all.
    pub when: When,
    /// At least one; the output of each is the input of the next.
    pub pipeline: Vec<Simple>,
}

/// On what a step depends. A step that is left out changes nothing for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// `;` or a new line.
    Always,
    /// `&&`: the last pipeline that ran ended with 0.
    Succeeded,
    /// `||`: it ended with something else.
    Failed,
}

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simple {
    /// The program's name or path, then its arguments; at least one word, the first not empty.
    /// Or [`GO`] and a folder, see [`Step::folder`].
    pub argv: Vec<String>,
    /// Which of the words, counted from 0, are patterns for names of files. Each stands for the
    /// names that fit when the program starts, or for itself if none does; never for an option.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<u32>,
    /// From the left to the right, after the pipes are in place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirections: Vec<Redirection>,
}

/// One of the three standard streams of a program goes elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirection {
    /// Which.
    pub stream: Stream,
    /// Where it goes or comes from.
    pub to: Target,
}

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Descriptor 0.
    Input,
    /// Descriptor 1.
    Output,
    /// Descriptor 2.
    Error,
}

/// Where a stream goes or comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    /// `<`: a file that is there.
    Read {
        /// Which.
        file: Place,
    },
    /// `>`: a new file, or an old one that is emptied first.
    Write {
        /// Which.
        file: Place,
    },
    /// `>>`: the end of a file, which is made if it is not there.
    Append {
        /// Which.
        file: Place,
    },
    /// `2>&1`: to wherever the other stream goes at this point.
    Join {
        /// [`Stream::Output`] or [`Stream::Error`].
        stream: Stream,
    },
}

/// A file that a stream can be connected to; nothing else can be named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "in", rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// A file of the workspace.
    Workspace {
        /// Below the workspace.
        path: WorkspacePath,
    },
    /// A file of the box' own folder for temporary files, which is gone with the box.
    Temporary {
        /// Below `/tmp`.
        path: WorkspacePath,
    },
    /// `/dev/null`. With braces, since serde takes unknown fields of a variant without them.
    Nowhere {},
}

impl Step {
    /// The folder that it goes to, if that is what it does: one of the workspace if it begins with
    /// `/workspace`, else below the folder in which the steps before it ran.
    pub fn folder(&self) -> Option<&str> {
        match self.pipeline.as_slice() {
            [simple] => match simple.argv.as_slice() {
                [go, folder]
                    if go == GO
                        && !folder.is_empty()
                        && !folder.starts_with('-')
                        && *simple == Simple::plain(simple.argv.clone()) =>
                {
                    Some(folder)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

impl Simple {
    /// A program without redirections.
    pub fn plain(argv: Vec<String>) -> Self {
        Self {
            argv,
            patterns: Vec::new(),
            redirections: Vec::new(),
        }
    }

    /// Whether the word at this place is a pattern.
    pub fn is_pattern(&self, at: usize) -> bool {
        self.patterns.iter().any(|pattern| *pattern as usize == at)
    }
}

impl Script {
    /// The words, if it is one program and nothing else.
    pub fn single(&self) -> Option<&[String]> {
        match self.steps.as_slice() {
            [step] if step.folder().is_some() => None,
            [Step { pipeline, .. }] => match pipeline.as_slice() {
                [simple] if *simple == Simple::plain(simple.argv.clone()) => Some(&simple.argv),
                _ => None,
            },
            _ => None,
        }
    }

    /// All programs, in the order in which they are written.
    pub fn programs(&self) -> impl Iterator<Item = &Simple> {
        self.steps.iter().flat_map(|step| &step.pipeline)
    }

    /// Whether it can be run: every list has something in it, every program a name that is no
    /// pattern, no word a NUL, and no folder is outside the workspace.
    pub fn is_whole(&self) -> bool {
        let goes = |step: &Step| match step.folder() {
            Some(folder) => WorkspacePath::parse(folder).is_ok(),
            None => step
                .pipeline
                .iter()
                .all(|simple| simple.argv.first().is_none_or(|name| name != GO)),
        };
        let whole = |simple: &Simple| {
            simple.argv.first().is_some_and(|name| !name.is_empty())
                && !simple.argv.iter().any(|word| word.contains('\0'))
                && !simple.is_pattern(0)
        };
        !self.steps.is_empty()
            && self
                .steps
                .iter()
                .all(|step| !step.pipeline.is_empty() && goes(step))
            && self.programs().all(whole)
    }
}

impl std::fmt::Display for Place {
    /// The path as a program in the box would write it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workspace { path } => write!(f, "{path}"),
            Self::Temporary { path } => write!(f, "/tmp/{path}"),
            Self::Nowhere {} => f.write_str("/dev/null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_was_written_and_nothing_more_is_taken() {
        let json = concat!(
            r#"{"steps":[{"when":"always","pipeline":[{"argv":["cat","*.md"],"patterns":[1]},"#,
            r#"{"argv":["sort"],"redirections":[{"stream":"output","to":{"do":"write","#,
            r#""file":{"in":"workspace","path":"a/b"}}},{"stream":"error","to":{"do":"join","stream":"output"}}]}]},"#,
            r#"{"when":"failed","pipeline":[{"argv":["cat"],"redirections":[{"stream":"input","to":{"do":"read","#,
            r#""file":{"in":"nowhere"}}}]}]}]}"#
        );
        let script: Script = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&script).unwrap(), json);
        assert!(script.is_whole() && script.single().is_none());
        let argv = |argv: &[&str]| Simple::plain(argv.iter().map(|word| (*word).into()).collect());
        let alone = |pipeline| Script {
            steps: vec![Step {
                when: When::Always,
                pipeline,
            }],
        };
        let goes = alone(vec![argv(&["cd", "a/b"])]);
        assert!(goes.is_whole() && goes.single().is_none());
        assert_eq!(goes.steps[0].folder(), Some("a/b"));
        for wrong in [
            vec![argv(&["cd"])],
            vec![argv(&["cd", "-"])],
            vec![argv(&["cd", ""])],
            vec![argv(&["cd", "a", "b"])],
            vec![argv(&["cd", ".."])],
            vec![argv(&["cd", "/etc"])],
            vec![argv(&["cd", "a"]), argv(&["ls"])],
        ] {
            assert!(!alone(wrong.clone()).is_whole(), "{wrong:?}");
        }
        for (old, new) in [
            (r#""when":"failed""#, r#""when":"failed","also":1"#),
            (r#""in":"nowhere""#, r#""in":"nowhere","path":"x""#),
            (r#""in":"nowhere""#, r#""in":"everywhere""#),
            ("a/b", "../b"),
            ("a/b", "/etc/b"),
            (r#""join","stream":"output""#, r#""join","stream":"third""#),
        ] {
            let changed = json.replace(old, new);
            assert!(
                changed != json && serde_json::from_str::<Script>(&changed).is_err(),
                "{new}"
            );
        }
    }
}
