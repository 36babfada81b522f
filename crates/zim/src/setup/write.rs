//! `zim setup TOOL --write`: puts the lines into the tool's usual file, shows what changed, keeps what was there.
//!
//! Our lines stand between two marks, so that the next time replaces them. Invariants: settings for the same thing that
//! somebody else wrote are refused, or with `--force` commented out, never mixed; the file as it was stays beside it; a
//! file with a token is its owner's alone.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::snippet::{FilePart, Merge, Place, Snippet};
use crate::{
    error::{Error, Result},
    output, settings,
};

const BEGIN: &str = "zimcache: begin";
const END: &str = "zimcache: end";
/// What the file as it was is called.
const BACKUP: &str = "before-zimcache";

/// Runs it.
pub(super) fn run(
    tool: &'static str,
    snippet: &Snippet,
    home: Option<&str>,
    force: bool,
) -> Result<ExitCode> {
    let mut planned = Vec::new();
    for part in snippet.files() {
        planned.push(Change::plan(part, path_of(part, home)?, force)?);
    }
    if planned.is_empty() {
        return Err(Error::NothingToWrite {
            tool,
            text: snippet.text(),
        });
    }
    for change in planned {
        change.apply()?;
    }
    if snippet.variables().next().is_some() {
        let text = "variables are your shell's or CI's to set; they are printed by zim setup without --write";
        output::tell(text);
    }
    Ok(ExitCode::SUCCESS)
}

fn path_of(part: &FilePart, home: Option<&str>) -> Result<PathBuf> {
    let folder = match part.place {
        Place::Project => env::current_dir().map_err(Error::Input)?,
        Place::Home => PathBuf::from(home.ok_or(Error::NoSettingsFile)?),
    };
    Ok(folder.join(part.path))
}

/// What becomes of a file.
struct Change {
    path: PathBuf,
    before: Option<String>,
    after: String,
    mode: u32,
}

impl Change {
    fn plan(part: &FilePart, path: PathBuf, force: bool) -> Result<Change> {
        let failed = |source| Error::ReadFile {
            path: path.clone(),
            source,
        };
        let before = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let mode = match (part.secret, &before) {
            (true, _) => 0o600,
            (false, None) => 0o644,
            (false, Some(_)) => fs::metadata(&path).map_err(failed)?.permissions().mode(),
        };
        let merged = merge(part, before.as_deref(), force);
        let after = merged.map_err(|line| Error::ForeignSettings {
            path: path.clone(),
            line,
            whole: part.merge == Merge::Whole,
        })?;
        Ok(Change {
            path,
            before,
            after,
            mode: mode & 0o777,
        })
    }

    fn apply(self) -> Result<()> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::WriteFile { path, source }
        };
        let shown = self.path.display();
        if self.before.as_ref() == Some(&self.after) {
            return output::print(&format!("{shown} says so already\n"));
        }
        if let Some(before) = &self.before {
            let mut name = self.path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{BACKUP}"));
            let backup = self.path.with_file_name(name);
            let kept = settings::replace(&backup, before.as_bytes(), self.mode);
            kept.map_err(failed(&backup))?;
        }
        let written = settings::replace(&self.path, self.after.as_bytes(), self.mode);
        written.map_err(failed(&self.path))?;
        let before = self.before.as_deref().unwrap_or_default();
        output::print(&format!("{shown}\n{}", diff(before, &self.after)))
    }
}

/// The file with our lines in it, or the line that is in the way.
fn merge(part: &FilePart, before: Option<&str>, force: bool) -> Result<String, String> {
    let before = before.unwrap_or_default();
    let foreign = match part.merge {
        Merge::Block { foreign } => foreign,
        Merge::Whole if !before.is_empty() && before != part.text => {
            return Err(before.lines().next().unwrap_or_default().to_owned());
        }
        Merge::Whole | Merge::Ours => return Ok(part.text.clone()),
    };
    let comment = part.comment.0;
    let mut text = String::new();
    let mut setting = None;
    for line in outside(before) {
        let starts = foreign
            .iter()
            .any(|prefix| line.trim_start().starts_with(prefix));
        let goes_on = setting
            .as_ref()
            .is_some_and(|setting: &Setting| setting.has(line));
        if !starts && !goes_on {
            setting = None;
            text.extend([line, "\n"]);
            continue;
        }
        if !force {
            return Err(line.trim().to_owned());
        }
        let begun = setting.take().unwrap_or_else(|| Setting::begun(line));
        setting = Some(begun.with(line));
        text.extend([comment, line, "\n"]);
    }
    text.extend([comment, BEGIN, "\n", &part.text, comment, END, "\n"]);
    Ok(text)
}

