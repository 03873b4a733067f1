//! The virtual machine: what /dev/kvm must offer, and the memory it is given.

use super::arch;
use crate::abi::Errno;
use crate::hostfd::{HostFd, What};
use crate::hostsys::last_close;
use crate::sync::{Lock, Rank};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use ring0::layout::{ARENA_BASE, ARENA_END};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Why kvm cannot be used: one line that names the thing and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device does not exist.
    #[error("{0} does not exist: load the kvm module, or enable (nested) virtualisation for this machine")]
    NoDevice(PathBuf),
    /// The device cannot be opened by this user.
    #[error("permission denied: {0}; join its group (often `kvm`), or run as root")]
    NoPermission(PathBuf),
    /// Opening failed otherwise.
    #[error("cannot open {0}: {1}")]
    Open(PathBuf, Errno),
    /// Not a KVM device, or too old.
    #[error("{0} is not a usable KVM device: API version {1}, need 12")]
    ApiVersion(PathBuf, i32),
    /// A capability or CPU feature is missing.
    #[error("the CPU or its KVM lacks {0}, which ring 0 needs")]
    Missing(&'static str),
    /// A CPU that would leak kernel memory to programs.
    #[error("this CPU needs separate page tables for user code ({0}), which is not built yet")]
    Vulnerable(&'static str),
    /// An ioctl failed.
    #[error("{0} failed: {1}")]
    Ioctl(&'static str, Errno),
    /// The table of descriptors is full.
    #[error("too many open files: {0}")]
    Listing(Errno),
    /// No memory for the first page tables, or an image outside its window.
    #[error("cannot build the kernel's page tables: out of memory, or pillbox was linked at the wrong base")]
    OutOfTables,
}

/// An ioctl's error, named.
pub(super) fn failed(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |error| Error::Ioctl(what, Errno(error.errno()))
}

/// An open VM with image and arena as its memory.
pub(super) struct Machine {
    /// The VM's descriptor in the table, which is let go before `vm` closes it.
    _listed: HostFd,
    vm: VmFd,
    /// The end of a VM waits for all CPUs of the host to pass a point of rest, more than once: this process does not.
    _end: Option<HostFd>,
    /// vCPUs made in advance, until their workers take them.
    ready: Lock<Vec<Option<(HostFd, VcpuFd)>>>,
    features: arch::Features,
    /// Where kernel code can be resumed: the image's text and the host's vDSO.
    pub(super) code: [(u64, u64); 2],
}

impl Machine {
    /// Opens the device, checks it, makes the VM for up to `workers` vCPUs and gives it its memory.
    pub(super) fn new(device: &Path, workers: usize) -> Result<Self, Error> {
        let kvm = open(device)?;
        let features = arch::check(&kvm)?;
        let vm = arch::create_vm(&kvm, &features)?;
        let slots = [image_bounds(), (ARENA_BASE, ARENA_END)];
        for (slot, (start, end)) in slots.into_iter().enumerate() {
            let region = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: start,
                memory_size: end - start,
                userspace_addr: start,
            };
            // SAFETY: image and arena stay mapped for the life of the process; what the guest does with them is what
            // this process's kernel code does.
            unsafe { vm.set_user_memory_region(region) }.map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
        }
        let listed = HostFd::lent(vm.as_raw_fd(), What::Made("virtual machine")).map_err(Error::Listing)?;
        let end = last_close::leave_to_kernel(&listed).ok();
        let ready = arch::create_vcpus(&vm, workers)?.into_iter().map(|vcpu| list(vcpu).map(Some));
        let ready = ready.collect::<Result<_, _>>()?;
        Ok(Machine {
            _listed: listed,
            vm,
            _end: end,
            ready: Lock::new(Rank::VcpusReady, ready),
            features,
            code: [super::image::text_bounds(), super::image::vdso_bounds()],
        })
    }

    /// Makes vCPU `id`. Its descriptor in the table is to be let go before it is.
    pub(super) fn create_vcpu(&self, id: usize) -> Result<(HostFd, VcpuFd), Error> {
        if let Some(vcpu) = self.ready.lock().get_mut(id).and_then(Option::take) {
            return Ok(vcpu);
        }
        self.vm.create_vcpu(id as u64).map_err(failed("KVM_CREATE_VCPU")).and_then(list)
    }

    #[cfg(target_arch = "aarch64")]
    pub(super) fn vm(&self) -> &VmFd {
        &self.vm
    }

    pub(super) fn features(&self) -> &arch::Features {
        &self.features
    }
}

fn list(vcpu: VcpuFd) -> Result<(HostFd, VcpuFd), Error> {
    let listed = HostFd::lent(vcpu.as_raw_fd(), What::Made("virtual CPU")).map_err(Error::Listing)?;
    Ok((listed, vcpu))
}

/// The image, rounded to the largest host page: memory slots consist of whole ones.
fn image_bounds() -> (u64, u64) {
    const HOST_PAGE: u64 = 64 << 10;
    let segments = super::image::segments();
    let (low, high) =
        segments.iter().fold((u64::MAX, 0), |(low, high), s| (low.min(s.start), high.max(s.end)));
    (low & !(HOST_PAGE - 1), high.next_multiple_of(HOST_PAGE))
}

fn open(device: &Path) -> Result<Kvm, Error> {
    let path = std::ffi::CString::new(device.as_os_str().as_bytes())
        .map_err(|_| Error::NoDevice(device.to_path_buf()))?;
    let kvm = Kvm::new_with_path(path).map_err(|error| match Errno(error.errno()) {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => Error::NoDevice(device.to_path_buf()),
        Errno::EACCES | Errno::EPERM => Error::NoPermission(device.to_path_buf()),
        errno => Error::Open(device.to_path_buf(), errno),
    })?;
    match kvm.get_api_version() {
        12 => Ok(kvm),
        version => Err(Error::ApiVersion(device.to_path_buf(), version)),
    }
}
