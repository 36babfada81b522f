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

use crate::{Environment, Field, Origin, Problem, Problems, ServeConfig, field::VARIABLE_PREFIX};

/// Older and shorter names of environment variables, with the setting each one sets.
pub const ALIASES: [(&str, &str); 1] = [("MAX_CACHE_SIZE", "store.max-size")];

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
    if let Some(path) = file {
        take_file(path, &mut assignments, &mut problems)?;
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
    config.storage = config.storage.or_else(|| environment.default_storage());
    config
        .validate()
        .map_err(|found| with_origins(found, &origins))?;
    Ok(config)
}

fn take_file(
    path: &Path,
    assignments: &mut Vec<Assignment>,
    problems: &mut Problems,
) -> Result<(), LoadError> {
    let text = fs::read_to_string(path).map_err(|source| LoadError::File {
        path: path.to_owned(),
        source,
    })?;
    let table: Table = text.parse().map_err(|source| LoadError::Syntax {
        path: path.to_owned(),
        source,
    })?;
    let origin = Origin::File(path.display().to_string());
    for (name, value) in flattened(table) {
        match field_of_path(&name) {
            Some(field) => assignments.push(Assignment {
                field,
                value,
                origin: origin.clone(),
            }),
            None => problems.0.push(unknown_in_file(name, &origin)),
        }
    }
    Ok(())
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
    for (alias, path) in ALIASES {
        if let (Some(text), Some(field)) = (environment.get(alias), field_of_path(path)) {
            assignments.push(Assignment {
                field,
                value: Value::String(text.to_owned()),
                origin: Origin::Variable(alias.to_owned()),
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

fn refusal(field: &Field, value: &Value) -> Problem {
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
