//! Programs that were understood, started as they were understood: by their words, with their
//! pipes and redirections, without a shell. POSIX.1-2024, 2.7 Redirection, 2.9 Shell Commands.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use protocol::call::WorkspacePath;
use protocol::script::{GO, Place, Redirection, Script, Simple, Stream, Target, When};
use rustix::fs::{self, CWD, Mode, OFlags};

use super::{Root, ToolError, names};

/// The exit codes of a shell.
const FAILED: u8 = 1;
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
const BY_SIGNAL: u8 = 128;

/// Runs all steps in the working directory and says with which code a shell would end. Files
/// of the workspace are opened below the working directory, through no link when they are written.
pub(super) fn run(script: &Script) -> Result<u8, ToolError> {
    if !script.is_whole() {
        return Err(ToolError::BadScript("a part of it is empty".to_owned()));
    }
    let mut places = Places {
        workspace: Root::open(Path::new("."))?,
        here: Root::open(Path::new("."))?,
    };
    let mut last = 0;
    for step in &script.steps {
        let runs = match step.when {
            When::Always => true,
            When::Succeeded => last == 0,
            When::Failed => last != 0,
        };
        if runs {
            last = match step.folder() {
                Some(folder) => places.go(folder),
                None => places.pipeline(&step.pipeline).map_err(ToolError::Start)?,
            };
        }
    }
    Ok(last)
}

/// Where files are opened, and where programs run.
struct Places {
    workspace: Root,
    here: Root,
}

/// The three streams of a program that is about to start.
struct Streams {
    input: OwnedFd,
    output: OwnedFd,
    error: OwnedFd,
}

/// A program of a pipeline: running, or with the code that says why it is not.
enum Started {
    Running(Child),
    Not(u8),
}

impl Places {
    /// Goes to a folder of the workspace, and says with which code.
    fn go(&mut self, folder: &str) -> u8 {
        match self.gone(folder) {
            Ok(there) => {
                self.here = there;
                0
            }
            Err(error) => {
                tell(io::stderr(), &format!("{GO}: {error}"));
                FAILED
            }
        }
    }

    fn gone(&self, folder: &str) -> Result<Root, ToolError> {
        let path = WorkspacePath::parse(folder).map_err(|error| {
            // A script that is not whole does not get here.
            ToolError::BadScript(error.to_string())
        })?;
        let from = match folder.starts_with('/') {
            true => &self.workspace,
            false => &self.here,
        };
        let there = from.below(&path)?;
        there.enter()?;
        Ok(there)
    }

    /// Starts all programs, waits for all of them, and tells the code of the last.
    fn pipeline(&self, pipeline: &[Simple]) -> io::Result<u8> {
        let mut all = Vec::new();
        let mut input = own(io::stdin())?;
        for (at, simple) in pipeline.iter().enumerate() {
            let mut streams = Streams {
                input,
                output: own(io::stdout())?,
                error: own(io::stderr())?,
            };
            // Whether it is the last decides where its output goes and what the next one reads.
            if at + 1 < pipeline.len() {
                let (reader, writer) = io::pipe()?;
                streams.output = writer.into();
                input = reader.into();
            } else {
                input = own(io::stdin())?;
            }
            all.push(self.start(simple, streams)?);
        }
        let mut last = 0;
        for started in all {
            last = match started {
                Started::Running(mut child) => code(child.wait()?),
                Started::Not(code) => code,
            };
        }
        Ok(last)
    }

    /// Starts one program. Our copies of its streams are closed when this returns.
    fn start(&self, simple: &Simple, mut streams: Streams) -> io::Result<Started> {
        for redirection in &simple.redirections {
            if let Err(error) = self.redirect(redirection, &mut streams) {
                tell(io::stderr(), &error.to_string());
                return Ok(Started::Not(FAILED));
            }
        }
        // A script that is not whole does not get here.
        let Some(program) = simple.argv.first() else {
            return Ok(Started::Not(NOT_FOUND));
        };
        let arguments = match arguments(simple) {
            Ok(arguments) => arguments,
            Err(error) => {
                tell(io::stderr(), &error.to_string());
                return Ok(Started::Not(FAILED));
            }
        };
        let Streams {
            input,
            output,
            error,
        } = streams;
        let told = error.try_clone()?;
        let spawned = Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(error))
            .spawn();
        match spawned {
            Ok(child) => Ok(Started::Running(child)),
            Err(error) => {
                tell(told, &format!("{program}: {error}"));
                Ok(Started::Not(match error.kind() {
                    io::ErrorKind::NotFound => NOT_FOUND,
                    _ => CANNOT_RUN,
                }))
            }
        }
    }

    fn redirect(&self, redirection: &Redirection, streams: &mut Streams) -> Result<(), ToolError> {
        let to = match &redirection.to {
            Target::Read { file } => self.open(file, How::Read)?,
            Target::Write { file } => self.open(file, How::Write)?,
            Target::Append { file } => self.open(file, How::Append)?,
            Target::Join { stream } => streams.of(*stream).try_clone().map_err(ToolError::Start)?,
        };
        *streams.of(redirection.stream) = to;
        Ok(())
    }

    fn open(&self, place: &Place, how: How) -> Result<OwnedFd, ToolError> {
        match place {
            Place::Workspace { path } => how.open(&self.workspace, path),
            Place::Temporary { path } => how.open(&Root::open(Path::new("/tmp"))?, path),
            Place::Nowhere {} => {
                let flags = OFlags::RDWR | OFlags::CLOEXEC;
                let opened = fs::openat(CWD, "/dev/null", flags, Mode::empty());
                opened.map_err(|errno| ToolError::Start(errno.into()))
            }
        }
    }
}

/// The words behind the program, with names in the place of patterns.
fn arguments(simple: &Simple) -> io::Result<Vec<OsString>> {
    let mut arguments = Vec::new();
    for (at, word) in simple.argv.iter().enumerate().skip(1) {
        match simple.is_pattern(at) {
            true => arguments.extend(names::expand(word)?),
            false => arguments.push(word.into()),
        }
    }
    Ok(arguments)
}

/// What a file is opened for.
#[derive(Clone, Copy)]
enum How {
    Read,
    Write,
    Append,
}

impl How {
    fn open(self, root: &Root, path: &WorkspacePath) -> Result<OwnedFd, ToolError> {
        match self {
            Self::Read => root.open_to_read(path).map(|(file, _)| file.into()),
            Self::Write => root.stream_into(path)?.emptied(),
            Self::Append => root.stream_into(path)?.at_its_end(),
        }
    }
}

impl Streams {
    fn of(&mut self, stream: Stream) -> &mut OwnedFd {
        match stream {
            Stream::Input => &mut self.input,
            Stream::Output => &mut self.output,
            Stream::Error => &mut self.error,
        }
    }
}

/// A descriptor of our own for a stream that others have, too.
fn own(stream: impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

fn code(status: ExitStatus) -> u8 {
    let number = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => i32::from(BY_SIGNAL) + signal,
        (None, None) => i32::from(FAILED),
    };
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// Says why a program does not run, where its own errors would have gone.
fn tell(to: impl AsFd, message: &str) {
    // Whoever closed it does not want to know.
    let _ =
        own(to).and_then(|fd| std::fs::File::from(fd).write_all(format!("{message}\n").as_bytes()));
}
