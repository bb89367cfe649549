//! What of the host a box' root is made of, for a container that has it bound in.

use std::fs;
use std::path::{Path, PathBuf};

use super::mounts::{ETC_FILES, ETC_FOLDERS, USR_PARTS};
use super::namespaces::INSIDE_ID;

/// Entries of a root, by their absolute paths, which are the same on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Links into `/usr`, with their targets.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Folders.
    pub folders: Vec<PathBuf>,
    /// Files.
    pub files: Vec<PathBuf>,
}

/// Those that this host has.
pub fn parts() -> Parts {
    let mut parts = Parts {
        folders: vec!["/usr".into()],
        ..Parts::default()
    };
    for name in USR_PARTS {
        let path = Path::new("/").join(name);
        match fs::read_link(&path) {
            Ok(target) => parts.links.push((path, target)),
            Err(_) if path.is_dir() => parts.folders.push(path),
            Err(_) => {}
        }
    }
    let etc = Path::new("/etc");
    parts.folders.extend(
        ETC_FOLDERS
            .map(|name| etc.join(name))
            .into_iter()
            .filter(|path| path.is_dir()),
    );
    parts.files.extend(
        ETC_FILES
            .map(|name| etc.join(name))
            .into_iter()
            .filter(|path| path.is_file()),
    );
    parts
}

/// The files of `/etc` that name the box' one user, with their content.
pub fn names() -> [(&'static str, String); 4] {
    [
        (
            "passwd",
            format!("box:x:{INSIDE_ID}:{INSIDE_ID}:box:/tmp:/bin/sh\n"),
        ),
        ("group", format!("box:x:{INSIDE_ID}:\n")),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\n".to_owned(),
        ),
    ]
}
