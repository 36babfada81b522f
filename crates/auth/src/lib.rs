//! Who a caller is and what it may do: scopes, namespace patterns, tokens, htpasswd users, and the decision itself.
//!
//! Pure data and synchronous functions: no async runtime, no HTTP types, no settings. Files are read and written only
//! by functions that take a path. Not here: which right an operation needs and which namespace a request means (the
//! gateway knows), and rate limits. Invariants: a secret is never kept, only its hash; `Debug` of anything that ever
//! held a secret does not show it; a credential that is not known is refused, never taken for nobody's.

pub mod authenticator;
pub mod credentials;
mod error;
pub mod htpasswd;
pub mod pattern;
pub mod principal;
pub mod replace;
pub mod scope;
mod time;
pub mod token;
pub mod token_file;
mod token_text;

pub use authenticator::{Anonymous, Authenticator, Outcome, PasswordCheck, Refusal, Sources};
pub use credentials::{Buffer, Credentials, Malformed};
pub use error::{Error, Problem, Problems, Result};
pub use htpasswd::Htpasswd;
pub use pattern::{NamespacePattern, PatternError};
pub use principal::{Grant, Identity, Principal};
pub use scope::{Scope, ScopeError};
pub use time::rfc3339;
pub use token::{Token, TokenHash, TokenId};
pub use token_file::{FixedToken, Previous, TokenFile, TokenRecord, TokenSpec};
