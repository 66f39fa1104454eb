//! What can be wrong with a patch.

use osc_schema::MAX_DEPTH;
use thiserror::Error;

use crate::json::OperationError;

/// Why a patch was refused.
#[derive(Debug, Error)]
pub enum PatchError {
    /// The body is not JSON.
    #[error("error decoding patch")]
    NotJson(#[source] serde_json::Error),
    /// The body is not a list of operations.
    #[error("error decoding patch: json: cannot unmarshal {found} into Go value of type []interface {{}}")]
    NotAList {
        /// What it is.
        found: &'static str,
    },
    /// Something in the list is no operation.
    #[error("json: cannot unmarshal {found} into Go value of type jsonpatch.Operation")]
    NotAnOperation {
        /// What it is.
        found: &'static str,
    },
    /// More operations than anybody needs.
    #[error("The allowed maximum operations in a JSON patch is {limit}, got {count}")]
    TooManyOperations {
        /// Operations allowed.
        limit: usize,
        /// Operations sent.
        count: usize,
    },
    /// An operation could not be carried out; among them a `test` that does not hold.
    #[error("operation {index} of the JSON patch failed")]
    Operation {
        /// Position of the operation, from 0.
        index: usize,
        /// What is wrong.
        source: OperationError,
    },
    /// `copy` operations that multiply the object.
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {size}, exceeding the limit {limit}"
    )]
    CopiesTooLarge {
        /// Position of the operation, from 0.
        index: usize,
        /// Bytes all copies of one patch may have together.
        limit: usize,
        /// Bytes they have so far.
        size: usize,
    },
    /// The patched object would nest too deep.
    #[error("the object would nest more than {MAX_DEPTH} levels deep: make it flatter")]
    TooDeep,
    /// A patch that merges is a JSON object.
    #[error("error decoding patch: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
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
            Self::NotJson(_)
            | Self::NotAList { .. }
            | Self::NotAnOperation { .. }
            | Self::NotAnObject { .. }
            | Self::Directive { .. }
            | Self::NoMergeKey { .. } => PatchErrorKind::Malformed,
            Self::TooManyOperations { .. } => PatchErrorKind::TooLarge,
            Self::Operation { .. } | Self::CopiesTooLarge { .. } | Self::TooDeep => PatchErrorKind::Unprocessable,
        }
    }
}
