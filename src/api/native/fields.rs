//! The fields of a JSON request: strictly parsed, asked for by name and type.
//!
//! Null equals absent for optional fields; for required ones it has an error of its own. Unknown
//! fields are ignored, since b2sdk itself sends one that the service does not know.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::domain::names::decode_text;
use crate::domain::refusal::{
    Code, Refusal, bad_request, missing_field, null_field, refuse, shorten, wrong_type,
};

/// A JSON value without duplicate keys anywhere.
struct Strict(Value);

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(Value::String(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Strict, E> {
        Ok(Strict(Value::String(value)))
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Strict(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Strict, A::Error> {
        let mut map = Map::new();
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("duplicate field: {}", shorten(&name))));
            }
            map.insert(name, value);
        }
        Ok(Strict(Value::Object(map)))
    }
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StrictVisitor)
    }
}

/// Parses JSON, refusing duplicate keys.
pub(crate) fn parse_json(body: &[u8]) -> Result<Value, Refusal> {
    let parsed: Result<Strict, _> = serde_json::from_slice(body);
    match parsed {
        Ok(Strict(value)) => Ok(value),
        Err(error) => Err(refuse(Code::BadJson, format!("request is not valid JSON: {error}"))),
    }
}

/// The fields of one request.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    /// Query parameters are all texts, so numbers, booleans and lists are read out of them.
    from_query: bool,
}

impl Fields {
    /// The fields of a JSON body; an empty body has none.
    pub(crate) fn from_body(body: &[u8]) -> Result<Self, Refusal> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self { map: Map::new(), from_query: false });
        }
        match parse_json(body)? {
            Value::Object(map) => Ok(Self { map, from_query: false }),
            _ => Err(refuse(Code::BadJson, "request body must be a JSON object")),
        }
    }

    /// The fields of the GET form of an operation.
    pub(crate) fn from_query(query: &str) -> Result<Self, Refusal> {
        let mut map = Map::new();
        for (name, value) in parse_query(query)? {
            if map.insert(name.clone(), Value::String(value)).is_some() {
                return Err(bad_request(format!("duplicate query parameter: {}", shorten(&name))));
            }
        }
        Ok(Self { map, from_query: true })
    }

    fn present(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Result<&Value, Refusal> {
        required(&self.map, name)
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, Refusal> {
        self.required(name)?.as_str().ok_or_else(|| wrong_type(name, "a string"))
    }

    pub(crate) fn opt_text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        self.present(name)
            .map(|value| value.as_str().ok_or_else(|| wrong_type(name, "a string")))
            .transpose()
    }

    pub(crate) fn int(&self, name: &str) -> Result<i64, Refusal> {
        self.as_int(name, self.required(name)?)
    }

    pub(crate) fn opt_int(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.present(name).map(|value| self.as_int(name, value)).transpose()
    }

    /// A number that clients also send as a string, as it is written.
    pub(crate) fn opt_number_text(&self, name: &str) -> Result<Option<String>, Refusal> {
        self.present(name)
            .map(|value| match value {
                Value::String(text) => Ok(text.clone()),
                Value::Number(number) => Ok(number.to_string()),
                _ => Err(wrong_type(name, "an integer")),
            })
            .transpose()
    }

    fn as_int(&self, name: &str, value: &Value) -> Result<i64, Refusal> {
        let number = match value {
            Value::String(text) if self.from_query => text.parse().ok(),
            other => other.as_i64(),
        };
        number.ok_or_else(|| wrong_type(name, "an integer"))
    }

    pub(crate) fn opt_bool(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.present(name)
            .map(|value| {
                match value {
                    Value::String(text) if self.from_query => text.parse().ok(),
                    other => other.as_bool(),
                }
                .ok_or_else(|| wrong_type(name, "a boolean"))
            })
            .transpose()
    }

    /// A structured field; in a query its value is JSON text.
    pub(crate) fn opt_structure(&self, name: &str) -> Result<Option<Value>, Refusal> {
        match self.present(name) {
            Some(Value::String(text)) if self.from_query => parse_json(text.as_bytes()).map(Some),
            other => Ok(other.cloned()),
        }
    }

    /// A structured field that is a list.
    pub(crate) fn list<T>(
        &self,
        name: &str,
        item: impl Fn(&Value) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        self.required(name)?;
        let value = self.opt_structure(name)?.ok_or_else(|| null_field(name))?;
        let items = value.as_array().ok_or_else(|| wrong_type(name, "an array"))?;
        items.iter().map(item).collect()
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, Refusal> {
        self.required(name)?;
        self.opt_texts(name)?.ok_or_else(|| null_field(name))
    }

    pub(crate) fn opt_texts(&self, name: &str) -> Result<Option<Vec<String>>, Refusal> {
        let Some(list) = self.opt_structure(name)? else { return Ok(None) };
        let wrong = || wrong_type(name, "an array of strings");
        let Value::Array(items) = list else { return Err(wrong()) };
        items
            .into_iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<Vec<_>, _>>()
            .map(Some)
    }

    pub(crate) fn opt_text_map(
        &self,
        name: &str,
    ) -> Result<Option<BTreeMap<String, String>>, Refusal> {
        let Some(map) = self.opt_structure(name)? else { return Ok(None) };
        let wrong = || wrong_type(name, "an object whose values are strings");
        let Value::Object(entries) = map else { return Err(wrong()) };
        entries
            .into_iter()
            .map(|(key, value)| value.as_str().map(|v| (key, v.to_owned())).ok_or_else(wrong))
            .collect::<Result<BTreeMap<_, _>, _>>()
            .map(Some)
    }

    /// Whether the request has the field at all, be it null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// Whether a field is an object whose `mode` is null, absent or `none`: how older SDKs spell
    /// that they want nothing.
    pub(crate) fn names_no_mode(&self, name: &str) -> Result<bool, Refusal> {
        let Some(Value::Object(members)) = self.opt_structure(name)? else { return Ok(false) };
        match members.get("mode") {
            None | Some(Value::Null) => Ok(true),
            Some(Value::String(mode)) => Ok(mode.eq_ignore_ascii_case("none")),
            Some(_) => Err(bad_request(format!("{name}.mode must be a string"))),
        }
    }

    /// Whether a field holds anything: not null, not false, not an empty list or object.
    pub(crate) fn asks_for(&self, name: &str) -> Result<bool, Refusal> {
        Ok(match self.opt_structure(name)? {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(entries)) => !entries.is_empty(),
            Some(_) => true,
        })
    }
}

