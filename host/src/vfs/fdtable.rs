//! Descriptors: the numbers a program holds for open files.

use super::{File, LockTable};
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use linux_raw_sys::general as c;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A descriptor as the program gives it.
pub type Fd = i32;

/// Most descriptors a table can ever hold (fs.nr_open).
const NR_OPEN: u64 = 1 << 20;

#[derive(Clone)]
struct Slot {
    file: Arc<File>,
    cloexec: bool,
}

#[derive(Default, Clone)]
struct Table {
    slots: Vec<Option<Slot>>,
    /// No slot below is free.
    lowest: usize,
    /// Slots that are not free.
    open: usize,
}

/// A table of open files; shared between tasks by CLONE_FILES.
pub struct FdTable {
    table: Lock<Table>,
    /// Somebody took a POSIX lock through this table, or something else that goes when a descriptor is closed.
    locked: AtomicBool,
    /// Where it took POSIX locks on files that share an inode.
    shared_locks: OnceLock<Arc<LockTable>>,
}

impl Default for FdTable {
    fn default() -> Self {
        FdTable {
            table: Lock::new(Rank::FdTable, Table::default()),
            locked: AtomicBool::new(false),
            shared_locks: OnceLock::new(),
        }
    }
}

impl Table {
    fn free_from(&self, from: usize) -> usize {
        let from = from.max(self.lowest);
        (from..self.slots.len()).find(|&at| self.slots[at].is_none()).unwrap_or(self.slots.len().max(from))
    }

    fn put(&mut self, at: usize, slot: Slot) -> Option<Slot> {
        if at >= self.slots.len() {
            self.slots.resize(at + 1, None);
        }
        if at == self.lowest {
            self.lowest += 1;
        }
        let old = self.slots[at].replace(slot);
        self.open += usize::from(old.is_none());
        old
    }

    fn take(&mut self, at: usize) -> Option<Slot> {
        let slot = self.slots.get_mut(at)?.take()?;
        self.lowest = self.lowest.min(at);
        self.open -= 1;
        Some(slot)
    }
}

fn index(fd: Fd) -> Result<usize> {
    usize::try_from(fd).map_err(|_| Errno::EBADF)
}

impl FdTable {
    /// An empty table.
    pub fn new() -> Arc<FdTable> {
        Arc::default()
    }

    /// A copy that is changed independently (fork).
    pub fn fork(&self) -> Arc<FdTable> {
        let mut copy = FdTable::default();
        copy.table.get_mut().clone_from(&self.table.lock());
        Arc::new(copy)
    }

    /// Bytes of the table and of what is open, roughly: what its end would give back.
    pub fn footprint(&self) -> u64 {
        let table = self.table.lock();
        (table.slots.capacity() * size_of::<Option<Slot>>() + table.open * size_of::<File>()) as u64
    }

    /// The open file that `fd` stands for, O_PATH handles excluded.
    ///
    /// # Errors
    /// EBADF.
    #[inline]
    pub fn get(&self, fd: Fd) -> Result<Arc<File>> {
        let file = self.get_path(fd)?;
        if file.is_path() { Err(Errno::EBADF) } else { Ok(file) }
    }

    /// The open file that `fd` stands for, be it only a handle on a name.
    ///
    /// # Errors
    /// EBADF.
    #[inline]
    pub fn get_path(&self, fd: Fd) -> Result<Arc<File>> {
        match self.table.lock().slots.get(index(fd)?) {
            Some(Some(slot)) => Ok(slot.file.clone()),
            _ => Err(Errno::EBADF),
        }
    }

    /// Gives `file` the lowest free number below `limit` (RLIMIT_NOFILE).
    ///
    /// # Errors
    /// EMFILE.
    pub fn install(&self, file: Arc<File>, cloexec: bool, limit: u64) -> Result<Fd> {
        self.install_from(0, file, cloexec, limit)
    }

    /// The same, from a lowest number on (F_DUPFD).
    ///
    /// # Errors
    /// EMFILE; EINVAL if `from` is not below the limit.
    pub fn install_from(&self, from: usize, file: Arc<File>, cloexec: bool, limit: u64) -> Result<Fd> {
        let limit = limit.min(NR_OPEN);
        if from > 0 && from as u64 >= limit {
            return Err(Errno::EINVAL);
        }
        let mut table = self.table.lock();
        let at = table.free_from(from);
        if at as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        table.put(at, Slot { file, cloexec });
        Ok(at as Fd)
    }

    /// Gives `file` the number `fd`, and returns the file that had it (to be dropped without the lock).
    ///
    /// # Errors
    /// EBADF outside the limit.
    pub fn install_at(
        &self,
        fd: Fd,
        file: Arc<File>,
        cloexec: bool,
        limit: u64,
    ) -> Result<Option<Arc<File>>> {
        let at = index(fd)?;
        if at as u64 >= limit.min(NR_OPEN) {
            return Err(Errno::EBADF);
        }
        let old = self.table.lock().put(at, Slot { file, cloexec }).map(|slot| slot.file);
        if let Some(old) = &old {
            self.release_locks(old);
        }
        Ok(old)
    }

    /// Closes `fd` and returns the file.
    ///
    /// # Errors
    /// EBADF.
    pub fn close(&self, fd: Fd) -> Result<Arc<File>> {
        let slot = self.table.lock().take(index(fd)?).ok_or(Errno::EBADF)?;
        self.release_locks(&slot.file);
        Ok(slot.file)
    }

