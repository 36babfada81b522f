//! A real API server with a real etcd, without controllers: nothing happens in it that a test does not do.
//!
//! The programs are those of the end-to-end tests, in the cache folder (`make e2e` builds them). Without them a test says
//! so and passes, unless `CI=must` wants them. Ports are free ones of this machine; both processes end with the guard.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use http::Request;
use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, CustomResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use zimcache_operator::crd::ZimCache;

const TOKEN: &str = "of-the-tests";
/// Starting takes 4 s on an idle machine.
const PATIENCE: Duration = Duration::from_mins(3);

/// A running API server.
#[derive(Debug)]
pub(crate) struct ApiServer {
    pub(crate) config: Config,
    folder: TempDir,
    processes: Vec<Child>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "testers say through the environment whether the programs have to be there"
)]
fn must_run() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "must")
}

/// The newest program of this name and some version in the cache folder.
fn program(name: &str) -> Option<PathBuf> {
    let folder = std::env::home_dir()?.join(".cache/zimcache/bin");
    let all = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let is_meant = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let version = file
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix("-v"));
        version.is_some_and(|version| !version.contains("tmp"))
    };
    all.filter(is_meant).max()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl ApiServer {
    /// Starts one, with the definition of ZimCache in it; `None` where the programs are not there.
    pub(crate) async fn start() -> Option<ApiServer> {
        // Refused when a test before it has done so.
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .ok();
        let (Some(kube), Some(etcd)) = (program("kube"), program("etcd")) else {
            assert!(
                !must_run(),
                "the programs of Kubernetes are not in the cache folder"
            );
            println!("skipped: no kube and etcd in ~/.cache/zimcache/bin; make e2e builds them");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let (clients, peers, port) = (free_port(), free_port(), free_port());
        let config = prepare(folder.path(), port);
        let mut server = ApiServer {
            config,
            folder,
            processes: Vec::new(),
        };
        let at = |port| format!("http://127.0.0.1:{port}");
        let data = server.path("etcd");
        server.run(Command::new(etcd).args([
            "--data-dir",
            &data,
            "--unsafe-no-fsync",
            "--listen-client-urls",
            &at(clients),
            "--advertise-client-urls",
            &at(clients),
            "--listen-peer-urls",
            &at(peers),
            "--initial-advertise-peer-urls",
            &at(peers),
            "--initial-cluster",
            &format!("default={}", at(peers)),
        ]));
        server.run_api_server(&kube, &at(clients), port);
        server.wait_until_ready().await;
        server.define().await;
        Some(server)
    }

    pub(crate) fn client(&self) -> Client {
        Client::try_from(self.config.clone()).unwrap()
    }

    /// A fresh namespace, so that tests of one server do not meet.
    pub(crate) async fn namespace(&self, name: &str) -> String {
        let api: Api<Namespace> = Api::all(self.client());
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        api.create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        name.to_owned()
    }

    /// The kubeconfig of an administrator, for programs.
    pub(crate) fn kubeconfig(&self) -> String {
        self.path("kubeconfig")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn run(&mut self, command: &mut Command) {
        let log = fs::File::create(self.path(&format!("{}.log", self.processes.len()))).unwrap();
        let command = command.stdout(Stdio::null()).stderr(log);
        self.processes.push(command.spawn().unwrap());
    }

    fn run_api_server(&mut self, kube: &Path, etcd: &str, port: u16) {
        let flags = [
            ("etcd-servers", etcd.to_owned()),
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", port.to_string()),
            ("advertise-address", "127.0.0.1".to_owned()),
            ("endpoint-reconciler-type", "none".to_owned()),
            ("cert-dir", self.path("certificates")),
            ("tls-cert-file", self.path("server.crt")),
            ("tls-private-key-file", self.path("server.key")),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc".to_owned(),
            ),
            ("service-account-key-file", self.path("accounts.pub")),
            (
                "service-account-signing-key-file",
                self.path("accounts.key"),
            ),
            ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
            ("authorization-mode", "RBAC".to_owned()),
            ("token-auth-file", self.path("tokens.csv")),
            // Nobody makes service accounts here.
            ("disable-admission-plugins", "ServiceAccount".to_owned()),
        ];
        let flags = flags.map(|(name, value)| format!("--{name}={value}"));
        self.run(Command::new(kube).arg("apiserver").args(flags));
    }

    async fn wait_until_ready(&mut self) {
        let client = self.client();
        let processes = &mut self.processes;
        let ready = async {
            while processes
                .iter_mut()
                .all(|it| matches!(it.try_wait(), Ok(None)))
            {
                let request = Request::get("/readyz").body(Vec::new()).unwrap();
                let answer = client.request_text(request);
                let soon = tokio::time::timeout(Duration::from_secs(2), answer).await;
                if matches!(soon, Ok(Ok(_))) {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            false
        };
        let is_ready = tokio::time::timeout(PATIENCE, ready).await;
        assert!(
            is_ready == Ok(true),
            "the API server is not ready; it said:\n{}",
            self.logs()
        );
    }

    fn logs(&self) -> String {
        let logs = (0..self.processes.len()).map(|number| self.path(&format!("{number}.log")));
        let texts = logs.map(|path| fs::read_to_string(path).unwrap_or_default());
        let ends = texts.map(|text| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(20)..].join("\n")
        });
        ends.collect::<Vec<_>>().join("\n---\n")
    }

    async fn define(&self) {
        let api: Api<CustomResourceDefinition> = Api::all(self.client());
        let params = PatchParams::apply("zimcache-tests").force();
        let definition = ZimCache::crd();
        let name = "zimcaches.zimcache.dev";
        api.patch(name, &params, &Patch::Apply(&definition))
            .await
            .unwrap();
        let established = await_condition(api, name, conditions::is_crd_established());
        let in_time = tokio::time::timeout(PATIENCE, established).await;
        in_time.expect("the definition is established").unwrap();
    }
}

/// Certificates, keys, tokens and the kubeconfig of a server on this port.
fn prepare(folder: &Path, port: u16) -> Config {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    write("server.crt", &leaf.pem());
    write("server.key", &key.serialize_pem());
    let accounts = KeyPair::generate().unwrap();
    write("accounts.key", &accounts.serialize_pem());
    write("accounts.pub", &accounts.public_key_pem());
    write("ca.crt", &authority.pem());
    write(
        "tokens.csv",
        &format!("{TOKEN},admin,admin,\"system:masters\"\n"),
    );
    let url = format!("https://127.0.0.1:{port}");
    let ca = folder.join("ca.crt").display().to_string();
    write(
        "kubeconfig",
        &format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: t\n\
             clusters: [{{name: t, cluster: {{server: \"{url}\", certificate-authority: \"{ca}\"}}}}]\n\
             users: [{{name: t, user: {{token: {TOKEN}}}}}]\n\
             contexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n"
        ),
    );
    let mut config = Config::new(url.parse().unwrap());
    config.root_cert = Some(vec![authority.der().to_vec()]);
    config.auth_info.token = Some(TOKEN.to_owned().into());
    config.default_retry = false;
    config
}

/// Asks until it is so; fails with the last answer otherwise.
pub(crate) async fn eventually<T, F>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> F,
) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) => assert!(
                tokio::time::Instant::now() < deadline,
                "{what} did not happen; last seen: {last}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
