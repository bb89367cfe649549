//! What the machine itself takes: the disk, a new process, memory, and how busy it is.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The bytes of one write to the disk.
const BLOCK: [u8; 512] = [b'x'; 512];

/// Appends a block and syncs it, so many times: what one durable row costs at least.
pub(super) fn syncs(folder: &Path, count: usize) -> io::Result<Vec<Duration>> {
    let path = folder.join("sync-bench");
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    fs::remove_file(&path)?;
    Ok(times)
}

/// Starts `/bin/true` and waits for it, so many times: what a process costs without a box.
pub(super) fn processes(count: usize) -> io::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        times.push(process()?);
    }
    Ok(times)
}

/// Starts `/bin/true` once and waits for it.
pub(super) fn process() -> io::Result<Duration> {
    let began = Instant::now();
    Command::new("/bin/true").stdin(Stdio::null()).status()?;
    Ok(began.elapsed())
}

/// Memory of several processes, in MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Memory {
    /// Pages that several processes share are divided among them.
    Proportional(f64),
    /// They are counted in each: the kernel did not tell more.
    Resident(f64),
}

/// The memory of these processes together, and of each.
pub(super) fn memory(pids: &[u32]) -> io::Result<(Memory, Vec<f64>)> {
    let proportional: io::Result<Vec<f64>> = pids
        .iter()
        .map(|pid| field(&format!("/proc/{pid}/smaps_rollup"), "Pss:"))
        .collect();
    match proportional {
        Ok(each) => Ok((Memory::Proportional(each.iter().sum()), each)),
        // Programs that are not dumpable show this to root alone.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let resident: io::Result<Vec<f64>> = pids
                .iter()
                .map(|pid| field(&format!("/proc/{pid}/status"), "VmRSS:"))
                .collect();
            let each = resident?;
            Ok((Memory::Resident(each.iter().sum()), each))
        }
        Err(error) => Err(error),
    }
}

fn field(path: &str, name: &str) -> io::Result<f64> {
    kilobytes(&fs::read_to_string(path)?, name)
        .map(|kilobytes| kilobytes / 1024.0)
        .ok_or_else(|| io::Error::other(format!("{path} has no line {name}")))
}

/// The figure of a line like `Pss:    123 kB`.
fn kilobytes(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Percent of the last ten seconds in which something waited for a processor. None where the
/// kernel does not tell.
pub(super) fn pressure() -> Option<f64> {
    average(&fs::read_to_string("/proc/pressure/cpu").ok()?)
}

fn average(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = some
        .split_whitespace()
        .find_map(|word| word.strip_prefix("avg10="))?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        let rollup =
            "55-7f ---p 0 00:00 0 [rollup]\nRss:   2048 kB\nPss:    1536 kB\nPss_Anon: 9 kB\n";
        assert_eq!(kilobytes(rollup, "Pss:"), Some(1536.0));
        assert_eq!(kilobytes(rollup, "Swap:"), None);
        let busy = "some avg10=12.34 avg60=1.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00\n";
        assert_eq!(average(busy), Some(12.34));
        assert_eq!(average("nothing"), None);
    }

    #[test]
    fn this_process_has_memory_and_a_disk() {
        let (Memory::Proportional(all) | Memory::Resident(all), each) =
            memory(&[std::process::id()]).unwrap();
        assert!(all > 0.1 && each.len() == 1);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(syncs(folder.path(), 3).unwrap().len(), 3);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(processes(2).unwrap().len(), 2);
    }
}
