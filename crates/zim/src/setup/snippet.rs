//! What is to be set for a tool: variables, lines of files, commands; and how that is printed.
//!
//! The texts themselves are in the file of each tool, their one home: what is printed, written, checked against the
//! README and used by tests comes from there.

use serde::Serialize;
use serde_json::json;
use zimcache_types::Namespace;

use crate::{
    remote::room_of,
    settings::{Endpoint, Token},
};

/// The variable that stands for a token that is not shown.
pub(super) const TOKEN_VARIABLE: &str = "ZIMCACHE_TOKEN";

/// Whether a token is needed, and whether it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// The server is used without one.
    None,
    /// One that is named by its variable.
    Variable,
    /// One that may be shown.
    Given(Token),
}

/// The cache, as settings of a tool name it.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    url: String,
    pub(super) namespace: Option<Namespace>,
    pub(super) credentials: Credentials,
}

impl Cache {
    pub(super) fn new(endpoint: &Endpoint, credentials: Credentials) -> Cache {
        Cache {
            url: endpoint.url.trim_end_matches('/').to_owned(),
            namespace: endpoint.namespace.clone(),
            credentials,
        }
    }

    /// The server alone, for tools that name the namespace otherwise.
    pub(super) fn server(&self) -> &str {
        &self.url
    }

    /// The namespace's URL with a path behind it.
    pub(super) fn at(&self, path: &str) -> String {
        let room = self.namespace.as_ref().map(room_of).unwrap_or_default();
        format!("{}{room}{path}", self.url)
    }

    /// The token, or the variable that stands for it; `None` when none is needed.
    pub(super) fn token(&self) -> Option<String> {
        match &self.credentials {
            Credentials::None => None,
            Credentials::Variable => Some(format!("${TOKEN_VARIABLE}")),
            Credentials::Given(token) => Some(token.reveal().to_owned()),
        }
    }

    /// The variable that files refer to, where there is a token to put into it.
    pub(super) fn token_variable(&self) -> Option<Part> {
        let token = self.token()?;
        Some(Part::Variables(vec![(TOKEN_VARIABLE, token)]))
    }

    pub(super) fn is_https(&self) -> bool {
        self.url.starts_with("https:")
    }

    /// Scheme, host and port: where gRPC goes, which knows no path.
    pub(super) fn origin(&self) -> String {
        let scheme = if self.is_https() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    /// Host and port, for tools that have a scheme of their own.
    pub(super) fn authority(&self) -> String {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        if port.is_some_and(|port| port.parse::<u16>().is_ok()) {
            return authority.to_owned();
        }
        format!("{authority}:{}", if self.is_https() { 443 } else { 80 })
    }
}

/// Where a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Place {
    /// Below the folder that the command runs in.
    Project,
    /// Below the user's home.
    Home,
}

/// How lines get into a file that may exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// As a marked block at the end. Lines outside it that start so are somebody else's settings for the same.
    Block { foreign: &'static [&'static str] },
    /// Only where there is no file yet: mending XML is left to people.
    Whole,
    /// The file is ours alone.
    Ours,
}

/// Lines of a file.
#[derive(Debug, Clone)]
pub(super) struct FilePart {
    pub(super) place: Place,
    pub(super) path: &'static str,
    /// How a comment begins and ends there.
    pub(super) comment: (&'static str, &'static str),
    pub(super) merge: Merge,
    pub(super) text: String,
    /// Whether a token stands in it.
    pub(super) secret: bool,
}

impl FilePart {
    /// The path, as people write it.
    pub(super) fn shown_path(&self) -> String {
        match self.place {
            Place::Project => self.path.to_owned(),
            Place::Home => format!("~/{}", self.path),
        }
    }
}

/// One thing to do.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Variables(Vec<(&'static str, String)>),
    File(FilePart),
    Command(String),
}

/// All there is to do for a tool.
#[derive(Debug, Clone, Default)]
pub(super) struct Snippet {
    pub(super) parts: Vec<Part>,
    pub(super) notes: Vec<&'static str>,
}

impl Snippet {
    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = &FilePart> {
        self.parts.iter().filter_map(|part| match part {
            Part::File(file) => Some(file),
            Part::Variables(_) | Part::Command(_) => None,
        })
    }

    /// The variables.
    pub(super) fn variables(&self) -> impl Iterator<Item = &(&'static str, String)> {
        self.parts.iter().flat_map(|part| match part {
            Part::Variables(variables) => variables.as_slice(),
            Part::File(_) | Part::Command(_) => &[],
        })
    }

    /// For people: each part under a comment that says where it goes.
    pub(super) fn text(&self) -> String {
        let parts: Vec<_> = self.parts.iter().map(part_text).collect();
        let mut text = parts.join("\n");
        for note in &self.notes {
            text.extend(["# ", note, "\n"]);
        }
        text
    }

    /// For programs: nothing but variables.
    pub(super) fn env(&self) -> String {
        lines(self.variables())
    }

    /// The same as the text, as a value.
    pub(super) fn json(&self) -> serde_json::Value {
        let variables: serde_json::Map<_, _> = self
            .variables()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let files = self
            .files()
            .map(|file| json!({"place": file.place, "path": file.path, "text": file.text}));
        let commands = self.parts.iter().filter_map(|part| match part {
            Part::Command(command) => Some(command),
            Part::Variables(_) | Part::File(_) => None,
        });
        json!({
            "variables": variables,
            "files": files.collect::<Vec<_>>(),
            "commands": commands.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

/// One `NAME=value` a line.
fn lines<'a>(variables: impl IntoIterator<Item = &'a (&'static str, String)>) -> String {
    let mut text = String::new();
    for (name, value) in variables {
        text.extend([name, "=", value, "\n"]);
    }
    text
}

fn part_text(part: &Part) -> String {
    match part {
        Part::Variables(variables) => {
            format!("# environment\n{}", lines(variables))
        }
        Part::File(file) => {
            let (open, close) = file.comment;
            format!("{open}{}{close}\n{}", file.shown_path(), file.text)
        }
        Part::Command(command) => format!("# command\n{command}\n"),
    }
}
