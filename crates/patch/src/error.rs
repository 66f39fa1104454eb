//! What can be wrong with a patch.

use osc_schema::MAX_DEPTH;
use thiserror::Error;

/// Why a patch was refused.
#[derive(Debug, Error)]
pub enum PatchError {
    /// The body is not a list of JSON patch operations.
    #[error("the body is not a JSON patch: send a list of operations, each with op and path")]
    NotAPatch(#[source] serde_json::Error),
    /// More operations than anybody needs.
    #[error("The allowed maximum operations in a JSON patch is {limit}, got {count}")]
    TooManyOperations {
        /// Operations allowed.
        limit: usize,
        /// Operations sent.
        count: usize,
    },
    /// An operation could not be carried out; among them a `test` that does not hold.
    #[error("operation {index} of the JSON patch failed at {path:?}")]
    Operation {
        /// Position of the operation, from 0.
        index: usize,
        /// Its path.
        path: String,
        /// What is wrong.
        source: json_patch::PatchErrorKind,
    },
    /// `copy` operations that multiply the object.
    #[error("operation {index} of the JSON patch: copies add up to more than {limit} bytes, send fewer")]
    CopiesTooLarge {
        /// Position of the operation, from 0.
        index: usize,
        /// Bytes all copies of one patch may have together.
        limit: usize,
    },
    /// The patched object would nest too deep.
    #[error("the object would nest more than {MAX_DEPTH} levels deep: make it flatter")]
    TooDeep,
    /// A patch that merges is a JSON object.
    #[error("the patch must be an object")]
    NotAnObject,
    /// A directive (`$patch`, `$retainKeys`, …) nobody understands.
    #[error("the patch is malformed at {path}: {problem}")]
    Directive {
        /// Field of the patch.
        path: String,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// An item of a list lacks the field that tells items apart.
    #[error("the patch is malformed at {path}: an item does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The list.
        path: String,
        /// Field every item needs.
        key: String,
    },
}

/// What kind of answer a [`PatchError`] deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchErrorKind {
    /// The patch itself is wrong: 400.
    Malformed,
    /// The patch is too large: 413.
    TooLarge,
    /// The patch is fine and does not fit the object: 422.
    Unprocessable,
}

impl PatchError {
    /// What kind of answer this deserves.
    pub fn kind(&self) -> PatchErrorKind {
        match self {
            Self::NotAPatch(_) | Self::NotAnObject | Self::Directive { .. } | Self::NoMergeKey { .. } => {
                PatchErrorKind::Malformed
            }
            Self::TooManyOperations { .. } => PatchErrorKind::TooLarge,
            Self::Operation { .. } | Self::CopiesTooLarge { .. } | Self::TooDeep => PatchErrorKind::Unprocessable,
        }
    }
}
