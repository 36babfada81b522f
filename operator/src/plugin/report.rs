//! `kubectl zim report`: a folder, packed, with all that somebody who helps wants to see.
//!
//! Objects, events, what nodes and gateways say of themselves, and logs. What the caller may not read is missing and
//! listed in `missing.txt`; one thing that cannot be read never keeps the others out. Everything passes `redact`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;
use flate2::{Compression, write::GzEncoder};
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, LogParams},
};
use serde_json::{Value, json};

use super::{Cluster, Result, output, redact, status};
use crate::names::{ADMIN_PORT, Names, query};

/// Lines of each log.
const LOG_LINES: i64 = 5_000;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the ZimCache [default: the only one of the namespace]
    name: Option<String>,
    /// The file to write; one that ends otherwise than in .tar.gz is made a folder
    /// [default: zim-report-NAME.tar.gz]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Tells what was written as JSON
    #[arg(long)]
    json: bool,
}

/// What is looked at in the namespace: group, version, kind, plural.
const KINDS: [(&str, &str, &str, &str); 15] = [
    ("apps", "v1", "StatefulSet", "statefulsets"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("apps", "v1", "ControllerRevision", "controllerrevisions"),
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Service", "services"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    (
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    ),
    (
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
    ),
    (
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
    ),
    ("batch", "v1", "CronJob", "cronjobs"),
    ("batch", "v1", "Job", "jobs"),
];

/// The files of a report, by path.
#[derive(Debug, Default)]
struct Report {
    files: BTreeMap<String, String>,
    missing: Vec<String>,
}

impl Report {
    fn put(&mut self, path: impl Into<String>, text: String) {
        self.files.insert(path.into(), text);
    }

    fn put_json(&mut self, path: impl Into<String>, value: &Value) {
        self.put(path, format!("{value:#}\n"));
    }

    fn lacks(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.missing.push(redact::text(&format!("{what}: {why}")));
    }
}

pub(super) async fn run(cluster: &Cluster, args: &Arguments) -> Result<()> {
    let cache = cluster.cache(args.name.as_deref()).await?;
    let names = Names::new(cache.name_any(), &cluster.namespace);
    let mut report = Report::default();
    report.put("status.txt", status::describe(&cache));
    let mut value = serde_json::to_value(&cache)?;
    redact::object(&mut value);
    report.put_json("zimcache.json", &value);
    versions(cluster, &mut report).await;
    objects(cluster, &names, &mut report).await;
    around(cluster, &names, &mut report).await;
    pods(cluster, &names, &mut report).await;
    let path = args.output.clone();
    let path = path.unwrap_or_else(|| format!("zim-report-{}.tar.gz", names.cache).into());
    write(&path, &format!("zim-report-{}", names.cache), &report)?;
    if args.json {
        let files: Vec<&String> = report.files.keys().collect();
        return output::print_json(
            &json!({ "path": path, "files": files, "missing": report.missing }),
        );
    }
    tell(&path, &report)
}

fn tell(path: &Path, report: &Report) -> Result<()> {
    let files = output::counted(report.files.len(), "file", "files");
    let mut text = format!("{}: {files}, without secrets\n", path.display());
    for missing in &report.missing {
        text.extend(["missing: ", missing, "\n"]);
    }
    output::print(&text)
}

async fn versions(cluster: &Cluster, report: &mut Report) {
    let server = cluster.client.apiserver_version().await;
    let server = server.map_or_else(|error| error.to_string(), |version| version.git_version);
    let plugin = env!("CARGO_PKG_VERSION");
    report.put_json(
        "versions.json",
        &json!({ "kubectl-zim": plugin, "kubernetes": server }),
    );
}

fn resource((group, version, kind, plural): (&str, &str, &str, &str)) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// What belongs to the cache, by its label.
async fn objects(cluster: &Cluster, names: &Names, report: &mut Report) {
    let label = [("app.kubernetes.io/instance".to_owned(), names.cache.clone())];
    let params = ListParams::default().labels(&query(&label.into()));
    for kind in KINDS {
        let found = list(cluster, kind, &params, redact::object).await;
        keep(report, &format!("objects/{}.json", kind.3), found);
    }
    let secrets = ("", "v1", "Secret", "secrets");
    let found = list(cluster, secrets, &params, redact::secret).await;
    keep(report, "objects/secrets.json", found);
    let ring = super::ring::read(cluster, names).await;
    match ring {
        Ok(ring) => report.put("ring.json", ring),
        Err(error) => report.lacks("ring.json", &error),
    }
}

/// What stands around it: events, machines, classes of storage, volumes, the operator.
async fn around(cluster: &Cluster, names: &Names, report: &mut Report) {
    let all = ListParams::default();
    let events = ("events.k8s.io", "v1", "Event", "events");
    let found = list(cluster, events, &all, redact::object).await;
    keep(report, "events.json", found);
    for kind in [
        ("", "v1", "Node", "nodes"),
        ("", "v1", "PersistentVolume", "persistentvolumes"),
        ("storage.k8s.io", "v1", "StorageClass", "storageclasses"),
    ] {
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource(kind));
        let found = api
            .list(&all)
            .await
            .map(|list| cleaned(&list.items, redact::object));
        keep(report, &format!("cluster/{}.json", kind.3), found);
    }
    let crd = (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    );
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource(crd));
    let found = api.get("zimcaches.zimcache.dev").await;
    keep(
        report,
        "cluster/definition.json",
        found.map(|it| cleaned(&[it], redact::object)),
    );
    operators(cluster, names, report).await;
}

