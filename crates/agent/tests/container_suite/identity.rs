//! Users, capabilities, limits, system call filters.

use osc_agent_protocol::oci;

use crate::support::{Place, block_on, outcome, process};

#[test]
fn users_and_groups_are_those_asked_for() {
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["sh", "-c", "id -u; id -g; id -G; echo $HOME; pwd"]);
        let process = spec.Process.mut_or_insert_default();
        process.User = Some(oci::User { UID: 33, GID: 34, AdditionalGids: vec![7, 8], ..oci::User::default() }).into();
        process.Cwd = "/srv/made/up".into();
        assert_eq!(place.run(spec).await.ok(), "33\n34\n34 7 8\n/srv/web\n/srv/made/up\n");
    });
}

#[test]
fn capabilities_are_those_asked_for() {
    block_on(async {
        let place = Place::new();
        let caps = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut spec = place.spec(&["grep", "^Cap", "/proc/self/status"]);
        let process = spec.Process.mut_or_insert_default();
        process.User.mut_or_insert_default().UID = 33;
        process.Capabilities = Some(oci::LinuxCapabilities {
            Bounding: caps(&["CAP_CHOWN", "CAP_NET_RAW"]),
            Effective: caps(&["CAP_CHOWN"]),
            Permitted: caps(&["CAP_CHOWN", "CAP_NET_RAW"]),
            Inheritable: caps(&["CAP_CHOWN"]),
            Ambient: caps(&["CAP_CHOWN"]),
            ..oci::LinuxCapabilities::default()
        })
        .into();
        // After execve as a user only what is ambient stays.
        let want = "CapInh:\t0000000000000001\nCapPrm:\t0000000000000001\nCapEff:\t0000000000000001\n\
                    CapBnd:\t0000000000002001\nCapAmb:\t0000000000000001\n";
        assert_eq!(place.run(spec).await.ok(), want);
    });
}

#[test]
fn privileges_can_be_given_up_for_good() {
    block_on(async {
        let place = Place::new();
        for (wanted, line) in [(false, "NoNewPrivs:\t0\n"), (true, "NoNewPrivs:\t1\n")] {
            let mut spec = place.spec(&["grep", "NoNewPrivs", "/proc/self/status"]);
            spec.Process.mut_or_insert_default().NoNewPrivileges = wanted;
            assert_eq!(place.run(spec).await.ok(), line);
        }
    });
}

#[test]
fn limits_and_memory_priority_are_set() {
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["sh", "-c", "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; umask"]);
        let process = spec.Process.mut_or_insert_default();
        process.OOMScoreAdj = 555;
        process.Rlimits = vec![oci::POSIXRlimit {
            Type: "RLIMIT_NOFILE".into(),
            Soft: 100,
            Hard: 200,
            ..oci::POSIXRlimit::default()
        }];
        assert_eq!(place.run(spec).await.ok(), "100\n200\n555\n0022\n");
    });
}

#[test]
fn only_standard_streams_are_open() {
    block_on(async {
        let place = Place::new();
        // The fourth is the directory being listed.
        assert_eq!(place.run(place.spec(&["ls", "/proc/self/fd"])).await.ok(), "0\n1\n2\n3\n");
    });
}

#[test]
fn the_environment_is_that_of_the_specification() {
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["/bin/env"]);
        spec.Process.mut_or_insert_default().Env = vec!["A=1".into(), "B=two words".into()];
        let want = "A=1\nB=two words\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOME=/root\n";
        assert_eq!(place.run(spec).await.ok(), want);
    });
}

fn profile(default: &str, names: &[&str], action: &str, errno: Option<u32>) -> oci::LinuxSeccomp {
    let mut call = oci::LinuxSyscall {
        Names: names.iter().map(ToString::to_string).collect(),
        Action: action.into(),
        ..oci::LinuxSyscall::default()
    };
    if let Some(errno) = errno {
        call.set_errnoret(errno);
    }
    oci::LinuxSeccomp { DefaultAction: default.into(), Syscalls: vec![call], ..oci::LinuxSeccomp::default() }
}

#[test]
fn filtered_calls_fail_as_the_profile_says() {
    block_on(async {
        let place = Place::new();
        for (no_new_privileges, uid) in [(false, 0), (true, 0), (false, 33), (true, 33)] {
            let mut spec = place.spec(&["sh", "-c", "mkdir /tmp/x; grep -E 'Seccomp:' /proc/self/status"]);
            spec.Linux.mut_or_insert_default().Seccomp =
                Some(profile("SCMP_ACT_ALLOW", &["mkdir", "mkdirat"], "SCMP_ACT_ERRNO", Some(38))).into();
            let process = spec.Process.mut_or_insert_default();
            process.NoNewPrivileges = no_new_privileges;
            process.User.mut_or_insert_default().UID = uid;
            let got = place.run(spec).await;
            assert!(got.stderr.contains("Function not implemented"), "{got:?}");
            assert_eq!(got.stdout, "Seccomp:\t2\n");
        }
    });
}

#[test]
fn a_killing_filter_shows_in_the_exit_status() {
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["sh", "-c", "mkdir /tmp/x"]);
        spec.Linux.mut_or_insert_default().Seccomp =
            Some(profile("SCMP_ACT_ALLOW", &["mkdir", "mkdirat"], "SCMP_ACT_KILL_PROCESS", None)).into();
        assert_eq!(place.run(spec).await.status, 128 + 31);
    });
}

#[test]
fn a_user_namespace_maps_ids() {
    block_on(async {
        let place = Place::new();
        let map = oci::LinuxIDMapping { ContainerID: 0, HostID: 200_000, Size: 1000, ..oci::LinuxIDMapping::default() };
        std::os::unix::fs::chown(place.image().join("tmp"), Some(200_000), Some(200_000)).unwrap();
        let script =
            "cat /proc/self/uid_map | tr -s ' '; id -u; touch /tmp/mine; echo > /dev/null; cat /proc/1/comm; hostname";
        let mut spec = place.spec(&["sh", "-c", script]);
        let linux = spec.Linux.mut_or_insert_default();
        linux.UIDMappings = vec![map.clone()];
        linux.GIDMappings = vec![map];
        linux.Namespaces.push(crate::support::namespace("user"));
        linux.Namespaces.push(crate::support::namespace("network"));
        assert_eq!(place.run(spec.clone()).await.ok(), " 0 200000 1000\n0\nsh\nbox\n");
        let made = std::fs::metadata(place.image().join("tmp/mine")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 200_000);

        spec.Process.mut_or_insert_default().Args = vec!["sleep".into(), "1000".into()];
        let container = place.start("c", spec).await;
        container
            .exec("e", process(&["sh", "-c", "cat /proc/self/uid_map | tr -s ' '; id -u; cat /proc/1/comm"]))
            .await
            .unwrap();
        assert_eq!(outcome(&container, "e").await.ok(), " 0 200000 1000\n0\nsleep\n");
        container.remove(Some(std::time::Duration::from_secs(10))).await.unwrap();
    });
}
