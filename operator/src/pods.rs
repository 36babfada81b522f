//! The pods as the deciders want them: a few plain facts each.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::{names::RING_EPOCH, node_client::Target};

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Its identity: one of the same name is another one.
    pub uid: String,
    /// Which version of the template it was made of.
    pub revision: String,
    /// Whether it says that it serves.
    pub is_ready: bool,
    /// Whether it is on its way out.
    pub is_terminating: bool,
    /// The machine it was given.
    pub machine: Option<String>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// The ring it was told of.
    pub ring_epoch: Option<u64>,
    /// What keeps its container from running, if something does.
    pub trouble: Option<String>,
}

impl PodView {
    /// The facts of a pod.
    pub fn of(pod: &Pod) -> PodView {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        let labels = pod.labels();
        PodView {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            revision: labels
                .get("controller-revision-hash")
                .cloned()
                .unwrap_or_default(),
            is_ready: conditions.any(|one| one.type_ == "Ready" && one.status == "True"),
            is_terminating: pod.metadata.deletion_timestamp.is_some(),
            machine: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            ip: status.and_then(|status| status.pod_ip.as_ref()?.parse().ok()),
            ring_epoch: pod
                .annotations()
                .get(RING_EPOCH)
                .and_then(|text| text.parse().ok()),
            trouble: trouble(pod),
        }
    }

    /// Where to ask it, if it can be asked.
    pub fn target(&self) -> Option<Target> {
        if self.is_terminating {
            return None;
        }
        Some(Target::new(self.name.clone(), self.ip?))
    }
}

/// Why a container waits: no image, no Secret, crashes.
fn trouble(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let waiting = statuses
        .iter()
        .find_map(|status| status.state.as_ref()?.waiting.as_ref())?;
    let reason = waiting.reason.clone().unwrap_or_default();
    if reason.is_empty() || reason == "ContainerCreating" || reason == "PodInitializing" {
        return None;
    }
    let message = waiting.message.as_deref().unwrap_or_default();
    Some(if message.is_empty() {
        reason
    } else {
        format!("{reason}: {message}")
    })
}
