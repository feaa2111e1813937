//! Where on the node is what a pod's containers mount?

use crate::environment::{Facts, Objects, field};
use crate::root::{Bind, Propagation};
use crate::{Error, Result, While};
use k8s_openapi::api::core::v1::{ConfigMap, Container, KeyToPath, Pod, Secret, Volume, VolumeProjection};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// Where a service account's credentials are in a container.
pub const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Name of the volume that holds them if the pod does not have one.
pub const IMPLICIT: &str = "kube-api-access";

/// What a service account proves itself with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// A bearer token.
    pub token: String,
    /// The authority's certificate, PEM.
    pub authority: String,
}

/// The content of a volume that the kubelet writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These files, by path below the volume.
    Files(BTreeMap<PathBuf, Vec<u8>>),
    /// An empty folder that the pod may write to.
    Empty {
        /// Whether it was asked for in memory; all are.
        shared_memory: bool,
    },
    /// A path of the node.
    Node {
        /// The path.
        path: PathBuf,
        /// The wanted type, such as `DirectoryOrCreate`.
        kind: String,
    },
}

/// The volumes of a pod by name.
pub fn contents(
    pod: &Pod,
    objects: &Objects,
    facts: &Facts,
    credentials: &Credentials,
) -> std::result::Result<BTreeMap<String, Content>, String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let mut all = BTreeMap::new();
    for volume in volumes {
        let content = content(volume, pod, objects, facts, credentials)
            .map_err(|e| format!("MountVolume.SetUp failed for volume {:?}: {e}", volume.name))?;
        all.insert(volume.name.clone(), content);
    }
    if wants_credentials(pod) {
        all.insert(IMPLICIT.into(), Content::Files(credential_files(pod, credentials)));
    }
    Ok(all)
}

/// Whether the pod gets its service account's credentials without having asked for them.
pub fn wants_credentials(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let mounted = |c: &Container| c.volume_mounts.iter().flatten().any(|m| m.mount_path == CREDENTIALS);
    spec.automount_service_account_token != Some(false) && !spec.containers.iter().all(mounted)
}

fn credential_files(pod: &Pod, credentials: &Credentials) -> BTreeMap<PathBuf, Vec<u8>> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    [("token", &credentials.token), ("ca.crt", &credentials.authority), ("namespace", &namespace)]
        .map(|(name, text)| (PathBuf::from(name), text.clone().into_bytes()))
        .into()
}

fn content(
    volume: &Volume,
    pod: &Pod,
    objects: &Objects,
    facts: &Facts,
    credentials: &Credentials,
) -> std::result::Result<Content, String> {
    if let Some(source) = &volume.config_map {
        let name = &source.name;
        let optional = source.optional == Some(true);
        let map = objects.config_maps.get(name);
        return Ok(Content::Files(picked(
            map.map(map_files),
            &format!("configmap {name:?}"),
            &source.items,
            optional,
        )?));
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let optional = source.optional == Some(true);
        let secret = objects.secrets.get(&name).map(secret_files);
        return Ok(Content::Files(picked(secret, &format!("secret {name:?}"), &source.items, optional)?));
    }
    if let Some(source) = &volume.host_path {
        let kind = source.type_.clone().unwrap_or_default();
        return Ok(Content::Node { path: source.path.clone().into(), kind });
    }
    if let Some(source) = &volume.empty_dir {
        return Ok(Content::Empty { shared_memory: source.medium.as_deref() == Some("Memory") });
    }
    if let Some(source) = &volume.projected {
        let mut files = BTreeMap::new();
        for projection in source.sources.iter().flatten() {
            files.extend(projected(projection, pod, objects, facts, credentials)?);
        }
        return Ok(Content::Files(files));
    }
    if let Some(source) = &volume.downward_api {
        let mut files = BTreeMap::new();
        for item in source.items.iter().flatten() {
            let path = item.field_ref.as_ref().map(|f| f.field_path.as_str()).unwrap_or_default();
            files.insert(PathBuf::from(&item.path), field(path, pod, facts)?.into_bytes());
        }
        return Ok(Content::Files(files));
    }
    Err("this kind of volume is not supported: configMap, secret, emptyDir, hostPath, projected and downwardAPI are"
        .into())
}

