//! The files of `deploy/`: every flag, variable, path and setting in them exists, and the installer installs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::process::{Folder, ended, run, zim};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap()
}

const FILES: [&str; 6] = [
    "deploy/Dockerfile",
    "deploy/compose.yaml",
    "deploy/zimcache.service",
    "deploy/nginx.conf",
    "deploy/Caddyfile",
    "docs/deploy.md",
];

/// Commands after `zim` in the files, as word lists: in shell form, and as lists of quoted words.
fn commands(text: &str) -> Vec<Vec<String>> {
    let plain = text.replace(['"', '[', ']', ',', '`', '\''], " ");
    let mut found = Vec::new();
    for line in plain.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let starts = words
            .iter()
            .enumerate()
            .filter(|(_, word)| matches!(**word, "zim" | "/usr/local/bin/zim"));
        for (at, _) in starts {
            found.push(
                words[at + 1..]
                    .iter()
                    .map(|word| (*word).to_owned())
                    .collect(),
            );
        }
    }
    found
}

/// The help of the longest command that the words begin with.
fn help_of(words: &[String]) -> Option<String> {
    let commands = [
        vec!["cache", "serve"],
        vec!["token", "create"],
        vec!["health"],
    ];
    let mut known = commands.into_iter();
    let command = known
        .find(|known| words.iter().zip(known).filter(|(a, b)| a == b).count() == known.len())?;
    let help = run(&[&command[..], &["--help"]].concat());
    assert_eq!(help.code, 0);
    Some(help.out)
}

#[test]
fn every_command_in_the_files_of_deploy_exists_with_its_flags() {
    let mut checked = 0;
    for name in FILES {
        for words in commands(&read(name)) {
            let Some(help) = help_of(&words) else {
                continue;
            };
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(&**flag), "{name}: {flag} of {words:?}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 10, "{checked}");
    // Flags that stand alone, in the comments of the proxies' files and in the text.
    let serve = run(&["cache", "serve", "--help"]).out;
    for flag in [
        "--max-blob-size",
        "--limit-per-address",
        "--htpasswd",
        "--anonymous",
        "--trusted-proxy",
    ] {
        assert!(serve.contains(flag), "{flag}");
    }
}

#[test]
fn the_image_and_the_compose_file_name_what_is_there() {
    let (dockerfile, compose) = (read("deploy/Dockerfile"), read("deploy/compose.yaml"));
    assert!(compose.contains("dockerfile: deploy/Dockerfile") && compose.contains("context: .."));
    for line in ["MAX_CACHE_SIZE: 100GB", "CACHE_RETENTION_DAYS: \"30\""] {
        assert!(compose.contains(line), "{line}");
    }
    let mut command = zim(&["cache", "serve", "--print-config"]);
    command.env("MAX_CACHE_SIZE", "100GB");
    command.env("CACHE_RETENTION_DAYS", "30");
    let in_force = ended(&mut command).out;
    for line in ["max-size = \"100GB\"", "retention = \"30d\""] {
        assert!(in_force.contains(line), "{in_force}");
    }
    let mounted = "/data/cache";
    assert!(compose.contains(&format!("cache:{mounted}\n")));
    assert!(dockerfile.contains(&format!("VOLUME {mounted}\n")));
    assert!(dockerfile.contains(&format!("\"--storage\", \"{mounted}/store\"")));
    assert!(dockerfile.contains("USER 65532:65532\n") && dockerfile.contains("EXPOSE 8080\n"));
    assert!(
        dockerfile.contains("CMD [\"zim\", \"health\"]")
            && compose.contains("test: [CMD, zim, health]")
    );
    assert!(compose.contains("read_only: true"));
}

#[test]
fn the_installer_installs_below_a_folder_and_keeps_settings_that_are_there() {
    let folder = Folder::new();
    let program = env!("CARGO_BIN_EXE_zim");
    let install = || {
        let mut command = Command::new("sh");
        command
            .arg(repository().join("deploy/install.sh"))
            .arg(program);
        command.env("DESTDIR", folder.path()).stdin(Stdio::null());
        ended(&mut command)
    };
    let first = install();
    assert_eq!(first.code, 0, "{}", first.err);
    let settings = folder.path().join("etc/zimcache/zim.toml");
    let installed: BTreeSet<_> = ["usr/local/bin/zim", "etc/systemd/system/zimcache.service"]
        .map(|name| folder.path().join(name).exists())
        .into();
    assert_eq!(installed, BTreeSet::from([true]));
    fs::write(&settings, "port = 8081\n").unwrap();
    assert_eq!(install().code, 0);
    assert_eq!(fs::read_to_string(&settings).unwrap(), "port = 8081\n");
    fs::write(&settings, "prot = 8081\n").unwrap();
    let refused = install();
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("prot"), "{}", refused.err);
}

#[test]
fn the_unit_starts_the_installed_program_with_the_installed_settings() {
    let unit = read("deploy/zimcache.service");
    assert!(
        unit.contains("ExecStart=/usr/local/bin/zim cache serve --config /etc/zimcache/zim.toml\n")
    );
    let settings = read("deploy/zim.toml");
    assert!(settings.contains("storage = \"/var/lib/zimcache/store\""));
    assert!(
        unit.contains("StateDirectory=zimcache\n"),
        "that is /var/lib/zimcache"
    );
    for line in [
        "Restart=always",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "WantedBy=multi-user.target",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}
