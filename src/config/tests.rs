use std::{ffi::OsString, fs, path::Path, time::Duration};

use clap::{Args as _, Command, CommandFactory, Parser};

use super::{
    ConfigError, Device, HubModel, ModelSource, Places, ServeArgs, ServeConfig, SourceError, file,
    otlp::resource_of,
    parse,
    units::{bytes, count, duration},
};
use crate::contract;

#[derive(Debug, Parser)]
enum Cli {
    Serve(Box<ServeArgs>),
    Other,
}

fn serve() -> Command {
    ServeArgs::augment_args(Command::new("serve"))
}

fn read(argv: &[&str]) -> Result<ServeArgs, ConfigError> {
    let argv = ["dept", "serve"].iter().chain(argv).map(OsString::from);
    parse(argv).map(|cli| match cli {
        Cli::Serve(args) => *args,
        Cli::Other => unreachable!(),
    })
}

/// The arguments with a `dept.toml` of this text in place.
fn read_file(text: &str, argv: &[&str]) -> Result<ServeArgs, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dept.toml");
    fs::write(&path, text).unwrap();
    read(&[&["--config", path.to_str().unwrap()], argv].concat())
}

fn checked(argv: &[&str], home: &Path) -> Result<ServeConfig, ConfigError> {
    ServeConfig::new(read(argv).unwrap(), &Places::new([home.to_owned()]))
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join("models/flan-t5-small-en")).unwrap();
    fs::create_dir_all(home.path().join("adapters")).unwrap();
    home
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let text = "max_num_seqs = 7\nhttp = \"127.0.0.1:9\"\nallow_anonymous = true\nkv_cache_bytes = \"1GiB\"";
    let args = read_file(text, &["--http", "127.0.0.1:10"]).unwrap();
    assert_eq!(args.engine.max_num_seqs, 7);
    assert_eq!(args.http.port(), 10);
    assert_eq!(args.admin.port(), 8081);
    assert_eq!(args.engine.kv_cache_bytes, 1 << 30);
    assert!(args.allow_anonymous);
    assert!(!read_file(text, &["--allow-anonymous=false"]).unwrap().allow_anonymous);
    assert!(read(&["--allow-anonymous"]).unwrap().allow_anonymous);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test looks at what the configuration saw")]
fn a_variable_wins_over_the_file() {
    // The file replaces a default, and clap reads variables before defaults; PATH is a variable that every test has.
    let command = Command::new("t").arg(clap::Arg::new("log").long("log").env("PATH").default_value("info"));
    let command = file::with_defaults(command, Path::new("dept.toml"), "log = \"debug\"").unwrap();
    let matches = command.try_get_matches_from(["t"]).unwrap();
    assert_eq!(matches.get_one::<String>("log"), std::env::var("PATH").ok().as_ref());
}

#[test]
fn a_bad_file_is_an_error_that_names_key_and_cause() {
    let cases = [
        ("max_num_seq = 7", "unknown key 'max_num_seq'"),
        ("config = \"x\"", "unknown key 'config'"),
        ("[http]\naddress = 1", "key 'http': write one string, number or boolean"),
        ("threads = \"many\"", "key 'threads': invalid value 'many'"),
        ("max_num_seqs = 0", "write a whole number from 1 to 16777216"),
        ("http = 8080", "key 'http': invalid value '8080'"),
        ("dtype = \"q3\"", "key 'dtype': invalid value 'q3'"),
        ("allow_anonymous = \"maybe\"", "key 'allow_anonymous'"),
        ("threads = ", "is not TOML"),
    ];
    for (text, message) in cases {
        let error = read_file(text, &[]).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.exit_code(), 78, "{error}");
    }
    let missing = read(&["--config", "/nonexistent/dept.toml"]).unwrap_err();
    assert!(matches!(missing, ConfigError::Unreadable { .. }));
}

