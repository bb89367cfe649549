//! Unified diffs of texts, in bounds. What is in them is the workspace's: who shows them
//! takes control characters out.

use std::io::Read as _;
use std::time::Duration;

use similar::TextDiff;

use crate::compare::Side;
use crate::findings::bounded;
use crate::fsys;
use crate::name::Name;

/// The most bytes of one text that is compared.
const MAX_TEXT: u64 = 256 * 1024;

/// The most bytes of all diffs.
const MAX_DIFF: usize = 256 * 1024;

/// The most time for one; what is not compared by then is told as replaced.
const MAX_TIME: Duration = Duration::from_millis(200);

/// A text that grows.
#[derive(Debug, Default)]
pub(crate) struct Texts(String);

impl Texts {
    /// Adds the difference of two texts; of anything else, that it differs.
    pub(crate) fn add(&mut self, path: &[Name], old: Option<&Side<'_>>, new: Option<&Side<'_>>) {
        if self.0.len() >= MAX_DIFF {
            return;
        }
        let any_file = [old, new]
            .into_iter()
            .flatten()
            .any(|side| side.meta.kind() == protocol::runner::FileKind::File);
        if !any_file {
            return;
        }
        let name = bounded(path);
        match (text(old), text(new)) {
            (Some(old), Some(new)) => {
                let diff = TextDiff::configure()
                    .timeout(MAX_TIME)
                    .diff_lines(&old, &new);
                let mut unified = diff.unified_diff();
                unified.header(&format!("a/{name}"), &format!("b/{name}"));
                self.0.push_str(&unified.to_string());
            }
            (_, _) => self
                .0
                .push_str(&format!("{name}: not a text, or too long to compare\n")),
        }
        if self.0.len() > MAX_DIFF {
            self.0.truncate(self.0.floor_char_boundary(MAX_DIFF));
            self.0.push_str("\n(cut here)\n");
        }
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// What is not there, or no file, is empty; none if it is no text or too long.
fn text(side: Option<&Side<'_>>) -> Option<String> {
    let Some(side) = side.filter(|side| side.meta.kind() == protocol::runner::FileKind::File)
    else {
        return Some(String::new());
    };
    let (fd, meta) = fsys::open_file(side.dir, side.name).ok()?;
    if meta.size > MAX_TEXT {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::from(fd)
        .take(MAX_TEXT)
        .read_to_end(&mut bytes)
        .ok()?;
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}
