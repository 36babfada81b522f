//! What a command works on: a running server, or a store in a folder.

use zimcache_config::Environment;

use crate::{
    args::TargetArgs, error::Result, local::LocalStore, remote::Server, settings::Settings,
};

/// A server or a store.
#[derive(Debug)]
pub(crate) enum Target {
    /// A running server.
    Server(Box<Server>),
    /// A store, opened and locked by this process.
    Store(Box<LocalStore>),
}

impl Target {
    /// The one that the flags and the environment name.
    pub(crate) fn of(args: &TargetArgs) -> Result<Target> {
        if let Some(folder) = &args.storage {
            return Ok(Target::Store(Box::new(LocalStore::open(folder)?)));
        }
        let settings = Settings::load(Environment::of_process())?;
        let server = Server::at(&settings.endpoint(&args.server)?)?;
        Ok(Target::Server(Box::new(server)))
    }
}