/// The logs of the operators, wherever they are.
async fn operators(cluster: &Cluster, names: &Names, report: &mut Report) {
    const OPERATORS: &str = "app.kubernetes.io/name=zimcache,app.kubernetes.io/component=operator";
    let params = ListParams::default().labels(OPERATORS);
    let everywhere: Api<Pod> = Api::all(cluster.client.clone());
    let mut found = everywhere.list(&params).await;
    if found.is_err() {
        // Who may not look everywhere may still look here.
        let here: Api<Pod> = Api::namespaced(cluster.client.clone(), &names.namespace);
        found = here.list(&params).await;
    }
    match found {
        Ok(pods) => {
            for pod in pods {
                logs(cluster, &pod, "operator", report).await;
            }
        }
        Err(error) => report.lacks("operator", &error),
    }
}

/// What each pod says of itself, and its logs.
async fn pods(cluster: &Cluster, names: &Names, report: &mut Report) {
    let label = [("app.kubernetes.io/instance".to_owned(), names.cache.clone())];
    let params = ListParams::default().labels(&query(&label.into()));
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &names.namespace);
    let pods = match api.list(&params).await {
        Ok(pods) => pods,
        Err(error) => return report.lacks("pods", &error),
    };
    for pod in pods {
        let name = pod.name_any();
        let folder = format!("pods/{name}");
        logs(cluster, &pod, &folder, report).await;
        let mut pages = vec![("metrics", "metrics.txt")];
        if names.ordinal(&name).is_some() {
            pages.push(("admin/v1/status", "status.json"));
        }
        for (page, file) in pages {
            let path = format!("{folder}/{file}");
            match through_api_server(cluster, &name, page).await {
                Ok(text) => report.put(path, redact::text(&text)),
                Err(error) => report.lacks(&path, &error),
            }
        }
    }
}

async fn through_api_server(cluster: &Cluster, pod: &str, page: &str) -> Result<String> {
    let namespace = &cluster.namespace;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{ADMIN_PORT}/proxy/{page}");
    let request = Request::get(path).body(Vec::new());
    let request = request.map_err(|error| super::Error::Refused(error.to_string()))?;
    Ok(cluster.client.request_text(request).await?)
}

/// The log of each container, and that of the one before it, if it was restarted.
async fn logs(cluster: &Cluster, pod: &Pod, folder: &str, report: &mut Report) {
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace);
    let name = pod.name_any();
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    for container in containers.into_iter().flatten() {
        let restarted = container.restart_count > 0;
        for previous in [false, true].into_iter().take(1 + usize::from(restarted)) {
            let params = LogParams {
                container: Some(container.name.clone()),
                previous,
                tail_lines: Some(LOG_LINES),
                timestamps: true,
                ..LogParams::default()
            };
            let suffix = if previous { "-before" } else { "" };
            let path = format!("{folder}/{name}-{}{suffix}.log", container.name);
            match api.logs(&name, &params).await {
                Ok(text) => report.put(path, redact::text(&text)),
                Err(error) => report.lacks(&path, &error),
            }
        }
    }
}

async fn list(
    cluster: &Cluster,
    kind: (&str, &str, &str, &str),
    params: &ListParams,
    clean: fn(&mut Value),
) -> std::result::Result<Value, kube::Error> {
    let resource = resource(kind);
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource);
    Ok(cleaned(&api.list(params).await?.items, clean))
}

fn cleaned(objects: &[DynamicObject], clean: fn(&mut Value)) -> Value {
    let values = objects.iter().map(|object| {
        let mut value = serde_json::to_value(object).unwrap_or_default();
        clean(&mut value);
        value
    });
    Value::Array(values.collect())
}

fn keep(report: &mut Report, path: &str, found: std::result::Result<Value, kube::Error>) {
    match found {
        Ok(value) => report.put_json(path, &value),
        Err(error) => report.lacks(path, &error),
    }
}

/// Writes a packed file, or a folder, as the name says.
fn write(path: &Path, root: &str, report: &Report) -> Result<()> {
    let missing = report.missing.join("\n") + "\n";
    let all = report
        .files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()));
    let all = all.chain(std::iter::once(("missing.txt", missing.as_str())));
    if !path.to_string_lossy().ends_with(".tar.gz") {
        for (file, text) in all {
            let file = path.join(file);
            std::fs::create_dir_all(file.parent().unwrap_or(path))?;
            File::create(file)?.write_all(text.as_bytes())?;
        }
        return Ok(());
    }
    let packed = GzEncoder::new(File::create(path)?, Compression::default());
    let mut archive = tar::Builder::new(packed);
    for (file, text) in all {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("{root}/{file}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.put_json("objects/pods.json", &json!([{ "a": 1 }]));
        report.lacks("events.json", &"redis://me:hush@host is forbidden");
        report
    }

    #[test]
    fn a_report_is_packed_under_one_folder_and_lists_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.tar.gz");
        write(&path, "zim-report-main", &report()).unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(File::open(path).unwrap()));
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), text);
        }
        assert!(files["zim-report-main/objects/pods.json"].contains("\"a\": 1"));
        let missing = &files["zim-report-main/missing.txt"];
        assert!(
            missing.starts_with("events.json: ") && !missing.contains("hush"),
            "{missing}"
        );
    }

    #[test]
    fn a_report_without_the_ending_of_an_archive_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        write(&path, "zim-report-main", &report()).unwrap();
        assert!(path.join("objects/pods.json").is_file() && path.join("missing.txt").is_file());
    }
}
