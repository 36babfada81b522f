//! What can be typed to `zim token`.

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use zimcache_auth::{NamespacePattern, Scope};
use zimcache_config::human::parse_duration;

pub(crate) const TOKEN_EXAMPLES: &str = "\
The file keeps hashes only: a secret is shown once, and one that was lost is replaced with rotate. A running server \
takes changes of its file over by itself. Once a file is there, a credential that it does not know is refused.

Examples:
  zim token create --namespace team-a --scope write --expires 90d
  zim token list
  zim token rotate k7q2mfzx --grace 1h";

pub(crate) const CREATE_EXAMPLES: &str = "\
Only the secret goes to standard output.

Examples:
  zim token create --namespace team-a --scope write --expires 90d --note \"nightly build\"
  TOKEN=$(zim token create --namespace 'team-a/*' --scope read)
  zim token create --namespace '*' --scope admin --file /etc/zimcache/tokens.toml --json";

pub(crate) const LIST_EXAMPLES: &str = "\
Examples:
  zim token list
  zim token list --file /etc/zimcache/tokens.toml --json";

pub(crate) const REVOKE_EXAMPLES: &str = "\
The id of a token is between the underscores: zim_ID_SECRET.

Examples:
  zim token revoke k7q2mfzx";

pub(crate) const ROTATE_EXAMPLES: &str = "\
The token keeps its id and rights, and lives as long again as it was made for. Only the secret goes to standard \
output.

Examples:
  zim token rotate k7q2mfzx
  TOKEN=$(zim token rotate k7q2mfzx --grace 1h)";

/// What `zim token` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print its secret, this once
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateTokenArgs),
    /// Show the tokens there are, without their secrets
    #[command(after_help = LIST_EXAMPLES)]
    List(TokenFileArgs),
    /// Take a token away
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(RevokeTokenArgs),
    /// Give a token a new secret and print it, this once
    #[command(after_help = ROTATE_EXAMPLES)]
    Rotate(RotateTokenArgs),
}

/// Which file, and how to answer.
#[derive(Debug, Args)]
pub(crate) struct TokenFileArgs {
    /// The file of tokens [default: $ZIMCACHE_TOKENS, else zimcache/tokens.toml in the user's configuration folder]
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `zim token create`.
#[derive(Debug, Args)]
pub(crate) struct CreateTokenArgs {
    /// Where it is good: a namespace, 'NAME/*' for it and all below it, or '*' for all
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) namespace: NamespacePattern,
    /// What it may do; write includes read, admin includes both
    #[arg(long, value_parser = scope_parser())]
    pub(crate) scope: Scope,
    /// How long it is good, such as 90d; without it, for ever
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) expires: Option<Duration>,
    /// What people should know about it, one line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) note: String,
    #[command(flatten)]
    pub(crate) target: TokenFileArgs,
}

/// Arguments of `zim token revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeTokenArgs {
    /// Which token
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) target: TokenFileArgs,
}

/// Arguments of `zim token rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateTokenArgs {
    /// Which token
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// How long the old secret is good as well
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1h")]
    pub(crate) grace: Duration,
    #[command(flatten)]
    pub(crate) target: TokenFileArgs,
}

fn scope_parser() -> impl TypedValueParser<Value = Scope> {
    let names = Scope::ALL.map(Scope::as_str);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Scope>())
}
