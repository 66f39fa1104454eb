//! The protobuf encoding itself: numbered fields of four types, one after the other.

/// The value of a field as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    /// Integers and booleans.
    Varint(u64),
    /// Eight bytes, little-endian: doubles.
    Fixed64(u64),
    /// Strings, bytes, messages and packed lists.
    Bytes(&'a [u8]),
    /// Four bytes, little-endian.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], &'static str> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            _ => Err("a field that should hold bytes does not"),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, &'static str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a string is not UTF-8")
    }

    /// A signed integer; negative ones are sign-extended to 64 bits.
    pub(super) fn integer(self) -> Result<i64, &'static str> {
        match self {
            Field::Varint(value) => Ok(value.cast_signed()),
            _ => Err("a field that should hold an integer does not"),
        }
    }

    pub(super) fn double(self) -> Result<f64, &'static str> {
        match self {
            Field::Fixed64(bits) => Ok(f64::from_bits(bits)),
            Field::Fixed32(bits) => Ok(f32::from_bits(bits).into()),
            _ => Err("a field that should hold a number does not"),
        }
    }
}

/// Reads the fields of one message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

const TRUNCATED: &str = "it ends in the middle of a field";

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field and its number; nothing at the end.
    pub(super) fn next_field(&mut self) -> Result<Option<(u32, Field<'a>)>, &'static str> {
        if self.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| "a field number is too large")?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| TRUNCATED)?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err("a field has a type Kubernetes never sends"),
        };
        Ok(Some((number, field)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(TRUNCATED)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("an integer is longer than ten bytes")
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_type_are_read() {
        let bytes =
            [&[0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x19], 1.5_f64.to_le_bytes().as_slice(), &[0x25, 1, 0, 0, 0]]
                .concat();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.next_field(), Ok(Some((1, Field::Varint(150)))));
        assert_eq!(reader.next_field(), Ok(Some((2, Field::Bytes(b"hi")))));
        assert_eq!(reader.next_field(), Ok(Some((3, Field::Fixed64(1.5_f64.to_bits())))));
        assert_eq!(reader.next_field(), Ok(Some((4, Field::Fixed32(1)))));
        assert_eq!(reader.next_field(), Ok(None));
    }

    #[test]
    fn broken_fields_are_refused() {
        for bytes in [
            &[0x08][..],
            &[0x08, 0x80],
            &[0x12, 3, 1],
            &[0x19, 1],
            &[0x0b],
            &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ] {
            assert!(Reader::new(bytes).next_field().is_err(), "{bytes:?}");
        }
    }
}
