//! Pods: which containers share a sandbox and its kernel. Engines say it by annotations, containerd's CRI plugin by its own,
//! CRI-O (and podman) by others; which namespaces are shared they say by the paths of a process of the sandbox.

use super::error::{Doing, Error, Result};
use super::state::{self, State, Status};
use super::{Global, client};
use crate::sandbox::control::{Shares, Whose};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Kind, Spec};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The names of annotations: what a container is to its pod, and which sandbox that has.
const ANNOTATIONS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
];

/// What a container is to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing.
    Alone,
    /// The first of a pod: its kernel is made for others, too.
    Sandbox,
    /// In the kernel of this one.
    Member(String),
}

/// What annotations say.
///
/// # Errors
/// A container in a pod without the name of its sandbox, or of a type that there is not.
pub(super) fn role(config: &Spec) -> Result<Role> {
    let annotation = |name: &str| config.annotations().as_ref().and_then(|all| all.get(name));
    // Podman says which containers are in a pod, but not which one is its sandbox.
    if annotation("io.container.manager").is_some_and(|manager| manager == "libpod") {
        return Ok(Role::Alone);
    }
    for (kind, sandbox) in ANNOTATIONS {
        match annotation(kind).map(String::as_str) {
            None => {}
            Some("sandbox") => return Ok(Role::Sandbox),
            Some("container") => {
                let id = annotation(sandbox).ok_or_else(|| {
                    Error::new(format!("annotation {kind}: container, and no annotation {sandbox}"))
                })?;
                state::check_id(id)?;
                return Ok(Role::Member(id.clone()));
            }
            Some(other) => {
                return Err(Error::new(format!("annotation {kind}: {other}: not sandbox and not container")));
            }
        }
    }
    Ok(Role::Alone)
}

/// Where requests about a container go, which its own state says.
pub(super) fn address(dir: &Path, state: &State) -> client::Address {
    match (&state.sandbox, dir.parent()) {
        (Some(sandbox), Some(root)) => {
            client::Address { dir: root.join(sandbox), of: Some(state.id.clone()) }
        }
        _ => client::Address { dir: dir.to_owned(), of: None },
    }
}

/// The namespaces of a new container in the pod of `sandbox`.
///
/// # Errors
/// A pod that does not run, and namespaces that are not its own.
pub(super) fn shares(global: &Global, sandbox: &str, config: &Spec) -> Result<Shares> {
    let dir = global.root.join(sandbox);
    if !dir.is_dir() {
        return Err(Error::new(format!("sandbox {sandbox} of the pod does not exist")));
    }
    let first = state::load(&dir)?;
    match first.status() {
        Status::Running => {}
        Status::Paused => return Err(Error::new(format!("sandbox {sandbox} of the pod is paused"))),
        Status::Stopped => return Err(Error::new(format!("sandbox {sandbox} of the pod has stopped"))),
        _ => return Err(Error::new(format!("sandbox {sandbox} of the pod has not been started"))),
    }
    let theirs = state::config(&dir)?;
    let all = state::all(global);
    let members: Vec<State> =
        all.into_iter().filter(|other| other.sandbox.as_deref() == Some(sandbox)).collect();
    let pod = Pod { first, theirs, members };
    Ok(Shares {
        pids: pod.whose(config, Kind::Pid)?,
        uts: pod.whose(config, Kind::Uts)?,
        ipc: pod.whose(config, Kind::Ipc)?,
        network: pod.whose(config, Kind::Network)?,
    })
}

struct Pod {
    first: State,
    /// The first one's specification.
    theirs: Spec,
    members: Vec<State>,
}

fn namespace(config: &Spec, kind: Kind) -> Option<&LinuxNamespace> {
    config.linux().as_ref()?.namespaces().as_ref()?.iter().find(|ns| ns.typ() == kind)
}

/// The process in /proc/PID/ns/KIND.
fn process_of(path: &Path) -> Option<i32> {
    let mut parts = path.strip_prefix("/proc").ok()?.components();
    let pid = parts.next()?.as_os_str().to_str()?.parse().ok()?;
    (parts.next()?.as_os_str() == "ns" && parts.count() == 1).then_some(pid)
}

impl Pod {
    /// Whose namespace of a kind a container of the pod asks for. What it does not mention is the first one's, which is as near as
    /// it gets to the host's.
    fn whose(&self, config: &Spec, kind: Kind) -> Result<Whose> {
        let Some(asked) = namespace(config, kind) else {
            return match kind {
                Kind::Network => self.network(Path::new("/proc/self/ns/net")),
                _ => Ok(Whose::Sandbox),
            };
        };
        let Some(path) = asked.path() else { return Ok(Whose::Own) };
        if let Some(pid) = process_of(path) {
            if pid == self.first.pid {
                return Ok(Whose::Sandbox);
            }
            if let Some(member) = self.members.iter().find(|member| member.pid == pid && member.is_alive()) {
                return Ok(Whose::Member(member.id.clone()));
            }
        }
        if namespace(&self.theirs, kind).is_some_and(|theirs| theirs.path().as_ref() == Some(path)) {
            return Ok(Whose::Sandbox);
        }
        match kind {
            Kind::Network => self.network(path),
            _ => Err(self.foreign(kind, path)),
        }
    }

