//! The `pillbox` binary: argument parsing and exit status; everything else is the library's.

fn main() -> std::process::ExitCode {
    host::cli::main()
}
