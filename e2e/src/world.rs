//! What the checks share: the cluster, Helm, the clients, the cache named `main`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use zimcache_tests::cluster::gateway::Doors;
use zimcache_tests::report::say;

use crate::Args;
use crate::helm::Helm;
use crate::kube::{Kube, condition, wait_until};
use crate::load::{Clients, Watched};
use crate::machine::{Forward, Machines};

/// The cache that the values of the tests make.
pub(crate) const CACHE: &str = "main";
/// Its Service.
pub(crate) const GATEWAY: &str = "main-gateway";
/// The namespace that everything goes to.
const NAMESPACE: &str = "zimcache-e2e";
/// Longest time until a cache is as its spec says. A machine of two cores starts a pod in seconds.
pub(crate) const READY_LIMIT: Duration = Duration::from_mins(4);
const PORT: u16 = 8080;

/// The pods of a component of the cache, or of what stands beside it.
pub(crate) fn component(name: &str) -> String {
    format!("app.kubernetes.io/component={name}")
}

/// Everything a check needs.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) kube: Kube,
    pub(crate) helm: Helm,
    pub(crate) machines: Option<Machines>,
    /// The address of a Prometheus that asks all pods.
    pub(crate) prometheus: Option<String>,
    /// Where pictures of the dashboards go.
    pub(crate) pictures: Option<PathBuf>,
    gateway: Option<SocketAddr>,
    forward: Option<Forward>,
    clients: Option<Clients>,
}

impl World {
    pub(crate) fn new(args: &Args) -> Result<World> {
        let kubeconfig = args.kubeconfig.canonicalize();
        let kubeconfig = kubeconfig.context("the kubeconfig")?;
        let kube = Kube::new(&kubeconfig, NAMESPACE);
        Ok(World {
            helm: Helm::new(&args.chart, &kube),
            machines: args.machines.clone().map(Machines::new),
            prometheus: args.prometheus.clone(),
            pictures: args.pictures.clone(),
            kube,
            gateway: None,
            forward: None,
            clients: None,
        })
    }

    /// Makes the namespace, in which only restricted pods may run.
    pub(crate) fn make_namespace(&self) -> Result<()> {
        let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
        self.kube.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": NAMESPACE, "labels": labels },
        }))
    }

    /// Where the Service of the gateways is reached from here.
    pub(crate) fn gateway(&mut self) -> Result<SocketAddr> {
        if let Some(address) = self.gateway {
            return Ok(address);
        }
        let address = if self.machines.is_some() {
            let service = self.kube.get(&["service", GATEWAY])?;
            let address = service["spec"]["clusterIP"].as_str();
            SocketAddr::new(address.context("an address of the Service")?.parse()?, PORT)
        } else {
            let forward = Forward::start(&self.kube, GATEWAY, PORT)?;
            let address = forward.address();
            self.forward = Some(forward);
            address
        };
        self.gateway = Some(address);
        Ok(address)
    }

    /// Forgets where the Service was: a new installation has a new one.
    pub(crate) fn forget_gateway(&mut self) {
        self.gateway = None;
        self.forward = None;
    }

    /// Clients of the Service. They remember what they stored for as long as the run lasts.
    pub(crate) fn clients(&mut self) -> Result<&Clients> {
        let address = self.gateway()?;
        let doors = Doors::service(address);
        Ok(match &mut self.clients {
            Some(clients) => {
                clients.go_to(doors);
                clients
            }
            none => none.insert(Clients::of(doors)),
        })
    }

    /// Does something while clients work at the Service.
    pub(crate) fn watching(
        &mut self,
        action: impl FnOnce(&World) -> Result<()>,
    ) -> Result<Watched> {
        self.clients()?;
        let clients = self.clients.as_ref().context("no clients")?;
        clients.watch(|| action(self))
    }

    /// The same, and nothing is deleted.
    pub(crate) fn watching_without_deletions(
        &mut self,
        action: impl FnOnce(&World) -> Result<()>,
    ) -> Result<Watched> {
        self.clients()?;
        let clients = self.clients.as_ref().context("no clients")?;
        clients.watch_without_deletions(|| action(self))
    }

    /// The same; until it is done, an entry may go back to a version before.
    pub(crate) fn watching_fault(
        &mut self,
        what: &str,
        action: impl FnOnce(&World) -> Result<()>,
    ) -> Result<Watched> {
        self.clients()?;
        let clients = self.clients.as_ref().context("no clients")?;
        clients.watch_fault(what, || action(self))
    }

    /// Kills pods at once, as if their machine had.
    pub(crate) fn kill_pods(&self, label: &str) -> Result<()> {
        let words = [
            "delete",
            "pods",
            "--selector",
            label,
            "--grace-period=0",
            "--force",
        ];
        self.kube.run(&words).map(drop)
    }

    /// The cache as the API server has it.
    pub(crate) fn cache(&self) -> Result<Value> {
        self.kube.get(&["zimcache", CACHE])
    }

    /// Waits until the cache is as its spec says, with so many nodes.
    pub(crate) fn wait_until_ready(&self, nodes: u64) -> Result<Duration> {
        let what = format!("{CACHE} is ready with {nodes} nodes");
        let took = wait_until(&what, READY_LIMIT, || Ok(unready(&self.cache()?, nodes)))?;
        say(&format!("       {what} after {:.1} s", took.as_secs_f64()));
        Ok(took)
    }

    /// Shows how things stand, after a check has failed.
    pub(crate) fn describe(&self) {
        for words in [
            &["get", "zimcache,pods,pvc", "--output=wide"][..],
            &["get", "zimcache", CACHE, "--output=jsonpath={.status}"],
            &["get", "events", "--sort-by=.lastTimestamp", "--no-headers"],
        ] {
            let text = self.kube.run(words);
            let text = text.unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<_> = text.lines().collect();
            let last = lines.len().saturating_sub(25);
            say(&lines[last..].join("\n"));
        }
    }
}

/// What is missing until a cache is as its spec says.
fn unready(cache: &Value, nodes: u64) -> Option<String> {
    let status = &cache["status"];
    if status["observedGeneration"] != cache["metadata"]["generation"] {
        return Some("the operator has not seen the newest spec".to_owned());
    }
    let Some(ready) = condition(cache, "Ready") else {
        return Some("there is no condition Ready".to_owned());
    };
    if ready["status"] != "True" || ready["observedGeneration"] != cache["metadata"]["generation"] {
        return Some(format!("{}: {}", ready["reason"], ready["message"]));
    }
    let members = status["ring"]["members"].as_array().map_or(0, Vec::len) as u64;
    let counts = (
        status["replicas"].as_u64(),
        status["readyReplicas"].as_u64(),
        members,
    );
    let wanted = (Some(nodes), Some(nodes), nodes);
    (counts != wanted).then(|| {
        format!(
            "it has {:?} nodes, {:?} ready, {} in the ring",
            counts.0, counts.1, counts.2
        )
    })
}
