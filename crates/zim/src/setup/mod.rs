//! `zim setup TOOL`: the settings that make a build tool use this cache; printed, written, or proven by a round trip.
//!
//! A tool is one file here, with its texts and its check, and one line in the table. A token is printed only when it
//! was given as a flag, or for a program that asks for variables; files that a project shares never get one.

mod bazel;
mod bazel_grpc;
mod buck2;
mod builder;
mod buildstream;
mod ccache;
mod check;
mod github_actions;
mod gradle;
mod maven;
mod metro;
mod moon;
mod moon_grpc;
mod nx;
mod pants;
mod polykit;
mod reapi;
mod recc;
mod reclient;
mod sccache;
mod snippet;
mod turborepo;
mod write;
mod zim;

use std::process::ExitCode;

use clap::builder::{PossibleValue, PossibleValuesParser};
use zimcache_config::Environment;

use self::{
    check::{Outcome, Probe},
    snippet::{Cache, Credentials, Snippet},
};
use crate::{
    args::{Format, SetupArgs},
    error::{Error, Result},
    output,
    remote::Server,
    settings::{Endpoint, Settings},
};

/// What is known of a tool.
#[derive(Debug, Clone, Copy)]
struct Tool {
    name: &'static str,
    aliases: &'static [&'static str],
    title: &'static str,
    snippet: fn(&Cache) -> Snippet,
    check: fn(&Probe<'_>) -> Result<Outcome>,
}

/// Lists the tools: name, aliases, title, module.
macro_rules! tools {
    ($($name:literal $aliases:expr, $title:literal, $module:ident;)+) => {
        const TOOLS: &[Tool] = &[$(Tool {
            name: $name,
            aliases: &$aliases,
            title: $title,
            snippet: $module::snippet,
            check: $module::check,
        }),+];
    };
}

tools! {
    "bazel" ["bazel-http"], "Bazel, over HTTP", bazel;
    "bazel-grpc" [], "Bazel, over gRPC", bazel_grpc;
    "buck2" ["buck"], "Buck2", buck2;
    "builder" [], "Builder", builder;
    "buildstream" ["bst"], "BuildStream", buildstream;
    "ccache" [], "ccache", ccache;
    "github-actions" ["gha", "sccache-gha"], "clients of the GitHub Actions cache, sccache among them", github_actions;
    "gradle" [], "Gradle", gradle;
    "maven" ["mvn"], "Maven with its build cache extension", maven;
    "metro" [], "Metro", metro;
    "moon" ["moon-http"], "moon, over HTTP", moon;
    "moon-grpc" [], "moon, over gRPC", moon_grpc;
    "nx" [], "Nx", nx;
    "pants" [], "Pants", pants;
    "polykit" [], "Polykit", polykit;
    "recc" [], "recc, as a cache without remote execution", recc;
    "reclient" ["reproxy"], "reclient, as a cache without remote execution", reclient;
    "sccache" ["webdav"], "sccache, over WebDAV", sccache;
    "turborepo" ["turbo"], "Turborepo", turborepo;
    "zim" [], "zim itself", zim;
}

/// Names every tool instead of setting one up.
const LIST: &str = "list";

/// What may be typed as a tool, for help and completions.
pub(crate) fn names() -> PossibleValuesParser {
    let tools = TOOLS.iter().map(|tool| {
        let value = PossibleValue::new(tool.name).help(tool.title);
        value.aliases(tool.aliases)
    });
    let list = PossibleValue::new(LIST).help("the names of all of these");
    PossibleValuesParser::new(tools.chain([list]).collect::<Vec<_>>())
}

