//! The system calls there are, and what their arguments are, as `pillbox syscalls --json` tells.

use serde_json::Value;

/// One system call.
pub(crate) struct Row {
    pub(crate) number: i64,
    pub(crate) arguments: Vec<Kind>,
}

/// What an argument is, as far as it matters to whoever makes it up.
pub(crate) enum Kind {
    Number,
    Descriptor,
    Text,
    /// Any of these together.
    Bits(Vec<u64>),
    /// One of these.
    One(Vec<u64>),
    Signal,
    /// An address of something.
    Memory,
}

/// Calls that say nothing about the kernel, because nothing comes after them.
const LAST: [&str; 3] = ["exit", "exit_group", "rt_sigreturn"];

/// Reads the table from a file.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn read(path: &str) -> Result<Vec<Row>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>();
    let rows: Vec<Row> = lines.map_err(|e| format!("{path}: {e}"))?.iter().filter_map(row).collect();
    if rows.is_empty() { Err(format!("{path}: no system call is listed")) } else { Ok(rows) }
}

fn row(line: &Value) -> Option<Row> {
    let name = line["name"].as_str()?;
    let number = line[std::env::consts::ARCH].as_i64()?;
    if line["support"] == "none" || LAST.contains(&name) {
        return None;
    }
    let arguments = line["arguments"].as_array()?.iter().map(kind).collect();
    Some(Row { number, arguments })
}

fn kind(format: &Value) -> Kind {
    let (name, more) = match format.as_object().and_then(|object| object.iter().next()) {
        Some((name, more)) => (name.as_str(), Some(more)),
        None => (format.as_str().unwrap_or_default(), None),
    };
    let values = || {
        let pairs = more.and_then(Value::as_array).into_iter().flatten();
        pairs.filter_map(|pair| pair[0].as_u64()).collect::<Vec<_>>()
    };
    match name {
        "Int" | "Uint" | "Size" | "Hex" | "Mode" | "OpenMode" => Kind::Number,
        "Fd" | "DirFd" => Kind::Descriptor,
        "Path" | "Str" => Kind::Text,
        "Flags" => Kind::Bits(values()),
        "OpenFlags" | "SocketType" | "Futex" => Kind::Bits((0..24).map(|bit| 1 << bit).collect()),
        "Enum" => Kind::One(values()),
        "Signal" => Kind::Signal,
        _ => Kind::Memory,
    }
}
