//! Unknown fields: ignored, since real clients send extras, and named in a header, since a typo must not pass silently.

use std::{collections::BTreeSet, fmt};

use axum::{
    extract::{FromRequest, Request},
    http::HeaderValue,
    response::Response,
};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::api::{
    ApiError,
    frame::DEPT_IGNORED,
    http::{Door, json},
};

/// Most fields that are named, and most characters of one.
const MAX_NAMES: usize = 32;
const MAX_NAME: usize = 64;

/// The fields of an object, or of the objects in a list.
pub(in crate::api::http) struct Fields {
    /// Their names.
    pub names: &'static [&'static str],
    /// Those that hold objects themselves.
    pub inside: &'static [(&'static str, &'static Fields)],
}

/// A body whose unknown fields are ignored.
pub(in crate::api::http) trait Lenient: DeserializeOwned {
    /// What it knows.
    const FIELDS: Fields;
}

/// A body, and what of it is ignored.
pub(in crate::api::http) struct Body<T>(pub T, pub Ignored);

impl<T: Lenient> FromRequest<Door> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, door: &Door) -> Result<Self, ApiError> {
        let bytes = json::bytes(request, door).await?;
        let body = json::parse(&bytes)?;
        Ok(Self(body, Ignored::of(&bytes, &T::FIELDS)))
    }
}

/// The names of ignored fields, as `messages.weight`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::api::http) struct Ignored(BTreeSet<String>);

impl Ignored {
    /// What `fields` does not know of the JSON in `body`.
    fn of(body: &[u8], fields: &'static Fields) -> Self {
        let mut names = BTreeSet::new();
        let look = Look { fields, path: String::new(), names: &mut names };
        // What is wrong with the body has been said by who read it.
        let _ = look.deserialize(&mut serde_json::Deserializer::from_slice(body));
        Self(names)
    }

    /// Says in `response` what was ignored.
    pub fn tell(&self, response: &mut Response) {
        let listed = self.0.iter().take(MAX_NAMES).map(|name| printable(name)).collect::<Vec<_>>().join(", ");
        let header = HeaderValue::try_from(listed).ok().filter(|listed| !listed.is_empty());
        response.headers_mut().extend(header.map(|listed| (DEPT_IGNORED, listed)));
    }
}

/// A name as it may stand in a header.
fn printable(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && c != ',' { c } else { '?' };
    name.chars().take(MAX_NAME).map(plain).collect()
}

/// Looks through an object, or through every object of a list.
struct Look<'a> {
    fields: &'static Fields,
    path: String,
    names: &'a mut BTreeSet<String>,
}

impl Look<'_> {
    fn again(&mut self, fields: &'static Fields, path: String) -> Look<'_> {
        Look { fields, path, names: self.names }
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A scalar has no fields.
macro_rules! scalars {
    ($($visit:ident: $kind:ty),*) => {
        $(fn $visit<E>(self, _: $kind) -> Result<(), E> { Ok(()) })*
    };
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let (fields, path) = (self.fields, self.path.clone());
        while list.next_element_seed(self.again(fields, path.clone()))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            if let Some((_, fields)) = self.fields.inside.iter().find(|(inside, _)| *inside == name) {
                map.next_value_seed(self.again(fields, path))?;
                continue;
            }
            if !self.fields.names.contains(&name.as_str()) && self.names.len() < MAX_NAMES {
                self.names.insert(path);
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}
