//! What came of an attempt.

use std::fmt::Display;
use std::io;

use serde::{Deserialize, Serialize};

use super::scene::Scene;

/// What came of an attack, or of its harmless pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attempt {
    /// Whether it did what it wanted.
    pub(crate) got_through: bool,
    /// The answer in a word: the name of an error or signal, `ok` if there was none.
    pub(crate) answer: String,
    /// More of it, for people.
    pub(crate) detail: String,
}

impl Attempt {
    /// It did what it wanted.
    pub(crate) fn through(detail: impl Display) -> Self {
        Self {
            got_through: true,
            answer: "ok".to_owned(),
            detail: detail.to_string(),
        }
    }

    /// It did not.
    pub(crate) fn stopped(detail: impl Display) -> Self {
        let detail = detail.to_string();
        Self {
            got_through: false,
            answer: detail.clone(),
            detail,
        }
    }

    /// Through if it worked.
    pub(crate) fn of<T, E: Into<io::Error>>(result: Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::through("it worked"),
            Err(error) => Self::refused(&error.into()),
        }
    }

    /// Through if the kernel looked at the call: it answered something else than a filter or a missing right does.
    pub(crate) fn reaching<T, E: Into<io::Error>>(result: Result<T, E>) -> Self {
        const REFUSALS: [i32; 4] = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EAFNOSUPPORT];
        let error = match result {
            Ok(_) => return Self::through("the call worked"),
            Err(error) => error.into(),
        };
        match error.raw_os_error() {
            Some(number) if !REFUSALS.contains(&number) => Self {
                got_through: true,
                answer: name(number),
                detail: format!("the kernel looked at the call: {}", name(number)),
            },
            Some(_) | None => Self::refused(&error),
        }
    }

    /// The first that got through, or what was answered to each.
    pub(crate) fn any(all: impl IntoIterator<Item = Self>) -> Self {
        let mut stopped = Vec::new();
        for attempt in all {
            if attempt.got_through {
                return attempt;
            }
            stopped.push(attempt);
        }
        let join = |of: fn(&Self) -> &str| stopped.iter().map(of).collect::<Vec<_>>().join(", ");
        match stopped.as_slice() {
            [] => Self::stopped("there is nothing to try it on"),
            _ => Self {
                got_through: false,
                answer: join(|it| &it.answer),
                detail: join(|it| &it.detail),
            },
        }
    }

    /// The same, with a word on what was tried.
    pub(crate) fn at(self, what: impl Display) -> Self {
        Self {
            detail: format!("{what}: {}", self.detail),
            ..self
        }
    }

    /// For what every kernel has one of its own of: no way to the host where the box has another kernel than
    /// the host.
    pub(crate) fn on_the_host(self, scene: &Scene) -> Self {
        match self.got_through && scene.has_another_kernel() {
            true => Self {
                got_through: false,
                answer: "another kernel's".to_owned(),
                detail: format!("{}, but of another kernel than the host's", self.detail),
            },
            false => self,
        }
    }

    fn refused(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::stopped(name(number)),
            None => Self::stopped(error),
        }
    }
}

/// The name of an error, errno(3).
pub(crate) fn name(number: i32) -> String {
    const NAMES: &[(i32, &str)] = &[
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::ESRCH, "ESRCH"),
        (libc::EINTR, "EINTR"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::E2BIG, "E2BIG"),
        (libc::ENOEXEC, "ENOEXEC"),
        (libc::EBADF, "EBADF"),
        (libc::ECHILD, "ECHILD"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EXDEV, "EXDEV"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENFILE, "ENFILE"),
        (libc::EMFILE, "EMFILE"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::ETXTBSY, "ETXTBSY"),
        (libc::EFBIG, "EFBIG"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::EPIPE, "EPIPE"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ELOOP, "ELOOP"),
        (libc::EOVERFLOW, "EOVERFLOW"),
        (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
        (libc::ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (libc::EADDRINUSE, "EADDRINUSE"),
        (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
        (libc::EHOSTUNREACH, "EHOSTUNREACH"),
        (libc::ESTALE, "ESTALE"),
        (libc::EDQUOT, "EDQUOT"),
        (libc::ENOKEY, "ENOKEY"),
    ];
    NAMES
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(|| format!("error {number}"), |(_, name)| (*name).to_owned())
}
