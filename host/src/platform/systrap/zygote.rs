//! What the zygote is, and what all its clones inherit from it: an address space with nothing in it, no privileges, a
//! filter, an empty root directory, and the kernel's process as the one whose end is theirs.

use super::arch;
use super::image;
use super::layout::{
    CONTROL, EXPECT, FD_ORDERS, MAPPER_FILTER, ORDER_COUNT, ORDERS, ORDERS_LEN, Order, Orders, SLOT_COUNT,
    TEXT, TEXT_LEN, slot_address,
};
use super::process::{KICK, Nursery, SYNCHRONOUS, map_slot};
use crate::abi::Result;
use crate::hostsys::process;
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use std::sync::Arc;

impl Nursery {
    /// Empties the zygote's address space and sets what all its clones inherit.
    pub(super) fn set_up_zygote(self: &Arc<Self>) -> Result<()> {
        let mut zygote = self.zygote.lock();
        let page = zygote.page;
        let slots_end = slot_address(SLOT_COUNT);
        let unmap = |start: u64, end: u64| Order::new(libc::SYS_munmap, [start, end - start, 0, 0, 0, 0]);
        let set = |option: i32, value: u64| Order::new(libc::SYS_prctl, [option as u64, value, 0, 0, 0, 0]);
        let mut orders = vec![
            // The parent may be gone already: then the request comes too late, and the parent is another.
            set(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64),
            Order { expected: self.own_pid as u32, ..Order::new(libc::SYS_getppid, [0; 6]).kind(EXPECT) },
            set(libc::PR_SET_NO_NEW_PRIVS, 1),
            Order::new(libc::SYS_close_range, [FD_ORDERS + 1, u64::from(u32::MAX), 0, 0, 0, 0]),
            // Everything but the text and the order page: stack, vDSO and vvar go.
            unmap(0, TEXT),
            unmap(TEXT + TEXT_LEN, ORDERS),
            unmap(ORDERS + ORDERS_LEN, slots_end),
            unmap(slots_end, arch::task_size()),
            map_slot(0),
        ];
        // Actions, capabilities and the name of the root are read from memory: they go behind the orders.
        let behind = offset_of!(Orders, list) + (ORDER_COUNT - 2) * size_of::<Order>();
        let action = arch::sigaction(image::handler());
        // _LINUX_CAPABILITY_VERSION_3 of this process, and none of them.
        let words = action.into_iter().chain([0x2008_0522, 0, 0, 0, u64::from(b'.')]);
        for (i, word) in words.enumerate() {
            self.orders.write(u64::from(page) * ORDERS_LEN + (behind + 8 * i) as u64, word);
        }
        let [action, capabilities, root] = [0, 4, 8].map(|word| ORDERS + behind as u64 + 8 * word);
        for signal in SYNCHRONOUS.into_iter().chain([KICK]) {
            orders.push(Order::new(libc::SYS_rt_sigaction, [signal as u64, action, 0, 8, 0, 0]));
        }
        // The mask of actions again: libc keeps two signals from being blocked.
        let all = action + 8 * 3;
        orders.push(Order::new(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, all, 0, 8, 0, 0]));
        let dead = || self.closed.load(Ordering::SeqCst);
        zygote.run(self, &orders, &[], &dead)?;
        // For those who may: the working directory, which is an empty one, as the root.
        let empty = Order::new(libc::SYS_chroot, [root, 0, 0, 0, 0, 0]);
        let _unprivileged = zygote.run(self, &[empty], &[], &dead);
        // Those that are cloned from it are registered as it is.
        let join = Order::new(libc::SYS_membarrier, [process::JOIN_BARRIERS, 0, 0, 0, 0, 0]);
        if zygote.run(self, &[join], &[], &dead).is_err() {
            process::barriers_miss_some();
        }
        let last = [
            Order::new(libc::SYS_capset, [capabilities, capabilities + 8, 0, 0, 0, 0]),
            // Nobody looks into it, and it leaves no core.
            set(libc::PR_SET_DUMPABLE, 0),
            Order::new(libc::SYS_seccomp, [libc::SECCOMP_SET_MODE_FILTER.into(), 0, MAPPER_FILTER, 0, 0, 0]),
        ];
        zygote.run(self, &last, &[], &dead)?;
        // From now on results are stored.
        let at = u64::from(page) * ORDERS_LEN + offset_of!(Orders, control) as u64;
        self.orders.write(at, slot_address(0) + CONTROL);
        Ok(())
    }
}
