//! `zim setup`: what it prints, writes and proves, for every tool.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::process::{Ended, Folder, Server, ended, run, zim};

fn tools() -> Vec<String> {
    let list = run(&["setup", "list"]).out;
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

/// Runs it in a project of a user.
fn setup(folder: &Folder, words: &[&str]) -> Ended {
    let mut command = zim(&["setup"]);
    command.args(words).current_dir(folder.path());
    ended(command.env("HOME", folder.path().join("home")))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn every_tool_has_its_value_back_from_a_real_server() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    for tool in tools() {
        for namespace in [&[][..], &["--namespace", "team-a"]] {
            let mut words = vec!["setup", &tool, "--check"];
            words.extend(namespace);
            let checked = ended(zim(&words).args(["--url", &server.url()]));
            assert_eq!(checked.code, 0, "{tool}: {}", checked.err);
            assert!(checked.out.starts_with("ok: "), "{tool}: {}", checked.out);
        }
    }
}

#[test]
fn a_check_tells_readers_and_wrong_tokens_apart() {
    let folder = Folder::new();
    let file = folder.path().join("tokens.toml");
    let file = file.to_str().unwrap();
    let words = [
        "token",
        "create",
        "--namespace",
        "team-a",
        "--scope",
        "read",
        "--file",
        file,
    ];
    let token = run(&words).out;
    let server = Server::start(&folder, &["--tokens", file]);
    let check = |tool: &str, token: &str| {
        let mut command = zim(&["setup", tool, "--check", "--namespace", "team-a"]);
        ended(command.args(["--url", &server.url(), "--token", token]))
    };
    for tool in tools() {
        let reader = check(&tool, token.trim());
        assert_eq!(reader.code, 0, "{tool}: {}", reader.err);
        assert!(reader.out.contains("read-only"), "{tool}: {}", reader.out);
        let wrong = check(&tool, "zim_wrong_token");
        assert_eq!(wrong.code, 1, "{tool}");
        assert!(wrong.out.starts_with("failed: "), "{tool}: {}", wrong.out);
        assert!(!wrong.err.is_empty(), "{tool}");
    }
}

#[test]
fn a_check_without_a_server_says_that_there_is_none() {
    let checked = run(&["setup", "nx", "--check", "--url", "http://127.77.77.77:1"]);
    assert_eq!(checked.code, 1);
    assert!(checked.err.contains("no server answers"), "{}", checked.err);
}

#[test]
fn programs_get_variables_and_nothing_else() {
    let words = ["--url", "http://c:1", "--namespace", "n", "--format", "env"];
    let turbo = ended(zim(&["setup", "turbo", "--token", "t"]).args(words)).out;
    assert_eq!(turbo, "TURBO_API=http://c:1\nTURBO_TOKEN=t\nTURBO_TEAM=n\n");
    let mut from_file = zim(&["setup", "nx"]);
    let nx = ended(from_file.args(words).env("ZIMCACHE_TOKEN", "t")).out;
    assert_eq!(
        nx,
        "NX_SELF_HOSTED_REMOTE_CACHE_SERVER=http://c:1/ns/n\nNX_SELF_HOSTED_REMOTE_CACHE_ACCESS_TOKEN=t\n"
    );
    assert_eq!(run(&["setup", "bazel", "--format", "env"]).code, 2);
    assert_eq!(run(&["setup", "make"]).code, 2);
}

#[test]
fn lines_are_written_once_and_changed_in_place_and_the_file_before_is_kept() {
    let folder = Folder::new();
    let file = folder.path().join(".bazelrc");
    fs::write(&file, "build --jobs=4\n").unwrap();
    let first = setup(&folder, &["bazel", "--write", "--url", "http://one:1"]);
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(
        first.out.contains("+ build --remote_cache=http://one:1\n"),
        "{}",
        first.out
    );
    let again = setup(&folder, &["bazel", "--write", "--url", "http://one:1"]);
    assert!(again.out.contains("says so already"), "{}", again.out);
    setup(&folder, &["bazel", "--write", "--url", "http://two:2"]);
    let text = fs::read_to_string(&file).unwrap();
    let block = "# zimcache: begin\nbuild --remote_cache=http://two:2\n# zimcache: end\n";
    assert_eq!(text, format!("build --jobs=4\n{block}"));
    let before = folder.path().join(".bazelrc.before-zimcache");
    assert!(fs::read_to_string(before).unwrap().contains("http://one:1"));
}

#[test]
fn the_other_way_of_the_same_tool_takes_the_place_of_the_first() {
    let folder = Folder::new();
    setup(&folder, &["bazel", "--write", "--url", "http://one:1"]);
    let words = ["--write", "--url", "https://two", "--namespace", "team/a"];
    let written = setup(&folder, &[&["bazel-grpc"][..], &words].concat());
    assert_eq!(written.code, 0, "{}", written.err);
    let text = fs::read_to_string(folder.path().join(".bazelrc")).unwrap();
    let lines = "build --remote_cache=grpcs://two:443\nbuild --remote_instance_name=team/a\n";
    assert_eq!(text, format!("# zimcache: begin\n{lines}# zimcache: end\n"));
}

#[test]
fn somebody_elses_cache_stays_unless_forced() {
    let folder = Folder::new();
    let file = folder.path().join("home/.config/ccache/ccache.conf");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "remote_storage = redis://other\nmax_size = 5G\n").unwrap();
    let refused = setup(&folder, &["ccache", "--write"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("redis://other"), "{}", refused.err);
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .starts_with("remote_storage = redis")
    );
    let forced = setup(&folder, &["ccache", "--write", "--force"]);
    assert_eq!(forced.code, 0, "{}", forced.err);
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.starts_with("# remote_storage = redis://other\nmax_size = 5G\n"),
        "{text}"
    );
}

