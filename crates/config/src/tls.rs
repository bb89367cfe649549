//! `[tls]` of bulkhead.toml: certificates that are trusted beside Mozilla's.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::file::ConfigError;

/// The most files, and the most bytes of one.
const MAX_ROOTS: usize = 16;
const MAX_BYTES: u64 = 256 * 1024;

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFile {
    #[serde(default)]
    extra_roots: Vec<PathBuf>,
}

/// The texts of these files, which lie in `folder` unless they say otherwise.
pub(crate) fn extra_roots(tls: &TlsFile, folder: &Path) -> Result<Vec<String>, ConfigError> {
    let wrong = |problem: String| ConfigError::Value {
        key: "tls.extra_roots",
        problem,
    };
    if tls.extra_roots.len() > MAX_ROOTS {
        return Err(wrong(format!("at most {MAX_ROOTS} files")));
    }
    let read = |path: &PathBuf| {
        let path = folder.join(path);
        let failed = |error| ConfigError::Io {
            path: path.clone(),
            error,
        };
        if fs::metadata(&path).map_err(failed)?.len() > MAX_BYTES {
            return Err(wrong(format!("{path:?} has more than {MAX_BYTES} bytes")));
        }
        let text = fs::read_to_string(&path).map_err(failed)?;
        if text.contains("PRIVATE KEY") {
            return Err(wrong(format!(
                "{path:?} holds a private key; take the certificate of the authority alone"
            )));
        }
        if !text.contains("-----BEGIN CERTIFICATE-----") {
            return Err(wrong(format!("{path:?} holds no certificate in PEM")));
        }
        Ok(text)
    };
    tls.extra_roots.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path, names: &[&str]) -> Result<Vec<String>, ConfigError> {
        let extra_roots = names.iter().map(PathBuf::from).collect();
        super::extra_roots(&TlsFile { extra_roots }, folder)
    }

    #[test]
    fn extra_roots_are_certificates_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        write("company.pem", certificate);
        write("empty.pem", "");
        write(
            "key.pem",
            &format!("{certificate}-----BEGIN {}-----\n", "PRIVATE KEY"),
        );
        write("long.pem", &certificate.repeat(5000));
        assert_eq!(
            read(folder.path(), &["company.pem"]).unwrap(),
            [certificate]
        );
        assert!(read(folder.path(), &[]).unwrap().is_empty());
        for name in ["empty.pem", "key.pem", "long.pem", "missing.pem"] {
            let error = read(folder.path(), &[name]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(read(folder.path(), &["company.pem"; 17]).is_err());
    }
}
