//! The process that makes the first process of each box.
//!
//! It is a fresh start of the program `bulkhead-sandbox`, so that no box inherits a thread, a lock or
//! a secret of the service; and it makes many, so that no box pays for that start.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::frame::LinkError;

use super::init::{self, Filters};
use super::namespaces::Owner;
use super::spec::{BuilderEnd, Failure, FromBuilder, ServiceEnd, ToBuilder, ToBuilderEnd};
use crate::ablation::{self, Layer};
use crate::sys;

/// The argument that makes `bulkhead-sandbox` a builder.
pub(crate) const ARGUMENT: &str = "build";

/// The main function of `bulkhead-sandbox build PARENT`.
pub fn main() -> ExitCode {
    // First of all: whatever leaked into this process does not get into a box.
    if ablation::on(Layer::Descriptors) {
        sys::close_from(3);
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            protocol::log!("bulkhead-sandbox: {}: {}", failure.doing, failure.error);
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Failure> {
    let parent = std::env::args().nth(2).and_then(|text| text.parse().ok());
    init::die_with_parent(parent.ok_or_else(|| Failure::because("no parent is named"))?)?;
    sys::reset_all().map_err(Failure::at("resetting signals"))?;
    sys::reap_children_unasked().map_err(Failure::at("ignoring ended children"))?;
    // A failure only says that this process leads a group already, which will do as well.
    if ablation::on(Layer::Session) {
        let _ = rustix::process::setsid();
    }
    let service = BuilderEnd::from_stdin().map_err(Failure::because)?;
    // The standard input itself goes too: no box may hold the builder's link.
    init::close_stdin()?;
    let (owner, filters) = (Owner::of_this_process(), Filters::compile()?);
    loop {
        let link = match service.receive() {
            Ok((ToBuilder::Make, Some(link))) => link,
            Ok((ToBuilder::Make, None)) => return Err(Failure::because("a box without a link")),
            Err(LinkError::Closed) => return Ok(()),
            Err(error) => return Err(Failure::because(error)),
        };
        match sys::clone_into_namespaces() {
            Ok(sys::Cloned::Child) => {
                drop(service);
                init::main(link, owner, &filters)
            }
            Ok(sys::Cloned::Parent(pid, handle)) => {
                drop(link);
                let pid = pid.as_raw_nonzero().get().unsigned_abs();
                let told = service.send_with(&FromBuilder::Made { pid }, handle);
                told.map_err(Failure::because)?;
            }
            Err(error) => {
                let failure = Failure::at("making namespaces")(error);
                let told = service.send(&FromBuilder::Failed { failure });
                told.map_err(Failure::because)?;
            }
        }
    }
}

/// A builder, as its service sees it. It dies with the thread that started it.
#[derive(Debug)]
pub(crate) struct Builder {
    child: Child,
    link: Mutex<ToBuilderEnd>,
}

/// The first process of a box.
#[derive(Debug)]
pub(crate) struct Made {
    /// Its id on the host.
    pub(crate) pid: u32,
    /// Readable when it and all of its box is gone.
    pub(crate) handle: OwnedFd,
    /// To say what to build.
    pub(crate) link: ServiceEnd,
    /// The socket of the link, to wait for what comes.
    pub(crate) socket: UnixStream,
}

impl Builder {
    /// Starts one. `program` is `bulkhead-sandbox`.
    pub(crate) fn start(program: &Path) -> Result<Self, Failure> {
        let (ours, theirs) = UnixStream::pair().map_err(Failure::at("making a socket"))?;
        let mut command = Command::new(program);
        if ablation::on(Layer::OuterEnvironment) {
            command.env_clear();
        }
        let child = command
            .arg0("bulkhead-sandbox")
            .args([ARGUMENT, &std::process::id().to_string()])
            .args(ablation::arguments())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(Failure::at(format!("starting {}", program.display())))?;
        Ok(Self {
            child,
            link: Mutex::new(ToBuilderEnd::new(ours)),
        })
    }

    /// Has it make the first process of a box. There is something else to do until it is there.
    pub(crate) fn ask(&self) -> Result<Asked<'_>, Failure> {
        let (ours, theirs) = UnixStream::pair().map_err(Failure::at("making a socket"))?;
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.send_with_all(&ToBuilder::Make, &[theirs.as_fd()])
            .map_err(gone)?;
        Ok(Asked {
            link,
            ours: Some(ours),
        })
    }

    /// Whether it can make no more.
    pub(crate) fn is_gone(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

/// A first process that is under way.
#[derive(Debug)]
pub(crate) struct Asked<'builder> {
    link: MutexGuard<'builder, ToBuilderEnd>,
    /// Our end of its link, until it is made or nobody wants it.
    ours: Option<UnixStream>,
}

impl Asked<'_> {
    /// Waits for it.
    pub(crate) fn made(mut self) -> Result<Made, Failure> {
        let ours = self.ours.take();
        let ours = ours.ok_or_else(|| Failure::because("a box was taken twice"))?;
        let reply = self.link.receive().map_err(gone)?;
        let socket = ours.try_clone().map_err(Failure::at("copying a socket"))?;
        match reply {
            (FromBuilder::Made { pid }, Some(handle)) => Ok(Made {
                pid,
                handle,
                link: ServiceEnd::new(ours),
                socket,
            }),
            (FromBuilder::Made { .. }, None) => Err(Failure::because("a box without a handle")),
            (FromBuilder::Failed { failure }, _) => Err(failure),
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        // The reply must not be taken for that to another question. The process ends with its link.
        if self.ours.take().is_some() {
            let _ = self.link.receive();
        }
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        // It may be gone already. Its boxes die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gone(error: LinkError) -> Failure {
    Failure {
        doing: "asking for a box".to_owned(),
        error: format!("the process that makes boxes is gone: {error}"),
        errno: None,
    }
}