/// How far a setting goes that somebody else wrote.
enum Setting {
    /// A section of an INI file, up to the next one.
    Section,
    /// While so many braces are open, or the indentation says so.
    Braces(usize),
}

impl Setting {
    fn begun(line: &str) -> Setting {
        if line.starts_with('[') {
            Setting::Section
        } else {
            Setting::Braces(0)
        }
    }

    /// Whether the next line belongs to it.
    fn has(&self, line: &str) -> bool {
        match self {
            Setting::Section => !line.starts_with('['),
            Setting::Braces(open) => *open > 0 || line.starts_with([' ', '\t']),
        }
    }

    fn with(self, line: &str) -> Setting {
        match self {
            Setting::Section => Setting::Section,
            Setting::Braces(open) => {
                let opened = open + line.matches('{').count();
                Setting::Braces(opened.saturating_sub(line.matches('}').count()))
            }
        }
    }
}

/// The lines that are not between our marks.
fn outside(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let was_inside = inside;
        if line.ends_with(BEGIN) {
            inside = true;
        } else if line.ends_with(END) {
            inside = false;
        }
        !was_inside && !inside
    })
}

/// What differs, without what is the same at both ends.
fn diff(before: &str, after: &str) -> String {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let head = before.iter().zip(&after).take_while(same).count();
    let (old, new) = (&before[head..], &after[head..]);
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(same)
        .count();
    let removed = old[..old.len() - tail]
        .iter()
        .map(|line| format!("- {line}\n"));
    let added = new[..new.len() - tail]
        .iter()
        .map(|line| format!("+ {line}\n"));
    removed.chain(added).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(merge: Merge) -> FilePart {
        FilePart {
            place: Place::Project,
            path: "f",
            comment: ("# ", ""),
            merge,
            text: "ours = 1\n".to_owned(),
            secret: false,
        }
    }

    const OURS: &str = "# zimcache: begin\nours = 1\n# zimcache: end\n";

    fn block() -> FilePart {
        part(Merge::Block { foreign: &["ours"] })
    }

    #[test]
    fn a_block_is_added_and_replaced_and_the_rest_stays() {
        let first = merge(&block(), Some("a = 1\n"), false).unwrap();
        assert_eq!(first, format!("a = 1\n{OURS}"));
        assert_eq!(merge(&block(), Some(&first), false).unwrap(), first);
        let older = first.replace("ours = 1", "ours = 0") + "b = 2\n";
        let again = merge(&block(), Some(&older), false).unwrap();
        assert_eq!(again, format!("a = 1\nb = 2\n{OURS}"));
        assert_eq!(merge(&block(), None, false).unwrap(), OURS);
    }

    #[test]
    fn somebody_elses_setting_is_refused_and_by_force_commented_out() {
        let before = "ours:\n  deep: 1\nz = 1\nours {\n a {\n }\n}\ny\n";
        assert_eq!(merge(&block(), Some(before), false).unwrap_err(), "ours:");
        let forced = merge(&block(), Some(before), true).unwrap();
        let kept = "# ours:\n#   deep: 1\nz = 1\n# ours {\n#  a {\n#  }\n# }\ny\n";
        assert_eq!(forced, format!("{kept}{OURS}"));
    }

    #[test]
    fn somebody_elses_section_is_commented_out_to_its_end() {
        let part = part(Merge::Block {
            foreign: &["[ours]"],
        });
        let before = "[a]\nx = 1\n[ours]\ny = 2\n\nz = 3\n[b]\ny = 4\n";
        assert_eq!(merge(&part, Some(before), false).unwrap_err(), "[ours]");
        let forced = merge(&part, Some(before), true).unwrap();
        let kept = "[a]\nx = 1\n# [ours]\n# y = 2\n# \n# z = 3\n[b]\ny = 4\n";
        assert_eq!(forced, format!("{kept}{OURS}"));
    }

    #[test]
    fn a_file_of_our_own_is_replaced() {
        let ours = part(Merge::Ours);
        assert_eq!(merge(&ours, Some("x\n"), false).unwrap(), "ours = 1\n");
    }

    #[test]
    fn a_whole_file_is_only_written_where_there_is_none() {
        let whole = part(Merge::Whole);
        assert_eq!(merge(&whole, None, false).unwrap(), "ours = 1\n");
        assert_eq!(
            merge(&whole, Some("ours = 1\n"), false).unwrap(),
            "ours = 1\n"
        );
        assert_eq!(merge(&whole, Some("x\n"), true).unwrap_err(), "x");
    }

    #[test]
    fn a_difference_leaves_out_what_is_the_same() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\ny\nc\n"), "- b\n+ x\n+ y\n");
        assert_eq!(diff("", "a\n"), "+ a\n");
    }
}
