//! What a client knows of its server: URL, token, namespace, own authority; from flags, environment and the user's file.
//!
//! The file is `zimcache/config.toml` in the user's configuration folder, or what `ZIMCACHE_CONFIG` names. Invariants:
//! flag > environment > file > default; an unknown key is refused with the list of those there are; the file may hold
//! a token, so only its owner can read it; a file that was not understood is never written over.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use zimcache_config::{
    Environment,
    environment::{DEFAULT_URL, URL_VARIABLE},
};
use zimcache_types::Namespace;

use crate::{
    args::ServerArgs,
    error::{Error, Result},
};

/// Names another settings file.
const FILE_VARIABLE: &str = "ZIMCACHE_CONFIG";
/// Variables that hold the token, the first that is set wins.
const TOKEN_VARIABLES: [&str; 2] = ["ZIMCACHE_TOKEN", "ZIM_CLOUD_TOKEN"];
/// Holds the namespace.
const NAMESPACE_VARIABLE: &str = "ZIMCACHE_NAMESPACE";
/// Longest token file that is read.
const TOKEN_FILE_BYTES: u64 = 64 << 10;

/// A setting of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Remote,
    Token,
    Namespace,
    Ca,
}

impl Key {
    /// All there are.
    pub(crate) const ALL: [Key; 4] = [Key::Remote, Key::Token, Key::Namespace, Key::Ca];

    /// Its name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Key::Remote => "cache.remote",
            Key::Token => "cache.token",
            Key::Namespace => "cache.namespace",
            Key::Ca => "cache.ca",
        }
    }

    /// The variables that win over the file.
    fn variables(self) -> &'static [&'static str] {
        match self {
            Key::Remote => &[URL_VARIABLE],
            Key::Token => &TOKEN_VARIABLES,
            Key::Namespace => &[NAMESPACE_VARIABLE],
            Key::Ca => &[],
        }
    }

    /// What holds when nothing is set.
    fn default_text(self) -> Option<&'static str> {
        (self == Key::Remote).then_some(DEFAULT_URL)
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(name: &str) -> Result<Key> {
        let found = Key::ALL.into_iter().find(|key| key.as_str() == name);
        found.ok_or_else(|| Error::UnknownKey {
            name: name.to_owned(),
        })
    }
}

/// The settings file as a value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    cache: Cache,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cache {
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
}

/// Where a value in force comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Variable(&'static str),
    File,
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Variable(name) => write!(f, "from {name}"),
            Source::File => f.write_str("from the file"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// The settings of this user, and the environment that wins over them.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    path: Option<PathBuf>,
    document: Document,
    environment: Environment,
}

impl Settings {
    /// Reads the file; one that is not there sets nothing.
    pub(crate) fn load(environment: Environment) -> Result<Settings> {
        let named = environment.get(FILE_VARIABLE).map(PathBuf::from);
        let usual = || Some(environment.config_folder()?.join("config.toml"));
        let path = named.or_else(usual);
        let document = match path.as_deref() {
            Some(path) => read(path)?,
            None => Document::default(),
        };
        Ok(Settings {
            path,
            document,
            environment,
        })
    }

    /// The file, where there can be one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What the file says.
    fn in_file(&self, key: Key) -> Option<&str> {
        let cache = &self.document.cache;
        let value = match key {
            Key::Remote => &cache.remote,
            Key::Token => &cache.token,
            Key::Namespace => &cache.namespace,
            Key::Ca => &cache.ca,
        };
        value.as_deref()
    }

    /// The value in force without flags, and where it comes from.
    pub(crate) fn get(&self, key: Key) -> Option<(&str, Source)> {
        for name in key.variables() {
            if let Some(value) = self.environment.get(name) {
                return Some((value, Source::Variable(name)));
            }
        }
        if let Some(value) = self.in_file(key) {
            return Some((value, Source::File));
        }
        Some((key.default_text()?, Source::Default))
    }

    /// Changes what the file will say; `None` takes the key out.
    pub(crate) fn set(&mut self, key: Key, value: Option<&str>) -> Result<()> {
        if let Some(value) = value {
            check(key, value)?;
        }
        let value = value.map(str::to_owned);
        let cache = &mut self.document.cache;
        match key {
            Key::Remote => cache.remote = value,
            Key::Token => cache.token = value,
            Key::Namespace => cache.namespace = value,
            Key::Ca => cache.ca = value,
        }
        Ok(())
    }

