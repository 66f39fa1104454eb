//! Writing protobuf by field number.

/// A message under construction.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    const LENGTH_DELIMITED: u64 = 2;

    /// The encoded message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// A text; empty ones are left out, as is usual.
    pub fn text(mut self, number: u32, text: &str) -> Self {
        if !text.is_empty() {
            self.bytes(number, text.as_bytes());
        }
        self
    }

    /// One text for each of `texts`.
    pub fn texts<'a>(self, number: u32, texts: impl IntoIterator<Item = &'a str>) -> Self {
        texts.into_iter().fold(self, |message, text| message.text(number, text))
    }

    /// A message within; present even when empty.
    pub fn message(mut self, number: u32, message: Message) -> Self {
        self.bytes(number, &message.0);
        self
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | Self::LENGTH_DELIMITED);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_tagged_and_measured() {
        let message = Message::default().text(1, "ab").text(2, "").message(16, Message::default().texts(3, ["c"]));
        assert_eq!(message.finish(), [0x0a, 2, b'a', b'b', 0x82, 1, 3, 0x1a, 1, b'c']);
        let long = Message::default().text(1, &"x".repeat(300)).finish();
        assert_eq!(long[..3], [0x0a, 0xac, 2]);
    }
}
