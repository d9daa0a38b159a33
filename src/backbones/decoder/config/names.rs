use crate::{backbones::weights::Weights, layers::Stored};

/// What a checkpoint calls its modules: those of a block behind `{prefix}{blocks}.{index}.`, the others behind `{prefix}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// Before every name but the output map's.
    pub prefix: &'static str,
    /// The embedding table.
    pub table: &'static str,
    /// The learned positions, where the model has them.
    pub positions: &'static str,
    /// The list of blocks.
    pub blocks: &'static str,
    /// The norm before attention.
    pub attention_norm: &'static str,
    /// q, k and v, or all in one.
    pub qkv: &'static [&'static str],
    /// How q and k are stored.
    pub query_key_stored: Stored,
    /// How the other maps are stored.
    pub stored: Stored,
    /// The norm of a head of q.
    pub query_norm: &'static str,
    /// The norm of a head of k.
    pub key_norm: &'static str,
    /// Attention's output map.
    pub out: &'static str,
    /// The norm of what attention adds, where the model has it.
    pub after_attention: &'static str,
    /// The norm before the MLP.
    pub mlp_norm: &'static str,
    /// The MLP's first map, or gate and up.
    pub inner: &'static [&'static str],
    /// The MLP's output map.
    pub mlp_out: &'static str,
    /// The norm of what the MLP adds, where the model has it.
    pub after_mlp: &'static str,
    /// The norm before the output map.
    pub norm: &'static str,
}

impl Names {
    /// The names behind the first of `prefixes` that this checkpoint uses: exports differ in their outermost module.
    pub(super) fn behind(self, prefixes: &[&'static str], weights: &Weights) -> Self {
        let holds = |prefix: &&&'static str| weights.contains(&format!("{prefix}{}.weight", self.table));
        Self { prefix: prefixes.iter().find(holds).unwrap_or(&self.prefix), ..self }
    }
}
