use super::support::{KeyFile, admit, key, name, tenant};
use crate::{
    domain::TenantId,
    tenancy::{Denied, Gate, Scope},
};

#[test]
fn only_a_known_key_is_let_in() {
    let known = key();
    let gate = KeyFile::new(&tenant("acme", &known, "")).open().unwrap();
    let text = known.reveal();
    let with = |headers: &[&str]| gate.admit(headers.iter().map(|h| h.as_bytes())).map(|_| ());
    for good in [format!("Bearer {text}"), format!("bearer {text}"), format!("BEARER   {text} ")] {
        assert_eq!(with(&[&good]), Ok(()), "{good}");
    }
    let good = format!("Bearer {text}");
    assert_eq!(with(&[]), Err(Denied::NoKey));
    assert_eq!(with(&[&good, &good]), Err(Denied::NotBearer), "one header, not two");
    for bad in [text, "Bearer", "", " ", &format!("Basic {text}"), &format!("Bearer{text}")] {
        assert_eq!(with(&[bad]), Err(Denied::NotBearer), "{bad}");
    }
    let almost = format!("Bearer {}{}", &text[..text.len() - 1], if text.ends_with('0') { '1' } else { '0' });
    for unknown in
        ["Bearer ", "Bearer dept_", "Bearer x", &almost, &format!("{good}, {good}"), &good.to_uppercase()]
    {
        assert!(matches!(with(&[unknown]), Err(Denied::UnknownKey | Denied::NotBearer)), "{unknown}");
    }
    assert_eq!(admit(&gate, &key()).unwrap_err(), Denied::UnknownKey);
    assert_eq!(gate.admit([&b"Bearer \xff"[..]].into_iter()).unwrap_err(), Denied::NotBearer);
    let hash = format!("Bearer {}", known.hash());
    assert_eq!(with(&[&hash]), Err(Denied::UnknownKey), "who steals the file has no key");
}

#[test]
fn an_open_gate_lets_everyone_in_as_the_same_one() {
    let gate = Gate::open(7);
    let anyone = gate.admit([&b"Bearer whatever"[..]].into_iter()).unwrap();
    assert_eq!(anyone.tenant().id, TenantId::default_tenant());
    assert!(Scope::ALL.iter().all(|&scope| anyone.require(scope).is_ok()));
    assert!(anyone.may_use(&name("anything")));
    assert!(anyone.check_priority(7).is_ok() && anyone.check_priority(i32::MIN).is_ok());
    assert_eq!(
        anyone.check_priority(8).unwrap_err().to_string(),
        "priority is 8: this tenant may use up to 7"
    );
    assert_eq!(gate.reload().unwrap(), 0);
}

#[test]
fn a_missing_scope_is_named() {
    let known = key();
    let gate = KeyFile::new(&tenant("acme", &known, "")).open().unwrap();
    let error = admit(&gate, &known).unwrap().require(Scope::Admin).unwrap_err();
    assert_eq!(error, Denied::Scope { key: "acme/one".into(), scope: Scope::Admin });
    assert!(error.to_string().contains("'admin'"));
}

#[test]
fn keys_are_exchanged_by_a_reload_and_a_broken_file_changes_nothing() {
    let (old, new) = (key(), key());
    let file = KeyFile::new(&tenant("acme", &old, ""));
    let gate = file.open().unwrap();
    let both = format!(
        "{}\n[[tenants.acme.keys]]\nname = \"two\"\nhash = \"{}\"",
        tenant("acme", &old, "")
            .replace("keys = [{", "[[tenants.acme.keys]]\n")
            .replace(", hash", "\nhash")
            .replace(" }]", ""),
        new.hash()
    );
    file.write(&both);
    assert!(admit(&gate, &new).is_err(), "not before it is told");
    assert_eq!(gate.reload().unwrap(), 2);
    assert!(admit(&gate, &old).is_ok() && admit(&gate, &new).is_ok(), "both, while clients change over");

    for broken in ["", "[tenants", "[tenants.acme]\nkeys = []"] {
        file.write(broken);
        assert!(gate.reload().is_err(), "{broken}");
        assert!(admit(&gate, &old).is_ok() && admit(&gate, &key()).is_err(), "neither shut nor open");
    }
    std::fs::remove_file(&file.path).unwrap();
    assert!(gate.reload().is_err());
    assert!(admit(&gate, &old).is_ok());

    file.write(&tenant("acme", &new, ""));
    assert_eq!(gate.reload().unwrap(), 1);
    assert_eq!(admit(&gate, &old).unwrap_err(), Denied::UnknownKey);
    assert!(admit(&gate, &new).is_ok());
}

#[test]
fn a_reload_is_no_new_minute() {
    let known = key();
    let file = KeyFile::new(&tenant("acme", &known, "requests_per_minute = 1\nconcurrent_requests = 1"));
    let gate = file.open().unwrap();
    let before = admit(&gate, &known).unwrap();
    assert!(before.tenant().quotas.request().is_ok());
    let running = before.tenant().quotas.begin(1).unwrap();

    file.write(&tenant("acme", &known, "requests_per_minute = 1\nconcurrent_requests = 1\nweight = 9"));
    gate.reload().unwrap();
    let after = admit(&gate, &known).unwrap();
    assert_eq!(after.tenant().weight.get(), 9);
    assert!(after.tenant().quotas.request().is_err(), "what was used stays used");

    file.write(&tenant("acme", &known, "requests_per_minute = 2\nconcurrent_requests = 1"));
    gate.reload().unwrap();
    let raised = admit(&gate, &known).unwrap();
    assert!(raised.tenant().quotas.request().is_ok(), "another limit begins anew");
    assert!(raised.tenant().quotas.begin(1).is_err(), "what runs still runs");
    drop(running);
    assert!(raised.tenant().quotas.begin(1).is_ok());
}
