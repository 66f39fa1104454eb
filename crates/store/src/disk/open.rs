//! Opening: the lock, a new file, and the proof that an old one is whole before anything is written to it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageError};

use super::overlay::Overlay;
use super::{FORMAT, KEYS, META, META_FORMAT, RECORDS};
use crate::error::OpenError;

const LOCK_FILE: &str = "lock";
const DATA_FILE: &str = "objects.redb";
const UNFINISHED_FILE: &str = "objects.redb.new";

/// Makes sure that nobody else has this store open. The lock lives as long as the file returned.
pub(super) fn lock(dir: &Path) -> Result<File, OpenError> {
    // Secrets are stored here.
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))?;
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // The owner is a courtesy: what cannot be read is not told.
            let _ = file.take(32).read_to_string(&mut owner);
            return Err(OpenError::InUse { dir: dir.into(), owner: owner.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(OpenError::Io { action: "lock", path, source }),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io_error("write", &path))?;
    Ok(file)
}

/// Gives the path of the data file, after making an empty one if there is none. The caller holds the lock.
pub(super) fn prepare(dir: &Path) -> Result<PathBuf, OpenError> {
    let path = dir.join(DATA_FILE);
    if path.try_exists().map_err(io_error("look for", &path))? {
        return Ok(path);
    }
    // Made aside and renamed: a crash meanwhile leaves no half of a store.
    let unfinished = dir.join(UNFINISHED_FILE);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &unfinished)(error)),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(io_error("create", &unfinished))?;
    create(&unfinished).map_err(|source| OpenError::Engine { path: unfinished.clone(), source: Box::new(source) })?;
    fs::rename(&unfinished, &path).map_err(io_error("rename", &unfinished))?;
    for dir in [Some(dir), dir.parent().filter(|parent| !parent.as_os_str().is_empty())].into_iter().flatten() {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))?;
    }
    Ok(path)
}

/// Opens the data file after verifying all of it without writing to it.
pub(super) fn database(path: &Path, cache: usize) -> Result<Database, OpenError> {
    verify(path, cache)?;
    let shown = path.display().to_string();
    let database = Builder::new()
        .set_cache_size(cache)
        .set_repair_callback(move |progress| {
            tracing::info!(path = %shown, progress = progress.progress(), "store was not closed, recovering");
        })
        .open(path);
    database.map_err(|error| engine_error(path, error))
}

fn create(path: &Path) -> Result<(), redb::Error> {
    let database = Builder::new().create(path)?;
    let commit = database.begin_write()?;
    commit.open_table(KEYS)?;
    commit.open_table(RECORDS)?;
    commit.open_table(META)?.insert(META_FORMAT, FORMAT)?;
    commit.commit()?;
    Ok(database.close()?)
}

/// Opens the file, recovers it and compares all checksums, but keeps in memory what that would write.
fn verify(path: &Path, cache: usize) -> Result<(), OpenError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let overlay = Overlay::new(file).map_err(io_error("read", path))?;
    let database = Builder::new()
        .set_cache_size(cache)
        .set_check_integrity_on_open(true)
        .create_with_backend(overlay)
        .map_err(|error| engine_error(path, error))?;
    let found =
        format(&database).map_err(|source| OpenError::Corrupt { path: path.into(), source: Box::new(source) })?;
    match found {
        FORMAT => Ok(()),
        found if found > FORMAT => Err(OpenError::Newer { path: path.into(), found, known: FORMAT }),
        found => {
            let source = redb::Error::Corrupted(format!("format {found}"));
            Err(OpenError::Corrupt { path: path.into(), source: Box::new(source) })
        }
    }
}

/// The format of a store. Of one it knows, the other tables are there too.
fn format(database: &Database) -> Result<u64, redb::Error> {
    let reader = database.begin_read()?;
    let format = reader.open_table(META)?.get(META_FORMAT)?.map_or(0, |format| format.value());
    if format == FORMAT {
        reader.open_table(KEYS)?;
        reader.open_table(RECORDS)?;
    }
    Ok(format)
}

fn engine_error(path: &Path, error: DatabaseError) -> OpenError {
    // The engine tells some damage as input that makes no sense or ends too early.
    let damaged = match &error {
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::UpgradeRequired(_) => true,
        DatabaseError::Storage(StorageError::Io(cause)) => {
            matches!(
                cause.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
            )
        }
        _ => false,
    };
    let (path, source) = (path.into(), Box::new(error.into()));
    if damaged { OpenError::Corrupt { path, source } } else { OpenError::Engine { path, source } }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { action, path: path.into(), source }
}
