use super::*;
use proptest::prelude::*;

fn text(file: &str, content: &str) -> Text {
    Text::new(file.into(), content.to_owned())
}

fn set(word: &str) -> Change {
    Change::read(word).unwrap()
}

fn gone(name: &str) -> Change {
    Change::Remove(keys::find(keys::GUEST, name).unwrap())
}

#[test]
fn comments_order_and_blanks_stay_in_toml() {
    let before = "# Workers.\nrole = \"wn\"   # runs jobs\n\n# Counted up.\n# count = 4\naddress = '10.77.0.13'\n\n\
                  # Waits.\nafter = [ \"ce\" ]\n\n# Not too much.\n[limits]\ncpu = \"50%\" # half\n";
    let changes = [set("role=ce"), gone("address"), set("memory=1G")];
    let after = "# Workers.\nrole = \"ce\"   # runs jobs\n\n# Counted up.\n# count = 4\n\n# Waits.\nafter = [ \"ce\" ]\nmemory = \"1G\"\n\n\
                 # Not too much.\n[limits]\ncpu = \"50%\" # half\n";
    assert_eq!(guest(&text("wn.toml", before), &changes).unwrap(), after);
    // What stood above the last key stays too.
    let last =
        guest(&text("wn.toml", "role = \"wn\"\n# Fixed.\naddress = \"10.0.0.1\"\n"), &[gone("address")]);
    assert_eq!(last.unwrap(), "role = \"wn\"\n# Fixed.\n");
}

#[test]
fn comments_order_and_blanks_stay_in_shell_variables() {
    let before = "# Workers.\nexport ROLE='wn' # runs jobs\n\nIPADDR=10.77.0.13 # fixed\nNETMASK=255.255.255.0\nVCPUS=1\nAFTER=ce";
    let changes =
        [set("role=ce"), gone("address"), set("prefix=25"), set("cpus=2"), set("description=it's $5")];
    let after =
        "# Workers.\nexport ROLE=ce # runs jobs\n\nVCPUS=2\nAFTER=ce\nPREFIX=25\nDESCRIPTION='it'\\''s $5'\n";
    let changed = guest(&text("wn.conf", before), &changes).unwrap();
    assert_eq!(changed, after);
}

#[test]
fn a_line_that_says_more_than_what_is_meant_is_not_touched() {
    for (file, content, change, why) in [
        (
            "a.conf",
            "ROLE=wn IPADDR=10.0.0.1\n",
            gone("address"),
            "a.conf:1:9: IPADDR shares its line with others",
        ),
        ("a.conf", "IPADDR=10.0.0.1\nHOSTNAME=h-$IPADDR\n", gone("address"), "'$IPADDR' has no value here"),
        ("a.conf", "_A=wn\nROLE=$_A\nDESCRIPTION=$ROLE\n", set("role=ce"), "cannot be changed here without"),
    ] {
        let error = format!("{:#}", guest(&text(file, content), &[change]).unwrap_err());
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_guest_is_listed_behind_the_one_that_it_was_made_of() {
    for (before, after) in [
        ("guests = [\"ce\", \"wn\", \"ui\"] # all\n", "guests = [\"ce\", \"wn\", \"new\", \"ui\"] # all\n"),
        ("guests = [\"wn\"]\n", "guests = [\"wn\", \"new\"]\n"),
        ("guests = []\n", "guests = [\"new\"]\n"),
        (
            "guests = [\n  \"ce\", # first\n  # many\n  \"wn\", # workers\n]\n",
            "guests = [\n  \"ce\", # first\n  # many\n  \"wn\", # workers\n  \"new\",\n]\n",
        ),
        (
            "guests = [\n  \"wn\", # workers\n  \"ui\" # last\n]\n",
            "guests = [\n  \"wn\", # workers\n  \"new\",\n  \"ui\" # last\n]\n",
        ),
        ("guests = [\n  \"wn\" # last\n]\n", "guests = [\n  \"wn\", # last\n  \"new\"\n]\n"),
    ] {
        assert_eq!(list(&text("site.toml", before), "new", "wn").unwrap().as_deref(), Some(after));
    }
    assert_eq!(list(&text("site.toml", "name = \"x\"\n"), "new", "wn").unwrap(), None);
    for (before, after) in [
        ("GUESTS=\"ce wn\" # all\n", "GUESTS=\"ce wn new\" # all\n"),
        ("GUESTS=\"wn ui\"\n", "GUESTS=\"wn new ui\"\n"),
        ("GUESTS=wn\nNTP=x\n", "GUESTS=\"wn new\"\nNTP=x\n"),
        ("_A=ce\nGUESTS=\"$_A wn\"\n", "_A=ce\nGUESTS=\"$_A wn new\"\n"),
        ("GUESTS=ce\nGUESTS+=' wn'\n", "GUESTS=ce\nGUESTS+=' wn new'\n"),
    ] {
        assert_eq!(list(&text("site.conf", before), "new", "wn").unwrap().as_deref(), Some(after));
    }
}

#[test]
fn what_is_no_value_of_a_key_is_refused() {
    for (word, why) in [
        ("memory", "'memory' is not KEY=VALUE"),
        ("memroy=1G", "did you mean 'memory'?"),
        ("cpus=0", "cpus 0 is not between 1 and 256"),
        ("memory=1", "no unit"),
        ("limits=x", "write it into the guest's file by hand"),
    ] {
        let error = format!("{:#}", Change::read(word).unwrap_err());
        assert!(error.contains(why), "{error}");
    }
}

proptest! {
    /// Whatever a file says, a change is made as meant, or refused: `guest` itself looks at what came of it.
    #[test]
    fn any_description_is_set_as_it_is(said in "[ -~éß]{0,30}", old in "[ -~]{0,10}") {
        let Ok(change) = Change::read(&format!("description={said}")) else { return Ok(()) };
        let shell = format!("# c\nDESCRIPTION='{}' # d\nROLE=wn\n", old.replace('\'', ""));
        let changed = guest(&text("a.conf", &shell), std::slice::from_ref(&change)).unwrap();
        prop_assert!(changed.starts_with("# c\nDESCRIPTION=") && changed.ends_with(" # d\nROLE=wn\n"));
        let toml = format!("# c\ndescription = {:?} # d\nrole = \"wn\"\n", old.replace('\\', ""));
        let changed = guest(&text("a.toml", &toml), &[change]).unwrap();
        prop_assert!(changed.starts_with("# c\ndescription = ") && changed.ends_with(" # d\nrole = \"wn\"\n"));
    }

    #[test]
    fn any_file_is_changed_or_refused(content in "([A-Z]{1,8}(=|\\+=)|ROLE=|IPADDR=|[\"'$ a-z\n\\\\;#])*") {
        let _ = guest(&text("a.conf", &content), &[set("role=ce"), gone("address"), set("memory=1G")]);
        let _ = guest(&text("a.toml", &content), &[set("role=ce"), gone("address"), set("memory=1G")]);
    }
}
