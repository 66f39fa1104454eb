//! The environment of a container, and `$(NAME)` references in it, in command and
//! in arguments.

use std::{collections::HashMap, net::IpAddr};

use super::{
    cluster::Cluster,
    error::PodError,
    model::{Container, EnvValue, Object, Pod},
};

/// The environment in order, every reference to an earlier variable replaced.
/// Without a cluster, manifests that need one have been refused.
///
/// # Errors
/// [`PodError::Missing`] for what is neither there nor optional.
pub async fn resolve(
    pod: &Pod,
    container: &Container,
    addresses: &[IpAddr],
    cluster: Option<&Cluster>,
) -> Result<Vec<(String, String)>, PodError> {
    let mut env = Variables::default();
    if let Some(cluster) = cluster {
        for (name, value) in cluster.service_variables(&pod.namespace, pod.service_links).await? {
            env.set(name, value);
        }
        for from in &container.env_from {
            for (key, value) in cluster.data(&pod.namespace, &from.object).await?.iter().flat_map(|data| data.iter()) {
                // What cannot be a variable is left out, as in Kubernetes.
                if let (false, Ok(value)) = (key.contains('='), std::str::from_utf8(value)) {
                    env.set(format!("{}{key}", from.prefix), value.to_owned());
                }
            }
        }
    }
    let join = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    for (name, value) in &container.env {
        let value = match value {
            EnvValue::Text(text) => Some(expand(text, &env.known)),
            EnvValue::Known(text) => Some(text.clone()),
            EnvValue::PodIp => Some(join(&addresses[..addresses.len().min(1)])),
            EnvValue::PodIps => Some(join(addresses)),
            EnvValue::HostIp => cluster.map(|cluster| cluster.node.address.to_string()),
            EnvValue::NodeName => cluster.map(|cluster| cluster.node.name.clone()),
            EnvValue::Key(object, key) => match cluster {
                Some(cluster) => value_of(cluster, &pod.namespace, object, key).await?,
                None => None,
            },
        };
        if let Some(value) = value {
            env.set(name.clone(), value);
        }
    }
    Ok(env.list)
}

async fn value_of(cluster: &Cluster, namespace: &str, object: &Object, key: &str) -> Result<Option<String>, PodError> {
    let data = cluster.data(namespace, object).await?;
    let value = data.as_ref().and_then(|data| data.get(key));
    if value.is_none() && !object.optional {
        let (what, name) = (object.kind.name(), object.name.clone());
        return Err(PodError::Missing { what, name, key: Some(key.to_owned()) });
    }
    Ok(value.map(|value| String::from_utf8_lossy(value).into_owned()))
}

/// Variables in order; a later one of the same name wins.
#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
    known: HashMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        if self.known.insert(name.clone(), value.clone()).is_some() {
            self.list.retain(|(other, _)| *other != name);
        }
        self.list.push((name, value));
    }
}

/// Replaces references in each of `texts`.
pub fn expand_all(texts: &[String], env: &[(String, String)]) -> Vec<String> {
    let known = env.iter().cloned().collect();
    texts.iter().map(|text| expand(text, &known)).collect()
}

/// `$(NAME)` becomes the value, or stays when there is none; `$$` becomes `$`.
pub fn expand(text: &str, known: &HashMap<String, String>) -> String {
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
