//! Landlock domains: which files, whether TCP, and no signals or abstract sockets to others.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

use protocol::box_link::PORT;

use crate::ablation::{self, Layer};
use crate::confine::Files;
use crate::sys;

/// The least that will do. ABI 4 (Linux 6.7) is the first that holds TCP, and with the
/// truncation of ABI 3 the first without a hole in what it says about files.
pub(crate) const MIN_ABI: u32 = 4;

/// The Landlock ABI of this kernel.
pub(crate) fn abi() -> Result<u32, String> {
    let advice = "Bulkhead needs Linux 6.7 or newer with CONFIG_SECURITY_LANDLOCK and `landlock` in the list of \
                  /sys/kernel/security/lsm; add it to the kernel's lsm= parameter, or install a newer kernel \
                  (on Debian 12: linux-image-amd64 from bookworm-backports)";
    match sys::landlock_abi() {
        Err(error) => Err(format!("this kernel has no Landlock ({error}). {advice}")),
        Ok(abi) if abi < MIN_ABI => Err(format!(
            "this kernel has Landlock ABI {abi}, and {MIN_ABI} is the least. {advice}"
        )),
        Ok(abi) => Ok(abi),
    }
}

/// What a process may still do once it has entered. It cannot leave again, and all it
/// starts is inside too. No domain lets a signal or an abstract socket out (from ABI 6 on).
#[derive(Debug)]
pub(crate) struct Domain {
    /// None leaves files alone: a domain that knows files cannot mount.
    files: Option<Vec<(PathBuf, Right)>>,
    tcp: Tcp,
}

/// What may be done below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Read files and list folders.
    Read,
    /// Also execute.
    ReadExecute,
    /// Read, and change what is there; make, rename and remove regular files and folders.
    ReadWrite,
    /// Everything but device nodes.
    Work,
    /// The same without executing.
    WorkNoExecute,
}

#[derive(Clone, Copy, Debug)]
enum Tcp {
    None,
    Connect,
    /// Connecting to the port of boxes alone.
    BoxPort,
    /// Also listening there.
    BoxPortBothWays,
}

impl Domain {
    /// All files, no TCP.
    pub(crate) fn without_files() -> Self {
        Self {
            files: None,
            tcp: Tcp::None,
        }
    }

    /// These paths and no others, no TCP.
    pub(crate) fn of_paths(files: Vec<(PathBuf, Right)>) -> Self {
        Self {
            files: Some(files),
            tcp: Tcp::None,
        }
    }

    /// A program's files, and those of `system` that exist.
    pub(crate) fn of_files(files: &Files, system: &[&str]) -> Result<Self, String> {
        let own = files.read.iter().map(|path| (path.clone(), Right::Read));
        let own = own.chain(
            files
                .write
                .iter()
                .map(|path| (path.clone(), Right::ReadWrite)),
        );
        let own = own.chain(
            files
                .keep
                .iter()
                .map(|path| (path.clone(), Right::WorkNoExecute)),
        );
        let mut all: Vec<_> = own.collect();
        for path in system {
            all.extend(real(Path::new(path))?.map(|path| (path, Right::Read)));
        }
        Ok(Self::of_paths(all))
    }

    /// Also connections out by TCP.
    pub(crate) fn with_tcp_out(self) -> Self {
        Self {
            tcp: Tcp::Connect,
            ..self
        }
    }

    /// Also connections to [`PORT`], and no other.
    pub(crate) fn with_way_to_egress(self) -> Self {
        Self {
            tcp: Tcp::BoxPort,
            ..self
        }
    }

    /// The same, and listening there.
    pub(crate) fn with_box_port(self) -> Self {
        Self {
            tcp: Tcp::BoxPortBothWays,
            ..self
        }
    }

    /// Enters, with everything that this ABI can hold; `abi` is from [`abi`].
    pub(crate) fn enter(self, abi: u32) -> Result<(), String> {
        if !ablation::on(Layer::Landlock) {
            return Ok(());
        }
        let level = level(abi);
        let status = self.build(level).map_err(|e| format!("Landlock: {e}"))?;
        match status.ruleset {
            RulesetStatus::FullyEnforced => Ok(()),
            RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => Err(format!(
                "Landlock ABI {abi} holds only a part of the domain"
            )),
        }
    }

    fn build(self, level: ABI) -> Result<landlock::RestrictionStatus, Box<dyn std::error::Error>> {
        let mut rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        if self.files.is_some() {
            rules = rules.handle_access(AccessFs::from_all(level))?;
        }
        rules = rules.handle_access(match self.tcp {
            Tcp::None | Tcp::BoxPort | Tcp::BoxPortBothWays => {
                AccessNet::BindTcp | AccessNet::ConnectTcp
            }
            Tcp::Connect => AccessNet::BindTcp.into(),
        })?;
        let scopes = Scope::from_all(level);
        if !scopes.is_empty() {
            rules = rules.scope(scopes)?;
        }
        let mut rules = rules.create()?;
        match self.tcp {
            Tcp::None | Tcp::Connect => {}
            Tcp::BoxPort => rules = rules.add_rule(NetPort::new(PORT, AccessNet::ConnectTcp))?,
            Tcp::BoxPortBothWays => {
                let both = AccessNet::BindTcp | AccessNet::ConnectTcp;
                rules = rules.add_rule(NetPort::new(PORT, both))?;
            }
        }
        for (path, right) in self.files.into_iter().flatten() {
            let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
            let handle = PathFd::new(&path).map_err(|e| named(&e))?;
            let folder = std::fs::metadata(&path).map_err(|e| named(&e))?.is_dir();
            let access = right.access(level);
            let access = if folder {
                access
            } else {
                access & AccessFs::from_file(level)
            };
            rules = rules.add_rule(PathBeneath::new(handle, access))?;
        }
        Ok(rules.restrict_self()?)
    }
}

impl Right {
    fn access(self, level: ABI) -> BitFlags<AccessFs> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let nodes = AccessFs::MakeChar | AccessFs::MakeBlock;
        match self {
            Self::Read => read,
            Self::ReadExecute => read | AccessFs::Execute,
            Self::ReadWrite => {
                let special = nodes | AccessFs::MakeSock | AccessFs::MakeFifo | AccessFs::MakeSym;
                let device = AccessFs::from_all(level)
                    & AccessFs::from_write(ABI::V5)
                    & !AccessFs::from_write(ABI::V4);
                (read | AccessFs::from_write(level)) & !special & !device
            }
            Self::Work => AccessFs::from_all(level) & !nodes,
            Self::WorkNoExecute => {
                AccessFs::from_all(level) & !nodes & !BitFlags::from(AccessFs::Execute)
            }
        }
    }
}

/// The newest level that this crate knows and the tests have seen, at most `abi`.
fn level(abi: u32) -> ABI {
    match abi {
        0..=4 => ABI::V4,
        5 => ABI::V5,
        _ => ABI::V6,
    }
}

/// The file that a path of the system leads to, if it exists. Below `/run` it is the folder,
/// because the programs there replace their files rather than write to them.
fn real(path: &Path) -> Result<Option<PathBuf>, String> {
    let target = match std::fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    match target.parent() {
        Some(folder) if folder.starts_with("/run") && folder.components().count() > 2 => {
            Ok(Some(folder.to_owned()))
        }
        Some(_) | None => Ok(Some(target)),
    }
}
