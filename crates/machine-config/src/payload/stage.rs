//! A packed payload on its way: out of an image, to where a daemon reads it.

use std::{fs, path::Path};

use super::{Manifest, PayloadError, manifest, on};

/// Copies the packed payload in `from` to `to`, which is replaced as a whole. A call that
/// was killed is repeated from the start.
///
/// # Errors
/// [`PayloadError`]; also when a file is not what its manifest says.
pub fn stage(from: &Path, to: &Path) -> Result<Manifest, PayloadError> {
    let manifest = Manifest::load(from)?;
    let partial = to.with_extension("partial");
    for old in [&partial, to] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(on("remove", old))?;
        }
    }
    for item in &manifest.files {
        let (source, copy) = (from.join(&item.name), partial.join(&item.name));
        let dir = copy.parent().unwrap_or(&partial);
        fs::create_dir_all(dir).map_err(on("create", dir))?;
        fs::copy(&source, &copy).map_err(on("copy", &source))?;
        if manifest::digest(&copy)? != item.sha256 {
            return Err(PayloadError::Differs { path: source });
        }
    }
    manifest.store(&partial)?;
    fs::rename(&partial, to).map_err(on("rename", &partial))?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::store::testing::sample;

    #[test]
    fn a_staged_payload_is_the_payload_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (sample(dir.path(), "a", "1"), sample(dir.path(), "b", "2"));
        let to = dir.path().join("staged");
        for source in [&first, &second, &second] {
            let staged = stage(source, &to).unwrap();
            assert_eq!(staged, Manifest::load(source).unwrap());
            assert_eq!(staged, Manifest::load(&to).unwrap());
        }
        let shim = second.join(crate::payload::SHIM);
        fs::write(&shim, "another").unwrap();
        assert!(matches!(stage(&second, &to), Err(PayloadError::Differs { path }) if path == shim));
        assert!(!to.exists(), "half a payload is none");
    }
}
