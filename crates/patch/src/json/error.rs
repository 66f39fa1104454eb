//! Why an operation cannot be carried out, in the words of Kubernetes: people search for them.

use thiserror::Error;

/// An operation of a JSON patch that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OperationError {
    /// Its `op` is none of those there are.
    #[error("Unexpected kind: {0}")]
    Kind(String),
    /// A field it needs is missing or of the wrong type.
    #[error("{op} operation failed to decode {field}")]
    Field {
        /// What was to be done.
        op: &'static str,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: OperationCause,
    },
    /// What would hold the value is not there, or holds no values.
    #[error("{op} operation does not apply: {lacking}: {place}")]
    NoPlace {
        /// What was to be done.
        op: &'static str,
        /// What is missing.
        lacking: &'static str,
        /// The path, quoted as Kubernetes does for this operation.
        place: String,
        /// That it is missing.
        source: OperationCause,
    },
    /// What would hold the value does not take or have it.
    #[error("error in {op} for {field}: '{place}'")]
    Refused {
        /// What was to be done.
        op: &'static str,
        /// The field of the operation.
        field: &'static str,
        /// The path, or its last part where Kubernetes says only that.
        place: String,
        /// Why not.
        source: OperationCause,
    },
    /// The place a value is copied to does not take it.
    #[error("error while adding value during copy")]
    Copy(#[source] OperationCause),
    /// A `test` that does not hold.
    #[error("testing value {path} failed")]
    Test {
        /// Where the value was looked for.
        path: String,
        /// That it is another one.
        source: OperationCause,
    },
    /// An object is not replaced by a mere value.
    #[error("replace operation value must be object or array")]
    Root,
}

/// The cause of an [`OperationError`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OperationCause {
    /// There is nothing.
    #[error("missing value")]
    Missing,
    /// The operation has no such field.
    #[error("operation{0} field: missing value")]
    NoField(&'static str),
    /// The field is no text.
    #[error("json: cannot unmarshal {0} into Go value of type string")]
    NotText(&'static str),
    /// The object has no such field.
    #[error("Unable to remove nonexistent key: {0}: missing value")]
    NoKey(String),
    /// The list has no such place.
    #[error("Unable to access invalid index: {0}: invalid index referenced")]
    NoIndex(i64),
    /// A place of a list is a number.
    #[error("strconv.Atoi: parsing {0:?}: {1}")]
    NotANumber(String, &'static str),
    /// The same, where something is to be added.
    #[error("value was not a proper array index: '{0}': strconv.Atoi: parsing {0:?}: {1}")]
    NotAnIndex(String, &'static str),
    /// The value is another one.
    #[error("test failed")]
    Different,
}
