//! Probes: what is asked of a container, how answers add up, and who asks.
//!
//! ```text
//! started ──► startup ──succeeds──► liveness ──fails──► container is stopped
//!                │                  readiness ──► in or out of service
//!                └──fails──► container is stopped
//! ```

mod ask;
mod health;
mod tls;

use std::time::Duration;

use super::model::HttpGet;

pub use ask::http_get;
pub use health::{Failed, Health, Prober, Target};

/// A probe of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub question: Question,
    /// From the start of the container to the first question.
    pub delay: Duration,
    /// Between questions.
    pub period: Duration,
    /// An answer later than this is a failure.
    pub timeout: Duration,
    /// Successes in a row that make it succeed.
    pub successes: u32,
    /// Failures in a row that make it fail.
    pub failures: u32,
    /// Grace of a container it stops, if not the pod's.
    pub grace: Option<Duration>,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether a command succeeds.
    Exec(Vec<String>),
    /// Whether the answer's status is 200 to 399.
    Http(HttpGet),
    /// Whether a connection is accepted.
    Tcp {
        /// Where to; the pod's address where it is empty.
        host: String,
        /// Port.
        port: u16,
    },
    /// Whether `grpc.health.v1.Health/Check` says that it serves.
    Grpc {
        /// Port.
        port: u16,
        /// Name of the service; empty for the server as a whole.
        service: String,
    },
}

/// Answers in a row. What the last ones add up to is known only once there are
/// enough of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    good: bool,
    length: u32,
}

impl Streak {
    /// Counts one answer; `Some` when the streak is long enough to count itself.
    /// A failed probe starts counting anew, as the container does.
    pub fn add(&mut self, good: bool, probe: &Probe) -> Option<bool> {
        self.length = if self.good == good { self.length.saturating_add(1) } else { 1 };
        self.good = good;
        let enough = if good { probe.successes } else { probe.failures };
        (self.length >= enough).then_some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_in_rows() {
        let probe = Probe {
            question: Question::Exec(Vec::new()),
            delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            successes: 2,
            failures: 3,
            grace: None,
        };
        for (answers, want) in [
            ("+", "."),
            ("++", ".+"),
            ("+++", ".++"),
            ("--", ".."),
            ("---", "..-"),
            ("----", "..--"),
            ("--+---", ".....-"),
            ("+-+-", "...."),
            ("---++", "..-.+"),
        ] {
            let mut streak = Streak::default();
            let verdict = |answer: char| match streak.add(answer == '+', &probe) {
                Some(true) => '+',
                Some(false) => '-',
                None => '.',
            };
            assert_eq!(answers.chars().map(verdict).collect::<String>(), want, "{answers}");
        }
    }
}
