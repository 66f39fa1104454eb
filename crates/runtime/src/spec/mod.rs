//! What the container engine asks for, read from the bundle's `config.json`.

mod kind;

pub use kind::{KindError, Names, PodKind};