/// The members of an object inside a request. All of them must be known: unlike a field, a member
/// that is misspelt would silently weaken a rule.
pub(crate) struct Members<'v>(&'v Map<String, Value>);

impl<'v> Members<'v> {
    /// Reads `value`, which is called `of` in refusals, as an object of nothing but `known` members.
    pub(crate) fn only(of: &str, value: &'v Value, known: &[&str]) -> Result<Self, Refusal> {
        let map = value.as_object().ok_or_else(|| wrong_type(of, "an object"))?;
        match map.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => {
                Err(bad_request(format!("unknown field in {of}: {}", shorten(unknown))))
            }
            None => Ok(Self(map)),
        }
    }

    /// A member that is neither absent nor null.
    pub(crate) fn opt(&self, name: &str) -> Option<&'v Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Result<&'v Value, Refusal> {
        required(self.0, name)
    }

    pub(crate) fn text(&self, name: &str) -> Result<String, Refusal> {
        let value = self.required(name)?;
        value.as_str().map(str::to_owned).ok_or_else(|| wrong_type(name, "a string"))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        self.required(name)?.as_bool().ok_or_else(|| wrong_type(name, "a boolean"))
    }

    pub(crate) fn int(&self, name: &str) -> Result<i64, Refusal> {
        self.required(name)?.as_i64().ok_or_else(|| wrong_type(name, "an integer"))
    }

    pub(crate) fn opt_int(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.opt(name)
            .map(|value| value.as_i64().ok_or_else(|| wrong_type(name, "an integer")))
            .transpose()
    }

    pub(crate) fn object(&self, name: &str) -> Result<&'v Map<String, Value>, Refusal> {
        self.required(name)?.as_object().ok_or_else(|| wrong_type(name, "an object"))
    }

    /// An object with nothing but `known` members.
    pub(crate) fn members(&self, name: &str, known: &[&str]) -> Result<Self, Refusal> {
        Self::only(name, self.required(name)?, known)
    }

    pub(crate) fn list<T>(
        &self,
        name: &str,
        item: impl Fn(&'v Value) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let items = self.required(name)?.as_array().ok_or_else(|| wrong_type(name, "an array"))?;
        items.iter().map(item).collect()
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, Refusal> {
        let wrong = || wrong_type(name, "an array of strings");
        self.list(name, |item| item.as_str().map(str::to_owned).ok_or_else(wrong))
    }
}

fn required<'v>(map: &'v Map<String, Value>, name: &str) -> Result<&'v Value, Refusal> {
    match map.get(name) {
        None => Err(missing_field(name)),
        Some(Value::Null) => Err(null_field(name)),
        Some(value) => Ok(value),
    }
}

