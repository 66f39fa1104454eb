//! In which form the client wants its answer.

use http::{HeaderMap, header::ACCEPT};

/// Bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// `application/json`, which every client understands.
    Json,
    /// `application/yaml`, for people with curl.
    Yaml,
}

impl Wire {
    /// Content type of plain answers.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// Shape of an object in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The object itself.
    Whole,
    /// Columns and rows; the version of `meta.k8s.io` is `v1` or `v1beta1`.
    Table(&'static str),
    /// `PartialObjectMetadata`.
    Metadata(&'static str),
}

/// The chosen answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    /// Encoding.
    pub wire: Wire,
    /// Shape.
    pub form: Form,
}

/// More ranges than this in one header are not looked at.
const MOST_RANGES: usize = 64;

/// One element of an Accept header.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    /// `type/subtype`, lower case.
    pub media_type: String,
    parameters: Vec<(String, String)>,
    quality: f32,
}

impl Range {
    /// A parameter such as `as`, if given.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().filter(|it| it.contains('/'))?.to_ascii_lowercase();
        let mut range = Self { media_type, parameters: Vec::new(), quality: 1.0 };
        for part in parts {
            let Some((key, value)) = part.split_once('=') else { continue };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
            if key == "q" {
                range.quality = value.parse().unwrap_or(0.0);
            } else {
                range.parameters.push((key, value.into()));
            }
        }
        Some(range)
    }
}

/// The ranges a client names, best first; `*/*` when it names none.
pub fn ranges(headers: &HeaderMap) -> Vec<Range> {
    let mut ranges: Vec<Range> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .take(MOST_RANGES)
        .filter_map(Range::parse)
        .filter(|range| range.quality > 0.0)
        .collect();
    if !headers.contains_key(ACCEPT) {
        ranges.push(Range { media_type: "*/*".into(), parameters: Vec::new(), quality: 1.0 });
    }
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

impl Accept {
    /// JSON, the object itself.
    pub const PLAIN: Self = Self { wire: Wire::Json, form: Form::Whole };

    /// The best answer the client takes and we can give; `None` means 406.
    pub fn negotiate(headers: &HeaderMap) -> Option<Self> {
        ranges(headers).iter().find_map(Self::of)
    }

    fn of(range: &Range) -> Option<Self> {
        let wire = match range.media_type.as_str() {
            "application/json" | "application/*" | "*/*" => Wire::Json,
            "application/yaml" => Wire::Yaml,
            _ => return None,
        };
        let version = match range.parameter("v") {
            Some("v1beta1") => "v1beta1",
            _ => "v1",
        };
        let form = match range.parameter("as") {
            None => Form::Whole,
            Some("Table") => Form::Table(version),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Form::Metadata(version),
            Some(_) => return None,
        };
        Some(Self { wire, form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_answer_is_chosen() {
        let plain = Some(Accept::PLAIN);
        let table = |version| Some(Accept { wire: Wire::Json, form: Form::Table(version) });
        let rows = [
            ("", None),
            ("*/*", plain),
            ("application/json", plain),
            ("application/vnd.kubernetes.protobuf", None),
            ("application/vnd.kubernetes.protobuf,application/json", plain),
            ("application/json;q=0.5, application/yaml", Some(Accept { wire: Wire::Yaml, form: Form::Whole })),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                table("v1"),
            ),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", table("v1beta1")),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
                Some(Accept { wire: Wire::Json, form: Form::Metadata("v1") }),
            ),
            ("application/json;as=Surprise, application/json", plain),
            ("application/json;q=0", None),
            ("text/html, */*;q=0.1", plain),
            (";;,/,x", None),
        ];
        for (given, want) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, given.parse().unwrap());
            assert_eq!(Accept::negotiate(&headers), want, "{given}");
        }
        assert_eq!(Accept::negotiate(&HeaderMap::new()), plain, "no header");
    }
}
