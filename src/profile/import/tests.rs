//! What other tools' files say is read, and nothing of them is run.

use proptest::prelude::*;

use super::*;
use crate::config::origin::Text;

fn read(format: Format, content: &str) -> Result<Imported, String> {
    let text = Text::new("f".into(), content.to_owned());
    import(format, &text, &[]).map_err(|problems| problems.to_string())
}

#[test]
fn an_lcfg_profile_as_its_own_server_writes_it_is_read() {
    let text = r#"<?xml version="1.0"?>
<inventory xmlns="http://www.lcfg.org/namespace/profile-1.0" xmlns:cfg="http://www.lcfg.org/namespace/profile-1.0">
<lcfg><last_modified>1</last_modified><components>
 <network><gateway cfg:derivation="x">10.0.0.1</gateway><_2nd>y</_2nd>
  <interfaces cfg:type="list" cfg:template="ipaddr_$"><interfaces_RECORD cfg:name="eth0"><ipaddr>10.0.0.9</ipaddr></interfaces_RECORD></interfaces>
  <debug cfg:type="boolean">yes</debug></network>
</components><packages><package cfg:context="!install"><name>foo</name><v>1</v><r>2/i386</r></package></packages></lcfg></inventory>"#;
    let read = read(Format::LcfgXml, text).unwrap();
    let text = |text: &str| Setting::Text(text.to_owned());
    assert_eq!(read.variables["network_gateway"], text("10.0.0.1"));
    assert_eq!(read.variables["network_2nd"], text("y"));
    assert_eq!(read.variables["network_ipaddr_eth0"], text("10.0.0.9"));
    assert_eq!(read.variables["network_interfaces"], Setting::List(vec!["eth0".to_owned()]));
    assert_eq!(read.variables["network_debug"], Setting::Flag(true));
    assert_eq!(read.packages, ["foo"]);
}

#[test]
fn of_several_values_the_one_whose_context_holds_and_comes_last_is_taken() {
    let text = r#"<i xmlns:cfg="u"><lcfg><components><net>
  <mask cfg:context="!install">usual</mask><mask cfg:context="install &amp; site=a">at a</mask><mask>always</mask>
  <mask cfg:context="site=b">at b</mask></net></components>
  <packages><package cfg:context="install"><name>anaconda</name></package></packages></lcfg></i>"#;
    let with = |contexts: &[&str]| {
        let contexts: Vec<_> = contexts.iter().map(|text| context(text).unwrap()).collect();
        let text = Text::new("f".into(), text.to_owned());
        let read = import(Format::LcfgXml, &text, &contexts).unwrap();
        let Setting::Text(mask) = read.variables["net_mask"].clone() else { panic!("{read:?}") };
        (mask, read.packages)
    };
    assert_eq!(with(&[]), ("usual".to_owned(), vec![]));
    assert_eq!(with(&["install"]), ("always".to_owned(), vec!["anaconda".to_owned()]));
    assert_eq!(with(&["install", "site=a"]), ("at a".to_owned(), vec!["anaconda".to_owned()]));
    assert_eq!(with(&["install=no", "site=b"]).0, "at b");
    let text = "<i xmlns:cfg=\"u\"><lcfg><components><net>\n<mask cfg:context=\"a &amp;\"/></net></components></lcfg></i>";
    let error = read(Format::LcfgXml, text).unwrap_err();
    assert!(error.starts_with("f:2:1: context 'a &': something is missing at its end"), "{error}");
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_nothing_is_run() {
    for (format, text, told) in [
        (Format::LcfgXml, "<a>\n<b></a>", "f:2:"),
        (Format::LcfgXml, "<a/>", "f:1:1: there is no <lcfg> element"),
        (Format::LcfgXml, "<!DOCTYPE a [<!ENTITY x SYSTEM \"/etc/passwd\">]><a>&x;</a>", "f:1:"),
        (Format::Yaim, "SITE_NAME=x\nCE_HOST=`hostname`\n", "f:2:"),
        (Format::Yaim, "1:a:2:b:vo::\nx:b:2:b:vo::\n", "f:2:1: its uid or one of its gids is no number"),
        (Format::Yaim, "1:a:2,3:b:vo::\n", "f:1:1: it has not as many gids as groups"),
        (
            Format::Yaim,
            "0:toor:2:b:vo::\n",
            "f:1:1: its user or one of its groups has no good name or is root",
        ),
        (Format::Yaim, "\"/vo\"::::\n/vo::::\n", "f:2:1: this line does not begin with an FQAN in quotes"),
        (Format::Shell, "a=$(id)\n", "f:1:"),
    ] {
        let error = read(format, text).unwrap_err();
        assert!(error.starts_with(told), "{text}: {error}");
    }
    let deep = "<a>".repeat(100_000);
    assert!(read(Format::LcfgXml, &deep).unwrap_err().contains("nest deeper"));
}

#[test]
fn what_was_read_becomes_a_profile_that_a_site_can_use() {
    let mut imported = read(Format::Yaim, "SITE_NAME=\"it's \\\"x\\\"\"\nVOS=\"a b\"\n").unwrap();
    imported.variables.insert("odd".to_owned(), Setting::Text("a\\b\u{7}\"\n".to_owned()));
    let more = read(Format::Yaim, "101:alice:201,202:atlas,lhcb:atlas:sgm:\n").unwrap();
    imported.users = more.users;
    imported.groups = more.groups;
    let text = profile(&imported, "site-info.def");
    let mut problems = Problems::default();
    let source =
        super::super::source::Source::read(&Text::new("p.toml".into(), text.clone()), &mut problems).unwrap();
    assert_eq!(problems.to_string(), "", "{text}");
    assert_eq!(source.users[0].group.text, "atlas");
    let odd = source.variables.iter().find(|one| one.name == "odd").unwrap();
    assert_eq!(odd.default.as_ref().unwrap().0, imported.variables["odd"]);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_crash(text in "\\PC{0,80}") {
        for format in [Format::LcfgXml, Format::Yaim, Format::Shell] {
            let _ = read(format, &text);
        }
    }

    #[test]
    fn anything_like_an_xml_profile_is_read_or_refused(
        text in "(</?(lcfg|components|a|x_RECORD|packages|package|name)( cfg:(name|type)=\"[a-z0-9]{0,4}\")?/?>|[a-z&;]{0,4}){0,30}"
    ) {
        let _ = read(Format::LcfgXml, &format!("<i xmlns:cfg=\"u\"><lcfg>{text}</lcfg></i>"));
    }

    #[test]
    fn anything_like_users_conf_is_read_or_refused(text in "([0-9a-z\",:]{0,20}\n){0,6}") {
        let _ = read(Format::Yaim, &text);
    }
}
