//! Where templates are kept: few, whole or not at all.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nix::fcntl::{Flock, FlockArg};
use osc_agent_protocol::kind::chain;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{memory, shape::Shape};
use crate::{config::Mib, qemu};

/// Templates kept at most; each has some hundred MiB on disk.
const MOST: usize = 4;
/// One that was used within this span is not given up for another.
const IN_USE: Duration = Duration::from_secs(600);
/// One that was not used within this span goes when another one is made.
const USEFUL: Duration = Duration::from_secs(24 * 3600);
/// How long a failure is believed before a template is tried again.
const FAILURE_HOLDS: Duration = Duration::from_secs(3600);
/// Memory one template may have. Guests with more than this after their boot have so
/// much memory that describing it is most of it: copying would take as long as booting.
pub(super) const MOST_MEMORY: Mib = Mib(512);

const MANIFEST: &str = "manifest.json";
pub(super) const MEMORY: &str = "memory";
pub(super) const STATE: &str = "state";
const LOCK: &str = "lock";
const BUILD: &str = "build";
const FAILED: &str = "failed";

/// What a template says about itself.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    shape: Shape,
    /// Bytes of memory that are not holes.
    memory: u64,
    /// SHA-256 of the state of the devices.
    state: String,
}

/// A directory of templates.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// What a sandbox of some shape does.
#[derive(Debug)]
pub enum Look {
    /// Go on from this.
    Ready(Box<Template>),
    /// Boot; a template is worth making for those to come.
    Wanted,
    /// Boot.
    None,
}

/// A template that was found whole.
#[derive(Debug)]
pub struct Template {
    shape: Shape,
    memory: File,
    bytes: u64,
    state: File,
}

