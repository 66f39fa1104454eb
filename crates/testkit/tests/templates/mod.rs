//! Sandboxes that go on from a template of their shape: they are as good as booted
//! ones, and whatever happens to a template costs no more than a boot.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use osc_testkit::{
    command::{self, until},
    host::{Host, LIMIT, built},
    pod::Pod,
    processes::{self, kill_9},
    templates::{failures, restored, store, template},
};

/// Runs a sandbox and says whether it was a restored one.
fn run(host: &Host) -> bool {
    let id = host.detach(&["sleep", "100000"]);
    let restored = restored(host, &id);
    host.delete(&id);
    restored
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn sandboxes_of_one_template_share_neither_randomness_nor_a_stale_clock() {
    let host = Host::start();
    assert!(!run(&host), "the first one has nothing to go on from");
    template(&host);
    let sandboxes = [(); 2].map(|()| host.detach(&["sleep", "100000"]));
    let read = |id: &str, process: &[&str]| host.exec(id, &[], process).ok().text();
    for file in ["/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/random/uuid"] {
        let [one, two] = sandboxes.each_ref().map(|id| read(id, &["cat", file]));
        assert_ne!(one, two, "{file}");
    }
    for id in &sandboxes {
        assert!(restored(&host, id));
        let before = seconds();
        let guest: u64 = read(id, &["date", "+%s"]).parse().unwrap();
        assert!((before..=seconds()).contains(&guest), "{guest} is not the time, {before}");
        // Shared files work both ways and standard streams are whole.
        assert_eq!(read(id, &["sh", "-c", "echo hello > /file && cat /file"]), "hello");
        host.delete(id);
    }
    assert_eq!(failures(&host), [""; 0]);
    host.end();
}

#[test]
fn a_damaged_template_and_one_qemu_refuses_cost_a_boot() {
    let host = Host::start();
    run(&host);
    let made = template(&host);
    fs::write(made.join("state"), "nonsense").unwrap();
    assert!(!run(&host), "a damaged template was used");
    // It was made again by the sandbox that had to boot.
    let made = template(&host);
    assert!(run(&host));

    let digest = |path: &Path| {
        let sum = Command::new("sha256sum").arg(path).output().unwrap();
        String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned()
    };
    let (state, manifest) = (made.join("state"), made.join("manifest.json"));
    let before = digest(&state);
    fs::write(&state, vec![0x5a; 100_000]).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace(&before, &digest(&state))).unwrap();
    assert!(!run(&host), "QEMU goes on from nonsense");
    assert!(!made.exists() && failures(&host).len() == 1, "{:?}", failures(&host));
    host.end();
}

#[test]
fn a_killed_maker_takes_its_machine_along_and_its_files_go_with_the_next_sandbox() {
    let host = Host::start();
    let (root, build) = (store(&host), store(&host).join("build"));
    let root = root.to_str().unwrap();
    let machines = || processes::with(&["qemu-system", "sandbox-template", root]);
    let makers = || processes::with(&["-namespace", " template ", root]);
    run(&host);
    assert!(until(LIMIT, || !machines().is_empty()), "{:?}", failures(&host));
    makers().iter().for_each(|maker| kill_9(maker.pid));
    assert!(until(LIMIT, || makers().is_empty()));
    assert!(until(Duration::from_secs(2), || machines().is_empty()), "{:?} outlived its maker", machines());
    assert!(build.exists());

    assert!(!run(&host));
    template(&host);
    assert!(until(LIMIT, || makers().is_empty()));
    assert!(!build.exists());
    assert!(run(&host));
    host.end();
}

/// Whoever makes a template is no child of the engine, nor of a sandbox.
#[test]
fn osc_down_ends_whoever_makes_a_template() {
    for machine_runs in [false, true] {
        let host = Host::start();
        let before = host.snapshot();
        let templates = store(&host);
        let machine = || !processes::with(&["qemu-system", "sandbox-template", templates.to_str().unwrap()]).is_empty();
        Pod::start(&host, |_| {});
        assert!(!machine_runs || until(LIMIT, machine), "{:?}", failures(&host));
        let mut down = Command::new(built("target/release/osc"));
        down.arg("--root").arg(&host.root).arg("down");
        command::run(down, b"", LIMIT).ok();
        // The kernel takes a moment to end what a maker leaves in its pid namespace.
        before.nothing_new(&host.root, Duration::from_secs(10));
        assert!(!templates.exists(), "machine runs: {machine_runs}");
        host.end();
    }
}
