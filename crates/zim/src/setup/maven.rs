//! Maven's build cache extension: two files of the project, and the token in the user's settings.

use super::{
    check::{Outcome, Probe},
    snippet::{Cache, FilePart, Merge, Part, Place, Snippet, TOKEN_VARIABLE},
};
use crate::error::Result;

const EXTENSIONS: &str = "\
<extensions>
  <extension>
    <groupId>org.apache.maven.extensions</groupId>
    <artifactId>maven-build-cache-extension</artifactId>
    <version>1.3.0</version>
  </extension>
</extensions>
";

/// Whether Maven shows its password unasked.
const PREEMPTIVE: &str = "-Daether.connector.http.preemptiveAuth";

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let url = cache.at("/maven");
    let config = format!(
        "<cache xmlns=\"http://maven.apache.org/BUILD-CACHE-CONFIG/1.2.0\">\n  <configuration>\n    \
         <remote enabled=\"true\" saveToRemote=\"true\" id=\"zim\"><url>{url}</url></remote>\n  \
         </configuration>\n</cache>\n"
    );
    let file = |place, path, text| {
        Part::File(FilePart {
            place,
            path,
            comment: ("<!-- ", " -->"),
            merge: Merge::Whole,
            text,
            secret: false,
        })
    };
    let mut parts = vec![
        file(Place::Project, ".mvn/extensions.xml", EXTENSIONS.to_owned()),
        file(Place::Project, ".mvn/maven-build-cache-config.xml", config),
    ];
    if let Some(variable) = cache.token_variable() {
        let settings = format!(
            "<settings>\n  <servers>\n    <server><id>zim</id><username>zim</username>\
             <password>${{env.{TOKEN_VARIABLE}}}</password></server>\n  </servers>\n</settings>\n"
        );
        parts.push(file(Place::Home, ".m2/settings.xml", settings));
        // Without it Maven reads as a stranger wherever strangers may read.
        parts.push(Part::File(FilePart {
            place: Place::Project,
            path: ".mvn/maven.config",
            comment: ("# ", ""),
            merge: Merge::Block {
                foreign: &[PREEMPTIVE],
            },
            text: format!("{PREEMPTIVE}=true\n"),
            secret: false,
        }));
        parts.push(variable);
    }
    Snippet {
        parts,
        notes: vec!["Maven 3.9 or later; Maven 4 is not supported by the extension yet."],
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let checksum = probe.hex(16);
    let path = format!("/maven/v1.2/zimcache.check/check/{checksum}/buildinfo.xml");
    probe.round_trip(
        &probe.room(&path),
        &[("cache-control", "no-cache, no-store")],
    )
}
