//! The first program: found in PATH like a shell finds it, and loaded.

use super::Error;
use crate::abi::Errno;
use crate::arch::MACHINE;
use crate::cred::Cred;
use crate::kernel::Kernel;
use crate::loader::{self, ExecError, ExecRequest, Ids, Program};
use crate::mm::{Mappable, MmLimits};
use crate::vfs::{Caller, Executing, File, FsContext, Lookup, Path, Resolve};
use std::sync::Arc;

/// Where commands are looked for when the environment has no PATH, as execvp(3) does.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Process 1.
const CALLER: Caller = Caller { pid: 1, tid: 1 };

/// What the first program is run with.
pub(super) struct Command<'a> {
    pub(super) argv: &'a [Vec<u8>],
    pub(super) env: &'a [Vec<u8>],
    pub(super) fs: &'a FsContext,
    pub(super) cred: &'a Cred,
    pub(super) limits: &'a MmLimits,
}

impl Command<'_> {
    /// Finds and loads it.
    pub(super) fn load(&self, kernel: &Kernel) -> Result<(Program, Path), Error> {
        let path = self.find()?;
        let shown = String::from_utf8_lossy(&path).into_owned();
        let file = self.open(&path).map_err(|errno| refused(&shown, errno))?;
        let mut opened = vec![file.path()];
        let request = ExecRequest {
            platform: &kernel.platform,
            vdso: &kernel.vdso,
            shifted: false,
            file: mappable(&file).map_err(|errno| refused(&shown, errno))?,
            path,
            argv: self.argv.to_vec(),
            envp: self.env.to_vec(),
            ids: Ids {
                uid: self.cred.uid.real,
                euid: self.cred.uid.effective,
                gid: self.cred.gid.real,
                egid: self.cred.gid.effective,
            },
            secure: false,
            limits: self.limits,
            randomize: true,
            random: &mut |bytes| kernel.random(bytes),
            open: &mut |path| {
                let file = self.open(path)?;
                opened.push(file.path());
                mappable(&file)
            },
        };
        let program = loader::load(request).map_err(|error| unloadable(&shown, error))?;
        // Behind scripts and their interpreters comes the program, behind that the dynamic linker.
        let exe = opened.swap_remove(program.depth);
        // Nobody writes yet.
        if let Ok(claim) = Executing::claim(&exe.dentry.inode) {
            program.mm.keep(Arc::new(claim));
        }
        Ok((program, exe))
    }

    fn lookup(&self) -> Lookup<'_> {
        Lookup { fs: self.fs, cred: self.cred, caller: CALLER }
    }

    fn open(&self, path: &[u8]) -> Result<Arc<File>, Errno> {
        self.lookup().open_program(None, path, Resolve::FOLLOW)
    }

    /// The path of the command: as given if it has a slash, else the first executable of that name in PATH.
    fn find(&self) -> Result<Vec<u8>, Error> {
        let name = self.argv.first().map(Vec::as_slice).unwrap_or_default();
        if name.contains(&b'/') {
            return Ok(name.to_vec());
        }
        let set = self.env.iter().find_map(|assignment| assignment.strip_prefix(b"PATH="));
        let path = set.unwrap_or(DEFAULT_PATH);
        let mut refusal = None;
        for dir in path.split(|byte| *byte == b':') {
            let candidate = if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() };
            match self.lookup().open_program(None, &candidate, Resolve::FOLLOW) {
                Ok(_) => return Ok(candidate),
                // Like execvp(3): go on, but remember that there was something.
                Err(Errno::EACCES) => refusal = Some(candidate),
                Err(_) => {}
            }
        }
        match refusal {
            Some(candidate) => Err(refused(&String::from_utf8_lossy(&candidate), Errno::EACCES)),
            None => Err(Error::NotInPath {
                command: String::from_utf8_lossy(name).into_owned(),
                path: String::from_utf8_lossy(path).into_owned(),
            }),
        }
    }
}

fn mappable(file: &Arc<File>) -> Result<Arc<dyn Mappable>, Errno> {
    file.mappable().ok_or(Errno::EACCES)
}

/// The file could not be opened.
fn refused(command: &str, errno: Errno) -> Error {
    let command = command.to_owned();
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => Error::NotFound { command },
        Errno::EACCES => Error::NotExecutable {
            command,
            reason: "no execute permission, or not a regular file".to_owned(),
        },
        errno => Error::NotExecutable { command, reason: errno.to_string() },
    }
}

/// The file was opened but is no program.
fn unloadable(command: &str, error: ExecError) -> Error {
    let command = command.to_owned();
    let reason = match error {
        ExecError::OtherMachine(_) => format!("{error}; this sandbox runs {MACHINE}"),
        ExecError::Errno(Errno::ENOEXEC) => "neither an ELF file nor a script that starts with #!".to_owned(),
        // The file itself was there: what is missing is what it names.
        ExecError::Errno(Errno::ENOENT) => "its interpreter is not in the sandbox's root".to_owned(),
        ExecError::Errno(errno) => errno.to_string(),
    };
    Error::NotExecutable { command, reason }
}
