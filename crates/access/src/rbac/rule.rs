//! One rule of a role.

use serde::{Deserialize, Deserializer, Serialize};

use super::attributes::{Attributes, Target};

const ALL: &str = "*";

/// One rule of a role: verbs allowed on resources or on paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Verbs, `*` for all.
    #[serde(deserialize_with = "nullable")]
    pub verbs: Vec<String>,
    /// API groups, empty text for the core, `*` for all.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Plurals; `pods/log` is one subresource, `*/scale` one of every kind, `*` everything.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Names of objects; empty for all.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths; a last `*` stands for every continuation.
    #[serde(rename = "nonResourceURLs", deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Rule {
    /// A rule on resources.
    pub fn on(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Rule {
        Rule { verbs: owned(verbs), api_groups: owned(groups), resources: owned(resources), ..Rule::default() }
    }

    /// A rule on paths.
    pub fn on_paths(paths: &[&str], verbs: &[&str]) -> Rule {
        Rule { verbs: owned(verbs), non_resource_urls: owned(paths), ..Rule::default() }
    }

    /// Whether this rule allows the action.
    pub fn allows(&self, action: &Attributes<'_>) -> bool {
        if !has(&self.verbs, action.verb) {
            return false;
        }
        match action.target {
            Target::Path(path) => self.non_resource_urls.iter().any(|pattern| path_matches(pattern, path)),
            Target::Resource { group, resource, subresource, name, .. } => {
                has(&self.api_groups, group)
                    && self.resources.iter().any(|pattern| resource_matches(pattern, resource, subresource))
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|own| own == name))
            }
        }
    }

    /// Whether this rule allows everything that `part` does; `part` has at most one entry in each list.
    pub(super) fn covers(&self, part: &Rule) -> bool {
        let verbs = part.verbs.iter().all(|verb| has(&self.verbs, verb));
        let groups = part.api_groups.iter().all(|group| has(&self.api_groups, group));
        let resources = part.resources.iter().all(|wanted| {
            let any_parent = wanted.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
            has(&self.resources, wanted) || any_parent.is_some_and(|pattern| self.resources.contains(&pattern))
        });
        let names = self.resource_names.is_empty()
            || !part.resource_names.is_empty() && part.resource_names.iter().all(|n| self.resource_names.contains(n));
        let paths = part
            .non_resource_urls
            .iter()
            .all(|wanted| self.non_resource_urls.iter().any(|pattern| path_matches(pattern, wanted)));
        verbs && groups && resources && names && paths
    }

    /// The same permissions as rules with one entry in each list.
    pub(super) fn parts(&self) -> Vec<Rule> {
        let mut parts = Vec::new();
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    let part = Rule::on(&[group], &[resource], &[verb]);
                    match self.resource_names.is_empty() {
                        true => parts.push(part),
                        false => parts.extend(
                            self.resource_names
                                .iter()
                                .map(|name| Rule { resource_names: vec![name.clone()], ..part.clone() }),
                        ),
                    }
                }
            }
            parts.extend(self.non_resource_urls.iter().map(|path| Rule::on_paths(&[path], &[verb])));
        }
        parts
    }

    /// How many [`parts`](Self::parts) there are: the product of sizes that a client chooses.
    pub(super) fn part_count(&self) -> usize {
        let resources = self
            .api_groups
            .len()
            .saturating_mul(self.resources.len())
            .saturating_mul(self.resource_names.len().max(1))
            .saturating_add(self.non_resource_urls.len());
        self.verbs.len().saturating_mul(resources)
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == ALL || own == wanted)
}

fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == ALL {
        return true;
    }
    match (pattern.split_once('/'), subresource) {
        (None, "") => pattern == resource,
        (Some((parent, own)), subresource) => own == subresource && (parent == ALL || parent == resource),
        (None, _) => false,
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_allow_what_they_say() {
        let get_pods = Rule::on(&[""], &["pods"], &["get"]);
        let named = Rule { resource_names: vec!["a".into()], ..Rule::on(&[""], &["pods"], &["*"]) };
        let scale = Rule::on(&["*"], &["*/scale"], &["update"]);
        let log = Rule::on(&[""], &["pods/log"], &["get"]);
        let all = Rule::on(&["*"], &["*"], &["*"]);
        let paths = Rule::on_paths(&["/healthz", "/api*"], &["get"]);
        let pods = |verb, name| Attributes::resource(verb, "", "pods", "ns", name);
        let rows = [
            (&get_pods, pods("get", "a"), true),
            (&get_pods, pods("list", ""), false),
            (&get_pods, Attributes::resource("get", "apps", "pods", "ns", "a"), false),
            (&get_pods, pods("get", "a").on_subresource("log"), false),
            (&get_pods, Attributes::path("get", "/healthz"), false),
            (&named, pods("get", "a"), true),
            (&named, pods("delete", "b"), false),
            (&named, pods("list", ""), false),
            (&named, pods("create", ""), false),
            (&scale, Attributes::resource("update", "apps", "deployments", "ns", "d").on_subresource("scale"), true),
            (&scale, Attributes::resource("update", "apps", "deployments", "ns", "d"), false),
            (&scale, Attributes::resource("update", "apps", "deployments", "ns", "d").on_subresource("status"), false),
            (&log, pods("get", "a").on_subresource("log"), true),
            (&log, pods("get", "a"), false),
            (&log, pods("get", "a").on_subresource("exec"), false),
            (&all, pods("anything", "").on_subresource("exec"), true),
            (&all, Attributes::path("get", "/healthz"), false),
            (&paths, Attributes::path("get", "/healthz"), true),
            (&paths, Attributes::path("get", "/healthz/etcd"), false),
            (&paths, Attributes::path("get", "/apis/apps/v1"), true),
            (&paths, Attributes::path("post", "/api"), false),
        ];
        for (rule, action, want) in rows {
            assert_eq!(rule.allows(&action), want, "{rule:?} {action:?}");
        }
    }

    #[test]
    fn missing_and_null_lists_are_empty() {
        let rule: Rule = serde_json::from_str(r#"{"verbs":["get"],"resources":null}"#).unwrap();
        assert_eq!(rule, Rule { verbs: vec!["get".into()], ..Rule::default() });
    }
}