#[test]
fn a_bad_command_line_exits_2_and_help_0() {
    for argv in [&["--nope"][..], &["--threads", "x"], &["--max-body-bytes", "1 apple"], &["--device", "tpu"]]
    {
        assert_eq!(read(argv).unwrap_err().exit_code(), 2, "{argv:?}");
    }
    let help = read(&["--help"]).unwrap_err();
    assert_eq!(help.exit_code(), 0);
    let text = help.to_string();
    assert!(text.contains("[default: 127.0.0.1:8080]") && text.contains("DEPT_HTTP"), "{text}");
    assert!(matches!(parse(["dept", "other"].map(OsString::from)), Ok(Cli::Other)));
}

#[test]
fn what_ships_with_the_server_is_found_and_what_is_named_must_exist() {
    let home = home();
    let config = checked(&[], home.path()).unwrap();
    assert_eq!(config.engine.model, ModelSource::Folder(home.path().join("models/flan-t5-small-en")));
    assert_eq!(config.engine.model_name, "flan-t5-small-en");
    assert_eq!(config.engine.adapters, Some(crate::config::Location::Folder(home.path().join("adapters"))));
    assert!(config.engine.threads > 0);
    assert_eq!(config.engine.device, Device::Auto);

    let hub = checked(&["--model", "google/flan-t5-small"], home.path()).unwrap();
    assert_eq!(hub.engine.model, ModelSource::Hub(HubModel::parse("google/flan-t5-small").unwrap()));
    assert_eq!(hub.engine.model_name, "flan-t5-small");

    for typo in ["./models/none", "src/none", "none", "/nonexistent/model"] {
        let error = checked(&["--model", typo], home.path()).unwrap_err();
        assert!(matches!(&error, ConfigError::Model(SourceError::Missing(name)) if name == typo), "{error}");
    }
    let error = checked(&["--adapters", "/nonexistent"], home.path()).unwrap_err();
    assert!(matches!(error, ConfigError::AdaptersNotFound(_)));
    let error = checked(&[], &home.path().join("models")).unwrap_err();
    assert!(error.to_string().contains("--model, or set DEPT_HOME"), "{error}");
}

#[test]
fn an_open_address_needs_the_word() {
    let home = home();
    for open in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:80"] {
        let error = checked(&["--http", open], home.path()).unwrap_err();
        assert!(matches!(error, ConfigError::Anonymous { flag: "--http", .. }), "{error}");
        assert!(checked(&["--http", open, "--allow-anonymous"], home.path()).is_ok());
    }
    assert!(checked(&["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"], home.path()).is_ok());
    let keys = ["--http", "0.0.0.0:8080", "--api-keys", "keys.toml"];
    assert_eq!(checked(&keys, home.path()).unwrap().api_keys, Some("keys.toml".into()));
    let error = checked(&[&keys[..], &["--allow-anonymous"]].concat(), home.path()).unwrap_err();
    assert!(matches!(error, ConfigError::KeysAndAnonymous));
    let error = checked(&["--http", "127.0.0.1:8081"], home.path()).unwrap_err();
    assert_eq!(error.to_string(), "--http and --admin are both 127.0.0.1:8081: give each a port of its own");
}

#[test]
fn the_grpc_address_is_guarded_like_the_other_and_may_be_off() {
    let home = home();
    assert_eq!(checked(&[], home.path()).unwrap().grpc, Some("127.0.0.1:50051".parse().unwrap()));
    assert_eq!(checked(&["--grpc", "off"], home.path()).unwrap().grpc, None);
    for bad in ["", "on", "50051", "localhost", "127.0.0.1"] {
        assert_eq!(read(&["--grpc", bad]).unwrap_err().exit_code(), 2, "{bad}");
    }
    let error = checked(&["--grpc", "0.0.0.0:50051"], home.path()).unwrap_err();
    assert!(error.to_string().starts_with("--grpc 0.0.0.0:50051 can be reached"), "{error}");
    assert!(checked(&["--grpc", "0.0.0.0:50051", "--allow-anonymous"], home.path()).is_ok());
    assert!(checked(&["--grpc", "0.0.0.0:50051", "--api-keys", "keys.toml"], home.path()).is_ok());
    for other in [["--grpc", "127.0.0.1:8080"], ["--grpc", "127.0.0.1:8081"]] {
        let error = checked(&other, home.path()).unwrap_err();
        assert!(error.to_string().contains("--grpc"), "{error}");
    }
    assert_eq!(read_file("grpc = \"off\"", &[]).unwrap().grpc, super::Door::Off);
}

