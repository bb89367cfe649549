//! `[policy]` of bulkhead.toml, and the Cedar files beside it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use protocol::call::WorkspacePath;
use protocol::ids::PrincipalId;
use protocol::outbound::EgressRule;
use protocol::rules::{
    AllowedCommand, Answers, MAX_RULE_FILE, MAX_RULE_FILES, OwnerRules, Person, PolicyProfile,
    Rest, Role, RuleFile,
};
use serde::Deserialize;

use crate::ConfigError;

/// The most entries in one list.
const MAX_ENTRIES: usize = 200;

/// Signs that mean something to a shell, so that words with them stand in a list.
const SHELL_SIGNS: [char; 15] = [
    '\'', '"', '\\', '$', '`', ';', '&', '|', '<', '>', '(', ')', '?', '[', '#',
];

/// The section.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PolicyFile {
    profile: PolicyProfile,
    answers: Answers,
    allow: Vec<Command>,
    read_only: Vec<String>,
    people: BTreeMap<PrincipalId, Role>,
}

/// A command as people write it: words between spaces, or a list of words. A last word `*`
/// stands for any further ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum Command {
    Line(String),
    Words(Vec<String>),
}

/// The owner's rules, with the files of this folder and these egress rules.
pub(crate) fn owner_rules(
    file: PolicyFile,
    egress: Vec<EgressRule>,
    folder: &Path,
) -> Result<OwnerRules, ConfigError> {
    let bad = |key, problem: &str| ConfigError::Value {
        key,
        problem: problem.to_owned(),
    };
    if file.allow.len() > MAX_ENTRIES || file.read_only.len() > MAX_ENTRIES {
        return Err(bad(
            "policy",
            &format!("a list has at most {MAX_ENTRIES} entries"),
        ));
    }
    let allow = file.allow.into_iter().map(allowed);
    let kept = file.read_only.iter().map(|path| {
        let kept = WorkspacePath::parse(path)
            .map_err(|error| bad("policy.read_only", &error.to_string()))?;
        match kept.as_str() {
            "." | "" => Err(bad(
                "policy.read_only",
                "name files or folders of the workspace, not the workspace itself",
            )),
            _ => Ok(kept),
        }
    });
    let people = file.people.into_iter();
    Ok(OwnerRules {
        profile: file.profile,
        allow: allow.collect::<Result<_, _>>()?,
        read_only: kept.collect::<Result<_, _>>()?,
        people: people.map(|(name, role)| Person { name, role }).collect(),
        answers: file.answers,
        egress,
        files: files(folder)?,
    })
}

fn allowed(command: Command) -> Result<AllowedCommand, ConfigError> {
    let bad = |problem: String| ConfigError::Value {
        key: "policy.allow",
        problem,
    };
    let mut words: Vec<String> = match command {
        Command::Words(words) => words,
        Command::Line(line) => match line.find(SHELL_SIGNS) {
            Some(at) => {
                return Err(bad(format!(
                    "{line:?} has {:?}, which a shell would read; write the words as a list: [\"make\", \"test\"]",
                    &line[at..=at]
                )));
            }
            None => line.split_whitespace().map(str::to_owned).collect(),
        },
    };
    let rest = match words.pop_if(|last| last == "*") {
        Some(_) => Rest::Anything,
        None => Rest::Nothing,
    };
    match words.first() {
        None => Err(bad("it names no program".to_owned())),
        Some(first) if first.is_empty() => Err(bad("a program's name is not empty".to_owned())),
        Some(_) if words.iter().any(|word| word.contains('*')) => Err(bad(format!(
            "{:?}: a star stands for further words, and only alone at the end",
            words.join(" ")
        ))),
        Some(_) => Ok(AllowedCommand { words, rest }),
    }
}

/// The files `*.cedar` of this folder, by name. No folder is no file.
fn files(folder: &Path) -> Result<Vec<RuleFile>, ConfigError> {
    let failed = |path: &Path, error: io::Error| ConfigError::Io {
        path: path.to_owned(),
        error,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(folder, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        if path.extension().is_some_and(|ending| ending == "cedar") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.len() > MAX_RULE_FILES {
        return Err(ConfigError::Value {
            key: "rules",
            problem: format!("{folder:?} has more than {MAX_RULE_FILES} files"),
        });
    }
    paths
        .iter()
        .map(|path| {
            let mut text = String::new();
            let most = MAX_RULE_FILE as u64 + 1;
            let file = fs::File::open(path).map_err(|error| failed(path, error))?;
            file.take(most)
                .read_to_string(&mut text)
                .map_err(|error| failed(path, error))?;
            if text.len() > MAX_RULE_FILE {
                return Err(ConfigError::Value {
                    key: "rules",
                    problem: format!("{path:?} has more than {MAX_RULE_FILE} bytes"),
                });
            }
            let name = path.file_name().unwrap_or_default();
            Ok(RuleFile {
                name: name.to_string_lossy().into_owned(),
                text,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OwnerRules, String> {
        let file: PolicyFile = toml::from_str(text).map_err(|error| error.to_string())?;
        owner_rules(file, Vec::new(), Path::new("/nowhere")).map_err(|error| error.to_string())
    }

    #[test]
    fn easy_things_are_said_easily() {
        let rules = read(
            r#"
            profile = "contained"
            answers = "another_person"
            allow = ["make test", "cargo build *", ["git", "commit", "-m", "a b"]]
            read_only = ["docs", "/workspace/a/../notes.md"]
            [people]
            ann = "approver"
            "#,
        )
        .unwrap();
        let words: Vec<_> = (rules.allow.iter())
            .map(|one| (one.words.join("|"), one.rest))
            .collect();
        assert_eq!(
            words,
            [
                ("make|test".to_owned(), Rest::Nothing),
                ("cargo|build".to_owned(), Rest::Anything),
                ("git|commit|-m|a b".to_owned(), Rest::Nothing),
            ]
        );
        let kept: Vec<_> = rules.read_only.iter().map(WorkspacePath::as_str).collect();
        assert_eq!(kept, ["docs", "notes.md"]);
        assert_eq!(rules.profile, PolicyProfile::Contained);
        assert_eq!(rules.answers, Answers::AnotherPerson);
        assert_eq!(rules.people[0].role, Role::Approver);
    }

    #[test]
    fn what_could_mean_something_else_is_refused_with_the_reason() {
        for (text, says) in [
            (r#"allow = ["make; rm x"]"#, "write the words as a list"),
            (r#"allow = ["*"]"#, "names no program"),
            (r#"allow = ["make te*"]"#, "only alone at the end"),
            (r#"allow = ["make * test"]"#, "only alone at the end"),
            (r#"allow = [""]"#, "names no program"),
            (r#"allow = [["", "x"]]"#, "not empty"),
            (r#"read_only = ["../x"]"#, "outside"),
            (r#"read_only = ["."]"#, "not the workspace itself"),
            (r#"profile = "lax""#, "unknown variant"),
            ("[people]\nann = \"boss\"", "unknown variant"),
            ("[people]\n\"Ann B\" = \"user\"", "principal name"),
            ("alow = []", "unknown field"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn cedar_files_are_read_by_name_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.cedar", "a.cedar", "c.txt"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let names = |folder: &Path| {
            let files = files(folder).unwrap();
            files.into_iter().map(|file| file.name).collect::<Vec<_>>()
        };
        assert_eq!(names(dir.path()), ["a.cedar", "b.cedar"]);
        fs::write(dir.path().join("d.cedar"), "x".repeat(MAX_RULE_FILE + 1)).unwrap();
        assert!(files(dir.path()).is_err());
    }
}
