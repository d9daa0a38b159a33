mod converting;
mod fetching;
mod inspecting;

/// ONNX as protobuf, written by hand: as much as the tests need.
mod proto {
    pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2], varint(content.len() as u64).as_slice(), content].concat()
    }

    pub fn number(number: u8, value: u64) -> Vec<u8> {
        [vec![number << 3], varint(value)].concat()
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value > 0x7f {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// 1 is float, 2 u8, 3 i8.
    pub fn tensor(name: &str, kind: u64, shape: &[u64], raw: &[u8]) -> Vec<u8> {
        let dims: Vec<u8> = shape.iter().flat_map(|&n| number(1, n)).collect();
        field(5, &[dims, number(2, kind), field(8, name.as_bytes()), field(9, raw)].concat())
    }

    /// A scalar lies in the typed fields: 4 for floats, 5 for integers.
    pub fn scalar(name: &str, kind: u64, value: &[u8]) -> Vec<u8> {
        let stored = field(if kind == 1 { 4 } else { 5 }, value);
        field(5, &[number(2, kind), field(8, name.as_bytes()), stored].concat())
    }

    pub fn product(name: &str, matrix: &str) -> Vec<u8> {
        let parts = [
            field(1, b"x"),
            field(1, matrix.as_bytes()),
            field(3, name.as_bytes()),
            field(4, b"MatMulInteger"),
        ];
        field(1, &parts.concat())
    }

    pub fn graph(parts: &[Vec<u8>]) -> Vec<u8> {
        [number(1, 8), field(7, &parts.concat())].concat()
    }
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// An 8-bit tensor with scale and zero point.
fn quantised(stem: &str, kind: u64, shape: &[u64], q: &[u8], scale: f32, zero_point: u8) -> Vec<u8> {
    [
        proto::tensor(&format!("{stem}_quantized"), kind, shape, q),
        proto::scalar(&format!("{stem}_scale"), 1, &f32s(&[scale])),
        proto::scalar(&format!("{stem}_zero_point"), kind, &[zero_point]),
    ]
    .concat()
}

/// An encoder and a decoder of one matrix each, with a shared table of three rows.
fn graphs() -> [Vec<u8>; 2] {
    // (3, 2) with the zero point 100: the last row has the step 155, over 127.
    let table = |name: &str| quantised(name, 2, &[3, 2], &[100, 101, 99, 100, 255, 100], 0.5, 100);
    let encoder = proto::graph(&[
        table("enc.embed_tokens.weight"),
        proto::tensor("enc.block.0.layer.0.layer_norm.weight", 1, &[2], &f32s(&[1.0, 2.0])),
        quantised(
            "enc.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            2,
            &[1, 2],
            &[3, 5],
            2.0,
            4,
        ),
        quantised("onnx::MatMul_7", 3, &[2, 3], &[1, 2, 3, 4, 5, 0xfa], 0.25, 0),
        proto::product("/enc/block.0/layer.0/SelfAttention/q/MatMul_quant", "onnx::MatMul_7_quantized"),
    ]);
    let decoder = proto::graph(&[
        table("enc.embed_tokens.weight"),
        quantised("onnx::MatMul_9", 3, &[2, 1], &[7, 8], 0.125, 0),
        proto::product("/m/lm_head/MatMul_quant", "onnx::MatMul_9_quantized"),
    ]);
    [encoder, decoder]
}
