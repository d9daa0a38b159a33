mod local;
mod server;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

fn model(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    folder
}

#[test]
fn the_command_line_is_as_documented() {
    for line in [
        &["adapter", "inspect", "DIR"][..],
        &["adapter", "inspect", "DIR", "--json", "--task-id", "2"],
        &["adapter", "validate", "DIR", "--model", "M"],
        &["adapter", "convert", "x.tar.gz", "DIR", "--task-id", "2"],
        &[
            "adapter",
            "push",
            "DIR",
            "--name",
            "x",
            "--server",
            "http://h:1",
            "--api-key",
            "k",
            "--if-match",
            "v",
        ],
        &["adapter", "pull", "x@0123456789ab", "--to", "DIR"],
        &["adapter", "list", "--json"],
        &["adapter", "rm", "x", "--namespace", "shared"],
    ] {
        assert!(Line::try_parse_from(line).is_ok(), "{line:?}");
    }
    assert!(Line::try_parse_from(["adapter"]).is_err());
    assert!(Line::try_parse_from(["adapter", "inspect"]).is_err());
    assert!(Line::try_parse_from(["adapter", "rm", "../x"]).is_err());
    assert!(Line::try_parse_from(["adapter", "push", "DIR", "--new", "--if-match", "v"]).is_err());
}

#[test]
fn inspect_prints_a_table() {
    let table = inspect(&golden("official/sst2"), false, None).unwrap();
    for line in [
        "name            sst2\n",
        "version         sha256:7ff71de10f2a",
        "method          dept\n",
        "task            SEQ_2_SEQ_LM\n",
        "base model      t5-base\n",
        "prompt length   m = 60\n",
        "rank            r = 30\n",
        "max length      s = 256 tokens\n",
        "hidden size     d = 768\n",
        "parameters      76800\n",
        "bytes           307200 in memory\n",
        "file            adapter_model.bin\n",
        "prompt_embeddings  f32 [60, 768]\n",
        "card            none\n",
    ] {
        assert!(table.contains(line), "{line} is not in\n{table}");
    }
}

#[test]
fn inspect_prints_json() {
    let json: Value = serde_json::from_str(&inspect(&golden("official/sst2"), true, None).unwrap()).unwrap();
    assert_eq!(
        (&json["method"], &json["rank"], &json["max_length"]),
        (&json!("dept"), &json!(30), &json!(256))
    );
    assert_eq!(json["file"]["tensors"][0]["shape"], json!([60, 768]));
    assert_eq!(json["card"], json!({}));
}

#[test]
fn a_card_is_shown() {
    let card = "description = 'Yes or no'\ntemplate = '{q}?'\nlabels = { '1' = 'yes' }\nover_length = 'left'\n\
        [training]\ncommand = 'dept train'\nsteps = 40\nminutes = 1.5\ndate = '2026-11-24'\n\
        [[results]]\ndataset = 'boolq'\nsplit = 'test'\nmetric = 'accuracy'\nvalue = 0.5\nn = 10\nauc = 0.6";
    let card = Card::parse(card.as_bytes()).unwrap();
    let mut out = String::new();
    card_rows(&card, &mut |key, value| writeln!(out, "{key}: {value}")).unwrap();
    assert_eq!(
        out,
        "description: Yes or no\ntemplate: {q}?\nover length: left\nlabel: 1 -> yes\n\
         training: 40 steps, 1.5 minutes, 2026-11-24\n: dept train\n\
         result: boolq[test] accuracy 0.5 (n = 10, AUC 0.6)\n"
    );
}

#[test]
fn validate_names_what_is_wrong() {
    let sst2 = golden("official/sst2");
    assert!(validate(&sst2, None).unwrap().starts_with("ok: sst2 sha256:7ff71de10f2a"));
    let error = validate(&golden("official/wic"), None).unwrap_err().to_string();
    assert!(error.contains("lora_embedding_A") && error.contains("lora_embedding_B"), "{error}");

    let base = model(r#"{"model_type": "t5", "d_model": 768}"#);
    assert!(validate(&sst2, Some(base.path())).unwrap().contains(", fits "));
    for (config, part) in [
        (r#"{"model_type": "t5", "d_model": 512}"#, "hidden size of 768"),
        (r#"{"model_type": "llama", "hidden_size": 768}"#, "CAUSAL_LM"),
        (r#"{"is_encoder_decoder": false, "d_model": 768}"#, "CAUSAL_LM"),
        (r#"{"model_type": "t5"}"#, "none of d_model"),
        ("{", "not JSON"),
    ] {
        let error = validate(&sst2, Some(model(config).path())).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = validate(&sst2, Some(Path::new("/nowhere"))).unwrap_err().to_string();
    assert!(error.contains("--model takes a model folder"), "{error}");
}

#[test]
fn a_folder_of_no_legal_name_can_be_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let upper = folder.path().join("My Adapter");
    std::fs::create_dir(&upper).unwrap();
    for file in ["adapter_config.json", "adapter_model.bin"] {
        std::fs::copy(golden("official/sst2").join(file), upper.join(file)).unwrap();
    }
    assert!(inspect(&upper, false, None).unwrap().contains("name            unnamed\n"));
}

#[test]
fn validate_compares_a_stated_fingerprint_where_the_weights_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let (model, adapter) = (golden("t5-v1_1"), dir.path().join("x"));
    let fingerprint = Weights::open(&model).unwrap().fingerprint().to_owned();
    for (stated, fits) in [(fingerprint.as_str(), true), ("0".repeat(64).as_str(), false)] {
        let mut bytes = files::read(&golden("adapters/t5-v1_1/dept")).unwrap();
        bytes.card = Some(format!("base = {{ fingerprint = '{stated}' }}").into_bytes());
        files::write(&bytes, &adapter).unwrap();
        match validate(&adapter, Some(&model)) {
            Ok(report) => assert!(fits && report.contains(", fits t5-v1_1"), "{report}"),
            Err(error) => assert!(!fits && error.to_string().contains(&"0".repeat(64)), "{error}"),
        }
        std::fs::remove_dir_all(&adapter).unwrap();
    }
}
