//! The way back through attention: scores are computed again from q and k, so nothing but the input is kept.
//!
//! With `p = softmax(scale q K + bias)` and the gradient `do` of a row's output: `dv_j += p_j do`, `dp_j = do . v_j`,
//! `ds_j = p_j (dp_j - sum_i p_i dp_i)`, `dq = scale sum_j ds_j k_j`, `dk_j += scale ds_j q`; with a soft cap, `cap tanh(s / cap)`,
//! `ds_j` is `1 - tanh^2` times that. A task is one key head of one
//! span, and its sums run in order of rows, so neither threads nor neighbours change a bit.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor};

use super::{AmongRows, Attention, HeadShape, Keys, OverSlab, RelativeBias, Span};
use crate::kernels::{contiguous::read, pool::ComputePool, simd};

impl Attention<'_> {
    /// As `among_rows`, keeping what the way back needs.
    pub(super) fn among_rows_tracked(&self, qkv: &Tensor) -> Result<Tensor> {
        qkv.apply_op1(AmongRowsKept(Kept::of(self)?))
    }

    /// As `over_rows`, keeping what the way back needs.
    pub(super) fn over_rows_tracked(&self, q: &Tensor, kv: &Tensor) -> Result<Tensor> {
        q.apply_op2(kv, OverRowsKept(Kept::of(self)?))
    }
}

/// An attention call that owns its parts until the gradients come.
struct Kept {
    heads: HeadShape,
    scale: f32,
    soft_cap: Option<f32>,
    bias: Option<RelativeBias>,
    window: Option<usize>,
    spans: Vec<Span<'static>>,
    pool: ComputePool,
}

impl Kept {
    fn of(attention: &Attention<'_>) -> Result<Self> {
        let span = |span: &Span<'_>| match span.keys {
            Keys::Rows { start } => Ok(Span { keys: Keys::Rows { start }, ..span.clone() }.owned()),
            Keys::Blocks { .. } => candle_core::bail!("blocks of a slab pass no gradients: attend over rows"),
        };
        Ok(Self {
            heads: attention.heads,
            scale: attention.scale,
            soft_cap: attention.soft_cap,
            bias: attention.bias.cloned(),
            window: attention.window,
            spans: attention.spans.iter().map(span).collect::<Result<_>>()?,
            pool: attention.pool.clone(),
        })
    }

    fn borrowed(&self) -> Attention<'_> {
        let Self { heads, scale, soft_cap, bias, window, spans, pool } = self;
        Attention {
            heads: *heads,
            scale: *scale,
            soft_cap: *soft_cap,
            bias: bias.as_ref(),
            window: *window,
            spans,
            pool,
            tables: None,
        }
    }
}

impl Span<'_> {
    /// The same span over rows, which borrows nothing.
    fn owned(self) -> Span<'static> {
        let Self { queries, first_position, context, keys, causal } = self;
        let start = match keys {
            Keys::Rows { start } => start,
            Keys::Blocks { .. } => 0,
        };
        Span { queries, first_position, context, keys: Keys::Rows { start }, causal }
    }
}

struct AmongRowsKept(Kept);

impl CustomOp1 for AmongRowsKept {
    fn name(&self) -> &'static str {
        "ragged-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        AmongRows(self.0.borrowed()).cpu_fwd(storage, layout)
    }

    fn bwd(&self, qkv: &Tensor, _out: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let heads = self.0.heads;
        let (q_width, kv_width) = (heads.query_width(), heads.kv_width());
        let stride = q_width + 2 * kv_width;
        let out = read(self.name(), qkv, |x| {
            read(self.name(), gradient, |gradient| {
                let part = |offset| Part { values: x, stride, offset };
                let inputs = Inputs { q: part(0), k: part(q_width), v: part(q_width + kv_width), gradient };
                let mut out = vec![0f32; x.len()]; // (rows, [q; k; v])
                for (place, task) in tasks(&self.0.borrowed(), inputs) {
                    let (span, head) = (&self.0.spans[place.span], place.kv_head);
                    let rows = span.queries.clone();
                    add(&mut out, (stride, head * task.group), rows, &task.q);
                    let keys = key_rows(span);
                    add(&mut out, (stride, q_width + head * heads.dim), keys.clone(), &task.k);
                    add(&mut out, (stride, q_width + kv_width + head * heads.dim), keys, &task.v);
                }
                Ok(out)
            })
        })?;
        Tensor::from_vec(out, qkv.shape(), &Device::Cpu).map(Some)
    }
}

