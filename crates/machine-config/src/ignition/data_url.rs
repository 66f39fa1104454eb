//! Data URLs (RFC 2397) and gzip, both bounded.

use std::io::Read;

use base64::{Engine, engine::general_purpose};
use flate2::read::MultiGzDecoder;

/// Longest content of one file; far above what fits into an API object, and what
/// a compressed content may grow to.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// A data URL with these bytes.
pub fn encode(bytes: &[u8]) -> String {
    format!("data:;base64,{}", general_purpose::STANDARD.encode(bytes))
}

/// The bytes of a source; an empty source is an empty file.
pub(super) fn decode(source: &str, gzip: bool) -> Result<Vec<u8>, String> {
    let bytes = if source.is_empty() { Vec::new() } else { payload(source)? };
    if gzip && !source.is_empty() { gunzip(&bytes) } else { Ok(bytes) }
}

fn payload(source: &str) -> Result<Vec<u8>, String> {
    let rest = source.strip_prefix("data:").ok_or_else(|| {
        let scheme = source.split(':').next().unwrap_or_default();
        format!(
            "only data URLs are allowed, nothing is fetched (found `{}`)",
            scheme.chars().take(20).collect::<String>()
        )
    })?;
    let (kind, data) = rest.split_once(',').ok_or("a data URL needs a comma before its data")?;
    let data = percent_decode(data)?;
    if !kind.ends_with(";base64") {
        return Ok(data);
    }
    let text: Vec<u8> = data.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let engines = [&general_purpose::STANDARD, &general_purpose::STANDARD_NO_PAD, &general_purpose::URL_SAFE];
    engines.iter().find_map(|engine| engine.decode(&text).ok()).ok_or_else(|| "its base64 is damaged".into())
}

fn percent_decode(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => return Err("a percent sign needs two hexadecimal digits after it".into()),
        }
    }
    Ok(out)
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut limited = MultiGzDecoder::new(bytes).take(MAX_BYTES as u64 + 1);
    limited.read_to_end(&mut out).map_err(|error| format!("its gzip is damaged ({error})"))?;
    if out.len() > MAX_BYTES {
        return Err(format!("it unpacks to more than {MAX_BYTES} bytes"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> String {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(bytes).expect("memory");
        encode(&writer.finish().expect("memory"))
    }

    #[test]
    fn sources_are_decoded() {
        for (source, gzip, want) in [
            ("", false, Some("")),
            ("", true, Some("")),
            ("data:,", false, Some("")),
            ("data:,a%20b%0A", false, Some("a b\n")),
            ("data:text/plain;charset=utf-8;base64,YQ==", false, Some("a")),
            ("data:;base64,YQ", false, Some("a")),
            ("data:;base64,YQ%3D%3D", false, Some("a")),
            ("data:;base64,_-8=", false, None.or(Some("\u{fffd}"))),
            ("data:,%2", false, None),
            ("data:,%zz", false, None),
            ("data:;base64,*", false, None),
            ("data:nothing", false, None),
            ("https://example.com/x", false, None),
            ("data:,plain", true, None),
        ] {
            let found = decode(source, gzip).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let want = want.map(str::to_owned);
            assert_eq!(found.is_some(), want.is_some(), "{source}");
            if source != "data:;base64,_-8=" {
                assert_eq!(found, want, "{source}");
            }
        }
        assert_eq!(decode(&gzip(b"hello"), true).as_deref(), Ok(&b"hello"[..]));
    }

    #[test]
    fn a_compressed_content_cannot_grow_without_bound() {
        let bomb = gzip(&vec![0; MAX_BYTES + 1]);
        assert!(bomb.len() < 100_000);
        assert!(decode(&bomb, true).is_err());
    }
}
