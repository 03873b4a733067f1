//! (Apart, because models compile the sources, too.)

#[cfg(debug_assertions)]
mod lock;
mod long;
mod wait;
