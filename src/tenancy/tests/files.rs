use std::num::NonZeroU32;

use super::support::{KeyFile, admit, key, name, tenant};
use crate::tenancy::{KeyFileError, Scope};

#[test]
fn a_whole_file_is_read() {
    let (laptop, robot, other) = (key(), key(), key());
    let text = format!(
        r#"
        [tenants.acme]
        scopes = ["generate", "adapters:read", "adapters:write"]
        adapters = ["sst2", "acme-*"]
        weight = 3
        max_priority = 5
        requests_per_minute = 600
        request_burst = 50
        tokens_per_minute = 100000
        concurrent_requests = 8
        [[tenants.acme.keys]]
        name = "laptop"
        hash = "{}"
        [[tenants.acme.keys]]
        name = "robot"
        hash = "{}"
        scopes = ["generate"]

        [tenants.other]
        keys = [{{ name = "only", hash = "{}" }}]
        "#,
        laptop.hash(),
        robot.hash(),
        other.hash()
    );
    let gate = KeyFile::new(&text).open().unwrap();
    let laptop = admit(&gate, &laptop).unwrap();
    assert_eq!((laptop.tenant().id.as_str(), laptop.key()), ("acme", "acme/laptop"));
    assert_eq!((laptop.tenant().weight.get(), laptop.tenant().max_priority), (3, 5));
    assert!(laptop.require(Scope::AdaptersWrite).is_ok() && laptop.require(Scope::Admin).is_err());
    for (adapter, may) in
        [("sst2", true), ("acme-", true), ("acme-qa", true), ("acme", false), ("sst20", false)]
    {
        assert_eq!(laptop.may_use(&name(adapter)), may, "{adapter}");
    }
    let robot = admit(&gate, &robot).unwrap();
    assert_eq!(robot.tenant().id, laptop.tenant().id);
    assert!(robot.require(Scope::Generate).is_ok() && robot.require(Scope::AdaptersRead).is_err());
    let other = admit(&gate, &other).unwrap();
    assert_eq!((other.tenant().weight, other.tenant().max_priority), (NonZeroU32::MIN, 0));
    assert!(other.require(Scope::AdaptersRead).is_ok() && other.require(Scope::AdaptersWrite).is_err());
    assert!(other.may_use(&name("anything")));
}

/// What is wrong with a file, and a part of what is said of it.
#[test]
fn each_fault_has_its_message() {
    let one = key();
    let hash = one.hash().to_string();
    let with = |more: &str| tenant("acme", &one, more);
    let two = |second: &str| format!("{}\n[tenants.b]\nkeys = [{second}]\n", with(""));
    let cases = [
        (String::new(), "names no tenant"),
        ("tenants = 3".to_owned(), "invalid type"),
        ("[tenants".to_owned(), "line 1:"),
        ("[tenant.acme]\n".to_owned(), "unknown field `tenant`"),
        ("[tenants.acme]\n".to_owned(), "tenant 'acme' has no key"),
        (with("wieght = 2"), "unknown field `wieght`"),
        (with("weight = 1\nweight = 2"), "duplicate key"),
        (with("weight = 0"), "weight 0: use 1 to 1000"),
        (with("weight = 1001"), "weight 1001"),
        (with("weight = -1"), "tenants.acme.weight, line 3: invalid value"),
        (with("scopes = [\"write\"]"), "unknown variant `write`"),
        (with("scopes = \"generate\""), "expected a sequence"),
        (with("adapters = [\"a*b\"]"), "'a*b' has a '*' before its end"),
        (with("adapters = [\"A\"]"), "'A' is not an adapter name"),
        (with("adapters = [\"../x*\"]"), "'../x' is not an adapter name"),
        (with("requests_per_minute = 0"), "nonzero"),
        (with("requests_per_minute = 99999999999"), "99999999999"),
        (with("request_burst = 5"), "request_burst without requests_per_minute"),
        (with("token_burst = 5"), "token_burst without tokens_per_minute"),
        (with("max_priority = \"high\""), "expected i32"),
        (tenant("shared", &one, ""), "'shared' is not a tenant's name"),
        (tenant("Acme", &one, ""), "'Acme' is not a tenant's name"),
        (format!("{}{}", with(""), with("")), "duplicate key"),
        (two(&format!("{{ name = \"x\", hash = \"{hash}\" }}")), "'acme/one' and 'b/x' have the same hash"),
        (two("{ name = \"x\", hash = \"secret\" }"), "line 6: a hash is 'sha256:'"),
        (two("{ name = \"x\" }"), "missing field `hash`"),
        (two("{ name = \"\", hash = \"H\" }").replace("\"H\"", &format!("\"{}\"", key().hash())), "named ''"),
        (two("{ name = \"a b\", hash = \"H\" }").replace('H', &key().hash().to_string()), "named 'a b'"),
        (
            two("{ name = \"x\", hash = \"H\", scopes = [\"admin\"] }")
                .replace('H', &key().hash().to_string()),
            "key 'x' of tenant 'b' has the scope 'admin', which its tenant has not",
        ),
        (
            two("{ name = \"x\", hash = \"H\" }, { name = \"x\", hash = \"J\" }")
                .replace('H', &key().hash().to_string())
                .replace('J', &key().hash().to_string()),
            "two keys named 'x'",
        ),
    ];
    for (text, message) in cases {
        let error = KeyFile::new(&text).open().unwrap_err();
        assert!(error.to_string().contains(message), "{text}\n{error}");
        assert!(error.to_string().contains("keys.toml"), "{error}");
        assert!(
            !error.to_string().contains("secret"),
            "what stands in place of a hash may be a key: {error}"
        );
    }
}

#[test]
fn a_file_that_is_not_there_not_text_or_endless_is_refused() {
    let missing = crate::tenancy::Gate::with_keys("/nonexistent/keys.toml".into()).unwrap_err();
    assert!(matches!(missing, KeyFileError::Unreadable { .. }), "{missing}");
    let file = KeyFile::new("");
    std::fs::write(&file.path, b"[tenants.\xff]").unwrap();
    assert!(matches!(file.open().unwrap_err(), KeyFileError::Unreadable { .. }));
    std::fs::File::create(&file.path).unwrap().set_len(1 << 40).unwrap();
    assert!(file.open().unwrap_err().to_string().contains("is over"));
}
