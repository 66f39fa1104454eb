//! What decisions look at, of one node.

use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, ObjectReference, Taint},
    jiff::Timestamp,
};
use kube::ResourceExt;

use crate::{names, selector::Labels};

/// What a daemon says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing to do, or nothing begun.
    Done,
    /// In the middle of an update.
    Working,
    /// An update failed and is retried.
    Degraded,
    /// The target cannot be reached.
    Unreconcilable,
    /// It has not said anything yet.
    #[default]
    Unknown,
}

impl State {
    /// As in the annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "Done",
            Self::Working => "Working",
            Self::Degraded => "Degraded",
            Self::Unreconcilable => "Unreconcilable",
            Self::Unknown => "",
        }
    }

    /// Reads the annotation.
    pub fn parse(text: &str) -> Self {
        let known = [Self::Done, Self::Working, Self::Degraded, Self::Unreconcilable];
        known.into_iter().find(|state| state.as_str() == text).unwrap_or_default()
    }
}

/// One node: a small part of its object, since there may be thousands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// Version of the object this was read from.
    pub version: String,
    /// Its labels.
    pub labels: Labels,
    /// When it joined.
    pub created: Option<Timestamp>,
    /// Whether it runs Windows, which nobody here configures.
    pub windows: bool,
    /// Whether its engine is CRI-O.
    pub crio: bool,
    /// Whether it can take pods: ready, not cordoned, disk and network fine.
    pub ready: bool,
    /// Configuration it runs; empty until its daemon reported.
    pub current: String,
    /// Configuration it was told to run.
    pub desired: String,
    /// State of its daemon.
    pub state: State,
    /// Why the daemon does not get on.
    pub reason: String,
    /// Whether image layering was asked for.
    pub desired_image: bool,
    /// Whether no new pods are let in.
    pub cordoned: bool,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// What the cluster looks like to its daemon, as it was told.
    pub topology: String,
    /// Drain or uncordon its daemon asks for.
    pub desired_drain: String,
    /// The last one carried out.
    pub applied_drain: String,
}

impl NodeView {
    /// Reads the object.
    pub fn of(node: &Node) -> Self {
        let note = |name: &str| node.annotations().get(name).cloned().unwrap_or_default();
        let labels = node.labels().clone();
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let windows = labels.get("kubernetes.io/os").or(info.map(|info| &info.operating_system));
        Self {
            name: node.name_any(),
            uid: node.uid().unwrap_or_default(),
            version: node.resource_version().unwrap_or_default(),
            windows: windows.is_some_and(|os| os == "windows"),
            crio: info.is_some_and(|info| info.container_runtime_version.starts_with("cri-o://")),
            labels,
            created: node.creation_timestamp().map(|time| time.0),
            ready: is_ready(node),
            current: note(names::CURRENT),
            desired: note(names::DESIRED),
            state: State::parse(&note(names::STATE)),
            reason: note(names::REASON),
            desired_image: !note(names::DESIRED_IMAGE).is_empty(),
            cordoned: is_cordoned(node),
            taints: node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            topology: note(names::TOPOLOGY),
            desired_drain: note(names::DESIRED_DRAIN),
            applied_drain: note(names::APPLIED_DRAIN),
        }
    }

