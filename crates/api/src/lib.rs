//! The built-in kinds of the Kubernetes API: what they look like, their defaults, rules and tables.
