//! The fuzz targets on their committed corpus, on any toolchain.

use std::{fs, path::Path};

#[path = "../../../fuzz/src/targets.rs"]
mod targets;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let files: Vec<Vec<u8>> = files.collect();
    assert!(files.len() >= 4, "{name} has a corpus");
    for bytes in files {
        target(&bytes);
        // And cut short, as transfers are.
        (0..bytes.len()).step_by(1 + bytes.len() / 64).for_each(|at| target(&bytes[..at]));
    }
}

#[test]
fn the_corpus_of_every_fuzz_target_passes() {
    replay("config", targets::config);
    replay("card", targets::card);
    replay("torch_bin", targets::torch_bin);
    replay("safetensors", targets::safetensors);
    replay("archive", targets::archive);
}
