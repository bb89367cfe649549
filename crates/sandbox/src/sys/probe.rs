//! What the programs that attack a box need of the kernel, and no honest program does.

use std::ffi::CStr;
use std::io;

use rustix::process::{Pid, WaitOptions};

/// An argument of [`call`].
pub(crate) enum Arg<'a> {
    /// A number, or an address that is not mapped.
    Number(usize),
    /// Bytes that the kernel reads.
    In(&'a [u8]),
    /// Bytes that the kernel writes.
    Out(&'a mut [u8]),
    /// A C string that the kernel reads.
    Text(&'a CStr),
}

/// Which side of a fork this is.
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one, and the new one's id.
    Parent(Pid),
}

/// Forks a process that has one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    super::process::one_thread()?;
    // JUSTIFICATION: some attacks need a child that goes on in Rust and starts no program.
    // SAFETY: no other thread exists (checked above), so no lock is held and no state is half
    // changed in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid)
            .map(Fork::Parent)
            .ok_or_else(|| io::Error::other("fork returned no process id")),
    }
}

/// Calls that change this process' own memory map or end it without a word; no probe needs them bare.
const NEVER: [i64; 8] = [
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_shmat,
    libc::SYS_rt_sigreturn,
];

/// Makes a bare system call; only for [`crate::probes`], whose programs attack and end.
pub(crate) fn call<const N: usize>(number: i64, arguments: [Arg<'_>; N]) -> io::Result<usize> {
    if NEVER.contains(&number) {
        return Err(io::Error::other("no probe makes this call"));
    }
    let mut all = [0_usize; 6];
    for (place, argument) in all.iter_mut().zip(arguments) {
        *place = match argument {
            Arg::Number(number) => number,
            Arg::In(bytes) => bytes.as_ptr() as usize,
            Arg::Out(bytes) => bytes.as_mut_ptr() as usize,
            Arg::Text(text) => text.as_ptr() as usize,
        };
    }
    let [a, b, c, d, e, f] = all;
    // JUSTIFICATION: an attacker makes the bare call, also of those that no library offers.
    // SAFETY: pointers are to buffers that live over the call and that the caller made as long as the call
    // takes them to be; other addresses are never mapped. What changes the memory map is refused above.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(usize::try_from(result).unwrap_or(0)),
    }
}

/// Reads memory of another process, process_vm_readv(2).
pub(crate) fn read_memory(pid: i32, address: usize, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: into.len(),
    };
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: the local vector is the slice; the remote one is never followed in this process.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Lets any process of the same user trace this one, where Yama asks for that.
pub(crate) fn allow_tracing() {
    // JUSTIFICATION: no safe wrapper takes "any".
    // SAFETY: it takes a number and touches no memory. Where there is no Yama it fails, and nothing is needed.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
}

/// Ignores every signal that can be ignored.
pub(crate) fn ignore_all() {
    const SIGNALS: i32 = 64;
    for signal in (1..=SIGNALS).filter(|signal| *signal != libc::SIGCHLD) {
        // JUSTIFICATION: no safe wrapper exists.
        // SAFETY: no handler is installed. For those that cannot be ignored it fails.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Makes a child with clone(2) and these flags, which ends at once, and waits for it.
pub(crate) fn clone_with(flags: i32) -> io::Result<()> {
    let flags = (flags | libc::SIGCHLD) as usize;
    // JUSTIFICATION: no library passes flags for namespaces.
    // SAFETY: without CLONE_VM this is fork(2), here of a process with one thread; the child only ends.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    child_ends(pid)
}

/// The same with clone3(2), whose flags are in memory.
pub(crate) fn clone3_with(flags: i32) -> io::Result<()> {
    // The first version of `struct clone_args`: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls.
    let mut arguments = [0_u64; 8];
    arguments[0] = u64::from(flags.cast_unsigned());
    arguments[4] = u64::from(libc::SIGCHLD.cast_unsigned());
    // JUSTIFICATION: no library offers it.
    // SAFETY: the array is as long as the size says; otherwise as above.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            arguments.as_ptr(),
            size_of_val(&arguments),
        )
    };
    child_ends(pid)
}

fn child_ends(pid: i64) -> io::Result<()> {
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => super::exit_now(0),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            rustix::process::waitpid(pid, WaitOptions::empty())?;
            Ok(())
        }
    }
}

/// getpid(2) through the gate of 32-bit programs.
#[cfg(target_arch = "x86_64")]
pub(crate) fn getpid_i386() -> io::Result<i64> {
    const GETPID: i64 = 20;
    let mut result = GETPID;
    // JUSTIFICATION: the gate is an instruction.
    // SAFETY: getpid takes no argument and touches no memory; the kernel keeps all other registers but r8 to r11.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    match result {
        0.. => Ok(result),
        error => Err(io::Error::from_raw_os_error(
            i32::try_from(-error).unwrap_or(libc::EINVAL),
        )),
    }
}

/// Maps memory that children share, and writes to all of it. It stays until the process ends.
pub(crate) fn hold_shared(bytes: usize) -> io::Result<()> {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
    );
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: the kernel chooses an address that nothing else uses.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // JUSTIFICATION: as above.
    // SAFETY: the mapping is as long, can be written, and nobody else has a pointer into it.
    unsafe { std::ptr::write_bytes(start.cast::<u8>(), 1, bytes) };
    Ok(())
}

/// Lets these calls end in `ENOSYS` before the kernel looks at them, unless another filter is stricter: each
/// other refusal of a filter wins over this one, seccomp(2). For the thread and what it starts.
pub(crate) fn trace_calls(numbers: &[i64]) -> io::Result<()> {
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut steps = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for number in numbers {
        let number = u32::try_from(*number).map_err(io::Error::other)?;
        steps.push(step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            number,
            0,
            1,
        ));
        steps.push(step(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_TRACE,
            0,
            0,
        ));
    }
    steps.push(step(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ALLOW,
        0,
        0,
    ));
    let program = libc::sock_fprog {
        len: u16::try_from(steps.len()).map_err(io::Error::other)?,
        filter: steps.as_mut_ptr(),
    };
    // JUSTIFICATION: seccompiler has no such action without a tracer.
    // SAFETY: the program points to the steps, which live over the call.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