fn projected(
    projection: &VolumeProjection,
    pod: &Pod,
    objects: &Objects,
    facts: &Facts,
    credentials: &Credentials,
) -> std::result::Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    if let Some(token) = &projection.service_account_token {
        return Ok([(PathBuf::from(&token.path), credentials.token.clone().into_bytes())].into());
    }
    if let Some(source) = &projection.config_map {
        // The authority's certificate is known without the map that repeats it in each namespace.
        let map = objects.config_maps.get(&source.name).map(map_files).or_else(|| {
            (source.name == "kube-root-ca.crt")
                .then(|| [("ca.crt".to_string(), credentials.authority.clone().into_bytes())].into())
        });
        return picked(map, &format!("configmap {:?}", source.name), &source.items, source.optional == Some(true));
    }
    if let Some(source) = &projection.secret {
        let secret = objects.secrets.get(&source.name).map(secret_files);
        return picked(secret, &format!("secret {:?}", source.name), &source.items, source.optional == Some(true));
    }
    let mut files = BTreeMap::new();
    for item in projection.downward_api.iter().flat_map(|d| d.items.iter().flatten()) {
        let path = item.field_ref.as_ref().map(|f| f.field_path.as_str()).unwrap_or_default();
        files.insert(PathBuf::from(&item.path), field(path, pod, facts)?.into_bytes());
    }
    Ok(files)
}

fn map_files(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    text.chain(map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()))).collect()
}

fn secret_files(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect()
}

/// The wanted keys under the wanted paths, or all.
fn picked(
    found: Option<BTreeMap<String, Vec<u8>>>,
    what: &str,
    items: &Option<Vec<KeyToPath>>,
    optional: bool,
) -> std::result::Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let Some(found) = found else {
        return if optional { Ok(BTreeMap::new()) } else { Err(format!("{what} not found")) };
    };
    let Some(items) = items else { return Ok(found.into_iter().map(|(k, v)| (k.into(), v)).collect()) };
    let mut files = BTreeMap::new();
    for item in items {
        match found.get(&item.key) {
            Some(bytes) => {
                files.insert(PathBuf::from(&item.path), bytes.clone());
            }
            None if optional => {}
            None => return Err(format!("{what} has no key {:?}", item.key)),
        }
    }
    Ok(files)
}

/// Brings a volume's folder to the wanted files: each is replaced whole, others are removed.
pub fn write(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    fs::create_dir_all(folder).while_doing(|| format!("create {}", folder.display()))?;
    for (name, bytes) in files {
        if name.components().any(|c| !matches!(c, Component::Normal(_))) {
            return Err(Error::Invalid(format!("{} leads out of the volume", name.display())));
        }
        let target = folder.join(name);
        if fs::read(&target).is_ok_and(|old| old == *bytes) {
            continue;
        }
        if let Some(dir) = target.parent() {
            fs::create_dir_all(dir).while_doing(|| format!("create {}", dir.display()))?;
        }
        let fresh = target.with_file_name(format!(".{}.new", target.file_name().unwrap_or_default().to_string_lossy()));
        fs::write(&fresh, bytes).while_doing(|| format!("write {}", fresh.display()))?;
        fs::rename(&fresh, &target).while_doing(|| format!("replace {}", target.display()))?;
    }
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = PathBuf::from(entry.file_name());
        if !files.keys().any(|f| f.starts_with(&name)) && entry.path().is_file() {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Makes every volume of a pod below `folder`, or on the node.
pub fn prepare(folder: &Path, contents: &BTreeMap<String, Content>) -> Result<()> {
    for (name, content) in contents {
        match content {
            Content::Files(files) => write(&folder.join(name), files)?,
            Content::Empty { .. } => {
                let dir = folder.join(name);
                fs::create_dir_all(&dir).while_doing(|| format!("create {}", dir.display()))?;
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))
                    .while_doing(|| format!("open up {}", dir.display()))?;
            }
            Content::Node { path, kind } => node_path(path, kind)?,
        }
    }
    Ok(())
}

