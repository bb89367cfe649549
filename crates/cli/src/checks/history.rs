//! The workspace and its history.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use config::{Config, Home};

use super::Check;

/// So many files are counted; a history that holds more is told as "at least".
const MOST_COUNTED: u32 = 200_000;

const NAME: &str = "history";

/// Where they are, whether what is kept can be moved, and how much there is.
pub(super) fn history(home: &Home, config: &Config) -> Check {
    let (workspace, history) = (&config.workspace, home.history_of(&config.workspace));
    if let Some(clash) = clash(home, workspace) {
        return clash;
    }
    let (at_work, kept) = match (fs::metadata(workspace), fs::metadata(&history)) {
        (Ok(at_work), Ok(kept)) if kept.is_dir() => (at_work, kept),
        (_, Ok(kept)) if !kept.is_dir() => {
            return Check::fail(
                NAME,
                format!("{history:?} is not a folder"),
                format!("move it away; `bulkhead up` makes the folder {history:?}"),
            );
        }
        (Err(error), _) => return not_there(workspace, &error),
        (_, Err(error)) => return not_there(&history, &error),
        (Ok(_), Ok(_)) => return not_there(&history, &std::io::ErrorKind::NotADirectory.into()),
    };
    let size = Size::of(&history);
    let detail = format!("{size} of at most {} MiB", config.history.bytes >> 20);
    match same_file_system(&at_work, &kept) {
        true => Check::ok(NAME, detail),
        false => Check::fail(
            NAME,
            format!(
                "{history:?} and {workspace:?} are on two file systems, and what is kept is moved \
                 from one to the other"
            ),
            "put both on one file system: workspace.path in bulkhead.toml, or --home",
        ),
    }
}

/// The configuration compares names; links can make two names one folder.
fn clash(home: &Home, workspace: &Path) -> Option<Check> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let workspace = real(workspace);
    let own = home.own().into_iter().map(|own| real(&own));
    let shared = |own: &PathBuf| own.starts_with(&workspace) || workspace.starts_with(own);
    let own = own.into_iter().find(shared)?;
    Some(Check::fail(
        NAME,
        format!("the workspace {workspace:?} and Bulkhead's own {own:?} lie in one another"),
        "choose another workspace.path in bulkhead.toml: tools may write to all of it",
    ))
}

fn not_there(path: &Path, error: &std::io::Error) -> Check {
    Check::warn(
        NAME,
        format!("{path:?}: {error}"),
        "nothing, if Bulkhead was not started yet: `bulkhead up` makes it",
    )
}

fn same_file_system(one: &Metadata, other: &Metadata) -> bool {
    one.dev() == other.dev()
}

/// What a folder takes of the disk.
struct Size {
    bytes: u64,
    whole: bool,
}

impl Size {
    /// Follows no link.
    fn of(folder: &Path) -> Self {
        let mut size = Self {
            bytes: 0,
            whole: true,
        };
        let (mut folders, mut counted) = (vec![folder.to_owned()], 0);
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                size.whole = false;
                continue;
            };
            for entry in entries {
                let Ok(found) = entry.and_then(|entry| Ok((entry.metadata()?, entry.path())))
                else {
                    size.whole = false;
                    continue;
                };
                let (metadata, path) = found;
                counted += 1;
                if counted > MOST_COUNTED {
                    size.whole = false;
                    return size;
                }
                // Blocks of 512 bytes, stat(2).
                size.bytes += metadata.blocks() * 512;
                if metadata.is_dir() {
                    folders.push(path);
                }
            }
        }
        size
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let least = if self.whole { "" } else { "at least " };
        write!(f, "{least}{} MiB", self.bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Status;

    fn config(home: &Home, workspace: &Path) -> Config {
        let text = "[model]\napi = \"ollama\"\nurl = \"http://127.0.0.1:1\"\nname = \"m\"\n";
        let text = format!("{text}[workspace]\npath = {workspace:?}\n");
        Config::parse(&text, home, Path::new("bulkhead.toml")).unwrap()
    }

    #[test]
    fn a_history_is_measured_and_one_that_is_missing_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        let config = config(&home, &dir.path().join("w"));
        fs::create_dir(dir.path().join("w")).unwrap();
        assert_eq!(history(&home, &config).status, Status::Warn);
        home.create().unwrap();
        fs::write(home.history().join("big"), vec![1; 3 << 20]).unwrap();
        std::os::unix::fs::symlink("/", home.history().join("link")).unwrap();
        let check = history(&home, &config);
        assert_eq!(check.status, Status::Ok, "{check:?}");
        assert!(check.detail.starts_with("3 MiB of at most"), "{check:?}");
    }

    #[test]
    fn a_link_does_not_hide_that_the_workspace_holds_the_history() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        home.create().unwrap();
        for target in [dir.path().join("h"), home.history().join("in")] {
            fs::create_dir_all(&target).unwrap();
            let link = dir.path().join("w");
            std::os::unix::fs::symlink(&target, &link).unwrap();
            let check = history(&home, &config(&home, &link));
            assert_eq!(check.status, Status::Fail, "{check:?}");
            assert!(check.fix.contains("workspace.path"), "{check:?}");
            fs::remove_file(link).unwrap();
        }
    }
}