struct OverRowsKept(Kept);

impl CustomOp2 for OverRowsKept {
    fn name(&self) -> &'static str {
        "rows-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        kv: &CpuStorage,
        kv_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        OverSlab(self.0.borrowed()).cpu_fwd(q, q_layout, kv, kv_layout)
    }

    fn bwd(
        &self,
        q: &Tensor,
        kv: &Tensor,
        _out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let heads = self.0.heads;
        let (kv_width, q_stride) = (heads.kv_width(), q.dim(1)?);
        let name = self.name();
        let (to_q, to_kv) = read(name, q, |qs| {
            read(name, kv, |kvs| {
                read(name, gradient, |gradient| {
                    let part = |offset| Part { values: kvs, stride: 2 * kv_width, offset };
                    let q = Part { values: qs, stride: q_stride, offset: 0 };
                    let inputs = Inputs { q, k: part(0), v: part(kv_width), gradient };
                    let (mut to_q, mut to_kv) = (vec![0f32; qs.len()], vec![0f32; kvs.len()]);
                    for (place, task) in tasks(&self.0.borrowed(), inputs) {
                        let (span, head) = (&self.0.spans[place.span], place.kv_head);
                        add(&mut to_q, (q_stride, head * task.group), span.queries.clone(), &task.q);
                        let keys = key_rows(span);
                        add(&mut to_kv, (2 * kv_width, head * heads.dim), keys.clone(), &task.k);
                        add(&mut to_kv, (2 * kv_width, kv_width + head * heads.dim), keys, &task.v);
                    }
                    Ok((to_q, to_kv))
                })
            })
        })?;
        let to_kv = Tensor::from_vec(to_kv, kv.shape(), &Device::Cpu)?;
        let to_q = q.track_op().then(|| Tensor::from_vec(to_q, q.shape(), &Device::Cpu)).transpose()?;
        Ok((to_q, kv.track_op().then_some(to_kv)))
    }
}

/// The rows of a span's keys.
fn key_rows(span: &Span<'_>) -> std::ops::Range<usize> {
    match span.keys {
        Keys::Rows { start } => start..start + span.context,
        Keys::Blocks { .. } => 0..0,
    }
}

/// Adds `(rows, width)` to the columns from `offset` on of the rows of a matrix.
fn add(out: &mut [f32], (stride, offset): (usize, usize), rows: std::ops::Range<usize>, values: &[f32]) {
    let width = values.len() / rows.len().max(1);
    for (row, values) in rows.zip(values.chunks_exact(width.max(1))) {
        let out = &mut out[row * stride + offset..][..width];
        out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
    }
}

/// A part of the columns of a matrix.
#[derive(Clone, Copy)]
struct Part<'a> {
    values: &'a [f32],
    stride: usize,
    offset: usize,
}

impl<'a> Part<'a> {
    #[inline(always)]
    fn at(&self, row: usize, column: usize, count: usize) -> &'a [f32] {
        &self.values[row * self.stride + self.offset + column..][..count]
    }
}

/// What the gradients are made of; `gradient` is of the output, `(rows, heads * dim)`.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    q: Part<'a>,
    k: Part<'a>,
    v: Part<'a>,
    gradient: &'a [f32],
}

/// Which span and which key head.
#[derive(Clone, Copy)]
struct Place {
    span: usize,
    kv_head: usize,
}

/// The gradients of one key head of one span.
struct Task {
    /// Columns of the query heads that read the key head.
    group: usize,
    /// `(queries, group)`
    q: Vec<f32>,
    /// `(keys, dim)`
    k: Vec<f32>,
    /// `(keys, dim)`
    v: Vec<f32>,
}

/// All gradients, span by span.
fn tasks(attention: &Attention<'_>, inputs: Inputs<'_>) -> impl Iterator<Item = (Place, Task)> {
    let kv_heads = attention.heads.kv_heads;
    let count = attention.spans.len() * kv_heads;
    let done: Vec<OnceLock<Task>> = (0..count).map(|_| OnceLock::new()).collect();
    let place = move |index: usize| Place { span: index / kv_heads, kv_head: index % kv_heads };
    attention.pool.run(count, |index| {
        done[index].get_or_init(|| task(attention, inputs, place(index)));
    });
    let taken = |task: OnceLock<Task>| task.into_inner().expect("the pool ran every chunk");
    done.into_iter().enumerate().map(move |(index, task)| (place(index), taken(task)))
}

