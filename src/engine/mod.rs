//! The loop on its own thread, and the handle to it.
