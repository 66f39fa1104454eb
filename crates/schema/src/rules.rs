//! CEL rules of schemas.

use serde_json::Value;

use crate::cause::Cause;
use crate::model::Schema;
use crate::node::Node;
use crate::path::Path;

pub(crate) fn compile(_schema: &mut Schema, _path: &Path<'_>, _causes: &mut Vec<Cause>) {}

pub(crate) fn validate(_node: Node<'_>, _new: &Value, _old: Option<&Value>, _causes: &mut Vec<Cause>) {}
