//! A place to run containers in, and the container most tests run.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use osc_agent::container::{Container, CreateRequest, Launcher, Result, SandboxNamespaces, reaper::Reaper};
use osc_agent_protocol::oci;
use tokio::runtime::Runtime;

/// One runtime and one reaper for the whole process: it waits for all children.
fn world() -> &'static (Runtime, Reaper) {
    static WORLD: OnceLock<(Runtime, Reaper)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let reaper = runtime.block_on(async { Reaper::start().unwrap() });
        (runtime, reaper)
    })
}

/// Runs a test, which must end in time.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    world().0.block_on(async { tokio::time::timeout(Duration::from_secs(100), test).await.expect("test hangs") })
}

const APPLETS: &[&str] = &[
    "[",
    "cat",
    "chmod",
    "cp",
    "date",
    "dd",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "hostname",
    "id",
    "ipcs",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mknod",
    "mount",
    "mountpoint",
    "nc",
    "od",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "seq",
    "sh",
    "sleep",
    "stat",
    "stty",
    "tail",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "wc",
    "xargs",
];

/// A directory with a root file system and a launcher; deleted at the end.
pub struct Place {
    pub dir: PathBuf,
    pub launcher: Launcher,
    cgroup: String,
}

impl Place {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("container-suite-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&name);
        make_rootfs(&dir.join("image"));
        let launcher = Launcher::new(env!("CARGO_BIN_EXE_kata-agent"), dir.join("run"), world().1.clone()).unwrap();
        Self { dir, launcher, cgroup: name }
    }

    pub fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    /// The specification of a container that runs `args`.
    pub fn spec(&self, args: &[&str]) -> oci::Spec {
        let linux = oci::Linux {
            CgroupsPath: format!("/{}/:{}", self.cgroup, "c"),
            Namespaces: ["pid", "ipc", "uts", "mount"].map(namespace).into(),
            MaskedPaths: ["/proc/kcore", "/proc/acpi", "/sys/firmware", "/proc/no-such"].map(Into::into).into(),
            ReadonlyPaths: ["/proc/sys", "/proc/no-such"].map(Into::into).into(),
            ..oci::Linux::default()
        };
        oci::Spec {
            Version: "1.0.2".into(),
            Process: Some(process(args)).into(),
            Root: Some(oci::Root { Path: self.image().display().to_string(), ..oci::Root::default() }).into(),
            Hostname: "box".into(),
            Mounts: default_mounts(),
            Linux: Some(linux).into(),
            ..oci::Spec::default()
        }
    }

    /// Creates a container; its id becomes part of its control group.
    pub async fn create(&self, id: &str, spec: oci::Spec) -> Result<Arc<Container>> {
        self.create_in(id, spec, SandboxNamespaces::default()).await
    }

    pub async fn create_in(
        &self,
        id: &str,
        mut spec: oci::Spec,
        namespaces: SandboxNamespaces,
    ) -> Result<Arc<Container>> {
        spec.Linux.mut_or_insert_default().CgroupsPath = format!("/{}/{id}", self.cgroup);
        self.launcher.create(CreateRequest { id: id.into(), spec, namespaces }).await
    }

    /// Creates and starts.
    pub async fn start(&self, id: &str, spec: oci::Spec) -> Arc<Container> {
        let container = self.create(id, spec).await.unwrap();
        container.start().await.unwrap();
        container
    }

    /// Runs a container to its end and removes it.
    pub async fn run(&self, spec: oci::Spec) -> Outcome {
        let container = self.start("c", spec).await;
        container.close_stdin("").unwrap();
        let outcome = outcome(&container, "").await;
        container.remove(Some(Duration::from_secs(10))).await.unwrap();
        outcome
    }

    /// Runs a shell script to its end.
    pub async fn sh(&self, script: &str) -> Outcome {
        self.run(self.spec(&["sh", "-c", script])).await
    }