#[test]
fn a_certificate_is_whole_and_pages_are_named() {
    let home = home();
    let tls = checked(&["--tls-cert", "c.pem", "--tls-key", "k.pem"], home.path()).unwrap().tls.unwrap();
    assert_eq!((tls.cert, tls.key), ("c.pem".into(), "k.pem".into()));
    for half in ["--tls-cert", "--tls-key"] {
        let error = checked(&[half, "x.pem"], home.path()).unwrap_err();
        assert!(matches!(error, ConfigError::HalfTls { given, .. } if given == half), "{error}");
    }
    let origins =
        checked(&["--cors-origin", "https://a.example,http://localhost:3000"], home.path()).unwrap();
    assert_eq!(origins.cors_origins, ["https://a.example", "http://localhost:3000"]);
    for bad in [
        "a.example",
        "https://",
        "https://a.example/",
        "ftp://a",
        "https://A.example",
        "https://*.a",
        "null",
        "",
    ] {
        assert_eq!(read(&["--cors-origin", bad]).unwrap_err().exit_code(), 2, "{bad}");
    }
    let error = checked(&["--cors-origin", "*"], home.path()).unwrap_err();
    assert!(matches!(error, ConfigError::EveryOrigin));
    assert!(checked(&["--cors-origin", "*", "--api-keys", "k"], home.path()).is_ok());
    let from_file = read_file("cors_origin = \"https://a.example,https://b.example\"", &[]).unwrap();
    assert_eq!(from_file.cors_origin, ["https://a.example", "https://b.example"]);
    for flag in ["--head-timeout", "--idle-timeout", "--stall-timeout"] {
        let error = checked(&[flag, "0s"], home.path()).unwrap_err();
        assert!(error.to_string().contains(flag), "{error}");
    }
}

