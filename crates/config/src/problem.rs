//! What is wrong with a configuration: every problem at once, each with the setting, where its value came from, the
//! value, and what is accepted.

use std::fmt;

use zimcache_types::Code;

use crate::field::Field;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file, by its path as given.
    File(String),
    /// An environment variable, by name.
    Variable(String),
    /// A flag, by name with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(name) | Origin::Variable(name) | Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// One setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as `store.max-size`; for an unknown name, that name.
    pub field: String,
    /// Where the value came from, where that is known.
    pub origin: Option<Origin>,
    /// What is wrong, with the accepted values or names.
    pub text: String,
}

impl Problem {
    /// The value of a known setting is refused.
    pub fn refused(field: &Field, value: &str) -> Problem {
        Problem {
            field: field.path(),
            origin: None,
            text: format!("{value} is not accepted; accepted: {}", field.accepts),
        }
    }

    /// The same problem, from that origin.
    #[must_use]
    pub fn at(self, origin: Option<Origin>) -> Problem {
        Problem { origin, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} ({origin}): {}", self.field, self.text),
            None => write!(f, "{}: {}", self.field, self.text),
        }
    }
}

/// Everything that is wrong, in the order of the sources and settings. Never empty inside an error.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// What the caller should do: give other values.
    pub const fn code(&self) -> Code {
        Code::Invalid
    }

    /// `Ok` when there are none.
    ///
    /// # Errors
    /// Itself, when there are any.
    pub fn into_result(self) -> Result<(), Problems> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Collects what a section's `validate` finds.
#[derive(Debug)]
pub(crate) struct Checks {
    fields: &'static [Field],
    found: Problems,
}

impl Checks {
    pub(crate) fn new(fields: &'static [Field]) -> Checks {
        Checks {
            fields,
            found: Problems::default(),
        }
    }

    /// Records a problem with the field unless `holds`.
    pub(crate) fn require(&mut self, ident: &str, holds: bool, value: impl fmt::Display) {
        if holds {
            return;
        }
        let field = self.fields.iter().find(|field| field.ident == ident);
        debug_assert!(field.is_some(), "{ident} is checked but not declared");
        if let Some(field) = field {
            self.found
                .0
                .push(Problem::refused(field, &value.to_string()));
        }
    }

    pub(crate) fn finish(self) -> Result<(), Problems> {
        self.found.into_result()
    }
}
