//! Calling functions of `kube-cel`.

use std::sync::LazyLock;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr};
use kube_cel::cel::{self, Context};

use super::value::{Value, text};

static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(|| Context::default().with_all());

/// Characters of an error that are passed on: the library quotes whole values in some.
const MAX_ERROR: usize = 200;

/// Calls `function`, a method if there is a `receiver`.
pub(crate) fn call(receiver: Option<Value>, function: &str, arguments: Vec<Value>) -> Result<Value, String> {
    let mut context = FUNCTIONS.new_inner_scope();
    let mut operand = |name: String, value: Value| {
        context.add_variable_from_value(name.clone(), value);
        IdedExpr { id: 0, expr: Expr::Ident(name) }
    };
    let target = receiver.map(|value| Box::new(operand("receiver".to_owned(), value)));
    let args = arguments.into_iter().enumerate().map(|(i, value)| operand(format!("argument{i}"), value)).collect();
    let call = IdedExpr { id: 0, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target, args }) };
    cel::Value::resolve(&call, &context).map_err(|error| error.to_string().chars().take(MAX_ERROR).collect())
}

/// The timestamp `text` means (RFC 3339).
pub(crate) fn timestamp(time: &str) -> Option<Value> {
    call(None, "timestamp", vec![text(time)]).ok()
}

/// The duration `text` means (`1h30m`).
pub(crate) fn duration(length: &str) -> Option<Value> {
    call(None, "duration", vec![text(length)]).ok()
}
