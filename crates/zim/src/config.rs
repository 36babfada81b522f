//! `zim config`: shows and changes the client's settings. The server's are elsewhere: `zim cache serve --print-config`.

use std::process::ExitCode;

use zimcache_config::Environment;

use crate::{
    args::ConfigCommand,
    error::{Error, Result},
    output,
    settings::{Key, Settings, is_indirect},
};

/// Shown in place of a token.
const HIDDEN: &str = "(hidden)";

/// Runs it.
pub(crate) fn run(command: &ConfigCommand) -> Result<ExitCode> {
    let mut settings = Settings::load(Environment::of_process())?;
    match command {
        ConfigCommand::Set { key, value } => change(&mut settings, key, Some(value))?,
        ConfigCommand::Unset { key } => change(&mut settings, key, None)?,
        ConfigCommand::Get { key } => {
            let key: Key = key.parse()?;
            let (value, _) = settings.get(key).ok_or(Error::NotSet(key.as_str()))?;
            output::print(&format!("{value}\n"))?;
        }
        ConfigCommand::List => output::print(&list(&settings))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn change(settings: &mut Settings, key: &str, value: Option<&str>) -> Result<()> {
    settings.set(key.parse()?, value)?;
    settings.save().map(drop)
}

/// Every key with its value in force and where that comes from.
fn list(settings: &Settings) -> String {
    let mut rows = Vec::new();
    for key in Key::ALL {
        let text = match settings.get(key) {
            None => "not set".to_owned(),
            Some((value, source)) if key == Key::Token && !is_indirect(value) => {
                format!("{HIDDEN}  ({source})")
            }
            Some((value, source)) => format!("{value}  ({source})"),
        };
        rows.push((key.as_str(), text));
    }
    if let Some(path) = settings.path() {
        rows.push(("file", path.display().to_string()));
    }
    output::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_hides_the_token_and_tells_where_values_come_from() {
        let environment = Environment::of([
            ("ZIMCACHE_CONFIG", "/nonexistent/c.toml"),
            ("ZIMCACHE_TOKEN", "hush"),
            ("ZIMCACHE_URL", "http://cache:1"),
        ]);
        let text = list(&Settings::load(environment).unwrap());
        assert!(!text.contains("hush"), "{text}");
        assert!(text.contains("(from ZIMCACHE_TOKEN)"), "{text}");
        assert!(
            text.contains("http://cache:1  (from ZIMCACHE_URL)"),
            "{text}"
        );
        assert!(text.contains("/nonexistent/c.toml"), "{text}");
    }
}