#[test]
fn a_collector_is_an_address_and_its_headers_stay_secret() {
    let home = home();
    assert_eq!(checked(&[], home.path()).unwrap().otlp, None);
    let url = |text: &str| {
        let config = checked(&["--otlp-endpoint", text], home.path()).unwrap();
        config.otlp.unwrap().endpoint.traces().to_string()
    };
    assert_eq!(url("http://collector:4318"), "http://collector:4318/v1/traces");
    assert_eq!(url("http://collector:4318/"), "http://collector:4318/v1/traces");
    assert_eq!(url("https://otlp.example/tenant/"), "https://otlp.example/tenant/v1/traces");
    assert_eq!(url("https://otlp.example/v1/traces"), "https://otlp.example/v1/traces");
    for bad in [
        "",
        "collector:4318",
        "ftp://c",
        "http://",
        "http://user:secret@c:4318",
        "http://c/?key=1",
        "http://c/#x",
    ] {
        assert_eq!(read(&["--otlp-endpoint", bad]).unwrap_err().exit_code(), 2, "{bad}");
    }
    for bad in ["-0.1", "1.1", "NaN", "half", ""] {
        assert_eq!(
            read(&["--otlp-endpoint", "http://c", "--otlp-sample", bad]).unwrap_err().exit_code(),
            2,
            "{bad}"
        );
    }

    let with =
        |headers: &str| checked(&["--otlp-endpoint", "http://c", "--otlp-headers", headers], home.path());
    let otlp = with("authorization=Bearer%20k%2Cx, x-scope = team").unwrap().otlp.unwrap();
    assert_eq!(otlp.headers.map()["authorization"], "Bearer k,x");
    assert_eq!(otlp.headers.map()["x-scope"], "team");
    assert!(!format!("{otlp:?}").contains("Bearer"), "{otlp:?}");
    assert_eq!(otlp.sample, 1.0);
    for bad in ["hush", "a b=hush", "k=hush%", "k=hush%zz", "k=hush%0a", "k=v,hush"] {
        let error = with(bad).unwrap_err();
        assert!(matches!(error, ConfigError::Headers(_)) && error.exit_code() == 78, "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
    let error = checked(&["--otlp-headers", "k=v"], home.path()).unwrap_err();
    assert_eq!(error.to_string(), "--otlp-headers needs --otlp-endpoint: give both, or neither");
    let args = read_file("otlp_endpoint = \"http://c:4318\"\notlp_sample = 0.1", &[]).unwrap();
    assert_eq!(args.otlp_sample, 0.1);
}

#[test]
fn traces_name_their_service_as_the_environment_says() {
    let value = |said: &[(String, String)], key: &str| {
        let found: Vec<&str> =
            said.iter().filter(|(known, _)| known == key).map(|(_, value)| value.as_str()).collect();
        assert!(found.len() <= 1, "{said:?}");
        found.first().map(|value| (*value).to_owned())
    };
    let said = resource_of("", "");
    assert_eq!(value(&said, "service.name").as_deref(), Some("dept"));
    assert_eq!(value(&said, "service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert!(value(&said, "service.instance.id").is_some());
    let attributes =
        "service.name=from-list,k8s.pod.name=dept-0,service.instance.id=dept-0,odd,a=%zz,b=x%20y";
    let said = resource_of("", attributes);
    assert_eq!(value(&said, "service.name").as_deref(), Some("from-list"));
    assert_eq!(value(&said, "service.instance.id").as_deref(), Some("dept-0"));
    assert_eq!(
        (value(&said, "b").as_deref(), value(&said, "a"), value(&said, "odd")),
        (Some("x y"), None, None)
    );
    let said = resource_of("mine", attributes);
    assert_eq!(value(&said, "service.name").as_deref(), Some("mine"), "its own variable wins");
}

#[test]
fn sizes_and_times_have_units() {
    let sizes =
        [("0", 0), ("1048576", 1 << 20), ("512MiB", 512 << 20), ("2 GiB", 2 << 30), ("3MB", 3_000_000)];
    for (text, size) in sizes {
        assert_eq!(bytes(text), Ok(size));
    }
    for bad in ["", "MiB", "-1", "1.5GiB", "1mib", "1 apple", "99999999TiB", "18446744073709551616"] {
        assert!(bytes(bad).is_err(), "{bad}");
    }
    for (text, ms) in [("500ms", 500), ("30s", 30_000), ("30", 30_000), ("5m", 300_000), ("1h", 3_600_000)] {
        assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
    }
    for bad in ["", "s", "1d", "-1s", "18446744073709551615h"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
    assert_eq!(count("3"), Ok(3));
    assert!(count("0").is_err() && count("-1").is_err());
}

#[test]
fn every_flag_has_a_variable_and_a_key_of_its_name() {
    for arg in serve().get_arguments().filter(|arg| arg.get_id() != "help") {
        let id = arg.get_id().as_str();
        assert_eq!(arg.get_long(), Some(id.replace('_', "-").as_str()));
        assert_eq!(arg.get_env().unwrap().to_str().unwrap(), format!("DEPT_{}", id.to_uppercase()));
    }
    Cli::command().debug_assert();
}

#[test]
fn docs_configuration_is_the_flags() {
    let code = |text: &str| format!("`{text}`");
    let rows = serve();
    let rows = rows.get_arguments().filter(|arg| arg.get_id() != "help").map(|arg| {
        let id = arg.get_id().as_str();
        let default = arg.get_default_values().first().map_or("-".into(), |d| code(d.to_str().unwrap()));
        let key = if id == "config" { "-".into() } else { code(id) };
        let help = arg.get_long_help().or(arg.get_help()).unwrap().to_string();
        let variable = arg.get_env().unwrap().to_str().unwrap();
        [code(&format!("--{}", arg.get_long().unwrap())), code(variable), key, default, help]
    });
    let head = ["flag", "variable", "key in dept.toml", "default", "meaning"];
    let text = format!(
        "# Configuration of `dept serve`\n\nA flag wins over its variable, that over its key in `dept.toml`, that \
         over the default. Sizes take `KiB`, `MiB`, `GiB`, times `ms`, `s`, `m`. Relative paths start at the working \
         directory. A key that means nothing is an error. Exit codes: 2 for a bad command line, 78 for a bad \
         configuration.\n\n{}",
        contract::table(head, rows)
    );
    contract::hold("docs/configuration.md", &text);
}
