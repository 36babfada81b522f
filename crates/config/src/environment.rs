//! The process's environment, as a value: read once, here and nowhere else, so that tests bring their own.

use std::{collections::BTreeMap, path::PathBuf};

/// Where a client finds the server when nothing says otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Name of the variable that tells a client where the server is.
pub const URL_VARIABLE: &str = "ZIMCACHE_URL";

/// Environment variables whose names and values are text; others are ignored.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Environment {
        let text = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Environment(text.collect())
    }

    /// An environment with exactly these variables.
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Environment {
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Environment(owned.into())
    }

    /// The value of a variable; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?;
        (!value.is_empty()).then_some(value)
    }

    /// All variables whose names start so, in order of name.
    pub fn starting_with<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.0.iter().map(|(name, value)| (&**name, &**value));
        all.filter(move |(name, _)| name.starts_with(prefix))
    }

    /// `zimcache/store` in the user's cache folder: `$XDG_CACHE_HOME`, else `~/.cache`. `None` without a home.
    pub fn default_storage(&self) -> Option<PathBuf> {
        Some(self.user_folder("XDG_CACHE_HOME", ".cache")?.join("store"))
    }

    /// `zimcache/tokens.toml` in the user's configuration folder, [`Environment::config_folder`].
    pub fn default_tokens(&self) -> Option<PathBuf> {
        Some(self.config_folder()?.join("tokens.toml"))
    }

    /// `zimcache` in the user's configuration folder: `$XDG_CONFIG_HOME`, else `~/.config`. `None` without a home.
    pub fn config_folder(&self) -> Option<PathBuf> {
        self.user_folder("XDG_CONFIG_HOME", ".config")
    }

    fn user_folder(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let absolute = |name| {
            self.get(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let folder = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))?;
        Some(folder.join("zimcache"))
    }

    /// Where the server is: the flag, else [`URL_VARIABLE`], else [`DEFAULT_URL`].
    pub fn server_url(&self, flag: Option<&str>) -> String {
        flag.or_else(|| self.get(URL_VARIABLE))
            .unwrap_or(DEFAULT_URL)
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_lives_in_the_users_cache_folder() {
        let storage = |variables: [(&str, &str); 2]| Environment::of(variables).default_storage();
        let home = ("HOME", "/home/ada");
        assert_eq!(
            storage([home, ("XDG_CACHE_HOME", "/fast")]).unwrap(),
            PathBuf::from("/fast/zimcache/store")
        );
        for ignored in ["", "relative"] {
            assert_eq!(
                storage([home, ("XDG_CACHE_HOME", ignored)]).unwrap(),
                PathBuf::from("/home/ada/.cache/zimcache/store")
            );
        }
        assert_eq!(Environment::default().default_storage(), None);
    }

    #[test]
    fn the_server_is_named_by_flag_then_variable_then_default() {
        let environment = Environment::of([(URL_VARIABLE, "http://two:1")]);
        assert_eq!(environment.server_url(Some("http://one:1")), "http://one:1");
        assert_eq!(environment.server_url(None), "http://two:1");
        assert_eq!(Environment::default().server_url(None), DEFAULT_URL);
    }
}
