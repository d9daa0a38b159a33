//! Whatever the bytes, a reader answers.

use proptest::prelude::*;

use super::{
    super::{
        Card, Manifest,
        safetensors::Safetensors,
        template::Template,
        tensor_file::{TensorFile, WeightsFormat},
        torch_bin::TorchBin,
    },
    support::{config, load_bytes, safetensors, tensors, torch_bin, torch_zip},
};

/// Reads everything in a file that opens.
fn read_all(format: WeightsFormat, bytes: Vec<u8>) {
    if let Ok(mut file) = TensorFile::open(format, bytes) {
        for name in file.infos().keys().cloned().collect::<Vec<_>>() {
            let _ = file.read(&name);
        }
    }
}

/// Bytes in which the pickle machine's instructions are frequent.
fn instructions() -> impl Strategy<Value = Vec<u8>> {
    let code = prop::sample::select(b"(NKMJXctsuqrhjQRb.)}\x85\x86\x87\x88\x89\x8a\x00\x01\x02\n".to_vec());
    let call = prop::sample::select(vec![
        b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(),
        b"ctorch._utils\n_rebuild_parameter\n".to_vec(),
        b"ccollections\nOrderedDict\n".to_vec(),
        b"ctorch\nFloatStorage\n".to_vec(),
        b"X\x07\0\0\0storageq\x01".to_vec(),
        b"X\x01\0\0\x000q\x02".to_vec(),
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000h\x02K\x04tQ".to_vec(),
        b"K\x00K\x02K\x02\x86K\x02K\x01\x86\x89)".to_vec(),
    ]);
    let part =
        prop_oneof![4 => code.prop_map(|byte| vec![byte]), 3 => call, 1 => any::<u8>().prop_map(|b| vec![b])];
    prop::collection::vec(part, 0..60).prop_map(|parts| [vec![0x80, 2], parts.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn on_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Manifest::parse(&bytes);
        let _ = Card::parse(&bytes);
        let _ = Safetensors::open(bytes.clone());
        let _ = TorchBin::open([b"PK".to_vec(), bytes.clone()].concat());
        let _ = TorchBin::open(torch_zip(&bytes, &[("0", vec![0; 16])]));
        read_all(WeightsFormat::TorchBin, bytes);
    }

    #[test]
    fn on_arbitrary_instructions(pickle in instructions()) {
        read_all(WeightsFormat::TorchBin, torch_zip(&pickle, &[("0", vec![0; 16])]));
    }

    #[test]
    fn on_damaged_files(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        for (format, mut bytes) in [
            (WeightsFormat::TorchBin, torch_bin(&tensors())),
            (WeightsFormat::Safetensors, safetensors(&tensors())),
        ] {
            for (index, byte) in &flips {
                let at = index.index(bytes.len());
                bytes[at] = *byte;
            }
            let _ = load_bytes(&config(), format, bytes.clone());
            read_all(format, bytes);
        }
    }

    #[test]
    fn on_arbitrary_text(text in "\\PC{0,80}|[{}a-c=\\[\\]\"'.\n 0-9]{0,60}") {
        let _ = Manifest::parse(text.as_bytes());
        let _ = Card::parse(text.as_bytes());
        if let Ok(template) = Template::parse(&text) {
            prop_assert_eq!(Template::parse(&template.to_string()).unwrap(), template);
        }
    }
}
