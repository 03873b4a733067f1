//! Sockets. Unix-domain ones so far; other families answer EAFNOSUPPORT.

pub mod unix;
