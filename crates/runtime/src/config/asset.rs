//! Digests a pod demands of what it is booted from.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha512};

use super::{
    error::{ConfigError, Problem},
    types::{Config, GuestRoot},
};

/// A file the virtual machine is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asset {
    Hypervisor,
    Kernel,
    Initrd,
    Image,
    Firmware,
}

/// What an annotation about digests asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Names the digest; only SHA-512 exists.
    Algorithm,
    /// The digest of one file.
    Digest(Asset),
}

/// Annotations below `io.katacontainers.config.hypervisor.`, with what they are about.
pub(super) const ROWS: &[(&str, &str, Asset)] = &[
    ("hypervisor_hash", "QEMU binary", Asset::Hypervisor),
    ("path_hash", "QEMU binary", Asset::Hypervisor),
    ("kernel_hash", "guest kernel", Asset::Kernel),
    ("initrd_hash", "guest initrd", Asset::Initrd),
    ("image_hash", "guest image", Asset::Image),
    ("firmware_hash", "firmware", Asset::Firmware),
];

impl Wanted {
    /// What `name`, without `io.katacontainers.`, asks for.
    pub fn parse(name: &str) -> Option<Self> {
        if name == "asset_hash_type" {
            return Some(Self::Algorithm);
        }
        match name.strip_prefix("config.hypervisor.")? {
            "asset_hash_type" => Some(Self::Algorithm),
            name => ROWS.iter().find(|row| row.0 == name).map(|row| Self::Digest(row.2)),
        }
    }
}

/// Checks one demand of `annotation` = `value`.
pub(super) fn verify(config: &Config, annotation: &str, value: &str, wanted: Wanted) -> Result<(), ConfigError> {
    let wrong = |allowed: &str| ConfigError::Annotation {
        problems: vec![Problem {
            path: annotation.to_owned(),
            value: format!("{value:?}"),
            allowed: allowed.to_owned(),
        }],
    };
    let asset = match wanted {
        Wanted::Algorithm if value == "sha512" => return Ok(()),
        Wanted::Algorithm => return Err(wrong("must be \"sha512\"")),
        Wanted::Digest(asset) => asset,
    };
    let path = path(config, asset).ok_or_else(|| wrong("no such file is configured; remove it"))?;
    let found = sha512(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    let wanted = value.trim().to_ascii_lowercase();
    if found == wanted {
        return Ok(());
    }
    Err(ConfigError::Digest { annotation: annotation.to_owned(), path, found, wanted })
}

fn path(config: &Config, asset: Asset) -> Option<PathBuf> {
    let hypervisor = &config.hypervisor;
    match (asset, &hypervisor.root) {
        (Asset::Hypervisor, _) => Some(hypervisor.path.clone()),
        (Asset::Kernel, _) => Some(hypervisor.kernel.clone()),
        (Asset::Firmware, _) => hypervisor.firmware.clone(),
        (Asset::Initrd, GuestRoot::Initrd(path)) | (Asset::Image, GuestRoot::Image { path, .. }) => Some(path.clone()),
        (Asset::Initrd | Asset::Image, _) => None,
    }
}

fn sha512(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Sha512::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}