    /// Writes the file, which only its owner can read.
    pub(crate) fn save(&self) -> Result<&Path> {
        let path = self.path.as_deref().ok_or(Error::NoSettingsFile)?;
        let text = toml::to_string(&self.document).map_err(Error::PrintConfig)?;
        write_private(path, text.as_bytes()).map_err(|source| Error::WriteFile {
            path: path.to_owned(),
            source,
        })?;
        Ok(path)
    }

    /// The server to talk to: flags first.
    pub(crate) fn endpoint(&self, flags: &ServerArgs) -> Result<Endpoint> {
        let in_force = |flag: Option<&str>, key| match flag {
            Some(text) => Some(text.to_owned()),
            None => self.get(key).map(|(text, _)| text.to_owned()),
        };
        let token = in_force(flags.token.as_deref(), Key::Token);
        let namespace = in_force(flags.namespace.as_deref(), Key::Namespace);
        let ca = flags.ca.clone();
        Ok(Endpoint {
            url: in_force(flags.url.as_deref(), Key::Remote).unwrap_or_default(),
            token: token.map(|text| self.resolve(&text)).transpose()?,
            namespace: namespace.map(|text| namespace_of(&text)).transpose()?,
            ca: ca.or_else(|| self.in_file(Key::Ca).map(PathBuf::from)),
        })
    }

    /// The token that a text stands for: itself, `env:NAME` or `file:PATH`.
    pub(crate) fn resolve(&self, text: &str) -> Result<Token> {
        let found = if let Some(name) = text.strip_prefix("env:") {
            let value = self.environment.get(name);
            value.map(str::to_owned).ok_or_else(|| Error::TokenSource {
                from: text.to_owned(),
                source: io::Error::other("the variable is not set"),
            })?
        } else if let Some(path) = text.strip_prefix("file:") {
            read_token(Path::new(path)).map_err(|source| Error::TokenSource {
                from: text.to_owned(),
                source,
            })?
        } else {
            text.to_owned()
        };
        Token::new(found.trim()).ok_or(Error::TokenText)
    }
}

/// Where a server is, and how to introduce oneself there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) token: Option<Token>,
    pub(crate) namespace: Option<Namespace>,
    /// Certificates to trust beside the system's.
    pub(crate) ca: Option<PathBuf>,
}

/// A token; never shown by accident.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// A token that can stand in a header; `None` when it cannot.
    pub(crate) fn new(text: &str) -> Option<Token> {
        let fine = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        fine.then(|| Token(text.to_owned()))
    }

    /// The token itself; do not log it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Whether a text names the place of a token instead of being one.
pub(crate) fn is_indirect(token: &str) -> bool {
    token.starts_with("env:") || token.starts_with("file:")
}

fn check(key: Key, value: &str) -> Result<()> {
    match key {
        Key::Remote => crate::remote::check_url(value),
        Key::Namespace => namespace_of(value).map(drop),
        Key::Token if !is_indirect(value) && Token::new(value).is_none() => Err(Error::TokenText),
        Key::Token | Key::Ca => Ok(()),
    }
}

pub(crate) fn namespace_of(text: &str) -> Result<Namespace> {
    Namespace::new(text).map_err(|source| Error::Namespace {
        name: text.to_owned(),
        source,
    })
}

