//! Why an image was not built.

use std::{io, path::PathBuf};

use osc_agent_protocol::Kind;

/// Why an image was not built.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum ImageError {
    /// The name cannot be an image's.
    #[error("image name {name:?} is not usable, {problem}: write it like localhost/hello:latest")]
    Name { name: String, problem: &'static str },
    /// An option has a value that means nothing.
    #[error("{option} {value:?} is not usable: give {wanted}")]
    Option { option: &'static str, value: String, wanted: &'static str },
    /// The folder is not one.
    #[error("{} is not a folder: name the folder that becomes the root of the image", path.display())]
    NotAFolder { path: PathBuf },
    /// A file of the folder cannot be read.
    #[error("cannot read {}: check its permissions", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file is of a kind that does not belong in an image.
    #[error("{} is a device, pipe or socket: leave it out, containers get theirs from the runtime", path.display())]
    SpecialFile { path: PathBuf },
    /// The archive cannot be written.
    #[error("cannot write {}: check space and permissions", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl ImageError {
    /// The kind of this failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Name { .. } | Self::Option { .. } | Self::NotAFolder { .. } | Self::SpecialFile { .. } => {
                Kind::Invalid
            }
            Self::Read { source, .. } | Self::Write { source, .. } => Kind::of_io(source),
        }
    }
}
