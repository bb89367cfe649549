//! Whom egress trusts.

use config::Config;

use super::Check;

/// Certificates beside Mozilla's are the owner's wish, and nothing to forget.
pub(super) fn roots(config: &Config) -> Check {
    match config.extra_roots.len() {
        0 => Check::ok("tls-roots", "Mozilla's, and no others"),
        files => Check::warn(
            "tls-roots",
            format!(
                "Mozilla's, and those of {files} more (network.extra_roots): whoever has a key of them can \
                 read and change what goes to any host"
            ),
            "take those out of bulkhead.toml that are not needed",
        ),
    }
}
