//! Which names a definition may use, and its conditions.

use osc_api::meta;
use serde_json::{Value, json};

/// What the status of a definition should say, given all others.
pub(super) fn judged(crd: &Value, others: &[Value]) -> Value {
    let mut judged = crd.clone();
    let conflict = conflict(crd, others);
    match &conflict {
        Some((reason, message)) => set_condition(&mut judged, "NamesAccepted", false, reason, message),
        None => {
            judged["status"]["acceptedNames"] = full_names(crd);
            set_condition(&mut judged, "NamesAccepted", true, "NoConflicts", "no conflicts found");
        }
    }
    // Once established, always established: clients rely on it.
    if conflict.is_none() {
        set_condition(&mut judged, "Established", true, "InitialNamesAccepted", "the initial names have been accepted");
    } else if !has_condition(crd, "Established") {
        set_condition(&mut judged, "Established", false, "NotAccepted", "not all names are accepted");
    }
    remember_storage_version(&mut judged);
    judged
}

/// The names with what is implied: singular and list kind.
fn full_names(crd: &Value) -> Value {
    let mut names = crd["spec"]["names"].clone();
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    for (field, implied) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        if names[field].as_str().unwrap_or_default().is_empty() {
            names[field] = implied.into();
        }
    }
    names
}

/// Reason and message, when another definition of the group uses one of the names.
fn conflict(crd: &Value, others: &[Value]) -> Option<(&'static str, String)> {
    let rivals: Vec<Value> = others
        .iter()
        .filter(|other| {
            other["metadata"]["name"] != crd["metadata"]["name"] && other["spec"]["group"] == crd["spec"]["group"]
        })
        .map(|other| other["status"]["acceptedNames"].clone())
        .filter(|accepted| accepted["kind"].as_str().is_some_and(|kind| !kind.is_empty()))
        .collect();
    let wanted = full_names(crd);
    let short = |names: &Value| names["shortNames"].as_array().cloned().unwrap_or_default();
    let in_paths = |name: &Value| {
        rivals.iter().any(|rival| [&rival["plural"], &rival["singular"]].contains(&name) || short(rival).contains(name))
    };
    let as_kind = |name: &Value| rivals.iter().any(|rival| [&rival["kind"], &rival["listKind"]].contains(&name));
    let said = |reason, name: &Value| Some((reason, format!("{name} is already in use")));
    if in_paths(&wanted["plural"]) {
        return said("PluralConflict", &wanted["plural"]);
    }
    if in_paths(&wanted["singular"]) {
        return said("SingularConflict", &wanted["singular"]);
    }
    if let Some(name) = short(&wanted).iter().find(|name| in_paths(name)) {
        return said("ShortNamesConflict", name);
    }
    if as_kind(&wanted["kind"]) {
        return said("KindConflict", &wanted["kind"]);
    }
    if as_kind(&wanted["listKind"]) {
        return said("ListKindConflict", &wanted["listKind"]);
    }
    None
}

/// Objects may be stored in the storage version from now on.
fn remember_storage_version(crd: &mut Value) {
    let current = super::stored_versions(crd);
    let mut stored = crd["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    for version in current.as_array().into_iter().flatten() {
        if !stored.contains(version) {
            stored.push(version.clone());
        }
    }
    crd["status"]["storedVersions"] = stored.into();
}

/// Whether a condition is True.
pub(super) fn has_condition(crd: &Value, kind: &str) -> bool {
    let conditions = crd["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Sets a condition; its time changes only with its status.
pub(super) fn set_condition(crd: &mut Value, kind: &str, status: bool, reason: &str, message: &str) {
    let status = if status { "True" } else { "False" };
    let conditions = &mut crd["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    let known = conditions.iter_mut().find(|condition| condition["type"] == kind);
    let since = match &known {
        Some(known) if known["status"] == status => known["lastTransitionTime"].clone(),
        _ => meta::format_time(jiff::Timestamp::now()).into(),
    };
    let condition =
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since});
    match known {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(plural: &str, kind: &str, short: &str) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {"plural": plural, "kind": kind, "shortNames": [short]},
                "versions": [{"name": "v1", "storage": true}]},
        })
    }

    #[test]
    fn names_belong_to_who_came_first() {
        let first = judged(&crd("widgets", "Widget", "wi"), &[]);
        assert!(has_condition(&first, "Established") && has_condition(&first, "NamesAccepted"));
        assert_eq!(first["status"]["acceptedNames"]["listKind"], "WidgetList");
        assert_eq!(first["status"]["storedVersions"], json!(["v1"]));
        for (second, reason) in [
            (crd("gadgets", "Widget", "ga"), "SingularConflict"),
            (crd("gadgets", "WidgetList", "ga"), "KindConflict"),
            (crd("gadgets", "Gadget", "wi"), "ShortNamesConflict"),
            (crd("widget", "Gadget", "ga"), "PluralConflict"),
        ] {
            let second = judged(&second, std::slice::from_ref(&first));
            assert!(!has_condition(&second, "Established"));
            assert_eq!(second["status"]["conditions"][0]["reason"], reason);
        }
        assert!(has_condition(&judged(&first, std::slice::from_ref(&first)), "Established"), "not its own rival");
        assert_eq!(judged(&first, &[]), first, "settled");
    }
}
