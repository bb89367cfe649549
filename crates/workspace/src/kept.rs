//! What the owner keeps read-only: no step of a box may change it.

use protocol::call::WorkspacePath;

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

    /// Whether a change at this path changes something that stays: it is in there, or what is
    /// kept was in it.
    pub(crate) fn bars(&self, path: &[Name], after: After) -> bool {
        self.0
            .iter()
            .any(|kept| path.starts_with(kept) || (after == After::Other && kept.starts_with(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_barred_and_so_is_taking_its_folder_away() {
        let kept = ReadOnly::new(&[WorkspacePath::parse("a/docs").unwrap()]);
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
            assert_eq!(kept.bars(&names(path), after), expected, "{path}");
        }
    }
}
