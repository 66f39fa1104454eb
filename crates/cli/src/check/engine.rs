//! The container engine and what it needs.

use std::path::Path;

use super::{
    finding::Finding,
    tool::{number, version},
};

/// The first with the task interface the shim serves.
const OLDEST_CONTAINERD: (u32, u32) = (1, 6);
const PLUGIN_DIRECTORIES: &[&str] = &["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
const PLUGINS: &[&str] = &["bridge", "host-local", "loopback", "portmap"];

/// containerd or CRI-O.
pub async fn engine() -> Finding {
    judge_engine(version("containerd").await, version("crio").await)
}

fn judge_engine(containerd: Result<String, String>, crio: Result<String, String>) -> Finding {
    let name = "container engine";
    let cure = "install containerd 1.6 or newer, or CRI-O";
    match (containerd, crio) {
        (Ok(line), _) if number(&line).is_none_or(|found| found >= OLDEST_CONTAINERD) => {
            let short: Vec<_> = line.split_whitespace().filter(|word| !word.contains('/')).take(2).collect();
            Finding::ok(name, short.join(" "))
        }
        (_, Ok(line)) => Finding::ok(name, line),
        (Ok(line), Err(_)) => Finding::missing(name, line, cure),
        (Err(problem), Err(_)) => Finding::missing(name, format!("containerd: {problem}"), cure),
    }
}

/// What runs pods without a sandbox beside those with one.
pub async fn low_level_runtime() -> Finding {
    let name = "plain runtime";
    match (version("runc").await, version("crun").await) {
        (Ok(line), _) | (_, Ok(line)) => Finding::ok(name, line),
        (Err(problem), _) => {
            Finding::warning(name, format!("runc: {problem}"), "install runc to run pods without a sandbox as well")
        }
    }
}

/// The plugins that give pods their network.
pub fn network_plugins() -> Finding {
    judge_plugins(&PLUGIN_DIRECTORIES.iter().map(Path::new).collect::<Vec<_>>())
}

fn judge_plugins(directories: &[&Path]) -> Finding {
    let name = "network plugins";
    let cure = "install containernetworking-plugins";
    let lacking = |dir: &Path| PLUGINS.iter().copied().filter(|plugin| !dir.join(plugin).is_file()).collect::<Vec<_>>();
    let Some((dir, lacking)) =
        directories.iter().map(|dir| (dir, lacking(dir))).min_by_key(|(_, lacking)| lacking.len())
    else {
        return Finding::missing(name, "none", cure);
    };
    match lacking.as_slice() {
        [] => Finding::ok(name, dir.display().to_string()),
        all if all.len() == PLUGINS.len() => Finding::missing(name, "none", cure),
        some => Finding::missing(name, format!("{} lacks {}", dir.display(), some.join(", ")), cure),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::check::finding::Verdict;

    #[test]
    fn one_engine_of_a_kind_we_know_is_enough() {
        let no = || Err("not found".to_owned());
        let yes = |text: &str| Ok(text.to_owned());
        let debian = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3";
        for (containerd, crio, verdict, found) in [
            (yes(debian), no(), Verdict::Ok, "containerd 1.6.20~ds1"),
            (yes("containerd github.com/x 1.4.1"), no(), Verdict::Missing, "containerd github.com/x 1.4.1"),
            (yes("containerd github.com/x 1.4.1"), yes("crio version 1.30"), Verdict::Ok, "crio version 1.30"),
            (no(), yes("crio version 1.30"), Verdict::Ok, "crio version 1.30"),
            (no(), no(), Verdict::Missing, "containerd: not found"),
        ] {
            let finding = judge_engine(containerd, crio);
            assert_eq!((finding.verdict, finding.found.as_str()), (verdict, found));
        }
    }

    #[test]
    fn the_directory_with_most_plugins_counts() {
        let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let directories = [empty.path(), full.path()];
        assert_eq!(judge_plugins(&directories).found, "none");
        for plugin in &PLUGINS[1..] {
            fs::write(full.path().join(plugin), "").unwrap();
        }
        assert!(judge_plugins(&directories).found.ends_with("lacks bridge"));
        fs::write(full.path().join("bridge"), "").unwrap();
        assert_eq!(judge_plugins(&directories).verdict, Verdict::Ok);
    }
}
