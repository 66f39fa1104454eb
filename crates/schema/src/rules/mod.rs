//! CEL rules of schemas (`x-kubernetes-validations`): compiled when a definition is accepted, evaluated on objects.

mod compile;
mod evaluate;
#[cfg(test)]
mod tests;

pub(crate) use compile::compile;
pub(crate) use evaluate::validate;
