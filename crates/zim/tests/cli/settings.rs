//! What needs no server: settings, help, completions, and refusals of what cannot be meant.

use super::process::{Folder, ended, run, zim};

#[test]
fn print_config_prints_a_file_that_means_the_same() {
    let folder = Folder::new();
    let file = folder.path().join("zim.toml");
    let flags = [
        "--port",
        "0",
        "--max-size",
        "3GB",
        "--bind",
        "127.0.0.1",
        "--bind",
        "::1",
    ];
    let serve = ["cache", "serve", "--print-config"];
    let printed = ended(
        zim(&serve)
            .args(flags)
            .args(["--access-log", "--drain-timeout", "90s"]),
    );
    assert_eq!((printed.code, &*printed.err), (0, ""));
    assert!(
        printed.out.contains("max-size = \"3GB\""),
        "{}",
        printed.out
    );
    assert!(
        printed
            .out
            .contains("storage = \"/nonexistent/.cache/zimcache/store\"")
    );
    std::fs::write(&file, &printed.out).unwrap();
    let again = ended(zim(&serve).arg("--config").arg(&file));
    assert_eq!(again.out, printed.out);
}

#[test]
fn passwords_in_the_url_of_redis_are_printed_nowhere() {
    let url = "redis://cache:s3cret@host:7000";
    let given: [(&[&str], &str); 2] = [(&["--redis-url", url], ""), (&[], url)];
    for (flags, variable) in given {
        let mut command = zim(&["cache", "serve", "--print-config"]);
        command.args(flags);
        command.env("ZIMCACHE_SERVE__LIMITS__REDIS", variable);
        let printed = ended(&mut command).out;
        assert!(
            printed.contains("redis = \"redis://cache:***@host:7000/0\""),
            "{printed}"
        );
    }
    let bad = ["--redis-url", "redis//:s3cret@host"];
    let told = ended(zim(&["cache", "serve", "--check"]).args(bad));
    assert_eq!(told.code, 2);
    assert!(
        told.err.contains("limits.redis (--redis-url)"),
        "{}",
        told.err
    );
    assert!(!told.err.contains("s3cret"), "{}", told.err);
}

#[test]
fn layers_reach_the_server_in_their_order() {
    let folder = Folder::new();
    let file = folder.path().join("zim.toml");
    std::fs::write(
        &file,
        "port = 1\n[store]\nmax-size = '1GB'\n[gateway]\nmax-connections = 11",
    )
    .unwrap();
    let mut command = zim(&[
        "cache",
        "serve",
        "--print-config",
        "--port",
        "3",
        "--config",
    ]);
    command
        .arg(&file)
        .env("MAX_CACHE_SIZE", "200GB")
        .env("ZIMCACHE_SERVE__PORT", "2");
    let printed = ended(&mut command).out;
    for line in ["port = 3", "max-size = \"200GB\"", "max-connections = 11"] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
}

#[test]
fn check_tells_every_problem_and_starts_nothing() {
    let folder = Folder::new();
    let store = folder.store();
    let fine = run(&["cache", "serve", "--check", "--storage", &store]);
    assert_eq!((fine.code, &*fine.out), (0, "the configuration is fine\n"));
    let mut command = zim(&["cache", "serve", "--check", "--storage", &store]);
    command.args(["--port", "http", "--max-size", "1MB", "--log-level", "loud"]);
    command.env("ZIMCACHE_SERVE__STORE__MAXSIZE", "1GB");
    let told = ended(&mut command);
    assert_eq!((told.code, &*told.out), (2, ""));
    let known = [
        "port (--port): \"http\" is not accepted; accepted: a port number from 0 to 65535",
        "log.level (--log-level): \"loud\" is not accepted; accepted: error, warn, info, debug or trace",
        "ZIMCACHE_SERVE__STORE__MAXSIZE: there is no such variable; accepted: ZIMCACHE_SERVE__PORT,",
    ];
    for text in known {
        assert!(told.err.contains(text), "{text}: {}", told.err);
    }
    assert!(!folder.path().join("store").exists());
}

#[test]
fn a_store_that_is_too_small_is_refused_with_the_least_size() {
    let told = run(&["cache", "serve", "--check", "--max-size", "1MB"]);
    assert_eq!(told.code, 2);
    assert!(
        told.err
            .contains("store.max-size (--max-size): 1MB is not accepted"),
        "{}",
        told.err
    );
    assert!(told.err.contains("at least 64MiB"), "{}", told.err);
}

#[test]
fn an_unknown_flag_ends_with_2() {
    assert_eq!(run(&["cache", "serve", "--colour"]).code, 2);
}

#[test]
fn a_start_without_any_folder_says_which_flag_helps() {
    let told = ended(zim(&["cache", "serve", "--port", "0"]).env_remove("HOME"));
    assert_eq!(told.code, 2);
    assert!(told.err.contains("--storage DIR"), "{}", told.err);
}

#[test]
fn help_has_examples_and_defaults() {
    let help = run(&["cache", "serve", "--help"]).out;
    for text in [
        "Examples:",
        "--max-size 100GB",
        "[default: 8080]",
        "[default: 100GB]",
        "ZIMCACHE_SERVE__",
    ] {
        assert!(help.contains(text), "{text}: {help}");
    }
    for command in ["put", "get", "ls", "rm", "stats", "gc", "verify"] {
        let help = run(&["cache", command, "--help"]).out;
        assert!(help.contains("Examples:"), "{command}");
    }
    for command in ["setup", "config", "login", "health", "completions"] {
        let help = run(&[command, "--help"]).out;
        assert!(help.contains("Examples:"), "{command}");
    }
    assert!(run(&["--version"]).out.starts_with("zim "));
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert_eq!(script.code, 0);
        for word in ["max-size", "login"] {
            assert!(script.out.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn a_server_that_is_not_there_is_named_with_ways_out() {
    // Port 1 of a loopback address that nothing else uses.
    let told = run(&["cache", "stats", "--url", "http://127.77.77.77:1"]);
    assert_eq!(told.code, 1);
    assert!(
        told.err
            .contains("no server answers at http://127.77.77.77:1"),
        "{}",
        told.err
    );
    assert!(
        told.err.contains("ZIMCACHE_URL") && told.err.contains("--storage"),
        "{}",
        told.err
    );
    let told = ended(zim(&["cache", "gc"]).env("ZIMCACHE_URL", "http://127.77.77.77:2"));
    assert!(told.err.contains("http://127.77.77.77:2"), "{}", told.err);
}

#[test]
fn a_url_that_names_no_server_is_refused() {
    let told = run(&["cache", "stats", "--url", "127.0.0.1:8080"]);
    assert_eq!(told.code, 2);
    assert!(told.err.contains("http://HOST:PORT"), "{}", told.err);
}

#[test]
fn a_folder_without_a_store_is_left_as_it_is() {
    let folder = Folder::new();
    let told = run(&[
        "cache",
        "verify",
        "--storage",
        folder.path().to_str().unwrap(),
    ]);
    assert_eq!(told.code, 2);
    assert!(told.err.contains("there is no store in"), "{}", told.err);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
