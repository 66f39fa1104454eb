//! Conditions: what is true about an object, since when and why.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It does.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

/// One condition. All fields are required in the object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which condition this is.
    #[serde(rename = "type")]
    pub type_: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// When `status` changed last.
    #[schemars(schema_with = "crate::schema::time")]
    pub last_transition_time: Time,
    /// One word for programs; empty when there is nothing to say.
    #[serde(default)]
    pub reason: String,
    /// A sentence for people; empty when there is nothing to say.
    #[serde(default)]
    pub message: String,
}

/// Reading and changing a list of conditions.
pub trait Conditions {
    /// The condition of a type.
    fn of(&self, type_: &str) -> Option<&Condition>;
    /// Replaces or adds a condition. Its time moves only when its status flips.
    fn set(&mut self, type_: &str, status: ConditionStatus, reason: &str, message: &str, now: Timestamp);
}

impl Conditions for Vec<Condition> {
    fn of(&self, type_: &str) -> Option<&Condition> {
        self.iter().find(|condition| condition.type_ == type_)
    }

    fn set(&mut self, type_: &str, status: ConditionStatus, reason: &str, message: &str, now: Timestamp) {
        let since = self.of(type_).filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
        let new = Condition {
            type_: type_.into(),
            status,
            // Seconds are what the wire keeps; anything finer would look like a change on the next read.
            last_transition_time: since.unwrap_or_else(|| Time(whole_seconds(now))),
            reason: reason.into(),
            message: message.into(),
        };
        match self.iter_mut().find(|condition| condition.type_ == type_) {
            Some(old) => *old = new,
            None => self.push(new),
        }
    }
}

fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn last_transition_time_moves_only_when_the_status_flips() {
        let mut all = Vec::new();
        for (now, status, reason, since) in [
            (1, ConditionStatus::True, "Installing", 1),
            (2, ConditionStatus::True, "Installing", 1),
            (3, ConditionStatus::True, "Updating", 1),
            (4, ConditionStatus::False, "", 4),
            (5, ConditionStatus::False, "BlockedByExistingKataPods", 4),
            (6, ConditionStatus::True, "Uninstalling", 6),
        ] {
            all.set("InProgress", status, reason, "", at(now));
            let found = all.of("InProgress").unwrap();
            assert_eq!((found.last_transition_time.0, found.reason.as_str()), (at(since), reason), "at {now}");
        }
        assert_eq!(all.len(), 1);
    }
}
