//! The image of the containers: empty places to bind the host's files to, links into `/usr`, and the name of
//! the box' one user. It is made here and never comes from anywhere else.

use std::path::Path;

use protocol::ids::{Digest, hex};
use sandbox::native::parts::{Parts, names};

/// Where the program `bulkhead-sandbox` is in the container.
pub(crate) const SANDBOX: &str = "/run/bulkhead/sandbox";
/// Where the program of the built-in tools is.
pub(crate) const TOOL: &str = "/run/bulkhead/tool";
/// Where the workspace is, if a layer lies over it.
pub(crate) const LOWER: &str = "/run/bulkhead/lower";
/// Where the layer is.
pub(crate) const LAYER: &str = "/run/bulkhead/layer";
/// Where the workspace is, if it is a copy.
pub(crate) const WORKSPACE: &str = protocol::call::WORKSPACE;

/// Folders that every container has.
const FOLDERS: [&str; 8] = [
    "/dev",
    "/etc",
    "/proc",
    "/sys",
    "/tmp",
    "/run/bulkhead",
    "/var",
    WORKSPACE,
];
const LINKS: [(&str, &str); 4] = [
    ("/etc/mtab", "/proc/self/mounts"),
    ("/etc/os-release", "../usr/lib/os-release"),
    ("/var/run", "/run"),
    ("/var/tmp", "/tmp"),
];

/// An image that an engine may have already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// With the hash of the content, so that another content is another image. `localhost` is what Podman
    /// calls images that come from no registry.
    pub(crate) name: String,
    /// The content.
    pub(crate) tar: Vec<u8>,
}

impl Image {
    /// For a host with these parts.
    pub(crate) fn of(parts: &Parts) -> Result<Self, String> {
        let mut tar = Tar::default();
        for folder in FOLDERS
            .iter()
            .map(Path::new)
            .chain(parts.folders.iter().map(AsRef::as_ref))
        {
            tar.folder(folder)?;
        }
        for folder in [LOWER, LAYER] {
            tar.folder(Path::new(folder))?;
        }
        for file in [SANDBOX, TOOL]
            .iter()
            .map(Path::new)
            .chain(parts.files.iter().map(AsRef::as_ref))
        {
            tar.file(file, b"")?;
        }
        for (name, content) in names() {
            tar.file(&Path::new("/etc").join(name), content.as_bytes())?;
        }
        for (path, target) in LINKS {
            tar.link(Path::new(path), Path::new(target))?;
        }
        for (path, target) in &parts.links {
            tar.link(path, target)?;
        }
        let tar = tar.end();
        let digest = hex(&Digest::of(&tar).0[..8]);
        Ok(Self {
            name: format!("localhost/bulkhead-box-{digest}:latest"),
            tar,
        })
    }
}

/// A tar archive as POSIX.1-2001 has it (ustar), of entries that belong to root.
#[derive(Default)]
struct Tar {
    bytes: Vec<u8>,
    made: Vec<String>,
}

const BLOCK: usize = 512;

impl Tar {
    /// With those above it.
    fn folder(&mut self, path: &Path) -> Result<(), String> {
        let name = name(path)?;
        if name.is_empty() || self.made.contains(&name) {
            return Ok(());
        }
        self.above(path)?;
        self.entry(&name, b'5', 0o755, "", b"")?;
        self.made.push(name);
        Ok(())
    }

    fn file(&mut self, path: &Path, content: &[u8]) -> Result<(), String> {
        self.above(path)?;
        self.entry(&name(path)?, b'0', 0o444, "", content)
    }

    fn link(&mut self, path: &Path, target: &Path) -> Result<(), String> {
        self.above(path)?;
        let target = target.to_str().ok_or("a link's target is not UTF-8")?;
        self.entry(&name(path)?, b'2', 0o777, target, b"")
    }

    fn above(&mut self, path: &Path) -> Result<(), String> {
        path.parent().map_or(Ok(()), |folder| self.folder(folder))
    }

    fn entry(
        &mut self,
        name: &str,
        kind: u8,
        mode: u32,
        target: &str,
        content: &[u8],
    ) -> Result<(), String> {
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, most: usize, text: &str| match text.len() <= most {
            true => {
                header[at..at + text.len()].copy_from_slice(text.as_bytes());
                Ok(())
            }
            false => Err(format!("{text:?} is too long for an archive")),
        };
        put(0, 100, name)?;
        put(100, 7, &format!("{mode:07o}"))?;
        put(108, 7, "0000000")?;
        put(116, 7, "0000000")?;
        put(124, 11, &format!("{:011o}", content.len()))?;
        put(136, 11, "00000000000")?;
        put(148, 8, "        ")?;
        put(157, 100, target)?;
        put(257, 8, "ustar\x0000")?;
        header[156] = kind;
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(header);
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// Two empty blocks.
    fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

/// Without the slash in front.
fn name(path: &Path) -> Result<String, String> {
    let text = path
        .to_str()
        .ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.trim_start_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts {
            links: vec![("/bin".into(), "usr/bin".into())],
            folders: vec!["/usr".into(), "/etc/ssl/certs".into()],
            files: vec!["/etc/ssl/openssl.cnf".into()],
        }
    }

    #[test]
    fn tar_reads_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("x.tar");
        std::fs::write(&archive, Image::of(&parts()).unwrap().tar).unwrap();
        let output = std::process::Command::new("tar")
            .arg("-tvf")
            .arg(&archive)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let list = String::from_utf8(output.stdout).unwrap();
        for end in [
            "etc/ssl/certs",
            "etc/ssl/openssl.cnf",
            "bin -> usr/bin",
            "run/bulkhead/sandbox",
            "workspace",
        ] {
            assert!(
                list.lines()
                    .any(|line| line.trim_end_matches('/').ends_with(end)),
                "{end}: {list}"
            );
        }
    }

    #[test]
    fn another_host_has_another_image() {
        let other = Parts {
            files: Vec::new(),
            ..parts()
        };
        assert_ne!(
            Image::of(&parts()).unwrap().name,
            Image::of(&other).unwrap().name
        );
    }
}
