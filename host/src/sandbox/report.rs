//! The counters of a finished sandbox, as `--stats` prints them.

use crate::metrics::Metrics;
use crate::syscalls;
use std::fmt::Write;

/// The report: the platform's counters, the kernel's, and the system calls, most frequent first.
pub(super) fn text(
    platform: &str,
    platform_stats: &[(&'static str, u64)],
    switches: u64,
    metrics: &Metrics,
) -> String {
    let mut text = format!("pillbox statistics ({platform})\n");
    for (name, value) in platform_stats {
        row(&mut text, name, *value);
    }
    row(&mut text, "page faults", metrics.page_faults.value());
    row(&mut text, "task switches", switches);
    row(&mut text, "kicks", metrics.kicks.value());
    row(&mut text, "signals delivered", metrics.signals.value());
    calls(&mut text, metrics);
    missing(&mut text, metrics);
    text
}

fn row(text: &mut String, name: &str, value: u64) {
    let _ = writeln!(text, "  {name:<32} {value:>10}");
}

fn calls(text: &mut String, metrics: &Metrics) {
    let mut lines: Vec<(u64, u64, String)> = metrics
        .calls
        .iter()
        .enumerate()
        .map(|(number, calls)| (calls.in_guest.value(), calls.in_host.value(), name(number)))
        .filter(|(guest, host, _)| guest + host > 0)
        .collect();
    lines.sort_by(|a, b| (b.0 + b.1).cmp(&(a.0 + a.1)).then_with(|| a.2.cmp(&b.2)));
    let _ = writeln!(text, "  {:<32} {:>10} {:>10}", "system calls, answered in the", "guest", "host");
    for (guest, host, name) in &lines {
        let _ = writeln!(text, "    {name:<30} {guest:>10} {host:>10}");
    }
    let (guest, host) = lines.iter().fold((0, 0), |sum, line| (sum.0 + line.0, sum.1 + line.1));
    let _ = writeln!(text, "    {:<30} {guest:>10} {host:>10}", "(all)");
}

fn missing(text: &mut String, metrics: &Metrics) {
    let counted = metrics.calls.iter().enumerate().filter(|(_, calls)| calls.missing.value() > 0);
    let lines: Vec<String> =
        counted.map(|(number, calls)| format!("{} x{}", name(number), calls.missing.value())).collect();
    let unknown = metrics.unknown_calls.value();
    if lines.is_empty() && unknown == 0 {
        return;
    }
    let _ = write!(text, "  unimplemented (ENOSYS): {}", lines.join(", "));
    if unknown > 0 {
        let _ = write!(text, " and {unknown} of numbers Linux does not have");
    }
    text.push('\n');
}

fn name(number: usize) -> String {
    syscalls::row(number as u64).map_or_else(|| format!("#{number}"), |row| row.name.to_owned())
}
