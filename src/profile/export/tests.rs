//! What is exported is what the other tools' readers take.

use super::super::import::{self, Imported};
use super::super::tests::{of, site};
use super::*;
use crate::config::origin::Text;
use crate::config::variables::Setting;

fn exported(format: Format, guest: &str) -> Vec<Exported> {
    let (_dir, site) =
        site(&[("guests/ce.toml", "[variables]\nlocation = \"a <b> & \\\"c\\\" 'd'\"\npool_accounts = 2\n")]);
    let documents: Vec<Document> = ["ce", "se", "ui", "wn"].map(|guest| of(&site, guest)).into();
    export(format, &site, &of(&site, guest), &documents)
}

fn read(format: import::Format, name: &str, content: &str) -> Imported {
    import::import(format, &Text::new(name.into(), content.to_owned()), &[])
        .unwrap_or_else(|problems| panic!("{problems}"))
}

const ODD: &str = "a <b> & \"c\" 'd'";

#[test]
fn an_lcfg_profile_is_as_its_reader_takes_it_and_comes_back() {
    let files = exported(Format::LcfgXml, "ce");
    let xml = &files[0].content;
    assert_eq!(files[0].name, "ce.xml");
    for wanted in [
        "<inventory xmlns=\"http://www.lcfg.org/namespace/profile-1.0\" xmlns:cfg=\"http://www.lcfg.org/namespace/profile-1.0\">\n<lcfg>\n",
        "<default_memory_mb cfg:type=\"integer\">200</default_memory_mb>",
        "<users cfg:template=\"uid_$ group_$ home_$ shell_$\">",
        "<users_RECORD cfg:name=\"grid001\">\n          <uid>20001</uid>",
        "<package><name>munge</name><v>*</v><r>*</r></package>",
    ] {
        assert!(xml.contains(wanted), "{wanted}\n{xml}");
    }
    let back = read(import::Format::LcfgXml, "ce.xml", xml);
    assert_eq!(back.variables["profile_location"], Setting::Text(ODD.to_owned()));
    assert_eq!(back.variables["profile_pool_accounts"], Setting::Integer(2));
    assert_eq!(back.variables["auth_uid_slurm"], Setting::Text("64030".to_owned()));
    assert!(back.packages.contains(&"slurmctld".to_owned()));
    let content = &back.variables["file_content_etc_arc_conf"];
    assert!(content.to_string().starts_with("# written by gridgate") && content.to_string().contains(ODD));
}

#[test]
fn shell_variables_hold_whatever_they_are_given_and_come_back() {
    let files = exported(Format::Shell, "ce");
    let text = &files[0].content;
    assert!(text.contains("export LCFG_profile_lrms='slurm'\n"), "{text}");
    assert!(text.contains(
        "export LCFG_profile_pool_accounts='2'\nexport LCFGTYPE_profile_pool_accounts='integer'\n"
    ));
    let back = read(import::Format::Shell, "ce.sh", text);
    assert_eq!(back.variables["profile_location"], Setting::Text(ODD.to_owned()));
    assert_eq!(back.variables["auth_users"].to_string(), "grid001 grid002 slurm");
}

#[test]
fn quattor_s_profile_is_one_tree_in_both_forms() {
    let xml = &exported(Format::QuattorXml, "wn")[0].content;
    assert!(xml.starts_with(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<nlist format=\"pan\" name=\"profile\">\n"
    ));
    assert!(
        xml.contains("<long name=\"uid\">64030</long>")
            && xml.contains("<boolean name=\"createHome\">false</boolean>")
    );
    let parsed = roxmltree::Document::parse(xml).unwrap();
    let count = parsed.descendants().filter(|node| node.attribute("name") == Some("uid")).count();
    let json: serde_json::Value =
        serde_json::from_str(&exported(Format::QuattorJson, "wn")[0].content).unwrap();
    let users = json["software"]["components"]["accounts"]["users"].as_object().unwrap();
    assert_eq!((count, users["slurm"]["uid"].as_u64()), (users.len(), Some(64030)));
    assert!(json["software"]["packages"]["nfs_2dcommon"].is_object());
}

#[test]
fn yaim_s_files_speak_of_the_whole_site_and_come_back() {
    let files = exported(Format::Yaim, "se");
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["site-info.def", "users.conf", "groups.conf"]);
    let site_info = read(import::Format::Yaim, "site-info.def", &files[0].content);
    assert_eq!(site_info.variables["ce_host"], Setting::Text("ce.my-site.internal".to_owned()));
    assert_eq!(site_info.variables["queues"], Setting::List(vec!["grid".to_owned()]));
    assert!(files[0].content.contains("GRID_GROUP_ENABLE='my-site'\n"), "{}", files[0].content);
    assert!(files[1].content.starts_with("20001:grid001:20000:griduser:my-site::\n"), "{}", files[1].content);
    let users = read(import::Format::Yaim, "users.conf", &files[1].content);
    assert_eq!(
        (users.users[0].name.as_str(), users.users[0].uid, users.groups[0].gid),
        ("grid001", 20001, 20000)
    );
    let groups = read(import::Format::Yaim, "groups.conf", &files[2].content);
    assert_eq!(groups.variables["fqans"], Setting::List(vec!["/my-site".to_owned()]));
}

#[test]
fn an_export_is_the_same_every_time() {
    for format in
        [Format::Json, Format::LcfgXml, Format::QuattorXml, Format::QuattorJson, Format::Shell, Format::Yaim]
    {
        assert_eq!(exported(format, "ce"), exported(format, "ce"), "{format:?}");
    }
}
