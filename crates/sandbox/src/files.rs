//! Which files a program has, from the arguments that it is started with. In one place, so that whoever plays a
//! program to try its confinement has exactly what it has.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::confine::{Files, Program};

/// What becomes of the value of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// A file to read.
    Read,
    /// A folder to write to.
    Write,
    /// A folder whose content is moved whatever it is.
    Keep,
    /// A file or folder that is not seen.
    Hide,
    /// A file or folder of which all is opened before the confinement.
    Before,
    /// There is no value.
    Alone,
}

/// Why the arguments of a program name no files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// An argument that it does not take.
    #[error("unknown option {0:?}")]
    Unknown(OsString),
    /// An option without its value.
    #[error("{0} takes a path")]
    NoValue(&'static str),
    /// A folder that has to be there.
    #[error("{path}: {error}")]
    Missing {
        /// Which.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
}

/// The options of each program that name files.
fn options(program: Program) -> &'static [(&'static str, Use)] {
    match program {
        Program::Ledger | Program::Gateway => &[("--dir", Use::Write)],
        Program::Vault => &[
            ("--dir", Use::Write),
            ("--operator-key-pub", Use::Read),
            ("--credential", Use::Read),
            ("--once", Use::Alone),
        ],
        Program::Workspace => &[("--workspace", Use::Keep), ("--history", Use::Keep)],
        Program::Sandbox => &[("--write", Use::Write), ("--hide", Use::Hide)],
        Program::ChannelWeb => &[("--key", Use::Before)],
        Program::ChannelTelegram => &[("--key", Use::Before), ("--dir", Use::Before)],
        // What egress reads to look up names is in its profile; the runner names the engine's folder.
        Program::Supervisor
        | Program::Inner
        | Program::Agent
        | Program::Egress
        | Program::Engine => &[],
    }
}

/// The files of a program that is started with these arguments.
///
/// # Errors
///
/// An argument that the program does not take, and a folder to keep that does not exist.
pub fn files_of(
    program: Program,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Files, FilesError> {
    let (mut files, mut arguments) = (Files::default(), arguments.into_iter());
    while let Some(argument) = arguments.next() {
        let known = options(program).iter().find(|(name, _)| argument == *name);
        let Some((name, what)) = known else {
            return Err(FilesError::Unknown(argument));
        };
        if *what == Use::Alone {
            continue;
        }
        let value = arguments.next().ok_or(FilesError::NoValue(name))?;
        let path = PathBuf::from(value);
        match what {
            Use::Read => files.read.push(path),
            Use::Write => files.write.push(path),
            Use::Keep => files.keep.push(
                path.canonicalize()
                    .map_err(|error| FilesError::Missing { path, error })?,
            ),
            Use::Hide => files.hide.push(path),
            Use::Before | Use::Alone => {}
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(program: Program, arguments: &[&str]) -> Result<Files, FilesError> {
        files_of(program, arguments.iter().map(Into::into))
    }

    #[test]
    fn a_program_has_the_files_that_its_arguments_name_and_no_others() {
        let vault = ["--dir", "/v", "--operator-key-pub", "/k", "--once"];
        let vault = of(Program::Vault, &vault).unwrap();
        assert_eq!(
            (vault.write, vault.read),
            (vec!["/v".into()], vec!["/k".into()])
        );
        let web = of(Program::ChannelWeb, &["--key", "/k"]).unwrap();
        assert_eq!(web, Files::default());
        let runner = ["--write", "/w", "--hide", "/a", "--hide", "/b"];
        let runner = of(Program::Sandbox, &runner).unwrap();
        assert_eq!(runner.write, [PathBuf::from("/w")]);
        assert_eq!(runner.hide, [PathBuf::from("/a"), PathBuf::from("/b")]);
    }

    #[test]
    fn what_a_program_does_not_take_is_an_error() {
        assert!(of(Program::Agent, &["--dir", "/"]).is_err());
        assert!(of(Program::Ledger, &["--dir"]).is_err());
        assert!(
            of(
                Program::Workspace,
                &["--workspace", "/nonexistent/bulkhead"]
            )
            .is_err()
        );
    }
}
