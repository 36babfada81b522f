//! YAML of a JSON value, for people: block style, texts quoted as in JSON, which YAML reads alike.
//!
//! Not a general writer: keys must be plain words, as those of the API are. Null values are left out.

use std::fmt::Write as _;

use serde_json::Value;

/// The value as a document.
pub(super) fn render(value: &Value) -> String {
    let mut text = String::new();
    if let Value::Object(_) = value {
        block(value, 0, &mut text);
    }
    text
}

/// Writes an object or a list at this depth, one item a line.
fn block(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            // The map's own order depends on features of other crates.
            fields.sort_by_key(|(name, _)| *name);
            for (name, field) in fields.into_iter().filter(|(_, field)| !field.is_null()) {
                indent(depth, text);
                text.push_str(&key(name));
                text.push(':');
                after(field, depth + 1, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                indent(depth, text);
                text.push('-');
                item_of_list(item, depth + 1, text);
            }
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// What follows `name:`.
fn after(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            block(value, depth, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            block(value, depth, text);
        }
        // Writing to a String cannot fail.
        scalar => drop(writeln!(text, " {scalar}")),
    }
}

/// What follows `-`: the first field of an object stands beside it.
fn item_of_list(value: &Value, depth: usize, text: &mut String) {
    let mut lines = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(value, depth, &mut lines),
        Value::Array(items) if !items.is_empty() => block(value, depth, &mut lines),
        _ => return after(value, depth, text),
    }
    text.push(' ');
    text.push_str(lines.trim_start_matches(' '));
}

fn indent(depth: usize, text: &mut String) {
    text.extend(std::iter::repeat_n("  ", depth));
}

/// A key, quoted where YAML would take it for something else.
fn key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./$".contains(c);
    let keyword = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    if name.chars().all(plain) && !name.is_empty() && !keyword.contains(&name) {
        return name.to_owned();
    }
    Value::from(name).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn objects_lists_and_texts_are_laid_out_as_people_write_them() {
        let value = json!({
            "a": {"b": [1, {"c": "x: y", "d": {}}, []], "off": true, "gone": null},
            "text": "two\nlines"
        });
        let text = super::render(&value);
        let expected = "a:\n  b:\n    - 1\n    - c: \"x: y\"\n      d: {}\n    - []\n  \"off\": true\ntext: \"two\\nlines\"\n";
        assert_eq!(text, expected);
    }
}
