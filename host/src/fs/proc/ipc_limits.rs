//! /proc/sys/kernel/{shm*,sem,msg*} and /proc/sys/fs/mqueue: the limits of the IPC namespace of whoever opens them. Its root may change them.

use super::opener::Opener;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::fs::pseudo::{Dir, Opened, Text, next_ino};
use crate::kernel::Kernel;
use crate::kernel::ipc::IpcNamespace;
use crate::kernel::ipc::ids::MAX_OBJECTS;
use crate::kernel::ipc::limits::Limits;
use crate::kernel::ipc::mqnames::MqLimits;
use crate::vfs::{Caller, Inode};
use std::sync::{Arc, Weak};

/// The IPC namespace of whoever opens a file, and whether he may change its limits.
pub(super) fn ipc(kernel: &Weak<Kernel>, caller: Caller) -> Result<(Arc<IpcNamespace>, bool)> {
    let opener = Opener::find(kernel, caller)?;
    let may_change = opener.cred.uid.effective == 0 || opener.has(Caps::SYS_RESOURCE);
    Ok((opener.namespaces.ipc.of.clone(), may_change))
}

/// One file: how its numbers are read, and written back if they are allowed.
struct Setting {
    name: &'static str,
    read: fn(&Limits) -> Vec<u64>,
    write: fn(&mut Limits, &[u64]),
    /// The largest value that may be written, and the errno beyond it.
    most: u64,
    beyond: Errno,
}

const INT: u64 = i32::MAX as u64;
const OBJECTS: u64 = MAX_OBJECTS as u64;

const SETTINGS: &[Setting] = &[
    Setting {
        name: "shmmax",
        read: |l| vec![l.shmmax],
        write: |l, v| l.shmmax = v[0],
        most: u64::MAX,
        beyond: Errno::EINVAL,
    },
    Setting {
        name: "shmall",
        read: |l| vec![l.shmall],
        write: |l, v| l.shmall = v[0],
        most: u64::MAX,
        beyond: Errno::EINVAL,
    },
    Setting {
        name: "shmmni",
        read: |l| vec![l.shmmni.into()],
        write: |l, v| l.shmmni = v[0] as u32,
        most: OBJECTS,
        beyond: Errno::EINVAL,
    },
    Setting {
        name: "sem",
        read: |l| [l.semmsl, l.semmns, l.semopm, l.semmni].map(u64::from).to_vec(),
        write: |l, v| {
            let to: [&mut u32; 4] = [&mut l.semmsl, &mut l.semmns, &mut l.semopm, &mut l.semmni];
            to.into_iter().zip(v).for_each(|(to, value)| *to = *value as u32);
        },
        most: INT,
        beyond: Errno::EINVAL,
    },
    Setting {
        name: "msgmax",
        read: |l| vec![l.msgmax.into()],
        write: |l, v| l.msgmax = v[0] as u32,
        most: INT,
        beyond: Errno::EINVAL,
    },
    Setting {
        name: "msgmnb",
        read: |l| vec![l.msgmnb.into()],
        write: |l, v| l.msgmnb = v[0] as u32,
        most: INT,
        beyond: Errno::EINVAL,
    },
    Setting {
        name: "msgmni",
        read: |l| vec![l.msgmni.into()],
        write: |l, v| l.msgmni = v[0] as u32,
        most: OBJECTS,
        beyond: Errno::EINVAL,
    },
];

impl Setting {
    /// The numbers of what is written: as many as there are, the first one at least.
    fn parse(&self, text: &[u8]) -> Result<Vec<u64>> {
        let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
        let numbers: Result<Vec<u64>> = text
            .split_ascii_whitespace()
            .map(|word| word.parse().map_err(|_| Errno::EINVAL))
            .map(|number| number.and_then(|n| if n > self.most { Err(self.beyond) } else { Ok(n) }))
            .collect();
        numbers.and_then(|numbers| if numbers.is_empty() { Err(Errno::EINVAL) } else { Ok(numbers) })
    }

    fn file(&'static self, kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
        let kernel = Arc::downgrade(kernel);
        Text::writable(next_ino(), move |caller| {
            let (reader, may_change) = ipc(&kernel, caller)?;
            let writer = reader.clone();
            let read = move || {
                let words: Vec<String> =
                    (self.read)(&reader.limits.lock()).iter().map(u64::to_string).collect();
                Ok((words.join("\t") + "\n").into_bytes())
            };
            Ok(Opened::new(read).writable(move |text| {
                let numbers = self.parse(text)?;
                if !may_change {
                    return Err(Errno::EPERM);
                }
                (self.write)(&mut writer.limits.lock(), &numbers);
                Ok(())
            }))
        })
    }
}

/// All of them, for `/proc/sys/kernel`.
pub(super) fn entries(kernel: &Arc<Kernel>) -> Vec<(&'static str, Arc<dyn Inode>)> {
    SETTINGS.iter().map(|setting| (setting.name, setting.file(kernel))).collect()
}

/// A limit of POSIX message queues: its place, and what it may be.
struct MqSetting {
    name: &'static str,
    place: fn(&mut MqLimits) -> &mut u32,
    least: u32,
    most: u32,
}

const MQ_SETTINGS: &[MqSetting] = &[
    MqSetting { name: "queues_max", place: |l| &mut l.queues, least: 0, most: i32::MAX as u32 },
    MqSetting { name: "msg_max", place: |l| &mut l.messages, least: 1, most: 65536 },
    MqSetting { name: "msgsize_max", place: |l| &mut l.size, least: 128, most: 16 << 20 },
    MqSetting { name: "msg_default", place: |l| &mut l.default_messages, least: 1, most: 65536 },
    MqSetting { name: "msgsize_default", place: |l| &mut l.default_size, least: 128, most: 16 << 20 },
];

impl MqSetting {
    fn file(&'static self, kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
        let kernel = Arc::downgrade(kernel);
        Text::writable(next_ino(), move |caller| {
            let (reader, may_change) = ipc(&kernel, caller)?;
            let writer = reader.clone();
            let read = move || {
                let value = *(self.place)(&mut reader.mqueue_limits().lock());
                Ok(format!("{value}\n").into_bytes())
            };
            Ok(Opened::new(read).writable(move |text| {
                let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
                let value: u32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
                if !(self.least..=self.most).contains(&value) {
                    return Err(Errno::EINVAL);
                }
                if !may_change {
                    return Err(Errno::EPERM);
                }
                *(self.place)(&mut writer.mqueue_limits().lock()) = value;
                Ok(())
            }))
        })
    }
}

/// `/proc/sys/fs/mqueue`.
pub(super) fn mqueue(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    Dir::new(MQ_SETTINGS.iter().map(|setting| (setting.name, setting.file(kernel))).collect())
}
