//! Abstract socket names (unix(7)): names without a file, one table per mount namespace here.

use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// Who is bound to which name. What a socket is, `net` knows.
pub struct AbstractNames {
    names: Lock<Names>,
    next: AtomicU32,
}

impl Default for AbstractNames {
    fn default() -> Self {
        AbstractNames { names: Lock::new(Rank::AbstractNames, Names::default()), next: AtomicU32::new(0) }
    }
}

/// Sockets of different types (a number of the caller's) do not see each other's names.
#[derive(Default)]
struct Names {
    all: BTreeMap<(u32, Vec<u8>), Weak<dyn Any + Send + Sync>>,
    /// How many there may be before those are looked for whose sockets are gone.
    enough: usize,
}

impl AbstractNames {
    /// Binds a name as long as `socket` lives.
    ///
    /// # Errors
    /// EADDRINUSE.
    pub fn bind(&self, kind: u32, name: &[u8], socket: &Arc<dyn Any + Send + Sync>) -> Result<()> {
        let mut names = self.names.lock();
        if names.all.len() > names.enough {
            names.all.retain(|_, holder| holder.strong_count() > 0);
            names.enough = 2 * names.all.len() + 16;
        }
        let key = (kind, name.to_vec());
        if names.all.get(&key).is_some_and(|holder| holder.strong_count() > 0) {
            return Err(Errno::EADDRINUSE);
        }
        names.all.insert(key, Arc::downgrade(socket));
        Ok(())
    }

    /// A name for autobind: a zero byte and five hexadecimal digits.
    pub fn free_name(&self) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
        format!("\0{number:05x}").into_bytes()
    }

    /// The socket bound to a name.
    pub fn find(&self, kind: u32, name: &[u8]) -> Option<Arc<dyn Any + Send + Sync>> {
        self.names.lock().all.get(&(kind, name.to_vec())).and_then(Weak::upgrade)
    }
}
