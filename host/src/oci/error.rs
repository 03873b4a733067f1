//! One line and an exit status: what an engine can make use of.

use crate::sandbox;

/// What [`super`]'s commands return; a number is an exit status.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// Why something was not done.
#[derive(Debug)]
pub(super) struct Error {
    /// One line: what, on what, why.
    pub(super) message: String,
    /// Of the command.
    pub(super) status: u8,
}

impl Error {
    /// With the status that runc has for whatever goes wrong.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Error { message: message.into(), status: 1 }
    }

    /// No such container.
    pub(super) fn unknown(id: &str) -> Self {
        Error::new(format!("container {id} does not exist"))
    }

    /// Why a program could not be started.
    pub(super) fn of_program(error: &sandbox::Error) -> Self {
        Error::new(error.as_engines_read_it())
    }
}

/// Adds to an error what was being done.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::new(format!("{}: {error}", what())))
    }
}
