//! Parts of the measurement, each a process of its own: this program again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;

/// First word of such a process.
pub(crate) const ROLE: &str = "as";

/// A running part. It ends with this process.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a part; the server is waited for.
    pub(crate) async fn start(role: &str, directory: &Path) -> Result<Self> {
        let log = fs::File::create(directory.join(format!("{role}.log")))?;
        let child = Command::new(std::env::current_exe()?)
            .args([ROLE, role])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let mut process = Self { child };
        let serving = async {
            while !kubeconfig(directory).exists() {
                anyhow::ensure!(process.child.try_wait()?.is_none(), "the {role} ended, see {}", directory.display());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(60), serving).await.context("the server is not ready")??;
        Ok(process)
    }

    /// Processor time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let text = fs::read_to_string(self.file("stat")?)?;
        let after = text.rsplit_once(')').context("a process")?.1;
        let fields: Vec<u64> = after.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        // utime and stime are fields 14 and 15 of proc(5), in hundredths of a second.
        Ok(Duration::from_millis((fields[11] + fields[12]) * 10))
    }

    /// Most bytes of memory it ever had.
    pub(crate) fn peak(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// Bytes of memory it has.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    fn memory(&self, name: &str) -> Result<u64> {
        let text = fs::read_to_string(self.file("status")?)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("its memory")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    }

    fn file(&self, name: &str) -> Result<PathBuf> {
        let id = self.child.id().context("a part ended")?;
        Ok(Path::new("/proc").join(id.to_string()).join(name))
    }
}

/// Cancelled when the process that started this one ends.
pub(crate) fn until_parent_ends() -> CancellationToken {
    let stop = CancellationToken::new();
    let ended = stop.clone();
    std::thread::spawn(move || {
        std::io::stdin().lines().count();
        ended.cancel();
    });
    stop
}

pub(crate) fn kubeconfig(directory: &Path) -> PathBuf {
    directory.join("kubeconfig")
}

/// A client over TLS, as any other.
pub(crate) async fn client(directory: &Path) -> Result<Client> {
    Ok(Client::try_from(config(directory).await?)?)
}

/// A client whose requests are counted.
pub(crate) async fn counted(directory: &Path) -> Result<(Client, Arc<AtomicU64>)> {
    let count = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&count);
    let layer = MapRequestLayer::new(move |request: http::Request<Body>| {
        counting.fetch_add(1, Ordering::Relaxed);
        request
    });
    Ok((ClientBuilder::try_from(config(directory).await?)?.with_layer(&layer).build(), count))
}

async fn config(directory: &Path) -> Result<Config> {
    let access = Kubeconfig::read_from(kubeconfig(directory))?;
    Ok(Config::from_custom_kubeconfig(access, &KubeConfigOptions::default()).await?)
}
