//! CEL.
/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Program {}
