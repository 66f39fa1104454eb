//! The definitions as administrators see them. `OSC_REFRESH=1` rewrites the files.

use std::{fs, path::Path};

#[test]
fn definitions_are_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for crd in osc_objects::crds() {
        let name = crd.metadata.name.clone().expect("a definition has a name");
        let text = serde_yaml_ng::to_string(&crd).expect("a definition is plain data");
        let path = directory.join(format!("{name}.yaml"));
        if std::env::var_os("OSC_REFRESH").is_some() {
            fs::write(&path, &text).expect("the golden file is writable");
        }
        let wanted = fs::read_to_string(&path).unwrap_or_default();
        assert!(text == wanted, "{} differs; read the difference after OSC_REFRESH=1", path.display());
    }
}

/// What clients of the platform's own definitions rely on.
#[test]
fn names_scopes_and_columns_are_those_of_the_platform() {
    for (name, short, columns) in [
        ("kataconfigs.kataconfiguration.openshift.io", None, "InProgress Completed Total Age"),
        ("machineconfigs.machineconfiguration.openshift.io", Some("mc"), "GeneratedByController IgnitionVersion Age"),
        (
            "machineconfigpools.machineconfiguration.openshift.io",
            Some("mcp"),
            "Config Updated Updating Degraded MachineCount ReadyMachineCount UpdatedMachineCount DegradedMachineCount Age",
        ),
        ("containerruntimeconfigs.machineconfiguration.openshift.io", Some("ctrcfg"), "Age"),
        ("kubeletconfigs.machineconfiguration.openshift.io", None, "Age"),
        ("machineconfigurations.operator.openshift.io", None, "Age"),
    ] {
        let all = osc_objects::crds();
        let crd = all.iter().find(|crd| crd.metadata.name.as_deref() == Some(name)).expect(name);
        assert_eq!(crd.spec.scope, "Cluster", "{name}");
        assert_eq!(crd.spec.names.short_names.iter().flatten().next().map(String::as_str), short, "{name}");
        let found: Vec<_> =
            crd.spec.versions[0].additional_printer_columns.iter().flatten().map(|column| &*column.name).collect();
        assert_eq!(found.join(" "), columns, "{name}");
    }
}