/// Why a directory is no template.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("it can be changed by others than its owner, or is somebody else's")]
    Foreign,
    #[error("{0} cannot be read")]
    File(&'static str, #[source] io::Error),
    #[error("its manifest is not understood")]
    Manifest(#[source] serde_json::Error),
    #[error("{0} is not what the manifest says")]
    Other(&'static str),
}

impl Template {
    /// The shape of the machine that was saved.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// A copy of everything, for one machine. Blocks for as long as copying takes.
    ///
    /// # Errors
    /// I/O errors, `InvalidData` when the memory is not what it was.
    pub fn saved(self) -> io::Result<qemu::Saved> {
        let memory = qemu::guest_memory(self.shape.memory())?;
        if memory::copy(&self.memory, &memory, MOST_MEMORY.bytes())? < self.bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there are holes in the memory of the template"));
        }
        Ok(qemu::Saved { memory, state: self.state })
    }
}

impl Store {
    /// The store in `dir`, which need not exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What a sandbox of `shape` does now. A damaged template is removed. Blocking.
    pub fn look(&self, shape: &Shape, now: SystemTime) -> Look {
        let dir = self.dir.join(shape.digest());
        match open(&dir, shape) {
            Ok(template) => {
                // Only its age tells which one to give up; not knowing is no harm.
                let _ = File::open(dir.join(MANIFEST)).and_then(|file| file.set_modified(now));
                return Look::Ready(Box::new(template));
            }
            Err(Damage::File(_, error)) if error.kind() == io::ErrorKind::NotFound && !dir.exists() => {}
            Err(damage) => {
                tracing::warn!(template = %dir.display(), error = chain(&damage), "damaged template removed");
                self.remove(&dir);
            }
        }
        let failed = modified(&self.failure(shape)).is_some_and(|then| recent(then, now, FAILURE_HOLDS));
        let wanted = !failed && makes_room(&self.kept(), now).is_some();
        if wanted { Look::Wanted } else { Look::None }
    }

    /// Forgets the template of `shape` and remembers `reason` against another one.
    pub fn reject(&self, shape: &Shape, reason: &str) {
        self.remove(&self.dir.join(shape.digest()));
        if let Err(error) = fs::write(self.failure(shape), reason) {
            tracing::warn!(path = %self.dir.display(), error = %error, "failure of a template not remembered");
        }
    }

    /// The right to make one; `None` while somebody else does.
    ///
    /// # Errors
    /// When the store cannot be made.
    pub(super) fn lock(&self) -> io::Result<Option<Flock<File>>> {
        private_dir(&self.dir)?;
        let file = File::options().create(true).truncate(false).write(true).open(self.dir.join(LOCK))?;
        Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
    }

    /// A new directory to make one in.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn build_dir(&self) -> io::Result<PathBuf> {
        let dir = self.dir.join(BUILD);
        private_dir(&dir)?;
        Ok(dir)
    }

    /// Removes what a killed maker left, unless one is at work. Blocking.
    ///
    /// # Errors
    /// When the lock cannot be looked at.
    pub fn sweep_idle(&self) -> io::Result<()> {
        if self.dir.join(BUILD).exists()
            && let Some(_lock) = self.lock()?
        {
            self.remove(&self.dir.join(BUILD));
        }
        Ok(())
    }

    /// Removes what a killed maker left and what no sandbox will go on from again: the
    /// host, a program or the guest image is another one now, or nobody did for long.
    /// The caller holds the lock.
    pub(super) fn sweep(&self, now: SystemTime) {
        self.remove(&self.dir.join(BUILD));
        for (dir, used) in self.kept() {
            let manifest = fs::read(dir.join(MANIFEST)).unwrap_or_default();
            let current = serde_json::from_slice(&manifest).is_ok_and(|known: Manifest| known.shape.current());
            if !current || !recent(used, now, USEFUL) {
                tracing::info!(template = %dir.display(), current, "template of no more use removed");
                self.remove(&dir);
            }
        }
        let failures = self.entries().filter(|path| path.extension().is_some_and(|extension| extension == FAILED));
        for failure in failures.filter(|path| !modified(path).is_some_and(|then| recent(then, now, FAILURE_HOLDS))) {
            // It is not believed any more either way.
            let _ = fs::remove_file(failure);
        }
    }

    /// Makes what lies in `build` the template of `shape`. The caller holds the lock.
    ///
    /// # Errors
    /// I/O errors; nothing is published then.
    pub(super) fn publish(&self, build: &Path, shape: &Shape, memory: u64, now: SystemTime) -> io::Result<()> {
        let state = hex::encode(Sha256::digest(fs::read(build.join(STATE))?));
        let manifest = Manifest { shape: shape.clone(), memory, state };
        fs::write(build.join(MANIFEST), serde_json::to_vec_pretty(&manifest)?)?;
        for old in makes_room(&self.kept(), now).unwrap_or_default() {
            self.remove(&old);
        }
        fs::rename(build, self.dir.join(shape.digest()))?;
        match fs::remove_file(self.failure(shape)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Templates and when each was used last.
    fn kept(&self) -> Vec<(PathBuf, SystemTime)> {
        let templates = self.entries().filter(|path| path.join(MANIFEST).exists() && !path.ends_with(BUILD));
        templates
            .filter_map(|path| Some((modified(&path.join(MANIFEST))?, path)))
            .map(|(at, path)| (path, at))
            .collect()
    }

    fn entries(&self) -> impl Iterator<Item = PathBuf> {
        fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path())
    }

    fn failure(&self, shape: &Shape) -> PathBuf {
        self.dir.join(shape.digest()).with_extension(FAILED)
    }

    /// Removes a template. Machines that go on from it hold its files.
    pub(super) fn remove(&self, dir: &Path) {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %dir.display(), error = %error, "template not removed");
            }
            _ => {}
        }
    }
}