    /// Whether both say the same, be they of different versions: heartbeats of a node
    /// make new versions all the time.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let versionless = |view: &Self| Self { version: String::new(), ..view.clone() };
        versionless(self) == versionless(other)
    }

    /// The node as events name it.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// Drain or uncordon that was asked for and is not carried out yet.
    pub fn drain_request(&self) -> Option<&str> {
        let open = !self.desired_drain.is_empty() && self.desired_drain != self.applied_drain;
        open.then_some(self.desired_drain.as_str())
    }

    /// Whether its daemon has reported at all.
    pub fn managed(&self) -> bool {
        !self.current.is_empty()
    }

    /// Whether it runs what it was told to run.
    pub fn done(&self) -> bool {
        self.current == self.desired && self.state == State::Done
    }

    /// Whether its daemon cannot get on.
    pub fn failing(&self) -> bool {
        matches!(self.state, State::Degraded | State::Unreconcilable)
    }

    /// Whether it runs `target`.
    pub fn updated(&self, target: &str) -> bool {
        self.done() && self.current == target && !target.is_empty() && !self.desired_image
    }

    /// Whether it counts against the number of nodes that may be away. A failing
    /// daemon does not by itself: its pods run.
    pub fn unavailable(&self) -> bool {
        !self.ready || !(self.done() || self.failing())
    }

    /// Its zone, if it has one.
    pub fn zone(&self) -> Option<&str> {
        self.labels.get(names::ZONE).map(String::as_str).filter(|zone| !zone.is_empty())
    }
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

fn is_ready(node: &Node) -> bool {
    let conditions: &[NodeCondition] =
        node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let status = |kind: &str| conditions.iter().find(|one| one.type_ == kind).map(|one| one.status.as_str());
    !is_cordoned(node)
        && status("Ready") == Some("True")
        && status("DiskPressure").is_none_or(|status| status == "False")
        && status("NetworkUnavailable").is_none_or(|status| status == "False")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn readiness_needs_every_condition_and_no_cordon() {
        let node = |cordoned: bool, conditions: &[(&str, &str)]| {
            let conditions: Vec<Value> =
                conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
            let node = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": cordoned}, "status": {"conditions": conditions}});
            NodeView::of(&serde_json::from_value(node).expect("a node")).ready
        };
        for (cordoned, conditions, want) in [
            (false, &[][..], false),
            (false, &[("Ready", "True")], true),
            (true, &[("Ready", "True")], false),
            (false, &[("Ready", "Unknown")], false),
            (false, &[("Ready", "True"), ("DiskPressure", "True")], false),
            (false, &[("Ready", "True"), ("NetworkUnavailable", "Unknown")], false),
            (false, &[("Ready", "True"), ("DiskPressure", "False"), ("NetworkUnavailable", "False")], true),
        ] {
            assert_eq!(node(cordoned, conditions), want, "{cordoned} {conditions:?}");
        }
    }

    #[test]
    fn heartbeats_say_nothing_new() {
        let node = |version: &str, beat: &str, state: &str| {
            let node = json!({"metadata": {"name": "n", "resourceVersion": version, "annotations": {names::STATE: state}},
                "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": beat}]}});
            NodeView::of(&serde_json::from_value(node).expect("a node"))
        };
        let (early, late) = ("2020-01-01T00:00:00Z", "2020-01-01T00:05:00Z");
        assert!(node("1", early, "Done").says_the_same(&node("2", late, "Done")));
        assert!(!node("1", early, "Done").says_the_same(&node("2", early, "Working")));
    }

    #[test]
    fn a_drain_is_asked_for_until_it_is_applied() {
        for (wanted, applied, want) in [
            ("", "", None),
            ("drain-a", "", Some("drain-a")),
            ("drain-a", "drain-a", None),
            ("uncordon-a", "drain-a", Some("uncordon-a")),
        ] {
            let node = NodeView { desired_drain: wanted.into(), applied_drain: applied.into(), ..NodeView::default() };
            assert_eq!(node.drain_request(), want, "{wanted} {applied}");
        }
    }

    #[test]
    fn a_daemons_state_decides_about_availability() {
        for (current, desired, state, done, unavailable) in [
            ("a", "a", State::Done, true, false),
            ("a", "b", State::Done, false, true),
            ("a", "b", State::Working, false, true),
            ("a", "b", State::Degraded, false, false),
            ("a", "b", State::Unreconcilable, false, false),
            ("", "", State::Unknown, false, true),
        ] {
            let node = NodeView {
                ready: true,
                current: current.into(),
                desired: desired.into(),
                state,
                ..NodeView::default()
            };
            assert_eq!((node.done(), node.unavailable()), (done, unavailable), "{node:?}");
        }
    }
}
