//! Abstract socket names (unix(7)): names without a file, one table per mount namespace here.

use crate::abi::{Errno, Result};
use crate::sync::Lock;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// Who is bound to which name. What a socket is, `net` knows.
#[derive(Default)]
pub struct AbstractNames {
    names: Lock<BTreeMap<Vec<u8>, Weak<dyn Any + Send + Sync>>>,
    next: AtomicU32,
}

impl AbstractNames {
    /// Binds a name as long as `socket` lives.
    ///
    /// # Errors
    /// EADDRINUSE.
    pub fn bind(&self, name: &[u8], socket: &Arc<dyn Any + Send + Sync>) -> Result<()> {
        let mut names = self.names.lock();
        names.retain(|_, holder| holder.strong_count() > 0);
        if names.contains_key(name) {
            return Err(Errno::EADDRINUSE);
        }
        names.insert(name.to_vec(), Arc::downgrade(socket));
        Ok(())
    }

    /// A name for autobind: a zero byte and five hexadecimal digits.
    pub fn free_name(&self) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
        format!("\0{number:05x}").into_bytes()
    }

    /// The socket bound to a name.
    pub fn find(&self, name: &[u8]) -> Option<Arc<dyn Any + Send + Sync>> {
        self.names.lock().get(name).and_then(Weak::upgrade)
    }
}