/// Opens the template in `dir` and checks it, all but the memory, which is checked by
/// copying it.
fn open(dir: &Path, shape: &Shape) -> Result<Template, Damage> {
    let missing = |what| move |error| Damage::File(what, error);
    let metadata = fs::symlink_metadata(dir).map_err(missing("its directory"))?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        return Err(Damage::Foreign);
    }
    let manifest = fs::read(dir.join(MANIFEST)).map_err(missing(MANIFEST))?;
    let manifest: Manifest = serde_json::from_slice(&manifest).map_err(Damage::Manifest)?;
    if manifest.shape != *shape {
        return Err(Damage::Other("its shape"));
    }
    let state = fs::read(dir.join(STATE)).map_err(missing(STATE))?;
    if hex::encode(Sha256::digest(&state)) != manifest.state {
        return Err(Damage::Other(STATE));
    }
    let memory = File::open(dir.join(MEMORY)).map_err(missing(MEMORY))?;
    let length = memory.metadata().map_err(missing(MEMORY))?.len();
    if length != shape.memory().bytes() {
        return Err(Damage::Other(MEMORY));
    }
    let state = File::open(dir.join(STATE)).map_err(missing(STATE))?;
    Ok(Template { shape: shape.clone(), memory, bytes: manifest.memory, state })
}

/// Which templates go for another one; `None` when it is not worth it. `kept` are
/// those there are and when they were used last.
fn makes_room(kept: &[(PathBuf, SystemTime)], now: SystemTime) -> Option<Vec<PathBuf>> {
    let mut oldest: Vec<_> = kept.iter().collect();
    oldest.sort_by_key(|(_, used)| *used);
    let surplus = &oldest[..(kept.len() + 1).saturating_sub(MOST)];
    let idle = surplus.iter().all(|(_, used)| !recent(*used, now, IN_USE));
    idle.then(|| surplus.iter().map(|(path, _)| path.clone()).collect())
}

