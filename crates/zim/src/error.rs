//! Why a command could not do what was asked, and the exit code that goes with it.

use std::{io, net::SocketAddr, path::PathBuf};

use zimcache_config::LoadError;
use zimcache_node::{OpenDiskError, OpenError};
use zimcache_types::{Code, namespace::NamespaceError};

use crate::settings::Key;

/// Result of a command.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// A command's failure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config(#[from] LoadError),
    #[error("the configuration cannot be written as TOML")]
    PrintConfig(#[source] toml::ser::Error),
    #[error(
        "no folder for the store is known: give --storage DIR (neither XDG_CACHE_HOME nor HOME is set)"
    )]
    NoStorage,
    #[error("cannot set up logging")]
    Log(#[from] zimcache_telemetry::log::Error),
    #[error(transparent)]
    Traces(#[from] zimcache_telemetry::trace::Error),
    #[error("port {} of {} is in use by another program; choose another with --port, or 0 for any free one", .0.port(), .0.ip())]
    PortInUse(SocketAddr),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the Unix socket {} is in use by another program", .0.display())]
    SocketInUse(PathBuf),
    #[error("{} exists and is not a Unix socket; it is left alone", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot listen on the Unix socket {}", path.display())]
    ListenUnix { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tokens(#[from] zimcache_auth::Error),
    #[error(
        "no file of tokens is known: give --file PATH (neither XDG_CONFIG_HOME nor HOME is set)"
    )]
    NoTokenFile,
    #[error("access cannot be set up")]
    Access(#[source] zimcache_auth::Error),
    #[error("there is no file of users at {}; make one with: htpasswd -Bc {} NAME", .0.display(), .0.display())]
    NoUsers(PathBuf),
    #[error("the signing key in {} is too short; make one with: openssl rand -hex -out {} 32", .0.display(), .0.display())]
    SigningKey(PathBuf),
    #[error("the certificate cannot be used")]
    Tls(#[source] zimcache_gateway::TlsError),
    #[error("cannot read {}", path.display())]
    ReadFile { path: PathBuf, source: io::Error },
    #[error("the store's folder cannot be used")]
    OpenDisk(#[source] OpenDiskError),
    #[error("the store in {} is in use by another process; stop it, or talk to it with --url", .0.display())]
    StoreInUse(PathBuf),
    #[error("the store in {} cannot be opened", path.display())]
    OpenStore { path: PathBuf, source: OpenError },
    #[error("there is no store in {}", .0.display())]
    NoStore(PathBuf),
    #[error("the file of the ring cannot be changed")]
    RingFile(#[source] zimcache_auth::Error),
    #[error("there is a ring in {} already", .0.display())]
    RingExists(PathBuf),
    #[error("the ring stays as it is")]
    RingChange(#[source] zimcache_ring::Refusal),
    #[error(
        "{0:?} is no node; write ID=ADDRESS, then ,zone=ZONE and ,weight=N where wanted; a share is ID=N"
    )]
    Node(String),
    #[error("no ring is known: give --ring with a file or a URL")]
    NoRing,
    #[error("{0}")]
    NodeSetting(&'static str),
    #[error("the certificates for the way between gateways and nodes cannot be used")]
    PeerTls(#[source] zimcache_link::TlsError),
    #[error("the durable tier cannot be used")]
    Tier(#[source] zimcache_tier::Error),
    #[error("what this node remembers of the others cannot be used")]
    Notes(#[from] zimcache_member::NotesError),
    #[error("the operating system gives no random numbers")]
    NoRandomness(#[source] getrandom::Error),
    #[error("the ring in {place} cannot be used")]
    Ring {
        place: String,
        source: zimcache_ring::Error,
    },
    #[error("the store failed")]
    Store(#[source] Box<zimcache_store::Error>),
    #[error("hit rates are counted by a running server; leave out --storage to ask one")]
    OfflineHitRate,
    #[error("{url:?} is not the URL of a server; write http://HOST:PORT or https://HOST")]
    Url { url: String },
    #[error("a URL with a password in it is not taken; give the token with --token or zim login")]
    UrlWithPassword,
    #[error("a token is one word of printable ASCII characters")]
    TokenText,
    #[error("the token cannot be had from {from}")]
    TokenSource { from: String, source: io::Error },
    #[error("{name:?} is not a namespace")]
    Namespace {
        name: String,
        source: NamespaceError,
    },
    #[error("there is no setting {name:?}; there are {}", Key::ALL.map(Key::as_str).join(", "))]
    UnknownKey { name: String },
    #[error("{0} is not set")]
    NotSet(&'static str),
    #[error("the settings in {} are not understood; the keys are {}", path.display(), Key::ALL.map(Key::as_str).join(", "))]
    SettingsFile {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error(
        "no folder for settings is known: set ZIMCACHE_CONFIG to a file (neither XDG_CONFIG_HOME nor HOME is set)"
    )]
    NoSettingsFile,
    #[error("cannot write {}", path.display())]
    WriteFile { path: PathBuf, source: io::Error },
    #[error("the certificates in {} cannot be used: {text}", path.display())]
    Authority { path: PathBuf, text: String },
    #[error("{0:?} is no SHA-256 of 64 hexadecimal digits; an entry of a tool wants --tool")]
    NoHash(String),
    #[error("the content would go to the terminal; give -o FILE, or -o - to have it there")]
    BinaryOnTerminal,
    #[error(
        "the content received is not the one asked for and was thrown away: its SHA-256 is {received}, not {wanted}"
    )]
    WrongContent { wanted: String, received: String },
    #[error("there is no tool {name:?}; there are {known}")]
    UnknownTool { name: String, known: String },
    #[error("{0} is not set up by variables; see zim setup {0}")]
    NoVariables(&'static str),
    #[error("{tool} has no file that could be written; do this:\n\n{text}")]
    NothingToWrite { tool: &'static str, text: String },
    #[error(
        "{} has settings of its own ({line}); nothing was written{}", path.display(),
        if *whole { ": add what zim setup prints by hand" } else { "; --force comments them out" }
    )]
    ForeignSettings {
        path: PathBuf,
        line: String,
        whole: bool,
    },
    #[error("{0}")]
    Check(String),
    #[error("nobody is there to ask; repeat the command with --yes")]
    NotConfirmed,
    #[error("TLS cannot be set up")]
    TlsClient(#[source] rustls::Error),
    #[error(
        "no server answers at {url}; is it running? (--url or ZIMCACHE_URL name another, --storage works without one)"
    )]
    Unreachable {
        url: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "the server at {url} cannot be trusted; --ca FILE or SSL_CERT_FILE name an authority of your own"
    )]
    Untrusted {
        url: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the server at {url} broke off its answer")]
    BrokenOff {
        url: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the server at {0} went silent")]
    Silent(String),
    #[error(
        "the server at {url} does not accept this token: it is wrong, expired or revoked; zim login --token TOKEN keeps another"
    )]
    WrongToken { url: String },
    #[error(
        "the server at {url} wants a token; keep one with zim login, or give --token or ZIMCACHE_TOKEN"
    )]
    NoToken { url: String },
    #[error("the server at {url} does not allow this: {text}")]
    Forbidden { url: String, text: String },
    #[error("there is no such thing at {url}")]
    NotThere { url: String },
    #[error("the server answered {status}: {text}")]
    Refused {
        status: http::StatusCode,
        text: String,
    },
    #[error("the server's answer cannot be understood: {0}")]
    Answer(String),
    #[error("the verification failed: {0}")]
    Verification(String),
    #[error("the operating system refuses what every server needs")]
    Runtime(#[source] io::Error),
    #[error("cannot read the input")]
    Input(#[source] io::Error),
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

impl Error {
    /// What kind of failure this is.
    pub(crate) fn code(&self) -> Code {
        match self {
            Error::Config(error) => error.code(),
            Error::Tokens(error) | Error::RingFile(error) => error.code(),
            Error::RingChange(refusal) => refusal.code(),
            Error::NoStorage
            | Error::NoTokenFile
            | Error::OfflineHitRate
            | Error::Url { .. }
            | Error::UrlWithPassword
            | Error::NoHash(_)
            | Error::BinaryOnTerminal
            | Error::NotConfirmed
            | Error::UnknownTool { .. }
            | Error::NoVariables(_)
            | Error::NothingToWrite { .. }
            | Error::TokenText
            | Error::TokenSource { .. }
            | Error::Namespace { .. }
            | Error::UnknownKey { .. }
            | Error::SettingsFile { .. }
            | Error::NoSettingsFile
            | Error::Authority { .. }
            | Error::NoStore(_)
            | Error::Access(_)
            | Error::NoUsers(_)
            | Error::SigningKey(_)
            | Error::Tls(_)
            | Error::NoRing
            | Error::Node(_)
            | Error::NodeSetting(_)
            | Error::Ring { .. }
            | Error::PeerTls(_)
            | Error::Tier(_)
            | Error::Notes(_)
            | Error::NoRandomness(_)
            | Error::ReadFile { .. } => Code::Invalid,
            Error::PortInUse(_)
            | Error::SocketInUse(_)
            | Error::StoreInUse(_)
            | Error::RingExists(_)
            | Error::ForeignSettings { .. } => Code::Conflict,
            Error::Store(error) => error.code(),
            Error::NotSet(_) | Error::NotThere { .. } => Code::NotFound,
            Error::WrongToken { .. } | Error::NoToken { .. } => Code::Unauthenticated,
            Error::Forbidden { .. } => Code::Forbidden,
            Error::WrongContent { .. } => Code::Corrupt,
            Error::OpenDisk(_)
            | Error::OpenStore { .. }
            | Error::Listen { .. }
            | Error::NotASocket(_)
            | Error::ListenUnix { .. }
            | Error::Unreachable { .. }
            | Error::Untrusted { .. }
            | Error::BrokenOff { .. }
            | Error::Silent(_)
            | Error::Check(_)
            | Error::Refused { .. }
            | Error::Verification(_) => Code::Unavailable,
            Error::PrintConfig(_)
            | Error::Log(_)
            | Error::Traces(_)
            | Error::Answer(_)
            | Error::Runtime(_)
            | Error::TlsClient(_)
            | Error::WriteFile { .. }
            | Error::Input(_)
            | Error::Output(_) => Code::Internal,
        }
    }

    /// 2 when the command has to be written differently, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.code() == Code::Invalid { 2 } else { 1 }
    }
}

impl From<zimcache_store::Error> for Error {
    fn from(error: zimcache_store::Error) -> Error {
        Error::Store(Box::new(error))
    }
}
