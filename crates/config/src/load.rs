//! Layers the sources of a configuration: defaults < file < environment < flags.
//!
//! Every source is taken apart into assignments of one value to one setting, and each is checked alone, so that all
//! problems of all sources are told at once, each with its setting, its origin and what is accepted. Then the last
//! assignment of each setting wins and the whole is validated.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};
use zimcache_types::Code;

use crate::{
    Environment, Field, Namespaces, Origin, Problem, Problems, ServeConfig, field::VARIABLE_PREFIX,
};

/// Another name of settings in the environment.
#[derive(Debug, Clone, Copy)]
pub struct Alias {
    /// The variable.
    pub name: &'static str,
    /// The settings it sets, by full name.
    pub settings: &'static [&'static str],
    /// What a value of the variable means for each of them, in their order.
    read: fn(&str) -> Vec<String>,
}

/// Older and shorter names of environment variables, with the settings each one sets.
pub const ALIASES: [Alias; 16] = [
    alias("MAX_CACHE_SIZE", &["store.max-size"]),
    Alias {
        name: "CACHE_RETENTION_DAYS",
        settings: &["store.retention"],
        read: |days| vec![format!("{}d", days.trim())],
    },
    alias("OTEL_EXPORTER_OTLP_ENDPOINT", &["telemetry.otlp-endpoint"]),
    alias(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        &["telemetry.otlp-endpoint"],
    ),
    alias("OTEL_TRACES_SAMPLER_ARG", &["telemetry.sample-ratio"]),
    alias("ZIMCACHE_TOKENS", &["auth.tokens"]),
    alias("BUILDER_CACHE_SERVER_HOST", &["bind"]),
    alias("BUILDER_CACHE_SERVER_PORT", &["port"]),
    alias("BUILDER_CACHE_SERVER_STORAGE", &["storage"]),
    alias("BUILDER_CACHE_SERVER_MAX_SIZE", &["store.max-size"]),
    alias("BUILDER_CACHE_SERVER_AUTH_TOKEN", &["auth.token"]),
    Alias {
        name: "BUILDER_CACHE_SERVER_ENABLE_COMPRESSION",
        settings: &["store.compression"],
        read: |switch| vec![if truth(switch) { "auto" } else { "off" }.to_owned()],
    },
    Alias {
        name: "BUILDER_CACHE_SERVER_ENABLE_RATE_LIMITING",
        settings: &["limits.global", "limits.per-address", "limits.per-token"],
        read: |switch| {
            let rates = ["1000/s burst 10000", "10/s burst 100", "50/s burst 500"];
            rates
                .iter()
                .filter(|_| truth(switch))
                .map(ToString::to_string)
                .collect()
        },
    },
    Alias {
        name: "BUILDER_CACHE_SERVER_ENABLE_METRICS",
        settings: &["gateway.metrics"],
        read: |switch| vec![truth(switch).to_string()],
    },
    alias("BUILDER_CACHE_SERVER_TLS_CERT", &["tls.cert"]),
    alias("BUILDER_CACHE_SERVER_TLS_KEY", &["tls.key"]),
];

/// A variable whose value is that of one setting.
const fn alias(name: &'static str, settings: &'static [&'static str]) -> Alias {
    Alias {
        name,
        settings,
        read: |text| vec![text.to_owned()],
    }
}

fn truth(switch: &str) -> bool {
    matches!(
        switch.trim().to_ascii_lowercase().as_str(),
        "1" | "true" | "yes" | "on"
    )
}

/// Why no configuration came out.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// Settings are unknown or refused.
    #[error(transparent)]
    Refused(#[from] Problems),
}

impl LoadError {
    /// What kind of failure this is.
    pub const fn code(&self) -> Code {
        match self {
            LoadError::File { .. } | LoadError::Syntax { .. } => Code::Invalid,
            LoadError::Refused(problems) => problems.code(),
        }
    }
}

/// One value for one setting, from one source.
#[derive(Debug)]
struct Assignment {
    field: &'static Field,
    value: Value,
    origin: Origin,
}

/// Loads the configuration of `zim cache serve`. `flags` holds the flags given, with their dashes, and their texts; a
/// list is separated by commas.
///
/// # Errors
/// [`LoadError`]; unknown and refused settings of all sources come together.
pub fn load_serve(
    file: Option<&Path>,
    environment: &Environment,
    flags: &[(&str, String)],
) -> Result<ServeConfig, LoadError> {
    let mut problems = Problems::default();
    let mut assignments = Vec::new();
    let mut namespaces = Namespaces::default();
    if let Some(path) = file {
        let mut file = read_file(path)?;
        namespaces = take_namespaces(path, &mut file, &mut problems);
        take_file(path, file, &mut assignments, &mut problems);
    }
    take_environment(environment, &mut assignments, &mut problems);
    take_flags(flags, &mut assignments);
    let mut table = Table::new();
    let mut origins = BTreeMap::new();
    for Assignment {
        field,
        value,
        origin,
    } in assignments
    {
        match accepted_form(field, &value) {
            Some(value) => set(&mut table, field, value),
            None => problems
                .0
                .push(refusal(field, &value).at(Some(origin.clone()))),
        }
        origins.insert(field.path(), origin);
    }
    problems.into_result()?;
    let mut config: ServeConfig = Value::Table(table).try_into().map_err(whole_refused)?;
    config.namespaces = namespaces;
    config.storage = config.storage.or_else(|| environment.default_storage());
    config.auth.tokens = config.auth.tokens.or_else(|| environment.default_tokens());
    config
        .validate()
        .map_err(|found| with_origins(found, &origins))?;
    Ok(config)
}

fn read_file(path: &Path) -> Result<Table, LoadError> {
    let text = fs::read_to_string(path).map_err(|source| LoadError::File {
        path: path.to_owned(),
        source,
    })?;
    text.parse().map_err(|source| LoadError::Syntax {
        path: path.to_owned(),
        source,
    })
}

/// Takes the one part of a file whose names are not known in advance out of it.
fn take_namespaces(path: &Path, file: &mut Table, problems: &mut Problems) -> Namespaces {
    let Some(value) = file.remove("namespaces") else {
        return Namespaces::default();
    };
    value.try_into().unwrap_or_else(|error: toml::de::Error| {
        problems.0.push(Problem {
            field: "namespaces".to_owned(),
            origin: Some(Origin::File(path.display().to_string())),
            text: error.message().trim().to_owned(),
        });
        Namespaces::default()
    })
}

fn take_file(path: &Path, file: Table, assignments: &mut Vec<Assignment>, problems: &mut Problems) {
    let origin = Origin::File(path.display().to_string());
    for (name, value) in flattened(file) {
        match field_of_path(&name) {
            Some(field) => assignments.push(Assignment {
                field,
                value,
                origin: origin.clone(),
            }),
            None => problems.0.push(unknown_in_file(name, &origin)),
        }
    }
}

/// The table's values by full name. Sections are one level deep.
fn flattened(table: Table) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(section) => {
                all.extend(
                    section
                        .into_iter()
                        .map(|(inner, value)| (format!("{name}.{inner}"), value)),
                );
            }
            value => all.push((name, value)),
        }
    }
    all
}

