//! `zim cache rm`: removes one object, one entry of a tool, or everything in a namespace.
//!
//! Invariant: everything in a namespace goes only after a person said yes, or with `--yes`.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    process::ExitCode,
};

use zimcache_config::Environment;
use zimcache_types::Namespace;

use crate::{
    args::RmArgs,
    error::{Error, Result},
    get, ls, output, put,
    remote::Server,
    settings::{Endpoint, Settings},
};

/// Runs it.
pub(crate) fn run(args: &RmArgs) -> Result<ExitCode> {
    let settings = Settings::load(Environment::of_process())?;
    let endpoint = settings.endpoint(&args.server)?;
    let server = Server::at(&endpoint)?;
    match (args.key.as_deref(), args.tool.as_deref()) {
        (None, _) => return purge(&server, &endpoint, args.yes),
        (Some(key), Some(tool)) => {
            let namespace = endpoint.namespace.as_ref();
            let query = ls::query(&[
                ("namespace", namespace.map(Namespace::as_str)),
                ("tool", Some(tool)),
                ("key", Some(key)),
            ]);
            server.delete(&format!("/api/v1/entries{query}"))?;
        }
        (Some(key), None) => {
            let hash = get::parse_hash(key)?;
            server.delete(&put::object_path(&server, &hash))?;
        }
    }
    output::print("removed\n")?;
    Ok(ExitCode::SUCCESS)
}

fn purge(server: &Server, endpoint: &Endpoint, yes: bool) -> Result<ExitCode> {
    let Some(namespace) = &endpoint.namespace else {
        return Ok(ExitCode::FAILURE);
    };
    if !yes
        && !confirm(&format!(
            "remove everything in the namespace {namespace}? [y/N] "
        ))?
    {
        output::tell("nothing was removed");
        return Ok(ExitCode::FAILURE);
    }
    let name = namespace.as_str().replace('/', "%2F");
    server.delete(&format!("/api/v1/namespaces/{name}"))?;
    output::print(&format!("the namespace {namespace} is empty\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// What a person at the terminal says; a script has to write `--yes`.
fn confirm(question: &str) -> Result<bool> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(Error::NotConfirmed);
    }
    output::ask(question);
    let mut line = String::new();
    input.lock().read_line(&mut line).map_err(Error::Input)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
