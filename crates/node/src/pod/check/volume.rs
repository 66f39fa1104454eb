//! Volumes and where containers see them.

use std::{
    collections::HashSet,
    path::{Component, Path, PathBuf},
};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::api::resource::Quantity};

use super::{files, is_label};
use crate::pod::{
    model::{HostPathType, Source, Volume, VolumeMount},
    problem::Problems,
    quantity,
};

const HOST_PATH_TYPES: [(&str, HostPathType); 8] = [
    ("", HostPathType::Unchecked),
    ("DirectoryOrCreate", HostPathType::DirectoryOrCreate),
    ("Directory", HostPathType::Directory),
    ("FileOrCreate", HostPathType::FileOrCreate),
    ("File", HostPathType::File),
    ("Socket", HostPathType::Socket),
    ("CharDevice", HostPathType::CharDevice),
    ("BlockDevice", HostPathType::BlockDevice),
];

pub(super) fn volumes(pod: &core::Pod, uid: &str, problems: &mut Problems) -> Vec<Volume> {
    let mut names = HashSet::new();
    let mut volumes = Vec::new();
    let given = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    for (n, volume) in given.enumerate() {
        let path = format!("spec.volumes[{n}]");
        let name = &volume.name;
        problems.unless(is_label(name), format!("{path}.name"), format!("{name:?} is not a DNS label"));
        problems.unless(names.insert(name.clone()), format!("{path}.name"), format!("{name:?} is there twice"));
        let mut sources: Vec<Source> = Vec::new();
        if let Some(given) = &volume.empty_dir {
            sources.push(empty_dir(&path, given, problems));
        }
        if let Some(given) = &volume.host_path {
            sources.extend(host_path(&path, given, problems));
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            sources.push(Source::Claim(claim.claim_name.clone()));
        }
        if let Some(given) = &volume.config_map {
            sources.push(Source::Files(files::config_map(&format!("{path}.configMap"), given, problems)));
        }
        if let Some(given) = &volume.secret {
            sources.push(Source::Files(files::secret(&format!("{path}.secret"), given, problems)));
        }
        if let Some(given) = &volume.downward_api {
            let path = format!("{path}.downwardAPI");
            sources.push(Source::Files(files::downward(&path, given, pod, uid, problems)));
        }
        if let Some(given) = &volume.projected {
            let path = format!("{path}.projected");
            sources.push(Source::Files(files::projected(&path, given, pod, uid, problems)));
        }
        match sources.len() {
            0 if problems.in_cluster && !has_no_source(volume) => problems.add(&path, "is of a kind not known here"),
            // Other sources have been refused by the table of fields.
            0 => volumes.push(Volume { name: name.clone(), source: Source::EmptyDir(None) }),
            1 => volumes.extend(sources.pop().map(|source| Volume { name: name.clone(), source })),
            _ => problems.add(&path, "has two sources"),
        }
    }
    volumes
}

/// Whether nothing but a name is given, which means `emptyDir`.
fn has_no_source(volume: &core::Volume) -> bool {
    let alone = core::Volume { name: volume.name.clone(), ..Default::default() };
    *volume == alone
}

fn empty_dir(path: &str, given: &core::EmptyDirVolumeSource, problems: &mut Problems) -> Source {
    let limit = given.size_limit.as_ref().and_then(|Quantity(text)| {
        let limit = quantity::units(text);
        problems.unless(limit.is_some(), format!("{path}.emptyDir.sizeLimit"), format!("{text:?} is not a quantity"));
        limit
    });
    match given.medium.as_deref().unwrap_or_default() {
        "" => {
            if limit.is_some() && !problems.in_cluster {
                // A cluster evicts a pod that writes more; nobody does that here.
                problems.ignored.push(format!("{path}.emptyDir.sizeLimit"));
            }
            Source::EmptyDir(limit)
        }
        "Memory" => Source::Memory(limit),
        medium => {
            problems.add(format!("{path}.emptyDir.medium"), format!("{medium:?} is not one of \"\", Memory"));
            Source::EmptyDir(None)
        }
    }
}

fn host_path(path: &str, given: &core::HostPathVolumeSource, problems: &mut Problems) -> Option<Source> {
    let kind = given.type_.as_deref().unwrap_or_default();
    let kind = problems.choice(&format!("{path}.hostPath.type"), kind, &HOST_PATH_TYPES)?;
    let place = PathBuf::from(&given.path);
    let good = place.is_absolute() && !place.components().any(|part| part == Component::ParentDir);
    problems.unless(good, format!("{path}.hostPath.path"), format!("{:?} is not absolute or has `..`", given.path));
    Some(Source::HostPath(place, kind))
}

pub(super) fn mounts(
    path: &str,
    container: &core::Container,
    volumes: &[Volume],
    problems: &mut Problems,
) -> Vec<VolumeMount> {
    let mut places = HashSet::new();
    let mut mounts = Vec::new();
    let privileged = container.security_context.as_ref().and_then(|c| c.privileged).unwrap_or(false);
    for (n, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = |field: &str| format!("{path}.volumeMounts[{n}].{field}");
        let known = volumes.iter().any(|volume| volume.name == mount.name);
        problems.unless(known, at("name"), format!("there is no volume {:?}", mount.name));
        let place = &mount.mount_path;
        let good = place.starts_with('/') && place != "/" && !place.contains(':');
        problems.unless(good, at("mountPath"), format!("{place:?} is not an absolute path below / without a colon"));
        problems.unless(places.insert(place), at("mountPath"), format!("{place:?} is there twice"));
        let sub_path = PathBuf::from(mount.sub_path.as_deref().unwrap_or_default());
        problems.unless(stays_inside(&sub_path), at("subPath"), format!("{sub_path:?} is not relative or has `..`"));
        let modes = [("None", 0), ("HostToContainer", 1), ("Bidirectional", 2)];
        let mode = mount.mount_propagation.as_deref().unwrap_or("None");
        let propagation = problems.choice(&at("mountPropagation"), mode, &modes).unwrap_or(0);
        problems.unless(propagation < 2 || privileged, at("mountPropagation"), "Bidirectional needs privileged");
        mounts.push(VolumeMount {
            volume: mount.name.clone(),
            path: place.clone(),
            sub_path,
            sub_path_expr: mount.sub_path_expr.clone().unwrap_or_default(),
            read_only: mount.read_only.unwrap_or(false),
            propagation,
        });
    }
    mounts
}

pub(super) fn stays_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_stay_inside() {
        for (path, want) in [("", true), ("a/b", true), ("./a", true), ("/a", false), ("..", false), ("a/../b", false)]
        {
            assert_eq!(stays_inside(Path::new(path)), want, "{path}");
        }
    }
}
