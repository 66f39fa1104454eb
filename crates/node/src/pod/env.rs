//! `$(NAME)` references in environment, command and arguments.

use std::collections::HashMap;

use super::model::{Container, EnvValue};

/// The environment in order, every reference to an earlier variable replaced.
pub fn resolve(container: &Container, pod_ip: &str) -> Vec<(String, String)> {
    let mut known = HashMap::new();
    let mut env: Vec<(String, String)> = Vec::new();
    for (name, value) in &container.env {
        let value = match value {
            EnvValue::Text(text) => expand(text, &known),
            EnvValue::Known(text) => text.clone(),
            EnvValue::PodIp => pod_ip.to_owned(),
        };
        known.insert(name.clone(), value.clone());
        env.push((name.clone(), value));
    }
    env
}

/// Replaces references in each of `texts`.
pub fn expand_all(texts: &[String], env: &[(String, String)]) -> Vec<String> {
    let known = env.iter().cloned().collect();
    texts.iter().map(|text| expand(text, &known)).collect()
}

/// `$(NAME)` becomes the value, or stays when there is none; `$$` becomes `$`.
fn expand(text: &str, known: &HashMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        result.push_str(&rest[..position]);
        rest = &rest[position + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match known.get(name) {
                Some(value) => result.push_str(value),
                None => result.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_kubernetes_does() {
        let known = HashMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        for (text, want) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("100$", "100$"),
            ("ä$(A)", "ä1"),
        ] {
            assert_eq!(expand(text, &known), want, "{text}");
        }
    }
}