#[test]
fn a_token_goes_to_files_of_the_user_alone() {
    let folder = Folder::new();
    let home = folder.path().join("home");
    for tool in [
        "bazel",
        "ccache",
        "sccache",
        "gradle",
        "moon",
        "metro",
        "buck2",
        "buildstream",
    ] {
        let written = setup(&folder, &[tool, "--write", "--token", "hush-hush"]);
        assert_eq!(written.code, 0, "{tool}: {}", written.err);
    }
    for name in [
        ".bazelrc",
        ".config/ccache/ccache.conf",
        ".config/sccache/config",
        ".config/zimcache/access-token",
    ] {
        let file = home.join(name);
        assert!(
            fs::read_to_string(&file).unwrap().contains("hush-hush"),
            "{name}"
        );
        assert_eq!(mode(&file), 0o600, "{name}");
    }
    for name in [
        "settings.gradle",
        ".moon/workspace.yml",
        "metro.config.js",
        ".buckconfig.local",
    ] {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(
            text.contains("ZIMCACHE_TOKEN") && !text.contains("hush"),
            "{text}"
        );
    }
}

#[test]
fn what_cannot_be_written_says_what_to_do_instead() {
    let folder = Folder::new();
    let turbo = setup(&folder, &["turbo", "--write"]);
    assert_eq!(turbo.code, 2);
    assert!(turbo.err.contains("TURBO_API="), "{}", turbo.err);
    fs::create_dir(folder.path().join(".mvn")).unwrap();
    fs::write(folder.path().join(".mvn/extensions.xml"), "<extensions/>\n").unwrap();
    let maven = setup(&folder, &["maven", "--write", "--force"]);
    assert_eq!(maven.code, 1);
    assert!(maven.err.contains("by hand"), "{}", maven.err);
    let config = folder.path().join(".mvn/maven-build-cache-config.xml");
    assert!(!config.exists(), "all files or none");
}

#[test]
fn the_readme_has_the_lines_of_every_tool() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let known: Vec<_> = readme.lines().collect();
    for tool in tools() {
        let text = run(&["setup", &tool]).out;
        let comments = ["# ", "// ", "<!-- "];
        let is_line =
            |line: &&str| !line.is_empty() && !comments.iter().any(|mark| line.starts_with(mark));
        let lines: Vec<_> = text.lines().filter(is_line).collect();
        assert!(!lines.is_empty(), "{tool}");
        for line in lines {
            assert!(known.contains(&line), "{tool}: {line}");
        }
    }
}
