//! Archives, where only a list of what is in them is printed.

use super::{is_inside, is_odd_path};

/// The archive that is listed, if the words say that and nothing else.
pub(super) fn listed<'a>(name: &str, args: &'a [String], workspace: &str) -> Option<&'a str> {
    let [how, archive] = args else {
        return None;
    };
    let lists = match name {
        "tar" => {
            let letters = how.strip_prefix('-').unwrap_or(how);
            letters.ends_with('f')
                && letters.matches('f').count() == 1
                && letters.contains('t')
                && letters.chars().all(|c| "tvzjJf".contains(c))
        }
        "unzip" => matches!(how.as_str(), "-l" | "-v" | "-Z" | "-Z1"),
        _ => false,
    };
    // tar takes what stands before a colon for another machine, unzip signs of a pattern for one.
    let usual = !archive.starts_with('-')
        && !archive.contains([':', '*', '?', '['])
        && is_inside(archive, workspace)
        && !is_odd_path(archive);
    (lists && usual).then_some(archive)
}
