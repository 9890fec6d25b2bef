//! Every key of a profile's file. Reading, checking and hints go by these, as for a site's files.

use super::text;
use crate::config::keys::{Key, Scope, key};
use crate::config::shape::Parted::Words;
use crate::config::shape::Shape::{self, Any, Flag, Integer, Keys, Named, Size, Span, Tables, Text, Texts};

const fn plain(name: &'static str, shape: Shape, example: &'static str) -> Key {
    key(name, &[], shape, example, Scope::Defaults)
}

/// The largest uid and gid that a 32-bit id has, without the one that means "none" (chown(2)).
const LARGEST_ID: i64 = u32::MAX as i64 - 1;

/// Keys of a profile and of a feature.
pub(super) const PROFILE: &[Key] = &[
    plain("description", Text(text::line), "\"computing element\""),
    plain("extends", Text(text::name), "\"base\""),
    plain("features", Texts(Words, text::name), "[\"munge\", \"slurm-node\"]"),
    plain(
        "variables",
        Named(text::variable, VARIABLE),
        "{ queue = { type = \"text\", default = \"grid\" } }",
    ),
    plain("packages", Texts(Words, text::package), "[\"slurmd\", \"munge\"]"),
    plain("group", Tables(GROUP), "[{ name = \"slurm\", gid = 64030 }]"),
    plain("user", Tables(USER), "[{ name = \"slurm\", uid = 64030 }]"),
    plain("directory", Tables(DIRECTORY), "[{ path = \"/srv/arc\" }]"),
    plain("file", Tables(FILE), "[{ path = \"/etc/arc.conf\", template = \"arc.conf\" }]"),
    plain("absent", Texts(Words, text::path), "[\"/etc/arc.conf.d/00-testCA-hostcert.conf\"]"),
    plain("services", Keys(SERVICES), "{ enable = [\"munge.service\"] }"),
    plain("task", Tables(TASK), "[{ name = \"catalogue\", about = \"...\" }]"),
    plain("scrub", Tables(SCRUB), "[{ class = \"munge\", paths = [\"/etc/munge/munge.key\"] }]"),
    plain("check", Tables(CHECK), "[{ name = \"arc\", command = [\"arcctl\", \"config\", \"verify\"] }]"),
    plain("compiler", Keys(COMPILER), "{ command = [\"/usr/sbin/rdxprof\"] }"),
];

/// Keys of `[variables.NAME]`.
const VARIABLE: &[Key] = &[
    plain("type", Text(text::kind), "\"text\""),
    plain("default", Any, "\"grid\""),
    plain("about", Text(text::line), "\"queue that grid jobs go to\""),
    plain("pattern", Text(text::pattern), "\"[a-z]+\""),
    plain("choices", Texts(Words, text::any), "[\"slurm\", \"fork\"]"),
    plain("min", Integer(i64::MIN, i64::MAX), "1"),
    plain("max", Integer(i64::MIN, i64::MAX), "64"),
    plain("required", Flag, "true"),
];

/// Keys of `[[group]]`.
const GROUP: &[Key] = &[
    plain("name", Text(text::account), "\"slurm\""),
    plain("gid", Integer(1, LARGEST_ID), "64030"),
    plain("members", Texts(Words, text::account), "[\"alice\"]"),
];

/// Keys of `[[user]]`.
const USER: &[Key] = &[
    plain("name", Text(text::account), "\"slurm\""),
    plain("uid", Integer(1, LARGEST_ID), "64030"),
    plain("group", Text(text::account), "\"slurm\""),
    plain("home", Text(text::path), "\"/var/lib/slurm\""),
    plain("shell", Text(text::path), "\"/usr/sbin/nologin\""),
    plain("comment", Text(text::field), "\"batch system\""),
    plain("pool", Text(text::variable), "\"pool_accounts\""),
];

/// Keys of `[[directory]]`.
const DIRECTORY: &[Key] = &[
    plain("path", Text(text::path), "\"/srv/arc\""),
    plain("mode", Text(text::mode), "\"0755\""),
    plain("owner", Text(text::account), "\"slurm\""),
    plain("group", Text(text::account), "\"slurm\""),
];

/// Keys of `[[file]]`.
const FILE: &[Key] = &[
    plain("path", Text(text::path), "\"/etc/arc.conf\""),
    plain("template", Text(text::template), "\"arc.conf\""),
    plain("content", Text(text::any), "\"text\""),
    plain("mode", Text(text::mode), "\"0644\""),
    plain("owner", Text(text::account), "\"root\""),
    plain("group", Text(text::account), "\"root\""),
];

/// Keys of `[services]`.
const SERVICES: &[Key] = &[
    plain("enable", Texts(Words, text::unit), "[\"munge.service\"]"),
    plain("disable", Texts(Words, text::unit), "[\"slapd.service\"]"),
    plain("mask", Texts(Words, text::unit), "[\"apt-daily.timer\"]"),
];

/// Keys of `[[task]]`.
const TASK: &[Key] = &[
    plain("name", Text(text::name), "\"test-ca\""),
    plain("about", Text(text::line), "\"ask the authority for a host certificate\""),
    plain("command", Texts(Words, text::line), "[\"/usr/bin/arcctl\", \"config\", \"verify\"]"),
];

/// Keys of `[[scrub]]`.
const SCRUB: &[Key] = &[
    plain("class", Text(text::CLASS), "\"munge\""),
    plain("paths", Texts(Words, text::path), "[\"/etc/munge/munge.key\"]"),
];

/// Keys of `[[check]]`.
const CHECK: &[Key] = &[
    plain("name", Text(text::name), "\"arc-config\""),
    plain("about", Text(text::line), "\"ARC understands its configuration\""),
    plain("command", Texts(Words, text::line), "[\"arcctl\", \"config\", \"verify\"]"),
];

/// Keys of `[compiler]`.
const COMPILER: &[Key] = &[
    plain("command", Texts(Words, text::line), "[\"/usr/sbin/rdxprof\", \"-f\"]"),
    plain("writes", Texts(Words, text::path), "[\"/var/lcfg\"]"),
    plain("network", Flag, "false"),
    plain("memory", Size(16 << 20, 1 << 40), "\"256M\""),
    plain("time", Span, "\"60s\""),
    plain("processes", Integer(1, 4096), "64"),
];
