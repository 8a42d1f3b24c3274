//! The keeper: holds one child process and journals its stdio.