/// Splits and decodes a query string, in order.
pub(crate) fn parse_query(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((
                decode_text(name.as_bytes(), "query parameter")?,
                decode_text(value.as_bytes(), "query parameter")?,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(text: &str) -> Result<Fields, Code> {
        Fields::from_body(text.as_bytes()).map_err(|refusal| refusal.code)
    }

    #[test]
    fn native_23_24_only_a_json_object_is_a_request() {
        for wrong in [
            "[]",
            "1",
            "\"a\"",
            "{",
            "{}x",
            "{\"a\":1,\"a\":2}",
            "{\"a\":NaN}",
            "\u{feff}{}",
            "{\"a\":{\"b\":1,\"b\":1}}",
            "{\"a\":\"\\ud800\"}",
        ] {
            assert_eq!(body(wrong).map(|_| ()), Err(Code::BadJson), "{wrong}");
        }
        assert!(body("").is_ok() && body("  ").is_ok() && body("{}").is_ok());
        let deep = "[".repeat(100_000);
        assert!(Fields::from_body(format!("{{\"a\":{deep}").as_bytes()).is_err());
    }

    #[test]
    fn native_25_26_27_28_required_null_and_wrong_types() {
        let fields = body("{\"n\":null,\"s\":\"x\",\"i\":5,\"f\":1.5}").expect("an object");
        assert_eq!(fields.text("a").expect_err("absent").message, "required field a is missing");
        assert_eq!(fields.text("n").expect_err("null").message, "required field n cannot be null");
        assert!(fields.text("i").is_err() && fields.int("s").is_err() && fields.int("f").is_err());
        assert_eq!(fields.opt_text("n"), Ok(None));
        assert_eq!(fields.opt_int("i"), Ok(Some(5)));
    }

    #[test]
    fn native_32_escapes_equal_their_characters() {
        let fields = body("{\"s\":\"\\ud83d\\ude00\\u00e9\"}").expect("an object");
        assert_eq!(fields.text("s"), Ok("\u{1f600}\u{e9}"));
    }

    #[test]
    fn native_14_16_query_parameters_are_read_by_type() {
        let query = "maxFileCount=1&bucketTypes=%5B%22allPrivate%22%5D&x=a+b";
        let fields = Fields::from_query(query).expect("well-formed");
        assert_eq!(fields.opt_int("maxFileCount"), Ok(Some(1)));
        assert_eq!(fields.opt_texts("bucketTypes"), Ok(Some(vec!["allPrivate".to_owned()])));
        assert_eq!(fields.text("x"), Ok("a b"));
        assert!(Fields::from_query("a=1&a=2").is_err());
        assert!(Fields::from_query("a=%zz").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Fields::from_body(&bytes));
            drop(Fields::from_query(&String::from_utf8_lossy(&bytes)));
        }
    }
}
