//! Programs that attack the stub.
