//! The end of an open file.

use super::File;
use linux_raw_sys::general as c;

impl Drop for File {
    fn drop(&mut self) {
        let me = std::ptr::from_mut(self) as usize;
        self.watchers.tell_closed(me);
        if let Some(queue) = self.ops.wait_queue() {
            self.signals.stop(queue);
        }
        if let Some(locks) = self.locked.take() {
            locks.drop_owner(self.lock_owner());
            locks.unflock(self.lock_owner());
        }
        if *self.announced.get_mut() {
            self.tell(if self.writable() { c::IN_CLOSE_WRITE } else { c::IN_CLOSE_NOWRITE });
        }
    }
}
