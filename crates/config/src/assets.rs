//! `[assets]`: what the server may fetch from elsewhere, for clients of the Remote Asset API.
//!
//! Nothing, unless somebody says from where. Not here: the guards that hold for every fetch (`gateway`).

use crate::{UrlPrefix, field::settings};

settings! {
    /// What the server may fetch from elsewhere.
    pub struct AssetsConfig in "assets" {
        /// Fetch from URLs that begin with one of these, for clients that ask; without any, nothing is fetched. Redirects
        /// are followed only to where one of these leads.
        fetch_from: Vec<UrlPrefix> = Vec::new(),
            accepts "URLs such as https://github.com/ or http://mirror.example:8080/files/", flag "--fetch-from";
        /// Fetch from addresses of this machine and of private networks, too.
        fetch_private: bool = false,
            accepts "true or false";
    }
}