fn read(path: &Path) -> Result<Document> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Document::default()),
        Err(source) => {
            return Err(Error::ReadFile {
                path: path.to_owned(),
                source,
            });
        }
    };
    toml::from_str(&text).map_err(|source| Error::SettingsFile {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn read_token(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    let file = fs::File::open(path)?;
    file.take(TOKEN_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces a file in one step by one that only its owner can read.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, 0o600)
}

/// Replaces a file in one step; nobody ever sees half of it.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // A link is followed, so that dotfiles kept elsewhere stay where they are.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    let permissions = fs::Permissions::from_mode(mode);
    file.as_file().set_permissions(permissions)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, variables: &[(&str, &str)]) -> (tempfile::TempDir, Settings) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        fs::write(&file, text).unwrap();
        let mut all = vec![(FILE_VARIABLE, file.to_str().unwrap())];
        all.extend(variables);
        // Environments of tests have a fixed size: unset ones are empty, which counts as absent.
        let at = |i: usize| all.get(i).copied().unwrap_or(("UNSET", ""));
        let environment = Environment::of([at(0), at(1), at(2), at(3)]);
        let settings = Settings::load(environment).unwrap();
        (folder, settings)
    }

    fn flags() -> ServerArgs {
        ServerArgs::default()
    }

    const FILE: &str = "[cache]\nremote = 'http://file:1'\ntoken = 'file-token'\nnamespace = 'f'\n";

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let (_folder, none) = settings("", &[]);
        let endpoint = none.endpoint(&flags()).unwrap();
        assert_eq!((&*endpoint.url, endpoint.token), (DEFAULT_URL, None));
        let (_folder, file) = settings(FILE, &[]);
        let endpoint = file.endpoint(&flags()).unwrap();
        assert_eq!(endpoint.url, "http://file:1");
        assert_eq!(endpoint.token, Token::new("file-token"));
        let set = [(URL_VARIABLE, "http://var:1"), ("ZIMCACHE_TOKEN", "v")];
        let (_folder, both) = settings(FILE, &set);
        let endpoint = both.endpoint(&flags()).unwrap();
        assert_eq!(endpoint.url, "http://var:1");
        assert_eq!(endpoint.token, Token::new("v"));
        assert_eq!(endpoint.namespace.unwrap().as_str(), "f");
        let given = ServerArgs {
            url: Some("http://flag:1".to_owned()),
            namespace: Some("g".to_owned()),
            ..flags()
        };
        let endpoint = both.endpoint(&given).unwrap();
        assert_eq!(endpoint.url, "http://flag:1");
        assert_eq!(endpoint.namespace.unwrap().as_str(), "g");
    }

    #[test]
    fn the_seeds_token_variable_is_read_and_ours_wins() {
        let (_folder, seed) = settings("", &[("ZIM_CLOUD_TOKEN", "c")]);
        assert_eq!(seed.endpoint(&flags()).unwrap().token, Token::new("c"));
        let set = [("ZIM_CLOUD_TOKEN", "c"), ("ZIMCACHE_TOKEN", "z")];
        let (_folder, both) = settings("", &set);
        assert_eq!(both.endpoint(&flags()).unwrap().token, Token::new("z"));
    }

    #[test]
    fn a_token_may_be_in_a_variable_or_a_file() {
        let (folder, settings) = settings("", &[("CI_SECRET", " abc\n")]);
        assert_eq!(settings.resolve("env:CI_SECRET").unwrap().reveal(), "abc");
        let file = folder.path().join("token");
        fs::write(&file, "from a file\n").unwrap();
        let place = format!("file:{}", file.display());
        assert!(matches!(settings.resolve(&place), Err(Error::TokenText)));
        fs::write(&file, "from-a-file\n").unwrap();
        assert_eq!(settings.resolve(&place).unwrap().reveal(), "from-a-file");
        for absent in ["env:NOT_THERE", "file:/nonexistent/token"] {
            let error = settings.resolve(absent).unwrap_err();
            assert!(error.to_string().contains(absent), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_list() {
        let error = Key::from_str("cache.colour").unwrap_err().to_string();
        for key in Key::ALL {
            assert!(error.contains(key.as_str()), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(&file, "[cache]\ncolour = 'x'\n").unwrap();
        let environment = Environment::of([(FILE_VARIABLE, file.to_str().unwrap())]);
        let error = Settings::load(environment).unwrap_err();
        assert!(matches!(error, Error::SettingsFile { .. }));
    }

    #[test]
    fn what_is_saved_reads_back_and_is_private() {
        let (folder, mut settings) = settings(FILE, &[]);
        settings.set(Key::Namespace, Some("team/a")).unwrap();
        settings.set(Key::Remote, None).unwrap();
        settings.save().unwrap();
        let file = folder.path().join("config.toml");
        assert_eq!(read(&file).unwrap(), settings.document);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(settings.set(Key::Namespace, Some("..")).is_err());
        assert!(settings.set(Key::Remote, Some("cache:80")).is_err());
        assert!(settings.set(Key::Token, Some("two words")).is_err());
    }

    #[test]
    fn a_token_is_not_shown_in_debug_output() {
        let token = Token::new("hush").unwrap();
        assert!(!format!("{token:?}").contains("hush"));
    }
}