/// Runs it.
pub(crate) fn run(args: &SetupArgs) -> Result<ExitCode> {
    if args.tool == LIST {
        output::print(&list())?;
        return Ok(ExitCode::SUCCESS);
    }
    let tool = find(&args.tool)?;
    let environment = Environment::of_process();
    let endpoint = Settings::load(environment.clone())?.endpoint(&args.server)?;
    if args.check {
        return check(tool, &endpoint);
    }
    let shown = args.server.token.is_some() || args.write || args.format == Format::Env;
    let snippet = (tool.snippet)(&Cache::new(&endpoint, credentials(&endpoint, shown)));
    if args.write {
        return write::run(tool.name, &snippet, environment.get("HOME"), args.force);
    }
    match args.format {
        Format::Text => output::print(&snippet.text())?,
        Format::Json => output::print_json(&snippet.json())?,
        Format::Env if snippet.variables().next().is_none() => {
            return Err(Error::NoVariables(tool.name));
        }
        Format::Env => output::print(&snippet.env())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn credentials(endpoint: &Endpoint, shown: bool) -> Credentials {
    match &endpoint.token {
        None => Credentials::None,
        Some(token) if shown => Credentials::Given(token.clone()),
        Some(_) => Credentials::Variable,
    }
}

fn find(name: &str) -> Result<Tool> {
    let named = |tool: &&Tool| tool.name == name || tool.aliases.contains(&name);
    let found = TOOLS.iter().find(named).copied();
    found.ok_or_else(|| Error::UnknownTool {
        name: name.to_owned(),
        known: TOOLS
            .iter()
            .map(|tool| tool.name)
            .collect::<Vec<_>>()
            .join(", "),
    })
}

fn list() -> String {
    let rows: Vec<_> = TOOLS
        .iter()
        .map(|tool| (tool.name, tool.title.to_owned()))
        .collect();
    output::table(&rows)
}

fn check(tool: Tool, endpoint: &Endpoint) -> Result<ExitCode> {
    let server = Server::at(endpoint)?;
    let checked = Probe::new(&server, endpoint).and_then(|probe| (tool.check)(&probe));
    let (name, url) = (tool.name, server.url());
    match checked {
        Ok(Outcome::Works) => {
            output::print(&format!("ok: {name} can write to and read from {url}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Outcome::ReadOnly) => {
            output::print(&format!(
                "ok, read-only: {name} can read from {url}; writes are refused\n"
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            output::print(&format!("failed: {name} at {url}\n"))?;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Token, namespace_of};

    fn snippets(endpoint: &Endpoint, shown: bool) -> Vec<(&'static str, Snippet)> {
        let cache = Cache::new(endpoint, credentials(endpoint, shown));
        TOOLS
            .iter()
            .map(|tool| (tool.name, (tool.snippet)(&cache)))
            .collect()
    }

    fn endpoint() -> Endpoint {
        Endpoint {
            url: "http://127.0.0.1:8080".to_owned(),
            ..Endpoint::default()
        }
    }

    fn private() -> Endpoint {
        Endpoint {
            token: Token::new("hush-hush"),
            namespace: Some(namespace_of("team-a").unwrap()),
            ..endpoint()
        }
    }

    #[test]
    fn every_tool_is_told_the_server_and_the_namespace() {
        for (name, snippet) in snippets(&private(), true) {
            let text = snippet.text();
            assert!(text.contains("127.0.0.1:8080"), "{name}: {text}");
            assert!(text.contains("team-a"), "{name}: {text}");
        }
    }

    #[test]
    fn a_token_is_shown_only_where_it_was_asked_for() {
        for (name, snippet) in snippets(&private(), false) {
            let all = format!("{}{}{}", snippet.text(), snippet.env(), snippet.json());
            assert!(!all.contains("hush"), "{name}: {all}");
        }
        for (name, snippet) in snippets(&private(), true) {
            let text = snippet.text();
            assert!(
                text.contains("hush-hush") || name == "polykit",
                "{name}: {text}"
            );
        }
    }

    #[test]
    fn files_that_a_project_shares_never_get_a_token() {
        for (name, snippet) in snippets(&private(), true) {
            for file in snippet.files() {
                let shared = file.place == snippet::Place::Project;
                assert_eq!(file.secret, file.text.contains("hush"), "{name}");
                assert!(!(shared && file.secret), "{name}: {}", file.path);
            }
        }
    }

    #[test]
    fn a_server_without_tokens_needs_none() {
        for (name, snippet) in snippets(&endpoint(), true) {
            let text = snippet.text();
            assert!(
                !text.contains("Bearer") && !text.contains("ZIMCACHE_TOKEN"),
                "{name}: {text}"
            );
        }
    }

    #[test]
    fn names_and_aliases_are_each_one_tools() {
        let mut all: Vec<_> = TOOLS
            .iter()
            .flat_map(|tool| tool.aliases.iter().chain([&tool.name]))
            .collect();
        let before = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), before);
        assert_eq!(find("turbo").unwrap().name, "turborepo");
        assert!(find("zig").unwrap_err().to_string().contains("gradle"));
    }
}
