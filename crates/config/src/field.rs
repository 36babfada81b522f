//! One setting as data: its name, what it accepts, which flag sets it, what it means. And the macro that declares a
//! struct of settings so that its type, default, accepted values and text have exactly one home.
//!
//! Not here: reading any source (`load`), rendering the reference page (`reference`).

/// Prefix of the environment variables that set `zim cache serve`.
pub const VARIABLE_PREFIX: &str = "ZIMCACHE_SERVE__";

/// One setting of a binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Section it belongs to; empty for the top level.
    pub section: &'static str,
    /// Name of the field in the struct.
    pub ident: &'static str,
    /// What it accepts, as the rest of a sentence that starts with "accepted: ".
    pub accepts: &'static str,
    /// The flag of `zim cache serve` that sets it, with its dashes.
    pub flag: Option<&'static str>,
    /// What it means, one line of text per item.
    pub about: &'static [&'static str],
}

impl Field {
    /// Name in a file, inside its section: `max-size`.
    pub fn name(&self) -> String {
        self.ident.replace('_', "-")
    }

    /// Full name: `store.max-size`.
    pub fn path(&self) -> String {
        if self.section.is_empty() {
            return self.name();
        }
        format!("{}.{}", self.section, self.name())
    }

    /// Name of the environment variable: `ZIMCACHE_SERVE__STORE__MAX_SIZE`.
    pub fn variable(&self) -> String {
        let path = match self.section {
            "" => self.ident.to_owned(),
            section => format!("{section}__{}", self.ident),
        };
        format!("{VARIABLE_PREFIX}{}", path.to_uppercase())
    }

    /// What it means, in one line.
    pub fn text(&self) -> String {
        let lines: Vec<&str> = self.about.iter().map(|line| line.trim()).collect();
        lines.join(" ")
    }
}

/// Declares a struct of settings with serde forms, `Default` and `FIELDS`. A field reads
/// `name: Type = default, accepts "…", flag "--…";`. Fields of `sections` are such structs themselves.
macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident in $section:literal {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($($serde:tt)+)])?
                $field:ident: $type:ty = $default:expr, accepts $accepts:literal $(, flag $flag:literal)?;
            )+
        }
        $(sections {
            $(
                $(#[doc = $nested_doc:literal])+
                $nested:ident: $nested_type:ty;
            )+
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                $(#[serde($($serde)+)])?
                pub $field: $type,
            )+
            $($(
                $(#[doc = $nested_doc])+
                pub $nested: $nested_type,
            )+)?
        }

        impl Default for $name {
            fn default() -> Self {
                $name {
                    $($field: $default,)+
                    $($($nested: <$nested_type>::default(),)+)?
                }
            }
        }

        impl $name {
            /// The settings of this section, in the order of the reference page; without nested sections.
            pub const FIELDS: &'static [$crate::field::Field] = &[$(
                $crate::field::Field {
                    section: $section,
                    ident: stringify!($field),
                    accepts: $accepts,
                    flag: $crate::field::settings!(@flag $($flag)?),
                    about: &[$($doc),+],
                },
            )+];
        }
    };
    (@flag) => { None };
    (@flag $flag:literal) => { Some($flag) };
}
pub(crate) use settings;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_one_name_per_source() {
        let field = Field {
            section: "store",
            ident: "max_size",
            accepts: "",
            flag: None,
            about: &[" one", " two"],
        };
        assert_eq!(field.path(), "store.max-size");
        assert_eq!(field.variable(), "ZIMCACHE_SERVE__STORE__MAX_SIZE");
        assert_eq!(field.text(), "one two");
        let top = Field {
            section: "",
            ..field
        };
        assert_eq!(
            (top.path(), top.variable()),
            ("max-size".to_owned(), "ZIMCACHE_SERVE__MAX_SIZE".to_owned())
        );
    }
}