    /// Closes `first..=last`, or marks them close-on-exec.
    pub fn close_range(&self, first: u32, last: u32, cloexec_only: bool) {
        let mut closed = Vec::new();
        {
            let mut table = self.table.lock();
            let end = table.slots.len().min(last as usize + 1);
            for at in first as usize..end {
                if cloexec_only {
                    if let Some(slot) = &mut table.slots[at] {
                        slot.cloexec = true;
                    }
                } else if let Some(slot) = table.take(at) {
                    closed.push(slot.file);
                }
            }
        }
        for file in &closed {
            self.release_locks(file);
        }
    }

    /// Closes what execve(2) closes.
    pub fn close_on_exec(&self) {
        let mut closed = Vec::new();
        {
            let mut table = self.table.lock();
            for at in 0..table.slots.len() {
                if table.slots[at].as_ref().is_some_and(|slot| slot.cloexec) {
                    closed.extend(table.take(at).map(|slot| slot.file));
                }
            }
        }
        for file in &closed {
            self.release_locks(file);
        }
    }

    /// Whether `fd` is closed by execve(2).
    ///
    /// # Errors
    /// EBADF.
    pub fn cloexec(&self, fd: Fd) -> Result<bool> {
        match self.table.lock().slots.get(index(fd)?) {
            Some(Some(slot)) => Ok(slot.cloexec),
            _ => Err(Errno::EBADF),
        }
    }

    /// Sets whether `fd` is closed by execve(2).
    ///
    /// # Errors
    /// EBADF.
    pub fn set_cloexec(&self, fd: Fd, cloexec: bool) -> Result<()> {
        match self.table.lock().slots.get_mut(index(fd)?) {
            Some(Some(slot)) => {
                slot.cloexec = cloexec;
                Ok(())
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// All descriptors in use and their files, ascending.
    pub fn all(&self) -> Vec<(Fd, Arc<File>, bool)> {
        let table = self.table.lock();
        let used = table.slots.iter().enumerate();
        used.filter_map(|(at, slot)| slot.as_ref().map(|slot| (at as Fd, slot.file.clone(), slot.cloexec)))
            .collect()
    }

    /// Slots that exist (FDSize of /proc/PID/status).
    pub fn size(&self) -> usize {
        self.table.lock().slots.len().next_multiple_of(64)
    }

    /// The identity that POSIX locks are owned by.
    pub fn lock_owner(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }

    /// Notes that POSIX locks must be dropped, and files told, when descriptors are closed.
    pub fn note_lock(&self) {
        self.locked.store(true, Ordering::Relaxed);
    }

    /// Notes that POSIX locks of this table on `file` must be dropped.
    pub fn note_file_lock(&self, file: &File, locks: &Arc<LockTable>) {
        if file.shares_inode() {
            let _ = self.shared_locks.set(locks.clone());
        }
        self.note_lock();
    }

    /// fcntl(2): closing any descriptor of a file drops the process's POSIX locks on it.
    fn release_locks(&self, file: &File) {
        // What is only a handle on a name has never been open.
        if self.locked.load(Ordering::Relaxed) && !file.is_path() {
            let shared = || self.shared_locks.get().filter(|_| file.shares_inode()).cloned();
            if let Some(locks) = file.existing_locks().or_else(shared) {
                locks.drop_owner(self.lock_owner());
            }
            file.ops().closed_by(self.lock_owner());
        }
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        if *self.locked.get_mut() {
            for (_, file, _) in self.all() {
                self.release_locks(&file);
            }
        }
    }
}

/// Flags of a new descriptor out of those of open(2) and friends.
pub const fn is_cloexec(flags: u32) -> bool {
    flags & c::O_CLOEXEC != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::FileOps;
    use std::any::Any;

    struct Nothing;
    impl FileOps for Nothing {
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    fn file() -> Arc<File> {
        File::anon(Arc::new(Nothing), c::O_RDWR)
    }

    #[test]
    fn lowest_number_is_given() {
        let fds = FdTable::new();
        for want in 0..5 {
            assert_eq!(fds.install(file(), false, 1024), Ok(want));
        }
        fds.close(1).unwrap();
        fds.close(3).unwrap();
        assert_eq!(fds.install(file(), false, 1024), Ok(1));
        assert_eq!(fds.install_from(2, file(), false, 1024), Ok(3));
        assert_eq!(fds.install_from(100, file(), false, 1024), Ok(100));
        assert_eq!(fds.install(file(), false, 1024), Ok(5));
        assert_eq!(fds.get(99).err(), Some(Errno::EBADF));
        assert_eq!(fds.get(-1).err(), Some(Errno::EBADF));
    }

    #[test]
    fn limits_hold() {
        let fds = FdTable::new();
        assert_eq!(fds.install(file(), false, 1), Ok(0));
        assert_eq!(fds.install(file(), false, 1), Err(Errno::EMFILE));
        assert_eq!(fds.install_from(5, file(), false, 5), Err(Errno::EINVAL));
        assert_eq!(fds.install_at(5, file(), false, 5).err(), Some(Errno::EBADF));
    }

    #[test]
    fn exec_closes_and_fork_copies() {
        let fds = FdTable::new();
        fds.install(file(), true, 10).unwrap();
        fds.install(file(), false, 10).unwrap();
        let child = fds.fork();
        child.close_on_exec();
        assert!(child.get(0).is_err() && child.get(1).is_ok());
        assert!(fds.get(0).is_ok());
        fds.close_range(0, u32::MAX, true);
        assert_eq!(fds.cloexec(1), Ok(true));
        fds.close_range(1, u32::MAX, false);
        assert!(fds.get(0).is_ok() && fds.get(1).is_err());
    }
}