    /// The control group directory of a container, wherever the hierarchy is.
    pub fn cgroup_dirs(&self) -> Vec<PathBuf> {
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .iter()
            .map(|root| Path::new(root).join(&self.cgroup))
            .filter(|dir| dir.exists())
            .collect()
    }

    /// Fails when a container left something behind.
    pub fn assert_clean(&self) {
        assert_eq!(self.leftovers(), Vec::<String>::new(), "left behind");
    }

    fn leftovers(&self) -> Vec<String> {
        let bundles = fs::read_dir(self.dir.join("run")).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut left: Vec<_> = bundles.chain(self.cgroup_dirs()).map(|path| path.display().to_string()).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(self.dir.to_str().unwrap())).map(String::from));
        left
    }

    /// After a failed test: kills, unmounts and deletes what it was using.
    fn clear_away(&self) {
        for dir in self.cgroup_dirs() {
            let _ = fs::write(dir.join("cgroup.kill"), "1");
            for child in fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
                let _ = child.is_dir().then(|| fs::remove_dir(child));
            }
            let _ = fs::remove_dir(dir);
        }
        for bundle in fs::read_dir(self.dir.join("run")).into_iter().flatten().flatten() {
            let _ = nix::mount::umount2(&bundle.path().join("rootfs"), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.leftovers();
        self.clear_away();
        fs::remove_dir_all(&self.dir).unwrap();
        assert!(left.is_empty() || std::thread::panicking(), "left behind: {left:?}");
    }
}

/// What a process left.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Its output, when it succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.stdout
    }
}

/// Reads both outputs to their end and waits.
pub async fn outcome(container: &Container, exec: &str) -> Outcome {
    let (stdout, stderr) = tokio::join!(read_all(container, exec, true), read_all(container, exec, false));
    let status = container.wait(exec).await.unwrap();
    Outcome { status, stdout: String::from_utf8(stdout).unwrap(), stderr: String::from_utf8(stderr).unwrap() }
}

/// Reads one output to its end.
pub async fn read_all(container: &Container, exec: &str, stdout: bool) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let data = if stdout {
            container.read_stdout(exec, 32 << 10).await
        } else {
            container.read_stderr(exec, 32 << 10).await
        };
        match data {
            Ok(data) if !data.is_empty() => all.extend(data),
            _ => return all,
        }
    }
}

/// Reads standard output until it contains `text`.
pub async fn read_until(container: &Container, exec: &str, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let data = container.read_stdout(exec, 4096).await.unwrap();
        assert!(!data.is_empty(), "end of output before {text:?}: {all:?}");
        all.push_str(&String::from_utf8_lossy(&data));
    }
    all
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn namespace(kind: &str) -> oci::LinuxNamespace {
    oci::LinuxNamespace { Type: kind.into(), ..oci::LinuxNamespace::default() }
}

pub fn process(args: &[&str]) -> oci::Process {
    let caps = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_MKNOD"];
    let caps: Vec<String> = caps.map(Into::into).into();
    let capabilities = oci::LinuxCapabilities {
        Bounding: caps.clone(),
        Effective: caps.clone(),
        Permitted: caps,
        ..oci::LinuxCapabilities::default()
    };
    oci::Process {
        User: Some(oci::User::default()).into(),
        Args: args.iter().map(ToString::to_string).collect(),
        Env: vec!["PATH=/bin".into()],
        Cwd: "/".into(),
        Capabilities: Some(capabilities).into(),
        ..oci::Process::default()
    }
}

pub fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: destination.into(),
        source: source.into(),
        type_: kind.into(),
        options: options.iter().map(ToString::to_string).collect(),
        ..oci::Mount::default()
    }
}

fn default_mounts() -> Vec<oci::Mount> {
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn make_rootfs(image: &Path) {
    for dir in ["bin", "etc", "proc", "dev", "sys", "tmp", "root"] {
        fs::create_dir_all(image.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", image.join("bin").join(applet)).unwrap();
    }
    fs::write(image.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/sh\n").unwrap();
    fs::write(image.join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
}
