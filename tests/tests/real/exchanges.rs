//! Recorded requests of real clients, replayed byte for byte against the real server.
//!
//! The files and their format are described in `tests/fixtures/exchanges/README.md`. Every folder stands in [`CLIENTS`],
//! so that none gets lost unnoticed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use zimcache_tests::environment::scratch;
use zimcache_tests::exchange::{Exchange, Values, read_folder};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::{Serve, Server};
use zimcache_tests::tokens::{Tokens, UNKNOWN};

/// The clients recorded, by folder.
const CLIENTS: &[&str] = &[
    "builder-1.0",
    "ccache-4.7.5",
    "gradle-4.4.1",
    "maven-3.9.11",
    "moon-2.5.5",
    "nx-24.0.6",
    "polykit-core-0.2.0",
    "sccache-0.19.0-gha",
    "sccache-0.19.0-webdav",
    "turbo-2.11.11",
];
const NAMESPACE: &str = "acme";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/exchanges")
}

/// A server without tokens and, for folders that ask for it, one with tokens.
struct Servers {
    open: Server,
    with_tokens: Option<Server>,
    values: Values,
    _folder: TempDir,
}

impl Servers {
    fn start(exchanges: &[Exchange]) -> Result<Servers> {
        let folder = scratch("exchanges")?;
        let serve = |name: &str| Serve::on(&folder.path().join(name), "256MB");
        let open = serve("open-store").start()?;
        let mut values = Values::new();
        let with_tokens = if exchanges.iter().any(|exchange| exchange.with_tokens) {
            let tokens = Tokens::in_folder(folder.path());
            let mut named = vec![("unknown", UNKNOWN.to_owned())];
            for scope in ["read", "write"] {
                named.push((scope, tokens.create(NAMESPACE, scope)?));
            }
            for (name, token) in named {
                let basic = STANDARD.encode(format!("user:{token}"));
                values.insert(format!("basic-{name}"), basic);
                values.insert(name.to_owned(), token);
            }
            let serve = serve("tokens-store").flags(&["--anonymous", "none"]);
            Some(serve.flags(&tokens.flags()?).start()?)
        } else {
            None
        };
        Ok(Servers {
            open,
            with_tokens,
            values,
            _folder: folder,
        })
    }

    fn replay(&mut self, exchange: &Exchange, all: &[Exchange]) -> Result<()> {
        let server = match &self.with_tokens {
            Some(server) if exchange.with_tokens => server,
            _ => &self.open,
        };
        exchange.replay(server.address(), all, &mut self.values)
    }

    fn stop(self) -> Result<()> {
        self.open.stop()?;
        self.with_tokens.map_or(Ok(()), Server::stop)
    }
}

#[test]
fn recorded_requests_of_real_clients_are_answered_as_they_need() -> Result<()> {
    let _turn = Turn::shared()?;
    let mut count = 0;
    let mut wrong = Vec::new();
    for client in CLIENTS {
        let exchanges = read_folder(&fixtures().join(client))?;
        let mut servers = Servers::start(&exchanges).with_context(|| (*client).to_owned())?;
        for exchange in &exchanges {
            if let Err(error) = servers.replay(exchange, &exchanges) {
                wrong.push(format!("{client}/{}: {error:#}", exchange.name));
            }
        }
        count += exchanges.len();
        servers.stop()?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    say(&format!(
        "exchanges: {count} requests of {} clients",
        CLIENTS.len()
    ));
    Ok(())
}

#[test]
fn every_folder_of_exchanges_is_replayed_and_free_of_local_names() -> Result<()> {
    let mut folders = Vec::new();
    for item in std::fs::read_dir(fixtures())? {
        let item = item?;
        if item.file_type()?.is_dir() {
            folders.push(item.file_name().to_string_lossy().into_owned());
        }
    }
    folders.sort();
    ensure!(
        folders == CLIENTS,
        "{folders:?} are not the table's {CLIENTS:?}"
    );
    for client in CLIENTS {
        for exchange in read_folder(&fixtures().join(client))? {
            let text = String::from_utf8_lossy(&exchange.recorded()).to_ascii_lowercase();
            let what = || format!("{client}/{}", exchange.name);
            ensure!(
                text.contains("\r\nhost: cache.test\r\n"),
                "{}: Host",
                what()
            );
            for local in [
                "127.0.0.1",
                "localhost",
                "/home/",
                "/tmp/",
                concat!("/ro", "ot/"),
            ] {
                ensure!(!text.contains(local), "{}: {local}", what());
            }
        }
    }
    Ok(())
}
