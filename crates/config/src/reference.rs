//! Renders `docs/config.md`, the reference of every setting, from the declarations themselves.
//!
//! A test compares the committed page with [`render`]; regenerate it with `cargo xtask gen`.

use std::fmt::Write;

use crate::{
    AssetsConfig, AuthConfig, ClusterConfig, Field, GatewayConfig, LimitsConfig, LogConfig,
    S3Config, ServeConfig, StoreConfig, TlsConfig, load::ALIASES,
};

const INTRODUCTION: &str = "\
<!-- Generated from crates/config by `cargo xtask gen`. Do not edit. -->
# Settings of `zim cache serve`, `zim-gateway` and `zim-node`

Each setting has one name in four places. Later places win: the default, then the TOML file given with `--config`, then
the environment, then the flag. Unknown names are refused everywhere. `zim cache serve --check` tells every problem at
once and starts nothing; `--print-config` prints the configuration in force as a file that can be used again.

Sizes read `100GB` (powers of 1000) and `100GiB` or `100G` (powers of 1024). Durations read `500ms`, `10s`, `5m`, `2h`,
`14d`. In the environment and in flags, the items of a list are separated by commas.
";

const NAMESPACES: &str = "
## `[namespaces.NAME]`

Only in the file. Without any such table, a namespace comes into being on first use. As soon as some are listed, only
those exist; `[namespaces.\"*\"]` stands for all others.

```toml
[namespaces.default]

[namespaces.\"team-a\"]
retention = \"30d\"      # age at which values are forgotten; absent: store.retention; \"off\": never
durability = \"bucket\"  # of a cluster: what an acknowledged write has reached; absent: cluster.durability

[namespaces.\"*\"]        # others may come into being
retention = \"3d\"
```
";

/// The reference page, Markdown.
pub fn render() -> String {
    let mut page = INTRODUCTION.to_owned();
    let sections = [
        ("Top level", ServeConfig::FIELDS),
        ("`[log]`", LogConfig::FIELDS),
        ("`[gateway]`", GatewayConfig::FIELDS),
        ("`[store]`", StoreConfig::FIELDS),
        ("`[auth]`", AuthConfig::FIELDS),
        ("`[tls]`", TlsConfig::FIELDS),
        ("`[limits]`", LimitsConfig::FIELDS),
        ("`[assets]`", AssetsConfig::FIELDS),
        ("`[cluster]`", ClusterConfig::FIELDS),
        ("`[s3]`", S3Config::FIELDS),
    ];
    for (title, fields) in sections {
        page.push_str(&render_section(title, fields));
    }
    page.push_str(NAMESPACES);
    page.push_str(&render_other_variables());
    page
}

fn render_section(title: &str, fields: &[Field]) -> String {
    let mut text = format!("\n## {title}\n");
    for field in fields {
        let default = ServeConfig::default_text(field)
            .map_or_else(|| "not set".to_owned(), |text| format!("`{text}`"));
        let flag = field
            .flag
            .map_or_else(|| "none".to_owned(), |flag| format!("`{flag}`"));
        // Writing to a String cannot fail.
        write!(
            text,
            "\n### `{}`\n\n{}\n\n- default: {default}\n- accepted: {}\n- variable: `{}`\n- flag: {flag}\n",
            field.path(),
            field.text(),
            field.accepts,
            field.variable(),
        )
        .ok();
    }
    text
}

fn render_other_variables() -> String {
    let mut text = "\n## Other variables\n\n".to_owned();
    for alias in ALIASES {
        writeln!(
            text,
            "- `{}`: another name for `{}`; the variable of that setting wins over it.",
            alias.name,
            alias.settings.join("`, `"),
        )
        .ok();
    }
    let url = crate::environment::URL_VARIABLE;
    let default = crate::environment::DEFAULT_URL;
    writeln!(
        text,
        "- `{url}`: where a client's commands find the server; `--url` wins over it, and it over `cache.remote` of \
         `zim config`. Default: `{default}`.\n\
         - `ZIMCACHE_TOKEN`, `ZIM_CLOUD_TOKEN`, `ZIMCACHE_NAMESPACE`: likewise for `--token` and `--namespace`. A token \
         may name its place instead: `env:NAME` or `file:PATH`.\n\
         - `ZIMCACHE_CONFIG`: the file of `zim config`, instead of `zimcache/config.toml` in the user's configuration \
         folder.\n\
         - `SSL_CERT_FILE`, `SSL_CERT_DIR`: authorities that clients trust, instead of the system's.\n\
         - `XDG_CACHE_HOME`, `XDG_CONFIG_HOME`, `HOME`: where the user's folders are, for the defaults of `storage` and \
         `auth.tokens`."
    )
    .ok();
    text
}
