//! The part of compressed-tensors' `quantization_config` that this server computes: `int-quantized`, 8-bit
//! symmetric weights with a scale a row, inputs rounded at run time with a scale a token.

use regex::Regex;
use serde_json::Value;

use super::WeightsError;

/// The class name that stands for every dense layer.
const LINEAR: &str = "Linear";
/// The class name that stands for every table.
const EMBEDDING: &str = "Embedding";

/// Which modules are stored as bytes, and how their inputs are rounded.
#[derive(Debug)]
pub(super) struct Quantization {
    groups: Vec<Group>,
    ignore: Vec<Target>,
}

#[derive(Debug)]
struct Group {
    name: String,
    targets: Vec<Target>,
    /// Bits of the input: 8 or 15; none where only the weights are rounded.
    activation_bits: Option<u8>,
}

/// A module's name, a pattern over names, or a class of modules.
#[derive(Debug)]
enum Target {
    Pattern(Regex),
    Name(String),
}

impl Quantization {
    /// From `config.json`'s section; refuses by name whatever can't be honoured.
    pub(super) fn parse(section: &Value) -> Result<Self, WeightsError> {
        let root = Field { path: String::new(), value: section };
        root.at("quant_method").must_be("compressed-tensors", "\"compressed-tensors\"")?;
        root.at("format").must_be("int-quantized", "\"int-quantized\"")?;
        for absent in ["kv_cache_scheme", "transform_config", "sparsity_config"] {
            root.at(absent).must_be_empty()?;
        }
        let groups = root.at("config_groups");
        let groups = match groups.value.as_object() {
            Some(map) if !map.is_empty() => {
                map.keys().map(|name| Group::parse(name, &groups.at(name))).collect::<Result<_, _>>()?
            }
            _ => return Err(groups.refused("an object with a group at least")),
        };
        let ignore = root.at("ignore");
        let ignore = if ignore.value.is_null() { Vec::new() } else { ignore.targets()? };
        Ok(Self { groups, ignore })
    }

    /// The input bits (8 or 15) of a dense layer; `None` where no group targets it.
    pub(super) fn linear(&self, module: &str) -> Result<Option<u8>, WeightsError> {
        let Some(group) = self.group(module, LINEAR) else { return Ok(None) };
        let bits = group.activation_bits.ok_or_else(|| WeightsError::Quantization {
            field: format!("config_groups.{}.input_activations", group.name),
            found: format!("null (and the group targets '{module}')"),
            expected: "8 or 16 dynamic bits a token: weight-only layers aren't computed",
        })?;
        Ok(Some(bits))
    }

    /// Whether a group describes this table.
    pub(super) fn targets_embedding(&self, module: &str) -> bool {
        self.group(module, EMBEDDING).is_some()
    }

    /// The group of a module: a name wins over a pattern, a pattern over a class.
    fn group(&self, module: &str, class: &str) -> Option<&Group> {
        if self.ignore.iter().any(|target| target.rank(module, class).is_some()) {
            return None;
        }
        let rank = |group: &Group| group.targets.iter().filter_map(|t| t.rank(module, class)).min();
        self.groups
            .iter()
            .filter_map(|group| Some((rank(group)?, group)))
            .min_by_key(|(r, _)| *r)
            .map(|(_, g)| g)
    }
}

impl Group {
    fn parse(name: &str, field: &Field<'_>) -> Result<Self, WeightsError> {
        let weights = field.at("weights");
        weights.at("num_bits").must_be(8, "8")?;
        weights.at("type").must_be("int", "\"int\"")?;
        weights.at("symmetric").must_be(true, "true")?;
        weights.at("strategy").must_be("channel", "\"channel\": one scale an output row")?;
        if !weights.at("dynamic").value.is_null() {
            weights.at("dynamic").must_be(false, "false")?;
        }
        field.at("output_activations").must_be_empty()?;
        if !field.at("format").value.is_null() {
            field.at("format").must_be("int-quantized", "\"int-quantized\"")?;
        }
        let input = field.at("input_activations");
        let activation_bits = if input.value.is_null() { None } else { Some(activation_bits(&input)?) };
        Ok(Self { name: name.to_owned(), targets: field.at("targets").targets()?, activation_bits })
    }
}

/// 8 stays 8; 16 becomes 15, which is what two signed bytes hold symmetrically.
fn activation_bits(input: &Field<'_>) -> Result<u8, WeightsError> {
    input.at("type").must_be("int", "\"int\"")?;
    input.at("symmetric").must_be(true, "true")?;
    input.at("dynamic").must_be(true, "true: scales are found at run time")?;
    input.at("strategy").must_be("token", "\"token\": one scale a token")?;
    match input.at("num_bits").value.as_u64() {
        Some(8) => Ok(8),
        Some(16) => Ok(15),
        _ => Err(input.at("num_bits").refused("8 or 16")),
    }
}

impl Target {
    /// 0 for the module's name, 1 for a pattern, 2 for its class; `None` where it isn't meant.
    fn rank(&self, module: &str, class: &str) -> Option<u8> {
        match self {
            Self::Name(name) if name == module => Some(0),
            Self::Pattern(pattern) if pattern.is_match(module) => Some(1),
            Self::Name(name) if name == class => Some(2),
            _ => None,
        }
    }
}

static NULL: Value = Value::Null;

/// A value with its path, so that a refusal can say where.
struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    /// A member; absent ones are null.
    fn at(&self, key: &str) -> Field<'a> {
        let dot = if self.path.is_empty() { "" } else { "." };
        Field { path: format!("{}{dot}{key}", self.path), value: self.value.get(key).unwrap_or(&NULL) }
    }

    fn refused(&self, expected: &'static str) -> WeightsError {
        let found = if self.value.is_null() { "absent".into() } else { self.value.to_string() };
        WeightsError::Quantization { field: self.path.clone(), found, expected }
    }

    fn must_be<T>(&self, wanted: T, expected: &'static str) -> Result<(), WeightsError>
    where
        Value: PartialEq<T>,
    {
        if *self.value == wanted { Ok(()) } else { Err(self.refused(expected)) }
    }

    /// Null or an empty object: the feature isn't used.
    fn must_be_empty(&self) -> Result<(), WeightsError> {
        let empty = self.value.is_null() || self.value.as_object().is_some_and(|map| map.is_empty());
        if empty { Ok(()) } else { Err(self.refused("checkpoints without it")) }
    }

    fn targets(&self) -> Result<Vec<Target>, WeightsError> {
        let list = self.value.as_array().ok_or_else(|| self.refused("a list of module names"))?;
        list.iter()
            .map(|target| {
                let text = target.as_str().ok_or_else(|| self.refused("a list of module names"))?;
                let Some(pattern) = text.strip_prefix("re:") else {
                    return Ok(Target::Name(text.to_owned()));
                };
                // The format's patterns are anchored at the start only.
                let anchored = Regex::new(&format!("^(?:{pattern})"));
                anchored.map(Target::Pattern).map_err(|_| self.refused("patterns without look-around"))
            })
            .collect()
    }
}
