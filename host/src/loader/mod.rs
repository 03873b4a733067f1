//! From a program file to an address space that is ready to run: what execve(2) does between opening the file and
//! the first instruction.
//!
//! | module | what |
//! |---|---|
//! | `elf` | headers, segments, where they go |
//! | `script` | `#!` lines |
//! | `stack` | argument strings and the auxiliary vector, as Linux lays them out |
//! | [`args`] | reading argument vectors from a program, with execve's limits |
//! | `hardware` | AT_HWCAP and friends |
//! | [`vdso`] | clocks without system calls |
//!
//! Knows nothing of tasks: the caller checks permissions, opens files and installs the result. Everything is mapped
//! through [`Mappable`] pages, so that a program whose pages are cached starts without host calls. A file that is
//! no program is `ENOEXEC`, whatever its bytes are; nothing here panics on them.

pub mod args;
mod elf;
mod hardware;
mod script;
mod stack;
#[cfg(test)]
mod tests;
pub mod vdso;

pub use stack::{RSEQ_ALIGN, RSEQ_FEATURES};

use crate::abi::{Errno, Result};
use crate::mm::{Mappable, Mm, MmLimits};
use crate::platform::Platform;
use std::sync::Arc;

/// Interpreters of interpreters that exec follows before it gives up with ELOOP (as Linux).
const MAX_DEPTH: usize = 5;
/// Bytes of a file that decide what it is (BINPRM_BUF_SIZE).
const PROBE: usize = 256;

/// Opens a file for execution by its path.
pub type Opener<'a> = dyn FnMut(&[u8]) -> Result<Arc<dyn Mappable>> + 'a;

/// What to run, and as whom.
pub struct ExecRequest<'a> {
    /// Where it will run.
    pub platform: &'a Arc<dyn Platform>,
    /// What every program of the sandbox gets mapped.
    pub vdso: &'a vdso::Vdso,
    /// Whether its clocks are put forward (time_namespaces(7)).
    pub shifted: bool,
    /// The program's file, opened and allowed to be executed.
    pub file: Arc<dyn Mappable>,
    /// Its name as given to execve: AT_EXECFN, and what a script's interpreter is told to read.
    pub path: Vec<u8>,
    /// Argument strings.
    pub argv: Vec<Vec<u8>>,
    /// Environment strings.
    pub envp: Vec<Vec<u8>>,
    /// For AT_UID and the like.
    pub ids: Ids,
    /// AT_SECURE: privileges were gained.
    pub secure: bool,
    /// RLIMIT_STACK and the others; the new address space takes them over.
    pub limits: &'a MmLimits,
    /// Whether addresses are randomised (personality(2) ADDR_NO_RANDOMIZE turns it off).
    pub randomize: bool,
    /// Fills a buffer with random bytes.
    pub random: &'a mut dyn FnMut(&mut [u8]),
    /// Opens an interpreter (of a script, or PT_INTERP) for execution, checking permissions.
    pub open: &'a mut Opener<'a>,
}

/// The identity that the auxiliary vector tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ids {
    /// Real user.
    pub uid: u32,
    /// Effective user.
    pub euid: u32,
    /// Real group.
    pub gid: u32,
    /// Effective group.
    pub egid: u32,
}

/// A program ready to run.
pub struct Program {
    /// Its memory.
    pub mm: Arc<Mm>,
    /// First instruction (the dynamic linker's, if there is one).
    pub ip: u64,
    /// Initial stack pointer.
    pub sp: u64,
    /// The file that was mapped: the last interpreter for scripts. For `/proc/PID/exe`.
    pub file: Arc<dyn Mappable>,
    /// Thread name: the last component of the path given, at most 15 bytes.
    pub comm: Vec<u8>,
    /// Scripts that were followed.
    pub depth: usize,
}

/// Why a program cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// As execve(2).
    #[error("{0}")]
    Errno(Errno),
    /// An ELF file for another machine (`e_machine`): ENOEXEC for programs, a message for the user.
    #[error("an ELF file for another machine ({})", machine_name(*.0))]
    OtherMachine(u16),
}

impl ExecError {
    /// What the system call returns.
    pub fn errno(self) -> Errno {
        match self {
            ExecError::Errno(errno) => errno,
            ExecError::OtherMachine(_) => Errno::ENOEXEC,
        }
    }
}

impl From<Errno> for ExecError {
    fn from(errno: Errno) -> Self {
        ExecError::Errno(errno)
    }
}

/// The usual name of an `e_machine` value.
pub fn machine_name(machine: u16) -> String {
    use object::elf;
    let known = [
        (elf::EM_386, "i386"),
        (elf::EM_ARM, "arm"),
        (elf::EM_X86_64, "x86_64"),
        (elf::EM_AARCH64, "aarch64"),
        (elf::EM_RISCV, "riscv"),
        (elf::EM_PPC64, "ppc64"),
        (elf::EM_S390, "s390"),
        (elf::EM_MIPS, "mips"),
        (elf::EM_LOONGARCH, "loongarch"),
    ];
    let name = known.iter().find(|(number, _)| number.0 == machine);
    name.map_or_else(|| format!("ELF machine {machine}"), |(_, name)| (*name).to_owned())
}

/// Builds the address space of a program.
///
/// # Errors
/// As execve(2); see [`ExecError`].
pub fn load(mut request: ExecRequest<'_>) -> Result<Program, ExecError> {
    let name = request.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let comm = name[..name.len().min(15)].to_vec();
    let execfn = request.path.clone();
    let mut file = request.file.clone();
    let mut depth = 0;
    let mut head = [0; PROBE];
    loop {
        head.fill(0);
        let len = file.read_at(0, &mut head)?;
        let Some(line) = script::parse(&head, len)? else { break };
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(Errno::ELOOP.into());
        }
        // interpreter [argument] script arguments...
        let mut argv = vec![line.interpreter.clone()];
        argv.extend(line.argument);
        argv.push(std::mem::replace(&mut request.path, line.interpreter));
        argv.extend(request.argv.drain(..).skip(1));
        request.argv = argv;
        file = (request.open)(&request.path)?;
    }
    args::check(&request.argv, &request.envp, &execfn, request.limits)?;
    let mm = Mm::new(request.platform)?;
    mm.limits().copy_from(request.limits);
    let mut places = elf::Places::new(&mm, request.limits, request.randomize, &mut *request.random);
    let image = elf::load(&mm, &file, &mut places, &mut *request.open)?;
    let vdso = request.vdso.map(&mm, request.shifted)?;
    let sp = stack::build(&mm, &request, &execfn, &image, &places, vdso)?;
    Ok(Program { mm, ip: image.start, sp, file, comm, depth })
}