/// Whether `then` is less than `span` before `now`; times to come are not.
fn recent(then: SystemTime, now: SystemTime, span: Duration) -> bool {
    now.duration_since(then).is_ok_and(|age| age < span)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, PermissionsExt};

    use super::{super::shape::tests::spec, *};

    /// A store with a template of the shape.
    fn store(dir: &Path) -> (Store, Shape) {
        let (store, shape) = (Store::new(dir.join("templates")), Shape::of(&spec(dir)).unwrap());
        let _lock = store.lock().unwrap().unwrap();
        publish(&store, &shape);
        (store, shape)
    }

    fn publish(store: &Store, shape: &Shape) {
        let build = store.build_dir().unwrap();
        let memory = File::create(build.join(MEMORY)).unwrap();
        memory.set_len(shape.memory().bytes()).unwrap();
        memory.write_all_at(&[7; 8192], 1 << 20).unwrap();
        fs::write(build.join(STATE), "state").unwrap();
        store.publish(&build, shape, 8192, SystemTime::now()).unwrap();
    }

    #[test]
    fn a_template_comes_out_as_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let (store, shape) = store(dir.path());
        let Look::Ready(template) = store.look(&shape, SystemTime::now()) else { panic!() };
        let saved = template.saved().unwrap();
        assert_eq!(io::read_to_string(saved.state).unwrap(), "state");
        let mut found = vec![0; 8193];
        saved.memory.read_exact_at(&mut found, 1 << 20).unwrap();
        assert!(found[..8192] == [7; 8192] && found[8192] == 0);
        assert!(!store.dir().join(BUILD).exists());
    }

    #[test]
    fn a_damaged_or_foreign_one_is_removed_and_made_again() {
        type Harm = fn(&Path);
        let rows: [(&str, Harm); 6] = [
            ("manifest", |dir| fs::write(dir.join(MANIFEST), "{").unwrap()),
            ("no manifest", |dir| fs::remove_file(dir.join(MANIFEST)).unwrap()),
            ("state", |dir| fs::write(dir.join(STATE), "stale").unwrap()),
            ("memory", |dir| File::options().write(true).open(dir.join(MEMORY)).unwrap().set_len(4096).unwrap()),
            ("no memory", |dir| fs::remove_file(dir.join(MEMORY)).unwrap()),
            ("open to all", |dir| fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap()),
        ];
        for (what, harm) in rows {
            let dir = tempfile::tempdir().unwrap();
            let (store, shape) = store(dir.path());
            let template = store.dir().join(shape.digest());
            harm(&template);
            assert!(matches!(store.look(&shape, SystemTime::now()), Look::Wanted), "{what}");
            assert!(!template.exists(), "{what}");
            publish(&store, &shape);
            assert!(matches!(store.look(&shape, SystemTime::now()), Look::Ready(_)), "{what}");
        }
    }

    #[test]
    fn memory_with_new_holes_is_noticed_when_it_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (store, shape) = store(dir.path());
        let memory = File::create(store.dir().join(shape.digest()).join(MEMORY)).unwrap();
        memory.set_len(shape.memory().bytes()).unwrap();
        let Look::Ready(template) = store.look(&shape, SystemTime::now()) else { panic!() };
        assert_eq!(template.saved().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_failure_is_believed_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let (store, shape) = store(dir.path());
        store.reject(&shape, "it did not work");
        let now = SystemTime::now();
        assert!(matches!(store.look(&shape, now), Look::None));
        assert!(matches!(store.look(&shape, now + FAILURE_HOLDS), Look::Wanted));
        publish(&store, &shape);
        assert!(matches!(store.look(&shape, now), Look::Ready(_)));
    }

    #[test]
    fn what_nobody_can_or_does_go_on_from_is_swept() {
        let hour = Duration::from_secs(3600);
        type Change = fn(&Path);
        let rows: [(&str, Change, Duration, bool); 5] = [
            ("in use", |_| {}, 23 * hour, true),
            ("forgotten", |_| {}, 25 * hour, false),
            ("new kernel", |files| fs::write(files.join("kernel"), "a longer kernel").unwrap(), hour, false),
            ("no QEMU", |files| fs::remove_file(files.join("qemu")).unwrap(), hour, false),
            ("damaged", |files| fs::write(only(&files.join("templates")).join(MANIFEST), "{").unwrap(), hour, false),
        ];
        for (what, change, age, kept) in rows {
            let dir = tempfile::tempdir().unwrap();
            let (store, shape) = store(dir.path());
            change(dir.path());
            fs::create_dir(store.dir().join(BUILD)).unwrap();
            store.sweep(SystemTime::now() + age);
            assert_eq!(store.dir().join(shape.digest()).exists(), kept, "{what}");
            assert!(!store.dir().join(BUILD).exists(), "{what}");
        }
    }

    /// The only directory in `dir`.
    fn only(dir: &Path) -> PathBuf {
        fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).find(|path| path.is_dir()).unwrap()
    }

    #[test]
    fn old_failures_and_an_abandoned_build_go_but_not_under_a_maker() {
        let dir = tempfile::tempdir().unwrap();
        let (store, shape) = store(dir.path());
        store.reject(&shape, "it did not work");
        let failure = store.failure(&shape);
        store.sweep(SystemTime::now());
        assert!(failure.exists());
        store.sweep(SystemTime::now() + FAILURE_HOLDS);
        assert!(!failure.exists());

        let held = store.lock().unwrap().unwrap();
        let build = store.build_dir().unwrap();
        store.sweep_idle().unwrap();
        assert!(build.exists(), "its maker is at work");
        drop(held);
        store.sweep_idle().unwrap();
        assert!(!build.exists());
    }

    #[test]
    fn one_maker_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("templates"));
        let held = store.lock().unwrap().unwrap();
        assert!(store.lock().unwrap().is_none());
        drop(held);
        assert!(store.lock().unwrap().is_some());
    }

    #[test]
    fn the_longest_unused_goes_when_there_are_too_many() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100_000);
        let kept = |ages: &[u64]| -> Vec<(PathBuf, SystemTime)> {
            ages.iter().map(|age| (age.to_string().into(), now - Duration::from_secs(*age))).collect()
        };
        let rows: &[(&[u64], Option<&[&str]>)] = &[
            (&[], Some(&[])),
            (&[1, 2, 3], Some(&[])),
            (&[700, 2, 9000, 3], Some(&["9000"])),
            (&[1, 2, 3, 599], None),
            (&[700, 800, 9000, 5, 900], Some(&["9000", "900"])),
        ];
        for (ages, want) in rows {
            let want = want.map(|names| names.iter().map(PathBuf::from).collect::<Vec<_>>());
            assert_eq!(makes_room(&kept(ages), now), want, "{ages:?}");
        }
    }
}
