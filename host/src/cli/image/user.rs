//! Who an image's program is: numbers, or names by the image's own /etc/passwd and /etc/group.

use super::{At, Result};
use crate::sandbox::container::User;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::io::Read;
use std::path::Path;

/// The most that is read of either file.
const MOST: u64 = 4 << 20;

/// Who `asked` is (`USER[:GROUP]`), and his home directory; without that the caller, whose home is what the image says of his
/// number.
pub(super) fn find(root: &Path, asked: Option<&str>) -> Result<(Option<User>, Option<String>)> {
    let passwd = table(root, "etc/passwd");
    let Some(asked) = asked else {
        let own = rustix::process::geteuid().as_raw().to_string();
        return Ok((None, by(&passwd, 2, &own).and_then(|row| row.get(5).cloned())));
    };
    let (name, group) = asked.split_once(':').map_or((asked, None), |(name, group)| (name, Some(group)));
    let row = by(&passwd, 0, name).or_else(|| by(&passwd, 2, name));
    let number = |row: &[String], at: usize| row.get(at).and_then(|word| word.parse::<u32>().ok());
    let unknown = |what: &str, name: &str| format!("it has no {what} {name:?}");
    let uid = row
        .and_then(|row| number(row, 2))
        .or_else(|| name.parse().ok())
        .ok_or_else(|| unknown("user", name))?;
    let groups = table(root, "etc/group");
    let gid = match group {
        Some(group) => {
            let known = by(&groups, 0, group).and_then(|row| number(row, 2));
            known.or_else(|| group.parse().ok()).ok_or_else(|| unknown("group", group))?
        }
        None => row.and_then(|row| number(row, 3)).unwrap_or(0),
    };
    let own = row.map_or("", |row| row[0].as_str());
    let is_in = |row: &&Vec<String>| {
        row.get(3).is_some_and(|all| all.split(',').any(|one| !own.is_empty() && one == own))
    };
    let more = if group.is_some() {
        Vec::new()
    } else {
        groups.iter().filter(is_in).filter_map(|row| number(row, 2)).collect()
    };
    let home = row.and_then(|row| row.get(5).cloned()).unwrap_or_else(|| "/".to_owned());
    Ok((Some(User { uid, gid, groups: more, ..User::default() }), Some(home)))
}

fn by<'a>(table: &'a [Vec<String>], at: usize, word: &str) -> Option<&'a Vec<String>> {
    table.iter().find(|row| row.get(at).is_some_and(|known| known == word))
}

/// The rows of a file of the image's; none where there is none, or no regular one.
fn table(root: &Path, name: &str) -> Vec<Vec<String>> {
    let text = text(root, name).unwrap_or_default();
    text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
}

fn text(root: &Path, name: &str) -> Result<String> {
    let root =
        openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("root")?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = std::fs::File::from(openat2(&root, name, flags, Mode::empty(), resolve).at(name)?);
    let mut bytes = Vec::new();
    if file.metadata().at(name)?.is_file() {
        file.take(MOST).read_to_end(&mut bytes).at(name)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
