//! What Jobs say about single failures and successes.

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::rules::{required, required_one_of};
use crate::value::{array, has, text};

/// Rules, codes and patterns there may be.
const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;

/// Judges the spec of a Job.
pub(super) fn policies(spec: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let indexed = text(spec, "completionMode") == "Indexed";
    for key in ["backoffLimitPerIndex", "successPolicy"].into_iter().filter(|key| has(spec, key) && !indexed) {
        causes.push(Cause::invalid(path.field(key), &spec[key], "requires indexed completion mode"));
    }
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        let detail = "when maxFailedIndexes is specified";
        causes.push(Cause::required(path.field("backoffLimitPerIndex"), detail));
    }
    if has(spec, "podFailurePolicy") {
        failure(spec, path, causes);
    }
    if has(spec, "successPolicy") {
        let policy = path.field("successPolicy");
        let list = policy.field("rules");
        let rules = array(&spec["successPolicy"], "rules");
        count(rules, list, causes);
        for (index, rule) in rules.iter().enumerate() {
            if !has(rule, "succeededIndexes") && !has(rule, "succeededCount") {
                let detail = "at least one of succeededCount or succeededIndexes must be specified";
                causes.push(Cause::required(list.index(index), detail));
            }
        }
    }
}

fn failure(spec: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let restart = text(&spec["template"]["spec"], "restartPolicy");
    if restart != "Never" {
        let template = path.field("template");
        let pod = template.field("spec");
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        causes.push(Cause::invalid(pod.field("restartPolicy"), &restart.into(), detail));
    }
    let policy = path.field("podFailurePolicy");
    let list = policy.field("rules");
    let rules = array(&spec["podFailurePolicy"], "rules");
    count(rules, list, causes);
    for (index, rule) in rules.iter().enumerate() {
        let path = list.index(index);
        required_one_of(rule, "action", &["Count", "FailIndex", "FailJob", "Ignore"], &path, causes);
        if text(rule, "action") == "FailIndex" && !has(spec, "backoffLimitPerIndex") {
            let detail = "requires the backoffLimitPerIndex to be set";
            causes.push(Cause::invalid(path.field("action"), &rule["action"], detail));
        }
        let (codes, conditions) = (has(rule, "onExitCodes"), !array(rule, "onPodConditions").is_empty());
        if codes == conditions {
            let detail = "specifying one of OnExitCodes and OnPodConditions is required";
            let both = "specifying both OnExitCodes and OnPodConditions is not supported";
            causes.push(Cause::invalid(path, &Value::Null, if codes { both } else { detail }));
        }
        if codes {
            exit_codes(&rule["onExitCodes"], &path.field("onExitCodes"), causes);
        }
        let patterns = path.field("onPodConditions");
        for (index, pattern) in array(rule, "onPodConditions").iter().enumerate() {
            required(pattern, "type", &patterns.index(index), causes);
            required_one_of(pattern, "status", &["False", "True", "Unknown"], &patterns.index(index), causes);
        }
    }
}

fn exit_codes(wanted: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    required_one_of(wanted, "operator", &["In", "NotIn"], path, causes);
    let list = path.field("values");
    let codes = array(wanted, "values");
    if codes.is_empty() {
        causes.push(Cause::invalid(list, &wanted["values"], "at least one value is required"));
    } else if codes.len() > MOST_CODES {
        causes.push(Cause::too_many(list, codes.len(), MOST_CODES as u64));
    }
    for (index, _) in codes.iter().enumerate().filter(|(_, code)| **code == 0 && text(wanted, "operator") == "In") {
        causes.push(Cause::invalid(list.index(index), &0.into(), "must not be 0 for the In operator"));
    }
}

fn count(rules: &[Value], path: Path<'_>, causes: &mut Vec<Cause>) {
    if rules.len() > MOST_RULES {
        causes.push(Cause::too_many(path, rules.len(), MOST_RULES as u64));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_are_judged() {
        let codes = json!({"operator": "In", "values": [1]});
        let rules = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
        let at = "spec.podFailurePolicy.rules[0]";
        let rows = [
            (rules(json!({"action": "FailJob", "onExitCodes": codes})), String::new()),
            (rules(json!({"action": "Ignore", "onPodConditions": [{"type": "T", "status": "True"}]})), String::new()),
            (
                json!({"completionMode": "Indexed", "backoffLimitPerIndex": 1, "maxFailedIndexes": 1,
                    "successPolicy": {"rules": [{"succeededCount": 1}]}}),
                String::new(),
            ),
            (
                json!({"backoffLimitPerIndex": 1}),
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode".into(),
            ),
            (
                json!({"maxFailedIndexes": 1}),
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified".into(),
            ),
            (
                rules(json!({"action": "FailIndex", "onExitCodes": codes})),
                format!("{at}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"),
            ),
            (
                rules(json!({"action": "Count"})),
                format!("{at}: Invalid value: \"null\": specifying one of OnExitCodes and OnPodConditions is required"),
            ),
            (
                rules(json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [0]}})),
                format!("{at}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"),
            ),
            (
                json!({"completionMode": "Indexed", "successPolicy": {"rules": [{}]}}),
                "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be \
                 specified"
                    .into(),
            ),
        ];
        for (mut spec, want) in rows {
            spec["template"] = json!({"spec": {"restartPolicy": "Never"}});
            let mut causes = Vec::new();
            policies(&spec, &Path::Root.field("spec"), &mut causes);
            assert_eq!(causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "), want, "{spec}");
        }
    }
}
