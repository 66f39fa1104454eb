//! Processes in sandboxes, driven by `ctr`: exit codes, streams, terminals,
//! signals and exec behave as they do under any other runtime.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{thread, time::Duration};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use osc_testkit::{
    command::{self, until},
    host::{Host, LIMIT},
    processes,
    terminal::Terminal,
};

#[test]
fn a_sandbox_has_a_kernel_of_its_own_and_exit_codes_reach_the_caller() {
    let host = Host::start();
    let guest = host.run(&[], &["uname", "-r"]).ok().text();
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    assert!(!guest.is_empty() && guest != release, "guest {guest}, host {release}");
    for (script, code) in [("true", 0), ("exit 7", 7), ("/no/such/binary", 127), ("sh -c 'kill -9 $$'; exit $?", 137)] {
        assert_eq!(host.run(&[], &["sh", "-c", script]).code, code, "{script}");
    }
    host.end();
}

#[test]
fn a_missing_binary_is_named() {
    let host = Host::start();
    let outcome = host.run(&[], &["no-such-binary"]);
    assert_ne!(outcome.code, 0);
    assert!(outcome.errors().contains("no-such-binary"), "{}", outcome.errors());
    assert!(outcome.errors().contains("executable file not found"), "{}", outcome.errors());
    let id = host.detach(&["sleep", "1000"]);
    let outcome = host.exec(&id, &[], &["no-such-binary"]);
    assert_ne!(outcome.code, 0);
    assert!(outcome.errors().contains("no-such-binary"), "{}", outcome.errors());
    host.delete(&id);
    host.end();
}

