//! What is read-only by the owner's rules: no step of a box may change it.

use protocol::call::WorkspacePath;
use protocol::workspace::{GIT_FOLDER, OBEYED_BY_GIT};

use crate::name::Name;

/// Files and folders that stay as they are.
#[derive(Debug, Default)]
pub(crate) struct ReadOnly(Vec<Vec<Name>>);

/// Whether something is a folder after a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Folder,
    Other,
}

impl ReadOnly {
    pub(crate) fn new(paths: &[WorkspacePath]) -> Self {
        let names = |path: &WorkspacePath| -> Vec<Name> {
            (path.as_str().split('/'))
                .filter_map(|name| Name::parse(name.as_bytes()))
                .collect()
        };
        Self(paths.iter().map(names).collect())
    }

    /// Whether a change at this path changes something that stays: it is in there, or what
    /// stays was in it.
    pub(crate) fn bars(&self, path: &[Name], after: After) -> bool {
        self.0.iter().any(|fixed| {
            path.starts_with(fixed) || (after == After::Other && fixed.starts_with(path))
        })
    }
}

/// What git keeps in its folder and does not obey.
const GIT_DATA: [&[u8]; 10] = [
    b"COMMIT_EDITMSG",
    b"FETCH_HEAD",
    b"HEAD",
    b"ORIG_HEAD",
    b"MERGE_HEAD",
    b"index",
    b"logs",
    b"objects",
    b"packed-refs",
    b"refs",
];

/// Whether git on the host runs what stands there, or finds there what it runs: what is in a folder
/// `.git` beside its data, that folder itself, files that others than git point it to by custom.
pub(crate) fn is_obeyed_by_git(path: &[Name]) -> bool {
    let is = |name: &Name, text: &[u8]| name.bytes().eq_ignore_ascii_case(text);
    path.iter().enumerate().any(|(at, name)| {
        let inner = path.get(at + 1);
        is(name, GIT_FOLDER.as_bytes())
            && inner.is_none_or(|inner| !GIT_DATA.iter().any(|data| is(inner, data)))
            || OBEYED_BY_GIT.iter().any(|text| is(name, text.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_only_is_barred_and_so_is_taking_its_folder_away() {
        let fixed = ReadOnly::new(&[WorkspacePath::parse("a/docs").unwrap()]);
        let names = |path: &str| -> Vec<Name> {
            path.split('/')
                .map(|name| Name::parse(name.as_bytes()).unwrap())
                .collect()
        };
        for (path, after, expected) in [
            ("a/docs", After::Folder, true),
            ("a/docs/b", After::Other, true),
            ("a", After::Folder, false),
            ("a", After::Other, true),
            ("a/docs2", After::Other, false),
            ("docs", After::Other, false),
        ] {
            assert_eq!(fixed.bars(&names(path), after), expected, "{path}");
        }
    }

    #[test]
    fn what_git_obeys_is_told_from_its_data() {
        let names = |path: &str| -> Vec<Name> {
            path.split('/')
                .map(|name| Name::parse(name.as_bytes()).unwrap())
                .collect()
        };
        for (path, expected) in [
            (".git", true),
            (".git/config", true),
            (".git/hooks/pre-commit", true),
            ("sub/.GIT/hooks", true),
            (".git/modules/x/config", true),
            (".git/info/attributes", true),
            (".gitconfig", true),
            (".husky/pre-commit", true),
            (".git/objects/ab/cd", false),
            (".git/index", false),
            (".git/refs/heads/main", false),
            (".gitignore", false),
            ("src/git/config", false),
        ] {
            assert_eq!(is_obeyed_by_git(&names(path)), expected, "{path}");
        }
    }
}