fn task(attention: &Attention<'_>, inputs: Inputs<'_>, place: Place) -> Task {
    let HeadShape { heads, kv_heads, dim } = attention.heads;
    let span = &attention.spans[place.span];
    let per_key = heads / kv_heads;
    let group = per_key * dim;
    let mut task = Task {
        group,
        q: vec![0.0; span.queries.len() * group],
        k: vec![0.0; span.context * dim],
        v: vec![0.0; span.context * dim],
    };
    let Keys::Rows { start } = span.keys else { return task };
    let (mut weights, mut slopes) = (vec![0f32; span.context], vec![0f32; span.context]);
    let mut steepness = vec![0f32; span.context];
    for head in place.kv_head * per_key..(place.kv_head + 1) * per_key {
        for row in span.queries.clone() {
            let visible = span.visible(row, attention.window);
            let at = (row - span.queries.start) * group + (head % per_key) * dim;
            let rows = &mut Rows {
                q: inputs.q.at(row, head * dim, dim),
                gradient: &inputs.gradient[(row * heads + head) * dim..][..dim],
                k: Part { offset: inputs.k.offset + place.kv_head * dim, ..inputs.k },
                v: Part { offset: inputs.v.offset + place.kv_head * dim, ..inputs.v },
                first: start + visible.start,
                scale: attention.scale,
                soft_cap: attention.soft_cap,
                bias: attention.bias.map(|bias| bias.row(head, span.position(row), visible.clone())),
                weights: &mut weights[..visible.len()],
                slopes: &mut slopes[..visible.len()],
                steepness: &mut steepness[..visible.len()],
                to_q: &mut task.q[at..at + dim],
                to_k: &mut task.k[visible.start * dim..visible.end * dim],
                to_v: &mut task.v[visible.start * dim..visible.end * dim],
            };
            simd::widest!(one_row(rows: &mut Rows<'_>));
        }
    }
    task
}

/// One query row of one head, and where its gradients go.
struct Rows<'a> {
    q: &'a [f32],
    gradient: &'a [f32],
    k: Part<'a>,
    v: Part<'a>,
    /// Row of the first key that it sees.
    first: usize,
    scale: f32,
    soft_cap: Option<f32>,
    bias: Option<&'a [f32]>,
    weights: &'a mut [f32],
    slopes: &'a mut [f32],
    /// What a score grows by with its dot product.
    steepness: &'a mut [f32],
    to_q: &'a mut [f32],
    to_k: &'a mut [f32],
    to_v: &'a mut [f32],
}

#[inline(always)]
fn one_row(rows: &mut Rows<'_>) {
    let dim = rows.q.len();
    for (j, (weight, steepness)) in rows.weights.iter_mut().zip(&mut *rows.steepness).enumerate() {
        let bias = rows.bias.map_or(0.0, |bias| bias[j]);
        let dot = simd::dot(rows.q, rows.k.at(rows.first + j, 0, dim));
        (*weight, *steepness) = match rows.soft_cap {
            None => (rows.scale.mul_add(dot, bias), rows.scale),
            Some(cap) => {
                let bent = simd::tanh(rows.scale * dot / cap);
                (cap.mul_add(bent, bias), rows.scale * (1.0 - bent * bent))
            }
        };
    }
    let largest = simd::max(rows.weights);
    rows.weights.iter_mut().for_each(|weight| *weight = simd::exp(*weight - largest));
    let total = simd::sum(rows.weights);
    if total == 0.0 {
        return;
    }
    let share = 1.0 / total;
    for (j, (weight, slope)) in rows.weights.iter_mut().zip(&mut *rows.slopes).enumerate() {
        *weight *= share;
        *slope = simd::dot(rows.gradient, rows.v.at(rows.first + j, 0, dim));
    }
    let mean = simd::dot(rows.weights, rows.slopes);
    for (j, (&weight, &slope)) in rows.weights.iter().zip(&*rows.slopes).enumerate() {
        let slope = rows.steepness[j] * weight * (slope - mean);
        let key = rows.k.at(rows.first + j, 0, dim);
        let (to_k, to_v) = (&mut rows.to_k[j * dim..][..dim], &mut rows.to_v[j * dim..][..dim]);
        for i in 0..dim {
            rows.to_q[i] = slope.mul_add(key[i], rows.to_q[i]);
            to_k[i] = slope.mul_add(rows.q[i], to_k[i]);
            to_v[i] = weight.mul_add(rows.gradient[i], to_v[i]);
        }
    }
}