    fn network(&self, path: &Path) -> Result<Whose> {
        let number = |path: &Path| {
            let meta = std::fs::metadata(path).doing(|| format!("network namespace {}", path.display()))?;
            Ok((meta.dev(), meta.ino()))
        };
        let theirs = format!("/proc/{}/ns/net", self.first.pid);
        match number(path)? == number(Path::new(&theirs))? {
            true => Ok(Whose::Sandbox),
            false => Err(self.foreign(Kind::Network, path)),
        }
    }

    fn foreign(&self, kind: Kind, path: &Path) -> Error {
        let (path, sandbox) = (path.display(), &self.first.id);
        Error::new(format!("linux.namespaces: {kind}: {path} is not of the pod of sandbox {sandbox}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Pod, Role, process_of, role};
    use crate::oci::state::State;
    use crate::sandbox::control::Whose;
    use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};
    use std::path::Path;

    fn config(json: serde_json::Value) -> Spec {
        serde_json::from_value(json).expect("a specification")
    }

    fn annotated(all: &[(&str, &str)]) -> Result<Role, String> {
        let all: serde_json::Map<_, _> = all.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        role(&config(serde_json::json!({ "ociVersion": "1.0.2", "annotations": all }))).map_err(|e| e.message)
    }

    #[test]
    fn annotations_say_who_is_whose() {
        let containerd = "io.kubernetes.cri.container-type";
        assert_eq!(annotated(&[]), Ok(Role::Alone));
        assert_eq!(annotated(&[(containerd, "sandbox")]), Ok(Role::Sandbox));
        let of = |id: &'static str| [(containerd, "container"), ("io.kubernetes.cri.sandbox-id", id)];
        assert_eq!(annotated(&of("s1")), Ok(Role::Member("s1".to_owned())));
        assert!(annotated(&of("../s1")).is_err());
        let crio =
            [("io.kubernetes.cri-o.ContainerType", "container"), ("io.kubernetes.cri-o.SandboxID", "s")];
        assert_eq!(annotated(&crio), Ok(Role::Member("s".to_owned())));
        assert_eq!(annotated(&[(crio[0].0, "sandbox"), crio[1]]), Ok(Role::Sandbox));
        let podman = [("io.container.manager", "libpod"), crio[0], crio[1]];
        assert_eq!(annotated(&podman), Ok(Role::Alone));
        assert!(annotated(&[(containerd, "container")]).unwrap_err().contains("sandbox-id"));
        assert!(annotated(&[(containerd, "pod")]).unwrap_err().contains("pod: not sandbox"));
    }

    #[test]
    fn processes_are_found_in_names_of_namespaces() {
        let of = |path: &str| process_of(Path::new(path));
        assert_eq!((of("/proc/12/ns/ipc"), of("/proc/12/ns"), of("/run/netns/a")), (Some(12), None, None));
        assert_eq!(
            (of("/proc/self/ns/ipc"), of("/proc/12/task/ns"), of("/proc/1/ns/a/b")),
            (None, None, None)
        );
    }

    #[test]
    fn namespaces_are_the_pods_or_none_that_can_be_had() {
        let spaces = |all: serde_json::Value| {
            config(serde_json::json!({ "ociVersion": "1.0.2", "linux": { "namespaces": all } }))
        };
        let first = State { pid: 77, id: "s".to_owned(), ..State::unfinished(String::new()) };
        let theirs = spaces(serde_json::json!([{ "type": "ipc", "path": "/run/ipcns/1" }]));
        let pod = Pod { first, theirs, members: Vec::new() };
        let own = spaces(serde_json::json!([
            { "type": "pid" }, { "type": "uts", "path": "/proc/77/ns/uts" }, { "type": "ipc", "path": "/run/ipcns/1" },
        ]));
        let whose = |config, kind| pod.whose(config, kind).map_err(|error| error.message);
        assert_eq!(whose(&own, Kind::Pid), Ok(Whose::Own));
        assert_eq!(whose(&own, Kind::Uts), Ok(Whose::Sandbox));
        assert_eq!(whose(&own, Kind::Ipc), Ok(Whose::Sandbox));
        let other = spaces(
            serde_json::json!([{ "type": "ipc", "path": "/run/ipcns/2" }, { "type": "pid", "path": "/proc/78/ns/pid" }]),
        );
        assert!(
            whose(&other, Kind::Ipc).unwrap_err().contains("/run/ipcns/2 is not of the pod of sandbox s")
        );
        assert!(whose(&other, Kind::Pid).is_err());
        assert_eq!(whose(&other, Kind::Uts), Ok(Whose::Sandbox));
    }
}
