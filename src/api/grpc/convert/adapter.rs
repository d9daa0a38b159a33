use std::time::{Duration, UNIX_EPOCH};

use prost_types::{ListValue, NullValue, Struct, Timestamp, Value, value::Kind};

use super::{request::unknown, response::count};
use crate::{
    adapter::{
        catalogue::{Found, Precondition},
        residency::Residence,
    },
    api::{
        ApiError, Site,
        grpc::proto::{Adapter, Namespace, Residency},
    },
    domain::AdapterName,
};

/// What `name` stands for.
pub(in crate::api::grpc) fn adapter(name: &AdapterName, found: &Found) -> Adapter {
    let version = &found.version;
    let alias = *name != found.name;
    let namespace = if found.namespace.is_shared() { Namespace::Shared } else { Namespace::Home };
    let residency = match found.resident {
        Residence::Device => Residency::Device,
        Residence::Host => Residency::Host,
        Residence::Store => Residency::Store,
    };
    Adapter {
        name: name.to_string(),
        alias_of: alias.then(|| format!("{}@{}", found.name, version.version)),
        namespace: namespace.into(),
        version: version.version.to_string(),
        method: version.method.as_str().to_owned(),
        prompt_length: count(version.prompt_length),
        rank: count(version.rank),
        max_length: version.max_length.map(count),
        parameters: version.parameters as u64,
        bytes: version.bytes as u64,
        created_at: Some(Timestamp::from(UNIX_EPOCH + Duration::from_millis(version.created_ms))),
        residency: residency.into(),
        pinned: found.pinned,
        card: Some(card(&version.card)),
    }
}

/// Where a change is made.
pub(in crate::api::grpc) fn site(namespace: i32) -> Result<Site, ApiError> {
    match Namespace::try_from(namespace).map_err(|_| unknown("namespace", namespace))? {
        Namespace::Unspecified | Namespace::Home => Ok(Site::Home),
        Namespace::Shared => Ok(Site::Shared),
    }
}

/// The condition of a change.
pub(in crate::api::grpc) fn precondition(if_version: &str, only_new: bool) -> Result<Precondition, ApiError> {
    match (if_version, only_new) {
        ("", false) => Ok(Precondition::None),
        ("", true) => Ok(Precondition::Absent),
        (_, true) => {
            Err(ApiError::invalid("only_new", "if_version and only_new exclude each other: send one"))
        }
        (version, false) => version.parse().map(Precondition::Is).map_err(|_| {
            let message = format!("if_version is '{version}': send a whole version, sha256: and 64 digits");
            ApiError::invalid("if_version", message)
        }),
    }
}

/// A card's fields; a card is an object.
fn card(json: &serde_json::Value) -> Struct {
    let fields = json.as_object().into_iter().flatten();
    Struct { fields: fields.map(|(name, json)| (name.clone(), value(json))).collect() }
}

fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(NullValue::NullValue.into()),
        Json::Bool(flag) => Kind::BoolValue(*flag),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(list) => Kind::ListValue(ListValue { values: list.iter().map(value).collect() }),
        Json::Object(_) => Kind::StructValue(card(json)),
    };
    Value { kind: Some(kind) }
}
