//! When a CronJob runs next and what is due now.

use std::{str::FromStr, time::Duration};

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, tz::TimeZone};

/// A schedule in a time zone.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pattern: Cron,
    zone: TimeZone,
}

/// Why a schedule cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScheduleError {
    /// The five fields are not understood.
    #[error("unparseable schedule {0:?}")]
    Pattern(String),
    /// The zone is not known on this machine.
    #[error("unknown time zone {0:?}")]
    Zone(String),
}

impl Schedule {
    /// Reads five fields, or one of `@hourly` and the like.
    pub(super) fn parse(pattern: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let parsed = parser.parse(pattern).map_err(|_| ScheduleError::Pattern(pattern.to_owned()))?;
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_owned()))?,
        };
        Ok(Self { pattern: parsed, zone })
    }

    /// First time after `after`.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let zoned = after.to_zoned(self.zone.clone());
        self.pattern.find_next_occurrence(&zoned, false).ok().map(|next| next.timestamp())
    }

    /// Last time that is not after `now`.
    fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let zoned = now.to_zoned(self.zone.clone());
        self.pattern.find_previous_occurrence(&zoned, true).ok().map(|last| last.timestamp())
    }
}

/// What happens if the last run still goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concurrency {
    Allow,
    Forbid,
    Replace,
}

impl FromStr for Concurrency {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "Forbid" => Self::Forbid,
            "Replace" => Self::Replace,
            _ => Self::Allow,
        })
    }
}

/// What a decision depends on.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The last run, or the creation of the CronJob if there was none.
    pub(super) since: Timestamp,
    pub(super) deadline: Option<Duration>,
    pub(super) concurrency: Concurrency,
    pub(super) active: usize,
}

/// What is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Run for this time; running jobs are deleted first if `replace`.
    Run {
        at: Timestamp,
        replace: bool,
    },
    /// The time is too long ago.
    Missed {
        at: Timestamp,
    },
    /// The last run still goes on.
    Blocked {
        at: Timestamp,
    },
}

/// Decides. Of several missed times only the latest counts.
pub(super) fn due(schedule: &Schedule, seen: &Seen, now: Timestamp) -> Due {
    let Some(at) = schedule.last(now).filter(|at| *at > seen.since) else { return Due::Nothing };
    let late = crate::pods::elapsed(at, now);
    if seen.deadline.is_some_and(|deadline| late > deadline) {
        return Due::Missed { at };
    }
    match seen.concurrency {
        Concurrency::Forbid if seen.active > 0 => Due::Blocked { at },
        concurrency => Due::Run { at, replace: concurrency == Concurrency::Replace && seen.active > 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::timestamp;

    fn seen(since: &str) -> Seen {
        Seen { since: timestamp(since), deadline: None, concurrency: Concurrency::Allow, active: 0 }
    }

    #[test]
    fn due_by_schedule_deadline_and_policy() {
        let schedule = Schedule::parse("*/10 * * * *", None).unwrap();
        let now = timestamp("2026-01-01T00:25:00Z");
        let at = timestamp("2026-01-01T00:20:00Z");
        let base = seen("2026-01-01T00:15:00Z");
        for (why, seen, want) in [
            ("due", base.clone(), Due::Run { at, replace: false }),
            ("ran already", seen("2026-01-01T00:20:00Z"), Due::Nothing),
            ("only the latest", seen("2025-01-01T00:00:00Z"), Due::Run { at, replace: false }),
            (
                "in time",
                Seen { deadline: Some(Duration::from_secs(300)), ..base.clone() },
                Due::Run { at, replace: false },
            ),
            ("too late", Seen { deadline: Some(Duration::from_secs(299)), ..base.clone() }, Due::Missed { at }),
            ("beside another", Seen { active: 1, ..base.clone() }, Due::Run { at, replace: false }),
            ("forbidden", Seen { active: 1, concurrency: Concurrency::Forbid, ..base.clone() }, Due::Blocked { at }),
            (
                "replaced",
                Seen { active: 1, concurrency: Concurrency::Replace, ..base.clone() },
                Due::Run { at, replace: true },
            ),
            ("nothing to replace", Seen { concurrency: Concurrency::Replace, ..base }, Due::Run { at, replace: false }),
        ] {
            assert_eq!(due(&schedule, &seen, now), want, "{why}");
        }
    }

    #[test]
    fn schedules_in_their_zone() {
        let next = |pattern: &str, zone: Option<&str>| {
            Schedule::parse(pattern, zone)
                .map(|schedule| schedule.next(timestamp("2026-01-01T12:00:00Z")).unwrap().to_string())
        };
        assert_eq!(next("0 13 * * *", None).unwrap(), "2026-01-01T13:00:00Z");
        assert_eq!(next("@hourly", None).unwrap(), "2026-01-01T13:00:00Z");
        assert_eq!(next("0 12 * * *", None).unwrap(), "2026-01-02T12:00:00Z", "strictly after");
        // Day of month and day of week: either is enough.
        assert_eq!(next("0 0 15 * FRI", None).unwrap(), "2026-01-02T00:00:00Z");
        assert_eq!(next("0 13 * * *", Some("UTC")).unwrap(), "2026-01-01T13:00:00Z");
        assert_eq!(next("whenever", None).unwrap_err(), ScheduleError::Pattern("whenever".into()));
        assert_eq!(next("* * * * * *", None).unwrap_err(), ScheduleError::Pattern("* * * * * *".into()));
        assert_eq!(next("0 0 * * *", Some("Moon/Base")).unwrap_err(), ScheduleError::Zone("Moon/Base".into()));
    }
}
