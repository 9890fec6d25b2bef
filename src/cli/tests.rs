//! Words as people type them.

use super::*;
use clap::CommandFactory;

#[test]
fn every_verb_is_parsed_without_a_clash_of_names() {
    Cli::command().debug_assert();
    for line in [
        "init /tmp/x",
        "check --explain ce.memory",
        "doctor --json",
        "image build debian-12",
        "site install --to /x --size 6G --dry-run",
        "site report",
        "site pack -o x",
        "site pack a b -o x --sign k --with-keys --fast",
        "site show x.bundle",
        "site install x.bundle --site dcu --to /dev/sdb --keys k",
        "site backup ce ui --to /srv/b --key /k --allow-long-pause",
        "site replicate --to root@standby:2222 --standby-state /s2",
        "site restore /srv/b --name dcu --at yesterday --insecure-unsigned --replace",
        "site backup --list --to ssh://h/b",
        "site install --table sites.csv --yes",
        "profile list",
        "profile render ce /etc/motd",
        "plan ce",
        "up",
        "up --desired",
        "down --purge ce",
        "clone ui wn2 --role wn --set memory=1G --new-disk",
        "status",
        "start ce",
        "stop ce",
        "restart ce",
        "kill ce",
        "limit ce cpu=50% memory=none",
        "personalise ce --diff",
        "personalise ui --as wn --new-identity",
        "personalise --disk /d --partition 2 --as ce",
        "personalise --tree /t --hostname ce --domain example.org --address 10.0.0.2/24 --mac 52:54:00:00:00:01",
        "wait ce --for stopped --timeout 5s",
        "console ce --read-only",
        "console --all",
        "console --all ce se ui",
        "console ce --log --boot -1 --since -5min --until 10:00 --grep panic",
        "console --broadcast hello",
        "ssh ce hostname -f",
        "enter -- ls -l",
        "gc --dry-run",
        "units --to /tmp/x",
        "generate man /tmp/x",
        "names",
        "launch ce",
        "hold",
        "guard ce --limit 100ms",
        "hosted --input -- status a+20b",
        "network up",
        "unit stop ce",
    ] {
        let words = ["gridgate", "--state", "/s"].into_iter().chain(line.split(' '));
        let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(cli.state, PathBuf::from("/s"), "{line}");
    }
}

/// clap takes both for one argument, and the verb then ends in a panic.
#[test]
fn no_verb_has_an_argument_with_the_name_of_a_global_one() {
    let cli = Cli::command();
    let global: Vec<_> = cli.get_arguments().map(clap::Arg::get_id).collect();
    for verb in cli.get_subcommands() {
        for argument in verb.get_arguments() {
            assert!(!global.contains(&argument.get_id()), "{} {}", verb.get_name(), argument.get_id());
        }
    }
}
