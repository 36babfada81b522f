//! Gradle's HTTP build cache: a block of `settings.gradle` and a property. The token is a variable's.

use super::{
    check::{Outcome, Probe},
    snippet::{Cache, FilePart, Merge, Part, Place, Snippet, TOKEN_VARIABLE},
};
use crate::error::Result;

const TYPE: (&str, &str) = (
    "content-type",
    "application/vnd.gradle.build-cache-artifact.v1",
);

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let url = cache.at("/cache/");
    let mut text = format!(
        "buildCache {{\n    remote(HttpBuildCache) {{\n        url = '{url}'\n        push = true\n"
    );
    if !cache.is_https() {
        text.push_str("        allowInsecureProtocol = true\n");
    }
    if cache.token().is_some() {
        let line = format!(
            "        credentials {{ username = 'zim'; password = System.getenv('{TOKEN_VARIABLE}') }}\n"
        );
        text.push_str(&line);
    }
    text.push_str("    }\n}\n");
    let file = |path, comment, foreign, text| {
        Part::File(FilePart {
            place: Place::Project,
            path,
            comment: (comment, ""),
            merge: Merge::Block { foreign },
            text,
            secret: false,
        })
    };
    let mut parts = vec![
        file("settings.gradle", "// ", &["buildCache"], text),
        file(
            "gradle.properties",
            "# ",
            &["org.gradle.caching"],
            "org.gradle.caching=true\n".to_owned(),
        ),
    ];
    parts.extend(cache.token_variable());
    Snippet {
        parts,
        notes: vec![
            "Who may only read has to say push = false: a refused upload switches Gradle's cache off.",
            "allowInsecureProtocol exists from Gradle 6 on.",
        ],
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let path = probe.room(&format!("/cache/{}", probe.hex(32)));
    probe.round_trip(&path, &[TYPE])
}
