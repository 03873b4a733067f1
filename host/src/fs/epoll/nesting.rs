//! Epolls that watch epolls.
//!
//! An event runs from a file through the epolls that watch it to those that watch these, one call deeper each time, and
//! so does a question what holds, the other way. So there are at most [`LEVELS`] of them above each other, no circles,
//! and few enough ways up, as on Linux (fs/eventpoll.c: EP_MAX_NESTS, path_limits).

use super::Epoll;
use crate::abi::{Errno, Result};
use crate::vfs::File;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Epolls above each other, at most.
const LEVELS: usize = 5;
/// Ways of an event to epolls at each level, at most; any number of epolls may watch a file themselves.
const WAYS: [usize; LEVELS] = [usize::MAX, 500, 100, 50, 10];

/// Runs `add`, which makes `epoll` watch `file` as `fd`, if epolls may be nested so.
///
/// # Errors
/// ELOOP for a circle and for too many levels, EINVAL for too many ways, or what `add` returned.
pub(super) fn checked(
    epoll: &Epoll,
    fd: i32,
    file: &Arc<File>,
    add: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let above = epoll.own_file();
    let nested = above.as_ref().is_some_and(|above| above.watchers.any());
    let Some(below) = file.downcast::<Epoll>() else {
        if nested {
            few_ways(epoll)?;
        }
        return add();
    };
    let _changing = epoll.changing.lock();
    let mut known = BTreeMap::new();
    let depth = levels_below(below, epoll, 1, &mut known)?;
    if depth + levels_above(epoll, 1) > LEVELS {
        return Err(Errno::ELOOP);
    }
    add()?;
    // From each of them there are more ways now.
    let below = known.into_values().filter_map(|(_, file)| file).chain([file.clone()]);
    let epolls: Vec<Arc<File>> = below.collect();
    let few = epolls.iter().filter_map(|file| file.downcast::<Epoll>()).try_for_each(few_ways);
    few.inspect_err(|_| {
        let _ = epoll.remove(fd, file);
    })
}

/// Levels from `epoll` down, itself included. `level` of them lie above it: no deeper than [`LEVELS`].
fn levels_below(
    epoll: &Epoll,
    watcher: &Epoll,
    level: usize,
    known: &mut BTreeMap<usize, (usize, Option<Arc<File>>)>,
) -> Result<usize> {
    if std::ptr::eq(epoll, watcher) || level >= LEVELS {
        return Err(Errno::ELOOP);
    }
    let key = std::ptr::from_ref(epoll) as usize;
    if let Some(&(depth, _)) = known.get(&key) {
        return if level + depth > LEVELS { Err(Errno::ELOOP) } else { Ok(depth) };
    }
    let mut depth = 1;
    for file in epoll.watched_epolls() {
        if let Some(below) = file.downcast::<Epoll>() {
            depth = depth.max(1 + levels_below(below, watcher, level + 1, known)?);
        }
    }
    known.insert(key, (depth, epoll.own_file()));
    Ok(depth)
}

/// Levels from `epoll` up, itself included; stops counting where there are too many.
fn levels_above(epoll: &Epoll, level: usize) -> usize {
    if level > LEVELS {
        return 1;
    }
    let Some(file) = epoll.own_file() else { return 1 };
    let watchers = file.watchers.list();
    let above = watchers.iter().filter_map(|watcher| watcher.as_any().downcast_ref::<Epoll>());
    1 + above.map(|above| levels_above(above, level + 1)).max().unwrap_or(0)
}

/// Counts the ways up from a file that `epoll` watches.
fn few_ways(epoll: &Epoll) -> Result<()> {
    count_ways(epoll, 0, &mut [0; LEVELS])
}

/// Ends where there are too many, so that the work is bounded as the ways are. No deeper than [`LEVELS`].
fn count_ways(epoll: &Epoll, level: usize, ways: &mut [usize; LEVELS]) -> Result<()> {
    let (Some(count), Some(&most)) = (ways.get_mut(level), WAYS.get(level)) else {
        return Err(Errno::EINVAL);
    };
    *count += 1;
    if *count > most {
        return Err(Errno::EINVAL);
    }
    let Some(file) = epoll.own_file() else { return Ok(()) };
    for watcher in file.watchers.list() {
        if let Some(above) = watcher.as_any().downcast_ref::<Epoll>() {
            count_ways(above, level + 1, ways)?;
        }
    }
    Ok(())
}