fn node_path(path: &Path, kind: &str) -> Result<()> {
    let missing = || Error::Invalid(format!("hostPath type check failed: {} is not a {kind}", path.display()));
    match kind {
        "DirectoryOrCreate" => fs::create_dir_all(path).while_doing(|| format!("create {}", path.display())),
        "FileOrCreate" => match path.exists() {
            true => Ok(()),
            false => fs::File::create(path).map(drop).while_doing(|| format!("create {}", path.display())),
        },
        "Directory" if !path.is_dir() => Err(missing()),
        "File" if !path.is_file() => Err(missing()),
        "Socket" if !path.exists() => Err(missing()),
        "" if !path.exists() => {
            // Container engines make a missing path a folder.
            fs::create_dir_all(path).while_doing(|| format!("create {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What a container mounts.
pub fn binds(
    container: &Container,
    contents: &BTreeMap<String, Content>,
    folder: &Path,
    credentials: bool,
    known: &[(String, String)],
) -> std::result::Result<Vec<Bind>, String> {
    let mut binds = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let content = contents.get(&mount.name).ok_or_else(|| format!("volume {:?} is not in the pod", mount.name))?;
        let base = match content {
            Content::Node { path, .. } => path.clone(),
            Content::Files(_) | Content::Empty { .. } => folder.join(&mount.name),
        };
        let sub = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(expression), _) => Some(crate::environment::expand(expression, known)),
            (None, Some(path)) => Some(path.clone()),
            (None, None) => None,
        };
        let source = match sub.filter(|s| !s.is_empty()) {
            Some(sub) => below(&base, &sub)?,
            None => base,
        };
        binds.push(Bind {
            source,
            target: PathBuf::from(&mount.mount_path),
            read_only: mount.read_only == Some(true) || matches!(content, Content::Files(_)),
            propagation: match mount.mount_propagation.as_deref() {
                Some("Bidirectional") => Propagation::Bidirectional,
                Some("HostToContainer") => Propagation::HostToContainer,
                _ => Propagation::None,
            },
        });
    }
    if credentials && !binds.iter().any(|b| b.target == Path::new(CREDENTIALS)) {
        binds.push(Bind {
            source: folder.join(IMPLICIT),
            target: CREDENTIALS.into(),
            read_only: true,
            propagation: Propagation::None,
        });
    }
    // A mount inside another one must come after it.
    binds.sort_by_key(|b| b.target.components().count());
    Ok(binds)
}

fn below(base: &Path, sub: &str) -> std::result::Result<PathBuf, String> {
    if Path::new(sub).components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("subPath {sub:?} must stay inside the volume"));
    }
    let path = base.join(sub);
    if !path.exists() {
        fs::create_dir_all(&path).map_err(|e| format!("create {}: {e}", path.display()))?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(volumes: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "c"}], "volumes": volumes}
        }))
        .unwrap()
    }

    #[test]
    fn maps_become_files_and_missing_ones_are_named() {
        let mut objects = Objects::default();
        objects.config_maps.insert("m".into(), serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap());
        let get =
            |volumes, objects: &Objects| contents(&pod(volumes), objects, &Facts::default(), &Credentials::default());
        let all =
            get(json!([{"name": "v", "configMap": {"name": "m", "items": [{"key": "a", "path": "x/a"}]}}]), &objects);
        assert_eq!(all.unwrap()["v"], Content::Files([(PathBuf::from("x/a"), b"1".to_vec())].into()));
        let error = get(json!([{"name": "v", "secret": {"secretName": "s"}}]), &objects).unwrap_err();
        assert_eq!(error, "MountVolume.SetUp failed for volume \"v\": secret \"s\" not found");
        let empty = get(json!([{"name": "v", "secret": {"secretName": "s", "optional": true}}]), &objects).unwrap();
        assert_eq!(empty["v"], Content::Files(BTreeMap::new()));
    }

    #[test]
    fn files_follow_the_map_and_stay_in_the_folder() {
        let folder = std::env::temp_dir().join(format!("kubelet-volume-{}", std::process::id()));
        write(&folder, &[("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())].into()).unwrap();
        write(&folder, &[("b".into(), b"3".to_vec())].into()).unwrap();
        assert!(!folder.join("a").exists());
        assert_eq!(fs::read(folder.join("b")).unwrap(), b"3");
        assert!(write(&folder, &[("../x".into(), Vec::new())].into()).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn every_pod_gets_its_credentials_unless_it_declines() {
        let subject = pod(json!([]));
        let all = contents(&subject, &Objects::default(), &Facts::default(), &Credentials::default()).unwrap();
        let container = &subject.spec.as_ref().unwrap().containers[0];
        let binds = binds(container, &all, Path::new("/v"), wants_credentials(&subject), &[]).unwrap();
        assert_eq!(binds[0].target, Path::new(CREDENTIALS));
        let mut declined = subject.clone();
        declined.spec.as_mut().unwrap().automount_service_account_token = Some(false);
        assert!(!wants_credentials(&declined));
    }
}
