//! File systems on their way to be mounted (fsopen(2), fspick(2)): what they are to be, and what was said about that.

use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Lock, Rank};
use crate::vfs::{Dentry, File, FileOps};
use linux_raw_sys::general as c;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

/// The most messages that are kept, and the most bytes of options, as of mount(2).
const MESSAGES: usize = 8;
const OPTIONS: usize = 4096;

/// How far it is (linux/fs_context.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is said what it is to be.
    Parameters,
    /// There is one, which can be mounted.
    Made,
    /// It has been mounted, or is one that was: it is said what is to change.
    Changes,
    /// Something went wrong.
    Failed,
}

/// What is known of it.
pub struct Context {
    /// Its type.
    pub fstype: &'static str,
    /// How far it is.
    pub phase: Phase,
    /// What /proc/mounts is to call its device.
    pub source: Option<String>,
    /// What was said, as mount(2) has it.
    pub options: String,
    /// Whether nothing on it is to change, if that was said.
    pub read_only: Option<bool>,
    /// Its root, once there is one.
    pub root: Option<Arc<Dentry>>,
    messages: VecDeque<String>,
}

/// One that is open.
pub struct ContextFile(Lock<Context>);

impl Context {
    fn of(fstype: &'static str, phase: Phase, root: Option<Arc<Dentry>>) -> Arc<File> {
        let (source, options, read_only, messages) = (None, String::new(), None, VecDeque::new());
        let context = Context { fstype, phase, source, options, read_only, root, messages };
        File::anon(Arc::new(ContextFile(Lock::new(Rank::FsContext, context))), c::O_RDWR)
    }

    /// A new one of a type.
    pub fn create(fstype: &'static str) -> Arc<File> {
        Self::of(fstype, Phase::Parameters, None)
    }

    /// One to change what is mounted.
    pub fn pick(root: Arc<Dentry>) -> Arc<File> {
        Self::of(root.sb.fstype, Phase::Changes, Some(root))
    }

    /// Notes what it is to be.
    ///
    /// # Errors
    /// EINVAL where that is more than fits.
    pub fn add(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        let more = key.len() + value.map_or(0, str::len) + 2;
        if self.options.len() + more > OPTIONS {
            return Err(Errno::EINVAL);
        }
        if !self.options.is_empty() {
            self.options.push(',');
        }
        self.options.push_str(key);
        if let Some(value) = value {
            self.options.push('=');
            self.options.push_str(value);
        }
        Ok(())
    }

    /// What was wrong, for whoever reads it; that is EINVAL.
    pub fn wrong(&mut self, what: &str) -> Errno {
        if self.messages.len() == MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(format!("e {what}\n"));
        Errno::EINVAL
    }

    /// The same of what its type does not take.
    pub fn refused(&mut self, what: &str) -> Errno {
        let fstype = self.fstype;
        self.wrong(&format!("{fstype}: {what}"))
    }
}

impl ContextFile {
    /// Does something to what is known of it.
    pub fn with<R>(&self, body: impl FnOnce(&mut Context) -> R) -> R {
        body(&mut self.0.lock())
    }
}

impl FileOps for ContextFile {
    fn read(&self, dst: &mut IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        let message = self.0.lock().messages.pop_front().ok_or(Errno::ENODATA)?;
        if message.len() > dst.remaining() {
            return Err(Errno::EMSGSIZE);
        }
        dst.write_bytes(message.as_bytes())
    }

    fn write(&self, _src: &mut IoSrc<'_>, _offset: Option<u64>) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn describe(&self) -> String {
        "anon_inode:[fscontext]".to_owned()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
