//! Rules as text, joined where only their verbs differ.

use std::collections::BTreeMap;

use super::rule::Rule;

/// One line for each distinct rule, sorted: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
pub(super) fn describe(parts: Vec<Rule>) -> String {
    let mut verbs_of: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    for mut part in parts {
        let verbs = std::mem::take(&mut part.verbs);
        verbs_of.entry(part).or_default().extend(verbs);
    }
    let mut lines: Vec<String> = verbs_of
        .into_iter()
        .map(|(rule, mut verbs)| {
            let mut seen = std::collections::HashSet::new();
            verbs.retain(|verb| seen.insert(verb.clone()));
            line(&Rule { verbs, ..rule })
        })
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn line(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let fields: Vec<String> = fields
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted(list)))
        .collect();
    format!("{{{}}}", fields.join(", "))
}

/// A list as these messages write it: `["a" "b"]`.
pub(super) fn quoted(list: &[String]) -> String {
    let words: Vec<String> = list.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}
