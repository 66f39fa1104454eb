//! What objects look like: structural schemas, pruning, defaults, validation.
