use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

use crate::{api::bounds::MAX_BIASED, domain::LogitBias};

/// `logit_bias`: an object from token ids, written as text, to what is added.
#[derive(Debug, Clone, Default)]
pub struct LogitBiasField(pub LogitBias);

impl<'de> Deserialize<'de> for LogitBiasField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Biases)
    }
}

struct Biases;

impl<'de> Visitor<'de> for Biases {
    type Value = LogitBiasField;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from token ids to numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LogitBiasField, A::Error> {
        let mut biases = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let Ok(token) = key.parse::<u32>() else {
                return Err(de::Error::custom(format_args!(
                    "'{key}' is not a token id: tokenize the text first"
                )));
            };
            let bias = map.next_value::<f64>()? as f32;
            if biases.insert(token, bias).is_some() {
                return Err(de::Error::custom(format_args!("token id {token} is there twice")));
            }
            if biases.len() > MAX_BIASED {
                return Err(de::Error::custom(format_args!("it has more than {MAX_BIASED} tokens")));
            }
        }
        Ok(LogitBiasField(biases.into_iter().collect()))
    }
}
