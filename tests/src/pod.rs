//! The **pod** of a rendered release, without a kubelet: its volumes become folders, what they mount is written there,
//! and its containers become processes with the rendered arguments and environment.
//!
//! Three things stand in for what a pod gives its containers: every path under a mount is moved below the pod's folder,
//! a port that is listened on becomes a free one of loopback, and `BACKUP_FILE` names the data volume's database, which
//! the agent would find by itself under `/data`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::{agent, port};

/// Where the chart mounts the data volume.
const DATA: &str = "/data";

/// A pod's folder and what its release says of it.
pub struct Pod {
    folder: PathBuf,
    workload: Value,
    listen: u16,
}

impl Pod {
    /// The pod of this `Release`, in an empty folder.
    pub fn new(folder: &Path, release: &Value) -> Result<Self> {
        let workload = release
            .pointer("/spec/forProvider/values/controlPlane/statefulSet")
            .context("the Release has no controlPlane.statefulSet in its values")?;
        let pod = Self { folder: folder.to_owned(), workload: workload.clone(), listen: port::free()? };
        std::fs::create_dir_all(pod.data()).context("cannot make the data volume")?;
        Ok(pod)
    }

    /// The data volume.
    pub fn data(&self) -> PathBuf {
        self.moved(DATA)
    }

    /// The database that kine writes.
    pub fn database(&self) -> PathBuf {
        self.data().join("state.db")
    }

    /// Where the sidecar serves metrics and health.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.listen)
    }

    /// Writes a Secret or ConfigMap wherever the pod mounts it; true if it does.
    pub fn mount(&self, object: &Value) -> Result<bool> {
        let name = object["metadata"]["name"].as_str().context("an object without a name")?;
        let is_secret = object["kind"] == "Secret";
        let mut mounted = false;
        for volume in self.list("/persistence/addVolumes") {
            let (source, field) =
                if is_secret { (&volume["secret"], "secretName") } else { (&volume["configMap"], "name") };
            if source[field] != name {
                continue;
            }
            let folder = self.mount_folder(volume["name"].as_str().context("a volume without a name")?)?;
            std::fs::create_dir_all(&folder)?;
            for (key, value) in object["data"].as_object().into_iter().flatten() {
                let value = value.as_str().with_context(|| format!("{name}: {key} is no text"))?;
                let bytes = if is_secret { STANDARD.decode(value)? } else { value.as_bytes().to_vec() };
                if let Some(file) = projected(source, key) {
                    std::fs::write(folder.join(file), bytes)?;
                }
            }
            mounted = true;
        }
        Ok(mounted)
    }

    /// The command that a container is: of `sidecarContainers` or `initContainers`, by name.
    pub fn command(&self, list: &str, name: &str) -> Result<Command> {
        let containers = self.list(&format!("/{list}"));
        let container = containers.iter().find(|container| container["name"] == name);
        let container = container.with_context(|| format!("the Release has no {name} in {list}"))?;
        let texts = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let args = texts(&container["args"]).into_iter().map(|arg| match arg.split_once('=') {
            Some(("--listen", _)) => format!("--listen={}", self.address()),
            Some((flag, value)) => format!("{flag}={}", self.translated(container, value)),
            None => arg,
        });
        let mut command = agent::command(args)?;
        command.env("BACKUP_FILE", self.database());
        for variable in container["env"].as_array().into_iter().flatten() {
            let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str()) else {
                anyhow::bail!("a variable that is no plain text: {variable}");
            };
            command.env(name, self.translated(container, value));
        }
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let path = mount["mountPath"].as_str().context("a mount without a path")?;
            std::fs::create_dir_all(self.moved(path))?;
        }
        Ok(command)
    }

    fn list(&self, pointer: &str) -> Vec<Value> {
        self.workload.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
    }

    /// The folder that a volume is mounted on; every container mounts it on the same path.
    fn mount_folder(&self, volume: &str) -> Result<PathBuf> {
        let containers = [self.list("/sidecarContainers"), self.list("/initContainers")].concat();
        let mut paths: Vec<&str> = containers
            .iter()
            .flat_map(|container| container["volumeMounts"].as_array().into_iter().flatten())
            .filter(|mount| mount["name"] == volume)
            .filter_map(|mount| mount["mountPath"].as_str())
            .collect();
        paths.dedup();
        ensure!(paths.len() == 1, "volume {volume} is mounted on {paths:?}");
        Ok(self.moved(paths[0]))
    }

    /// A value with a path under one of the container's mounts moved below the pod's folder.
    fn translated(&self, container: &Value, value: &str) -> String {
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        let under = |mount: &&str| value == *mount || value.starts_with(&format!("{mount}/"));
        match mounts.filter_map(|mount| mount["mountPath"].as_str()).find(under) {
            Some(_) => self.moved(value).display().to_string(),
            None => value.to_owned(),
        }
    }

    fn moved(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }
}

/// The file that a key becomes; none if the volume picks others.
fn projected<'v>(source: &'v Value, key: &'v str) -> Option<&'v str> {
    match source["items"].as_array() {
        None => Some(key),
        Some(items) => items.iter().find(|item| item["key"] == key)?["path"].as_str(),
    }
}