#[test]
fn streams_stay_apart_and_16_mib_pass_through_intact() {
    let host = Host::start();
    let outcome = host.run(&[], &["sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((outcome.stdout, outcome.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));

    let sent: Vec<u8> = (0..16_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cat = host.run_command(&host.name(), &["--rm"], &["cat"]);
    let got = command::run(cat, &sent, LIMIT).ok().stdout;
    assert_eq!(got.len(), sent.len());
    assert!(got == sent, "the bytes differ");
    host.end();
}

#[test]
fn a_terminal_works_and_resizes() {
    let host = Host::start();
    let shell = host.run_command(&host.name(), &["--rm", "--tty"], &["sh"]);
    let mut terminal = Terminal::start(&shell, 33, 111);
    terminal.type_in("stty size\n");
    terminal.expect("33 111", LIMIT);
    terminal.resize(44, 122);
    // The new size travels on its own way: ask until it is there.
    assert!(until(LIMIT, || {
        terminal.type_in("stty size\n");
        until(Duration::from_millis(300), || terminal.shown().contains("44 122"))
    }));
    terminal.type_in("tty; exit 5\n");
    terminal.expect("/dev/", LIMIT);
    assert_eq!(terminal.code(LIMIT), 5);
    host.end();
}

#[test]
fn exec_works_beside_the_main_process() {
    let host = Host::start();
    let id = host.detach(&["sh", "-c", "echo started; exec sleep 1000"]);
    let outcome = host.exec(&id, &[], &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((outcome.code, outcome.text().as_str(), outcome.errors().as_str()), (3, "out", "err\n"));
    let with_environment = host.exec(&id, &["--cwd", "/tmp"], &["pwd"]).ok();
    assert_eq!(with_environment.text(), "/tmp");
    // Several at a time.
    thread::scope(|scope| {
        let (host, id) = (&host, &id);
        let echo = |i: usize| host.exec(id, &[], &["echo", &i.to_string()]).ok().text();
        let runs: Vec<_> = (0..8).map(|i| scope.spawn(move || echo(i))).collect();
        for (i, run) in runs.into_iter().enumerate() {
            assert_eq!(run.join().unwrap(), format!("{i}"));
        }
    });
    host.delete(&id);
    host.end();
}

#[test]
fn signals_arrive() {
    let host = Host::start();
    let id = host.name();
    let script = "trap 'echo usr1' USR1; trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let command = host.run_command(&id, &["--rm"], &["sh", "-c", script]);
    let outcome = thread::scope(|scope| {
        let run = scope.spawn(|| command::run(command, b"", LIMIT));
        let running =
            || host.ctr(&["tasks", "list"]).text().lines().any(|line| line.contains(&id) && line.contains("RUNNING"));
        assert!(until(LIMIT, running));
        // The traps are set once the script has printed; the exec sees that by its own child.
        assert!(until(LIMIT, || host.exec(&id, &[], &["pidof", "sleep"]).code == 0));
        host.ctr(&["tasks", "kill", "--signal", "USR1", &id]).ok();
        assert!(until(LIMIT, || host.exec(&id, &[], &["pidof", "sleep"]).code == 0));
        host.ctr(&["tasks", "kill", "--signal", "TERM", &id]).ok();
        run.join().unwrap()
    });
    assert_eq!(outcome.code, 9, "{}", outcome.errors());
    assert_eq!(outcome.text(), "ready\nusr1\nterm");

    let id = host.name();
    let command = host.run_command(&id, &["--rm"], &["sleep", "100000"]);
    let outcome = thread::scope(|scope| {
        let run = scope.spawn(|| command::run(command, b"", LIMIT));
        assert!(until(LIMIT, || host.exec(&id, &[], &["pidof", "sleep"]).code == 0));
        host.ctr(&["tasks", "kill", "--signal", "KILL", &id]).ok();
        run.join().unwrap()
    });
    assert_eq!(outcome.code, 137, "{}", outcome.errors());
    host.end();
}

#[test]
fn disks_of_the_host_stay_out_of_reach() {
    let host = Host::start();
    // A block device node that stands for any disk; its number belongs to no driver.
    let disk = host.root.join("disk");
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    mknod(&disk, SFlag::S_IFBLK, mode, makedev(240, 0)).unwrap();
    let outcome = host.run(&["--device", disk.to_str().unwrap()], &["true"]);
    assert_ne!(outcome.code, 0);
    for part in [disk.to_str().unwrap(), "block device", "privileged_without_host_devices"] {
        assert!(outcome.errors().contains(part), "{part} is missing in {}", outcome.errors());
    }
    let character = host.run(&["--device", "/dev/null"], &["sh", "-c", "echo x > /dev/null"]);
    assert_eq!(character.code, 0, "{}", character.errors());
    host.end();
}

/// CRI-O says by annotations of its own what a container is; the task calls are the same.
#[test]
fn annotations_of_cri_o_put_two_containers_into_one_sandbox() {
    let host = Host::start();
    let start = |kind: &str, sandbox: &str, id: &str| {
        let annotations = [
            format!("io.kubernetes.cri-o.ContainerType={kind}"),
            format!("io.kubernetes.cri-o.SandboxID={sandbox}"),
            "io.kubernetes.cri-o.KubeName=pod".to_owned(),
            "io.kubernetes.cri-o.Namespace=default".to_owned(),
        ];
        let mut options = vec!["--detach"];
        for annotation in &annotations {
            options.extend(["--annotation", annotation]);
        }
        command::run(host.run_command(id, &options, &["sleep", "100000"]), b"", LIMIT).ok();
    };
    let machines = || processes::of_sandboxes(&["qemu-system", host.root.to_str().unwrap()]).len();
    let (sandbox, container) = (host.name(), host.name());
    start("sandbox", &sandbox, &sandbox);
    start("container", &sandbox, &container);
    assert_eq!(machines(), 1, "a container of the pod got a machine of its own");
    let boot = |id: &str| host.exec(id, &[], &["cat", "/proc/sys/kernel/random/boot_id"]).ok().text();
    assert_eq!(boot(&sandbox), boot(&container));
    host.exec(&container, &[], &["touch", "/of-the-container"]).ok();
    assert_ne!(host.exec(&sandbox, &[], &["ls", "/of-the-container"]).code, 0, "root file systems are shared");
    host.delete(&container);
    assert_eq!(host.exec(&sandbox, &[], &["true"]).code, 0, "the sandbox went with its container");
    host.delete(&sandbox);
    assert!(until(LIMIT, || machines() == 0));
    host.end();
}
