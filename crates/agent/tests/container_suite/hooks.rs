//! Hooks at each stage of a container's life.

use std::{fs, time::Duration};

use osc_agent_protocol::oci;

use crate::support::{Place, block_on};

const SOON: Option<Duration> = Some(Duration::from_secs(10));

/// Puts a hook into its stage.
type Add = fn(&mut oci::Hooks, oci::Hook);

fn hook(script: &str) -> oci::Hook {
    oci::Hook {
        Path: "/bin/sh".into(),
        Args: vec!["sh".into(), "-c".into(), script.into()],
        Env: vec!["PATH=/bin:/usr/bin".into()],
        Timeout: 5,
        ..oci::Hook::default()
    }
}

#[test]
fn every_stage_runs_where_and_when_it_should() {
    block_on(async {
        let place = Place::new();
        let log = place.dir.join("log");
        let stage = |name: &str| {
            let log = log.display();
            hook(&format!("echo {name} $(hostname) $(grep -o '\"status\":\"[a-z]*\"' | cut -d'\"' -f4) >> {log}"))
        };
        let mut spec = place.spec(&["sh", "-c", "cat /tmp/started; exit 2"]);
        spec.Hooks = Some(oci::Hooks {
            Prestart: vec![stage("prestart")],
            CreateRuntime: vec![stage("createRuntime")],
            CreateContainer: vec![stage("createContainer")],
            StartContainer: vec![hook("echo from-start $(cat | grep -c '\"id\":\"c\"') > /tmp/started")],
            Poststart: vec![stage("poststart")],
            Poststop: vec![stage("poststop")],
            ..oci::Hooks::default()
        })
        .into();
        let got = place.run(spec).await;
        assert_eq!((got.stdout.as_str(), got.status), ("from-start 1\n", 2));
        let outside = fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
        let want = format!(
            "prestart {outside} creating\ncreateRuntime {outside} creating\ncreateContainer box creating\n\
             poststart {outside} running\npoststop {outside} stopped\n"
        );
        assert_eq!(fs::read_to_string(&log).unwrap(), want);
    });
}

#[test]
fn a_failed_hook_ends_the_creation() {
    block_on(async {
        let place = Place::new();
        let cases: [(&str, Add); 3] = [
            ("prestart", |hooks, hook| hooks.Prestart.push(hook)),
            ("createRuntime", |hooks, hook| hooks.CreateRuntime.push(hook)),
            ("createContainer", |hooks, hook| hooks.CreateContainer.push(hook)),
        ];
        for (stage, add) in cases {
            let mut spec = place.spec(&["true"]);
            add(spec.Hooks.mut_or_insert_default(), hook("echo broken >&2; exit 3"));
            let error = place.create("c", spec).await.unwrap_err();
            assert!(error.to_string().contains(stage), "{error}");
            place.assert_clean();
        }
    });
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    block_on(async {
        let place = Place::new();
        for add in [(|hooks, hook| hooks.Prestart.push(hook)) as Add, |hooks, hook| hooks.CreateContainer.push(hook)] {
            let mut spec = place.spec(&["true"]);
            let slow = oci::Hook { Timeout: 1, ..hook("exec sleep 1000") };
            add(spec.Hooks.mut_or_insert_default(), slow);
            let error = place.create("c", spec).await.unwrap_err();
            assert!(error.to_string().contains("still running after 1s"), "{error}");
        }
    });
}

#[test]
fn a_failed_poststop_hook_does_not_keep_the_container() {
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["true"]);
        spec.Hooks.mut_or_insert_default().Poststop.push(hook("exit 1"));
        let container = place.start("c", spec).await;
        container.remove(SOON).await.unwrap();
    });
}
