//! Macros that go over the items of a list or the entries of a map.

use std::sync::Arc;

use super::ast::{Fold, FoldKind};
use super::eval::{Evaluated, Fault, Run, failed};
use super::value::{Value, key_value, type_name};

impl<'a> Run<'a> {
    pub(super) fn fold(&mut self, fold: &'a Fold) -> Evaluated {
        let range = self.eval(&fold.range)?;
        let mut folding = Folding { kind: fold.kind, list: Vec::new(), found: 0, fault: None };
        match &range {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if self.fold_item(fold, Value::Int(index as i64), item, false, &mut folding)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                // Sorted, so that results that are lists do not depend on chance.
                let mut entries: Vec<_> = map.map.iter().collect();
                entries.sort_by(|a, b| a.0.cmp(b.0));
                for (key, value) in entries {
                    if self.fold_item(fold, key_value(key), value, true, &mut folding)? {
                        break;
                    }
                }
            }
            other => return failed(format!("no such overload: cannot iterate over '{}'", type_name(other))),
        }
        folding.result()
    }

    /// Evaluates the body for one item. True: the result is known.
    fn fold_item(
        &mut self,
        fold: &'a Fold,
        key: Value,
        item: &Value,
        keyed: bool,
        folding: &mut Folding,
    ) -> Evaluated<bool> {
        self.charge(1)?;
        let (first, second) = (fold.names.0.as_str(), fold.names.1.as_deref());
        let (names, each) = match second {
            Some(second) => ([Some((first, key)), Some((second, item.clone()))], item.clone()),
            None => {
                let each = if keyed { key } else { item.clone() };
                ([Some((first, each.clone())), None], each)
            }
        };
        self.within(names.into_iter().flatten(), |run| run.fold_step(fold, each, folding))
    }

    fn fold_step(&mut self, fold: &'a Fold, each: Value, folding: &mut Folding) -> Evaluated<bool> {
        match fold.kind {
            FoldKind::All | FoldKind::Exists => {
                let decisive = fold.kind == FoldKind::Exists;
                match self.truth(&fold.body) {
                    Ok(flag) if flag == decisive => {
                        folding.found += 1;
                        return Ok(true);
                    }
                    Ok(_) => {}
                    Err(Fault::Budget) => return Err(Fault::Budget),
                    Err(other) => folding.fault = folding.fault.take().or(Some(other)),
                }
            }
            FoldKind::ExistsOne => folding.found += usize::from(self.truth(&fold.body)?),
            FoldKind::Filter => {
                if self.truth(&fold.body)? {
                    folding.list.push(each);
                }
            }
            FoldKind::Map => {
                let wanted = match &fold.filter {
                    Some(filter) => self.truth(filter)?,
                    None => true,
                };
                if wanted {
                    let value = self.eval(&fold.body)?;
                    folding.list.push(value);
                }
            }
        }
        Ok(false)
    }
}

/// What a macro has gathered so far.
struct Folding {
    kind: FoldKind,
    list: Vec<Value>,
    /// Items that decided or counted.
    found: usize,
    /// The first failure, which counts if nothing decides.
    fault: Option<Fault>,
}

impl Folding {
    fn result(self) -> Evaluated {
        let decided = self.found > 0;
        match (self.kind, self.fault) {
            (FoldKind::All | FoldKind::Exists, Some(fault)) if !decided => Err(fault),
            (FoldKind::All, _) => Ok(Value::Bool(!decided)),
            (FoldKind::Exists, _) => Ok(Value::Bool(decided)),
            (FoldKind::ExistsOne, _) => Ok(Value::Bool(self.found == 1)),
            (FoldKind::Map | FoldKind::Filter, _) => Ok(Value::List(Arc::new(self.list))),
        }
    }
}
