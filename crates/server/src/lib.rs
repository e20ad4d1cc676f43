//! The I/O shell: shards on threads, listeners, TLS, timers.
