//! Crash-safe storage with one increasing revision and a history to watch.
