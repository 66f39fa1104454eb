//! The table of messages: which field has which number.

use std::{collections::HashMap, sync::LazyLock};

/// What a field number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// A field of the JSON object.
    Field(&'static str),
    /// A message whose fields stand in the same JSON object.
    Inline(&'static Message),
}

/// A message and its fields by number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Its definition without the package prefix.
    pub(super) name: &'static str,
    members: Vec<(u32, &'static str)>,
}

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let lines = include_str!("messages.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(parse).map(|message| (message.name, message)).collect()
});

fn parse(line: &'static str) -> Option<Message> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let mut number = 0;
    let member = |word: &'static str| {
        let (at, word) = match word.split_once('=') {
            Some((at, word)) => (at.parse().unwrap_or(0), word),
            None => (number + 1, word),
        };
        number = at;
        (at, word)
    };
    Some(Message { name, members: words.map(member).collect() })
}

impl Message {
    /// What `number` stands for; nothing for fields nobody here knows.
    pub(super) fn member(&self, number: u32) -> Option<Member> {
        let index = self.members.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let word = self.members.get(index)?.1;
        match word.strip_prefix('>') {
            Some(inline) => MESSAGES.get(inline).map(Member::Inline),
            None => Some(Member::Field(word)),
        }
    }
}

/// The message of a definition such as `io.k8s.api.core.v1.Pod`.
pub(super) fn message_of(definition: &str) -> Option<&'static Message> {
    let (third, _) = definition.rmatch_indices('.').nth(2)?;
    MESSAGES.get(definition.get(third + 1..)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::definitions;

    #[test]
    fn every_line_names_what_exists() {
        for message in MESSAGES.values() {
            assert!(message.members.is_sorted_by(|a, b| a.0 < b.0), "{}", message.name);
            let definition = definitions().iter().find(|(name, _)| message_of(name) == Some(message));
            for (number, word) in &message.members {
                match message.member(*number) {
                    Some(Member::Field(field)) => {
                        let known = definition.is_none_or(|(_, schema)| schema.properties.contains_key(field));
                        assert!(known, "{} {field}", message.name);
                    }
                    Some(Member::Inline(_)) => {}
                    None => panic!("{} {word}", message.name),
                }
            }
        }
    }
}
