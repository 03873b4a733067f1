//! A program that has memory of its own wherever the host process has some.
//!
//! The kernel's code runs in the host process and in the VM, where the same addresses can be a program's. The sandbox is
//! started, its host process's mappings are read and given to the program, which maps pages full of garbage there and
//! then makes calls of every kind. Natively the same program does the same: both must say the same.

use std::io::{Read, Write};
use std::process::{Child, Stdio};

use crate::{at_rest, end, errors, start};

/// `PILLBOX... ABI --child garbage` (whose kernel has to read host memory when asked to) beside `ABI --child garbage`.
pub(crate) fn check(abi: &str, pillbox: &[&str]) -> Result<(), String> {
    let words = ["--child", "garbage"];
    let mut sandbox = start(&[pillbox, &[abi], &words].concat(), Stdio::piped())?;
    let family = at_rest(&mut sandbox)?;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", sandbox.id())).map_err(|e| e.to_string());
    let ours = maps.clone().and_then(|maps| tell(&mut sandbox, &maps));
    end(&mut sandbox, &family);
    let ours = ours?;
    let natively = tell(&mut start(&[&[abi], words.as_slice()].concat(), Stdio::piped())?, &maps?)?;
    println!("{}", ours.0.lines().last().unwrap_or_default());
    if !ours.0.contains("reads of host memory: true") {
        return Err("its kernel has not read the host's memory".to_owned());
    }
    if ours.1 == natively.1 {
        return Ok(());
    }
    let differs = ours.1.lines().zip(natively.1.lines()).find(|(one, other)| one != other);
    Err(format!("sandbox and native differ, first here: {differs:?}"))
}

/// Gives the program the list; its errors and its output.
fn tell(child: &mut Child, maps: &str) -> Result<(String, String), String> {
    let gone = || "it has no standard streams".to_owned();
    child.stdin.take().ok_or_else(gone)?.write_all(maps.as_bytes()).map_err(|e| format!("its input: {e}"))?;
    let mut output = String::new();
    child
        .stdout
        .take()
        .ok_or_else(gone)?
        .read_to_string(&mut output)
        .map_err(|e| format!("its output: {e}"))?;
    let said = errors(child);
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() { Ok((said, output)) } else { Err(format!("{status}: {said}")) }
}
