//! `zim login` and `zim logout`: a token is checked with the server before it is kept in the user's settings.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    process::ExitCode,
};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use zimcache_config::Environment;

use crate::{
    args::LoginArgs,
    error::{Error, Result},
    output,
    remote::{self, Server},
    settings::{Key, Settings, is_indirect},
};

/// Longest line that is read as a token.
const LINE_BYTES: u64 = 64 << 10;

/// Checks a token and keeps it.
pub(crate) fn run(args: &LoginArgs) -> Result<ExitCode> {
    let mut settings = Settings::load(Environment::of_process())?;
    let given = match args.server.token.as_deref() {
        None | Some("-") => read_token()?,
        Some(text) => text.to_owned(),
    };
    let mut flags = args.server.clone();
    flags.token = Some(given.clone());
    let endpoint = settings.endpoint(&flags)?;
    let server = Server::at(&endpoint)?;
    server.get(&server.in_room("/api/v1/stats"))?;
    if !is_indirect(&given) && remote::is_in_clear(&endpoint.url) {
        output::tell("warning: this token travels in clear; an https URL protects it");
    }
    settings.set(Key::Token, Some(&given))?;
    keep(&mut settings, Key::Remote, flags.url.as_deref())?;
    keep(&mut settings, Key::Namespace, flags.namespace.as_deref())?;
    let ca = flags.ca.as_deref().map(std::path::absolute).transpose();
    let ca = ca.map_err(Error::Output)?;
    let ca = ca
        .as_deref()
        .map(|path| path.to_string_lossy().into_owned());
    keep(&mut settings, Key::Ca, ca.as_deref())?;
    let path = settings.save()?.display().to_string();
    let url = &endpoint.url;
    output::print(&format!(
        "the server at {url} accepts this token; kept in {path}\n"
    ))?;
    if Server::at(&anonymous(&endpoint))?
        .get("/api/v1/stats")
        .is_ok()
    {
        output::print("it answers without a token, too\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Forgets the token.
pub(crate) fn log_out() -> Result<ExitCode> {
    let mut settings = Settings::load(Environment::of_process())?;
    settings.set(Key::Token, None)?;
    settings.save()?;
    if let Some((_, source)) = settings.get(Key::Token) {
        output::tell(&format!("a token is still in force: {source}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn anonymous(endpoint: &crate::settings::Endpoint) -> crate::settings::Endpoint {
    crate::settings::Endpoint {
        token: None,
        ..endpoint.clone()
    }
}

fn keep(settings: &mut Settings, key: Key, given: Option<&str>) -> Result<()> {
    match given {
        Some(value) => settings.set(key, Some(value)),
        None => Ok(()),
    }
}

/// The first line of standard input; a person who types it does not see it.
fn read_token() -> Result<String> {
    let input = io::stdin();
    let quiet = input.is_terminal().then(|| Quiet::start(&input));
    if quiet.is_some() {
        output::ask("token: ");
    }
    let mut line = String::new();
    let read = input.lock().take(LINE_BYTES).read_line(&mut line);
    drop(quiet);
    read.map_err(Error::Input)?;
    Ok(line.trim().to_owned())
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Quiet(Option<Termios>);

impl Quiet {
    fn start(input: &io::Stdin) -> Quiet {
        let Ok(before) = termios::tcgetattr(input) else {
            return Quiet(None);
        };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let set = termios::tcsetattr(input, OptionalActions::Flush, &quiet);
        Quiet(set.is_ok().then_some(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            termios::tcsetattr(io::stdin(), OptionalActions::Flush, before).ok();
            output::tell("");
        }
    }
}
