//! Small words for bare system calls.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::attempt::Attempt;
use crate::sys::probe::{Arg, call};

/// An address that is not mapped, and not null, which some calls take for "none".
pub(super) const BAD: Arg<'static> = Arg::Number(1);
/// No descriptor, no process, no flag set that exists.
pub(super) const NONE: Arg<'static> = Arg::Number(usize::MAX);
/// Zero.
pub(super) const ZERO: Arg<'static> = Arg::Number(0);

/// A number as the kernel takes it.
pub(super) fn n(number: impl Into<i64>) -> Arg<'static> {
    Arg::Number(number.into() as usize)
}

/// Makes a call with arguments that no kernel accepts, and tells whether the kernel looked at them.
pub(super) fn reach<const N: usize>(number: i64, arguments: [Arg<'_>; N]) -> Attempt {
    Attempt::reaching(call(number, arguments))
}

/// A path as the kernel takes it.
pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}