fn take_environment(
    environment: &Environment,
    assignments: &mut Vec<Assignment>,
    problems: &mut Problems,
) {
    // Aliases first: the full name wins over them.
    for alias in ALIASES {
        let Some(text) = environment.get(alias.name) else {
            continue;
        };
        let fields = alias.settings.iter().filter_map(|path| field_of_path(path));
        for (field, value) in fields.zip((alias.read)(text)) {
            assignments.push(Assignment {
                field,
                value: Value::String(value),
                origin: Origin::Variable(alias.name.to_owned()),
            });
        }
    }
    for (name, text) in environment.starting_with(VARIABLE_PREFIX) {
        match ServeConfig::all_fields().find(|field| field.variable() == name) {
            // Set but empty is how many launchers say "not set".
            Some(_) if text.is_empty() => {}
            Some(field) => assignments.push(Assignment {
                field,
                value: Value::String(text.to_owned()),
                origin: Origin::Variable(name.to_owned()),
            }),
            None => problems.0.push(unknown_variable(name)),
        }
    }
}

fn take_flags(flags: &[(&str, String)], assignments: &mut Vec<Assignment>) {
    for (flag, text) in flags {
        let field = ServeConfig::all_fields().find(|field| field.flag == Some(flag));
        debug_assert!(field.is_some(), "{flag} sets no setting");
        if let Some(field) = field {
            assignments.push(Assignment {
                field,
                value: Value::String(text.clone()),
                origin: Origin::Flag((*flag).to_owned()),
            });
        }
    }
}

fn field_of_path(path: &str) -> Option<&'static Field> {
    ServeConfig::all_fields().find(|field| field.path() == path)
}

/// The form of the value that the setting takes; text also stands for numbers, truth values and lists.
fn accepted_form(field: &Field, value: &Value) -> Option<Value> {
    let mut forms = vec![value.clone()];
    if let Value::String(text) = value {
        forms.extend(text.parse().map(Value::Integer));
        forms.extend(text.parse().map(Value::Boolean));
        let items = text.split(',').map(|item| item.trim().into()).collect();
        forms.push(Value::Array(items));
    }
    forms.into_iter().find(|form| {
        let mut alone = Table::new();
        set(&mut alone, field, form.clone());
        Value::Table(alone).try_into::<ServeConfig>().is_ok()
    })
}

fn set(table: &mut Table, field: &Field, value: Value) {
    if field.section.is_empty() {
        table.insert(field.name(), value);
        return;
    }
    let section = table
        .entry(field.section)
        .or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(section) = section {
        section.insert(field.name(), value);
    }
}

/// Settings that hold passwords: what was given for them is not told.
const SECRETS: [&str; 2] = ["auth.token", "limits.redis"];

fn refusal(field: &Field, value: &Value) -> Problem {
    if SECRETS.contains(&&*field.path()) {
        return Problem::refused(field, "what was given");
    }
    Problem::refused(field, &value.to_string())
}

fn unknown_in_file(name: String, origin: &Origin) -> Problem {
    let section = name.split_once('.').map_or("", |(section, _)| section);
    let known = ServeConfig::all_fields().any(|field| field.section == section);
    let alike = ServeConfig::all_fields().filter(|field| !known || field.section == section);
    let names: Vec<String> = alike.map(Field::path).collect();
    Problem {
        field: name,
        origin: Some(origin.clone()),
        text: format!("there is no such setting; accepted: {}", names.join(", ")),
    }
}

fn unknown_variable(name: &str) -> Problem {
    let names: Vec<String> = ServeConfig::all_fields().map(Field::variable).collect();
    Problem {
        field: name.to_owned(),
        origin: None,
        text: format!("there is no such variable; accepted: {}", names.join(", ")),
    }
}

/// Unreachable while every value was accepted alone; told rather than hidden.
fn whole_refused(error: toml::de::Error) -> Problems {
    Problems(vec![Problem {
        field: "configuration".to_owned(),
        origin: None,
        text: error.message().to_owned(),
    }])
}

fn with_origins(found: Problems, origins: &BTreeMap<String, Origin>) -> Problems {
    let told = found.0.into_iter().map(|problem| {
        let origin = origins.get(&problem.field).cloned();
        problem.at(origin)
    });
    Problems(told.collect())
}
