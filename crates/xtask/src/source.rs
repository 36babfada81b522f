//! A line-based look at Rust source: literals and comments blanked out, test code removed, functions measured.
//!
//! Not a parser: it matches braces after blanking, which is exact for formatted code and within a few percent otherwise.

/// One function outside tests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// Line of `fn`, counted from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
}

/// The source with every comment, string and character literal turned into spaces; line breaks stay.
pub(crate) fn blank(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none starts there.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + block_comment_len(rest),
        [b'"', ..] => at + quoted_len(rest, b'"'),
        [b'r', b'"' | b'#', ..] if !follows_word(bytes, at) => at + raw_string_len(rest),
        [b'\'', b'\\', ..] => at + quoted_len(rest, b'\''),
        [b'\'', ..] => at + character_len(rest),
        _ => at,
    }
}

/// Whether the byte before `at` belongs to a word; the `b` and `c` of `br""` and `cr""` do not count.
fn follows_word(bytes: &[u8], at: usize) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match at.checked_sub(1).map(|i| bytes[i]) {
        Some(b'b' | b'c') => at.checked_sub(2).is_some_and(|i| word(bytes[i])),
        Some(byte) => word(byte),
        None => false,
    }
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string_len(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let body = 2 + hashes;
    let closes = |at: usize| {
        rest[at] == b'"'
            && rest[at + 1..]
                .iter()
                .take(hashes)
                .filter(|b| **b == b'#')
                .count()
                == hashes
    };
    (body..rest.len())
        .find(|at| closes(*at))
        .map_or(rest.len(), |at| at + 1 + hashes)
}

/// Length of a character literal; 0 for a lifetime.
fn character_len(rest: &[u8]) -> usize {
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(6)]);
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some('\'')) => first.len_utf8() + 2,
        _ => 0,
    }
}

/// Blanked source without the modules that are compiled for tests only.
pub(crate) fn without_tests(blanked: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = blanked.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(line);
            continue;
        }
        let mut depth = 0i64;
        for item in lines.by_ref() {
            depth += count(item, '{') - count(item, '}');
            if depth <= 0 && item.contains([';', '}']) {
                break;
            }
        }
    }
    kept.join("\n")
}

fn count(line: &str, what: char) -> i64 {
    i64::try_from(line.matches(what).count()).unwrap_or(i64::MAX)
}

/// Every function that has a body.
pub(crate) fn functions(blanked: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, _) in blanked.match_indices("fn ") {
        if start > 0 && follows_word(blanked.as_bytes(), start) {
            continue;
        }
        let rest = &blanked[start..];
        let name: String = rest[3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if let (false, Some(len)) = (name.is_empty(), body_len(rest)) {
            found.push(Function {
                name,
                line: blanked[..start].matches('\n').count() + 1,
                lines: rest[..len].matches('\n').count() + 1,
            });
        }
    }
    found
}

/// Bytes from `fn` to the end of its body; `None` for a declaration without one.
fn body_len(rest: &str) -> Option<usize> {
    let (mut braces, mut round) = (0usize, 0i64);
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if braces == 0 && round == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_blanked_and_lifetimes_are_not() {
        let source = "let a = \"}\\\"{\"; // }\nlet b = '{'; /* { /* { */ */ fn f<'a>(x: &'a str) {}\nr#\"{\"# br\"{\" for";
        let blanked = blank(source);
        assert_eq!(blanked.matches('{').count(), 1, "{blanked}");
        assert_eq!(blanked.matches('\n').count(), 2);
        assert!(blanked.contains("<'a>") && blanked.ends_with("for"));
    }

    #[test]
    fn functions_are_measured_and_declarations_are_not() {
        let source = "trait T {\n    fn declared(&self) -> [u8; 2];\n}\nfn short() {}\nasync fn long(\n    a: u8,\n) {\n    if a > 1 {\n    }\n}\n";
        let found = functions(&blank(source));
        let seen: Vec<_> = found
            .iter()
            .map(|f| (f.name.as_str(), f.line, f.lines))
            .collect();
        assert_eq!(seen, [("short", 4, 1), ("long", 5, 6)]);
    }

    #[test]
    fn test_modules_do_not_count() {
        let source = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n#[cfg(test)]\nmod tests;\nfn d() {}\n";
        let names: Vec<_> = functions(&without_tests(source))
            .into_iter()
            .map(|f| f.name)
            .collect();
        assert_eq!(names, ["a", "c", "d"]);
    }
}
